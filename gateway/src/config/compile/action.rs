//! What a route does with its requests: services and their shares, rewrites, mirrors, redirects,
//! answers of the gateway's own.

use std::sync::Arc;

use http::uri::Authority;
use http::{HeaderValue, StatusCode};

use super::super::error::Problem;
use super::super::file::{self, KeepQuery, Named, Placed, SplitMember, SplitTable, Text};
use super::predicates::TypedConditions;
use super::route::{Places, Scope};
use super::{Compiler, SOURCE_BYTES_MAX};
use crate::filter::key::RequestKey;
use crate::route::action::{Action, Forwarding};
use crate::route::mirror::{Mirror, Share};
use crate::route::redirect::Redirect;
use crate::route::respond::Respond;
use crate::route::rewrite::{PathTemplate, Rewrite};
use crate::route::split::{Split, Target};

/// Services of a split at most.
const SPLIT_MAX: usize = 16;
/// Conditions that send requests to one service of a split at most.
const WHEN_MAX: usize = 16;
/// The greatest weight, so that sums stay far from overflow.
const WEIGHT_MAX: u32 = 1_000_000;
/// Mirrors of a route at most.
const MIRRORS_MAX: usize = 8;
/// Body bytes a mirror may copy.
const MIRRORED_BODY_BYTES_MAX: u64 = 16 << 20;
/// The statuses of a redirect (RFC 9110 section 15.4).
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

impl Compiler<'_> {
    pub(super) fn action(
        &mut self,
        name: &Placed<String>,
        route: &file::Route,
        scope: &Scope<'_>,
    ) -> Action {
        let given = [
            ("service", route.service.is_some()),
            ("split", !route.split.is_empty()),
            ("redirect", route.redirect.is_some()),
            ("respond", route.respond.is_some()),
        ];
        let given: Vec<&str> = given
            .iter()
            .filter(|(_, is)| *is)
            .map(|(n, _)| *n)
            .collect();
        match given[..] {
            [_] => {}
            [] => self.refuse(
                Problem::at(name.span(), format!("route `{name}` does nothing"))
                    .hint("add `service`, `split`, `redirect` or `respond`"),
            ),
            [first, second, ..] => self.refuse(
                Problem::at(
                    name.span(),
                    format!("route `{name}` has both `{first}` and `{second}`"),
                )
                .hint("a route does one thing: keep one of them"),
            ),
        }
        match (&route.redirect, &route.respond) {
            (Some(redirect), _) => {
                self.only_for_services(route);
                Action::Redirect(Box::new(self.redirect(name, redirect, scope)))
            }
            (None, Some(respond)) => {
                self.only_for_services(route);
                Action::Respond(Box::new(self.respond(respond)))
            }
            (None, None) => Action::Forward(Box::new(self.forwarding(route, scope))),
        }
    }

    /// What concerns services has no place where there is none.
    fn only_for_services(&mut self, route: &file::Route) {
        let headers = &route.request_headers;
        let changed = headers.set.keys().chain(headers.add.keys());
        let changed = changed.chain(&headers.remove).next().map(Placed::span);
        let spans = [
            ("rewrite", route.rewrite.as_ref().map(Placed::span)),
            ("request_headers", changed),
            ("mirror", route.mirror.first().map(|one| one.service.span())),
            ("split_by", route.split_by.as_ref().map(Placed::span)),
        ];
        for (key, span) in spans {
            if let Some(span) = span {
                let message = format!("`{key}` has no effect where no service is asked");
                self.refuse(Problem::at(span, message).hint("leave it out"));
            }
        }
    }

    fn forwarding(&mut self, route: &file::Route, scope: &Scope<'_>) -> Forwarding {
        let split = match &route.service {
            Some(service) => {
                if let Some(by) = &route.split_by {
                    let problem = Problem::at(by.span(), "`split_by` belongs to `split`");
                    self.refuse(problem.hint("write `split = { … }` in place of `service`"));
                }
                Split::to(self.service_index(service, scope.places))
            }
            None => self.split(&route.split, route.split_by.as_ref(), scope),
        };
        if let Some(extra) = route.mirror.get(MIRRORS_MAX) {
            let message = format!("a route has {MIRRORS_MAX} mirrors at most");
            self.refuse(Problem::at(extra.service.span(), message));
        }
        let rewrite = route.rewrite.as_ref();
        let mirrors = route.mirror.iter();
        Forwarding {
            split,
            rewrite: rewrite.map(|rewrite| self.rewrite(rewrite, scope)),
            request_headers: self.header_changes(&route.request_headers, scope),
            mirrors: mirrors.map(|one| self.mirror(one, scope.places)).collect(),
        }
    }

    fn split(
        &mut self,
        typed: &Named<Placed<SplitMember>>,
        by: Option<&Placed<String>>,
        scope: &Scope<'_>,
    ) -> Split {
        if let Some(name) = typed.keys().nth(SPLIT_MAX) {
            let message = format!("a split has {SPLIT_MAX} services at most");
            self.refuse(Problem::at(name.span(), message));
        }
        let mut targets = Vec::new();
        for (name, member) in typed {
            let service = self.service_index(name, scope.places);
            targets.push(self.target(service, member, scope));
        }
        if let Some(first) = typed.keys().next()
            && targets.iter().all(|target| target.weight == 0)
        {
            let message = "all weights of the split are 0";
            let hint = "give one of them a weight, so that every request has a place to go";
            self.refuse(Problem::at(first.span(), message).hint(hint));
        }
        if targets.is_empty() {
            return Split::to(0);
        }
        let by = by.and_then(|text| self.split_key(text, scope));
        Split::new(targets, by)
    }

    fn target(
        &mut self,
        service: usize,
        member: &Placed<SplitMember>,
        scope: &Scope<'_>,
    ) -> Target {
        let SplitTable {
            weight,
            when,
            rewrite,
            request_headers,
            response_headers,
        } = &member.0;
        if **weight > WEIGHT_MAX {
            let message = format!("weight {weight} is out of range");
            let hint = format!("choose a number from 0 to {WEIGHT_MAX}");
            self.refuse(Problem::at(member.span(), message).hint(hint));
        }
        if let Some(extra) = when.get(WHEN_MAX) {
            let message = format!("`when` has {WHEN_MAX} entries at most");
            self.refuse(Problem::at(extra.span(), message));
        }
        let mut conditions = Vec::new();
        for one in when {
            let meant = self.conditions(&TypedConditions {
                headers: &one.headers,
                query: &one.query,
                cookies: &one.cookies,
            });
            if one.headers.is_empty() && one.query.is_empty() && one.cookies.is_empty() {
                let problem = Problem::at(one.span(), "this is met by every request");
                self.refuse(problem.hint("ask for a header, a query parameter or a cookie"));
            }
            conditions.push(meant);
        }
        let rewrite = rewrite.as_ref();
        Target {
            service,
            weight: **weight,
            when: conditions.into(),
            rewrite: rewrite.map(|rewrite| self.rewrite(rewrite, scope)),
            request_headers: self.header_changes(request_headers, scope),
            response_headers: self.header_changes(response_headers, scope),
        }
    }

    fn split_key(&mut self, text: &Placed<String>, scope: &Scope<'_>) -> Option<RequestKey> {
        let Ok(key) = text.parse::<RequestKey>() else {
            let message = format!("`{text}` is no part of a request");
            let hint = format!("write {}", RequestKey::FORMS);
            self.refuse(Problem::at(text.span(), message).hint(hint));
            return None;
        };
        if let Some(needed) = key.authentication()
            && !scope.authentications.contains(&needed)
        {
            let message = format!("the split is by `{key}`, but the route does not ask for one");
            let hint = format!("add an authentication of type `{needed}` to `use`");
            self.refuse(Problem::at(text.span(), message).hint(hint));
        }
        Some(key)
    }

    fn rewrite(&mut self, typed: &Placed<file::Rewrite>, scope: &Scope<'_>) -> Rewrite {
        if typed.host.is_none() && typed.path.is_none() && typed.prefix.is_none() {
            let problem = Problem::at(typed.span(), "this rewrite changes nothing");
            self.refuse(problem.hint("give it a `host`, a `path` or a `prefix`"));
        }
        let host = typed.host.as_ref();
        Rewrite {
            host: host.and_then(|text| self.host_and_port(text)),
            path: self.path_template(typed.path.as_ref(), typed.prefix.as_ref(), scope),
        }
    }

    /// A host with or without port, as a header value.
    fn host_and_port(&mut self, text: &Placed<String>) -> Option<HeaderValue> {
        let plain = |authority: &Authority| {
            !authority.as_str().contains('@') && !authority.host().is_empty()
        };
        let authority = Authority::try_from(text.as_str()).ok().filter(plain);
        if authority.is_none() {
            let message = format!("`{text}` is no host");
            let hint = "write a name or an address, with a port where one is wanted";
            self.refuse(Problem::at(text.span(), message).hint(hint));
        }
        HeaderValue::try_from(authority?.as_str()).ok()
    }

    /// A whole path or a prefix; not both.
    fn path_template(
        &mut self,
        path: Option<&Placed<String>>,
        prefix: Option<&Placed<String>>,
        scope: &Scope<'_>,
    ) -> Option<PathTemplate> {
        if let (Some(_), Some(prefix)) = (path, prefix) {
            let problem = Problem::at(prefix.span(), "`path` and `prefix` exclude each other");
            self.refuse(problem.hint("keep one of them"));
        }
        let (text, template) = match (path, prefix) {
            (Some(text), _) => (text, PathTemplate::parse(text)),
            (None, Some(text)) => {
                let Some(rest) = scope.rest else {
                    let message = "there is no prefix: the route's path does not end in `{*rest}`";
                    let problem = Problem::at(text.span(), message);
                    self.refuse(problem.hint("write `path`, or end the route's path in `{*rest}`"));
                    return None;
                };
                (text, PathTemplate::prefix(text, rest))
            }
            (None, None) => return None,
        };
        match template {
            Ok(template) => {
                let names = template.names();
                self.parameters_exist(text.span(), names, scope);
                Some(template)
            }
            Err(reason) => {
                let message = format!("invalid path `{text}`: {reason}");
                self.refuse(Problem::at(text.span(), message));
                None
            }
        }
    }

    /// What is made of a path can only use the parameters that path has.
    pub(super) fn parameters_exist<'n>(
        &mut self,
        span: std::ops::Range<usize>,
        names: impl Iterator<Item = &'n str>,
        scope: &Scope<'_>,
    ) {
        let Some(known) = &scope.parameters else {
            return;
        };
        for name in names.filter(|name| !known.contains(name)) {
            let message = format!("the route's path has no parameter `{name}`");
            let problem = Problem::at(span.clone(), message);
            self.refuse(problem.nearest(name, known.iter().copied()));
        }
    }

    fn mirror(&mut self, typed: &file::Mirror, places: &Places<'_>) -> Mirror {
        let everything = Share::new(1, 1).expect("one of one is a share");
        let share = match (&typed.percent, &typed.fraction) {
            (None, None) => Some(everything),
            (Some(percent), None) => Share::percent(**percent).or_else(|| {
                let message = format!("{percent} percent is no share");
                let hint = "choose a number from 0.0 to 100.0";
                self.refuse(Problem::at(percent.span(), message).hint(hint));
                None
            }),
            (None, Some(fraction)) => fraction
                .split_once('/')
                .and_then(|(part, whole)| {
                    Share::new(part.trim().parse().ok()?, whole.trim().parse().ok()?)
                })
                .or_else(|| {
                    let message = format!("`{fraction}` is no share");
                    let hint = "write a part and a whole, as in \"1/1000\"";
                    self.refuse(Problem::at(fraction.span(), message).hint(hint));
                    None
                }),
            (Some(_), Some(fraction)) => {
                let message = "`percent` and `fraction` exclude each other";
                let problem = Problem::at(fraction.span(), message);
                self.refuse(problem.hint("keep one of them"));
                None
            }
        };
        Mirror {
            service: self.service_index(&typed.service, places),
            share: share.unwrap_or(everything),
            body_bytes_max: self.bytes(&typed.body_bytes_max, 0..=MIRRORED_BODY_BYTES_MAX),
            in_flight_max: self.within(&typed.in_flight_max, 1..=10_000, "in_flight_max"),
            in_flight: Arc::default(),
        }
    }

    fn redirect(
        &mut self,
        name: &Placed<String>,
        typed: &file::Redirect,
        scope: &Scope<'_>,
    ) -> Redirect {
        if !REDIRECTS.contains(&typed.status) {
            let message = format!("{} is no status of a redirect", typed.status);
            let hint = "choose 301, 302, 303, 307 or 308";
            self.refuse(Problem::at(typed.status.span(), message).hint(hint));
        }
        let scheme = typed.scheme.as_ref().and_then(|text| match text.as_str() {
            "http" => Some("http"),
            "https" => Some("https"),
            _ => {
                let message = format!("`{text}` is no scheme to redirect to");
                self.refuse(Problem::at(text.span(), message).nearest(text, ["http", "https"]));
                None
            }
        });
        let host = typed.host.as_ref().and_then(|text| {
            let host = self.host_and_port(text)?;
            let host = host.to_str().unwrap_or_default().to_ascii_lowercase();
            let after_address = host.rsplit(']').next().unwrap_or_default();
            if after_address.contains(':') {
                let problem = Problem::at(text.span(), format!("host `{text}` has a port"));
                self.refuse(problem.hint("write it as `port`"));
            }
            Some(host.into())
        });
        if typed.port.as_ref().is_some_and(|port| **port == 0) {
            let span = typed.port.as_ref().map(Placed::span).unwrap_or_default();
            self.refuse(Problem::at(span, "nothing can be reached at port 0"));
        }
        let path = self.path_template(typed.path.as_ref(), typed.prefix.as_ref(), scope);
        let redirect = Redirect {
            status: StatusCode::from_u16(*typed.status).unwrap_or(StatusCode::FOUND),
            scheme,
            host,
            port: typed.port.as_ref().map(|port| **port),
            path,
            drop_query: typed.query == KeepQuery::Drop,
        };
        let elsewhere = typed.scheme.is_some()
            || typed.host.is_some()
            || redirect.port.is_some()
            || typed.path.is_some()
            || typed.prefix.is_some();
        if !elsewhere {
            let message = format!("route `{name}` redirects to where the request came from");
            let hint = "give it a `scheme`, `host`, `port`, `path` or `prefix`";
            self.refuse(Problem::at(name.span(), message).hint(hint));
        }
        redirect
    }

    fn respond(&mut self, typed: &file::Respond) -> Respond {
        let status = self.within(&typed.status, 200..=599, "status");
        let body = match typed.body.as_ref().map(|text| (&**text, text.span())) {
            None => None,
            Some((Text::Plain(text), _)) => Some(text.clone()),
            Some((Text::From(source), span)) => self.source_at(source, span),
        };
        if let (Some(text), Some(body)) = (&typed.body, &body) {
            // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
            if [204, 205, 304].contains(&status) {
                let problem = Problem::at(text.span(), format!("a {status} has no body"));
                self.refuse(problem.hint("leave `body` out, or choose another status"));
            }
            if body.len() as u64 > SOURCE_BYTES_MAX {
                self.refuse(Problem::at(text.span(), "the body is larger than 1MiB"));
            }
        }
        let content_type = HeaderValue::try_from(typed.content_type.as_str());
        if content_type.is_err() {
            let message = "this cannot stand in a header field";
            self.refuse(Problem::at(typed.content_type.span(), message));
        }
        let body = body.unwrap_or_default();
        Respond {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::OK),
            content_type: content_type.ok().filter(|_| !body.is_empty()),
            body: body.into(),
        }
    }
}
