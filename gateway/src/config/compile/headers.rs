//! Changes of header fields, and what other sites' pages may do.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use super::super::error::Problem;
use super::super::file::{self, Named, Placed};
use super::Compiler;
use super::route::Scope;
use crate::route::changes::{HeaderChanges, Made, Settled};
use crate::route::cors::{Cors, Origin};
use crate::route::template::Template;

/// Header fields a route may change at most, in one direction.
const CHANGES_MAX: usize = 64;
/// Origins a route may allow at most.
const ORIGINS_MAX: usize = 64;

/// Fields that frame a message or belong to one connection: whoever changes them breaks it.
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

impl Compiler<'_> {
    /// Changes of header fields, if there are any.
    pub(super) fn header_changes(
        &mut self,
        typed: &file::HeaderChanges,
        scope: &Scope<'_>,
    ) -> Option<HeaderChanges> {
        let mut seen = BTreeSet::new();
        let mut fixed = Settled::default();
        let mut made = Vec::new();
        for (table, add) in [(&typed.set, false), (&typed.add, true)] {
            self.values(table, add, &mut seen, &mut fixed, &mut made, scope);
        }
        for name in &typed.remove {
            fixed.remove.extend(self.changed(name, &mut seen));
        }
        if let Some(extra) = typed.remove.iter().chain(typed.set.keys()).nth(CHANGES_MAX) {
            let message = format!("a route changes {CHANGES_MAX} header fields at most");
            self.refuse(Problem::at(extra.span(), message));
        }
        (!typed.is_empty()).then(|| HeaderChanges {
            fixed: Arc::new(fixed),
            made: made.into(),
        })
    }

    fn values(
        &mut self,
        table: &Named<Placed<String>>,
        add: bool,
        seen: &mut BTreeSet<String>,
        fixed: &mut Settled,
        made: &mut Vec<Made>,
        scope: &Scope<'_>,
    ) {
        for (name, text) in table {
            let header = self.changed(name, seen);
            let template = match Template::parse(text) {
                Ok(template) => template,
                Err((reason, hint)) => {
                    let message = format!("invalid value `{text}`: {reason}");
                    self.refuse(Problem::at(text.span(), message).hint(hint));
                    continue;
                }
            };
            self.parameters_exist(text.span(), template.path_parameters(), scope);
            let Some(name) = header else { continue };
            match template.fixed().map(HeaderValue::try_from) {
                Some(Ok(value)) if add => fixed.add.push((name, value)),
                Some(Ok(value)) => fixed.set.push((name, value)),
                Some(Err(_)) => {
                    let message = "this cannot stand in a header field";
                    self.refuse(Problem::at(text.span(), message));
                }
                None => made.push(Made {
                    name,
                    value: template,
                    add,
                }),
            }
        }
    }

    /// A field that may be changed, and is changed once.
    fn changed(
        &mut self,
        name: &Placed<String>,
        seen: &mut BTreeSet<String>,
    ) -> Option<HeaderName> {
        let header = self.header_name(name)?;
        if FRAMING.contains(&header.as_str()) {
            let problem = Problem::at(name.span(), format!("`{header}` cannot be changed"));
            let hint = match header.as_str() {
                "host" => "write `rewrite = { host = \"…\" }`",
                _ => "it frames the message, or belongs to one connection",
            };
            self.refuse(problem.hint(hint));
            return None;
        }
        if !seen.insert(header.as_str().to_owned()) {
            let message = format!("header `{header}` is changed twice");
            self.refuse(Problem::at(name.span(), message).hint("keep one of the changes"));
        }
        Some(header)
    }

    pub(super) fn header_name(&mut self, name: &Placed<String>) -> Option<HeaderName> {
        HeaderName::try_from(name.as_str())
            .map_err(|_| {
                let message = format!("`{name}` is no header name");
                self.refuse(Problem::at(name.span(), message));
            })
            .ok()
    }

    pub(super) fn cors(&mut self, typed: &file::Cors, methods: &[Method]) -> Cors {
        if typed.origins.is_empty() || typed.origins.len() > ORIGINS_MAX {
            let message = format!("there are {} origins", typed.origins.len());
            let hint = format!("name 1 to {ORIGINS_MAX}, or \"*\" for all");
            self.refuse(Problem::at(typed.origins.span(), message).hint(hint));
        }
        let mut origins = Vec::new();
        for text in typed.origins.iter() {
            match Origin::parse(text) {
                Ok(origin) => origins.push(origin),
                Err(reason) => {
                    let message = format!("invalid origin `{text}`: {reason}");
                    let hint = "write `https://app.example.com`, `https://*.example.com` or `*`";
                    self.refuse(Problem::at(text.span(), message).hint(hint));
                }
            }
        }
        let max_age = typed.max_age.0.as_secs();
        Cors {
            origins: origins.into(),
            methods: self.allowed_methods(&typed.methods, methods),
            headers: self.names_or_any(&typed.headers),
            expose: self.exposed(&typed.expose),
            credentials: typed.credentials,
            max_age: HeaderValue::from(max_age),
        }
    }

    /// The methods pages may use; `None`: any.
    fn allowed_methods(
        &mut self,
        typed: &[Placed<String>],
        of_route: &[Method],
    ) -> Option<HeaderValue> {
        if typed.iter().any(|text| text.as_str() == "*") {
            return None;
        }
        let methods = self.methods(typed);
        let simple = [Method::GET, Method::HEAD, Method::POST];
        let methods = [&methods[..], of_route, &simple[..]]
            .into_iter()
            .find(|methods| !methods.is_empty())
            .unwrap_or_default();
        let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
        HeaderValue::try_from(methods.join(", ")).ok()
    }

    /// The response headers pages may read; `*` is understood without credentials only.
    fn exposed(&mut self, typed: &[Placed<String>]) -> Option<HeaderValue> {
        if typed.is_empty() {
            return None;
        }
        let any = || HeaderValue::from_static("*");
        Some(self.names_or_any(typed).unwrap_or_else(any))
    }

    /// Header names as the value of a field; `None`: any.
    fn names_or_any(&mut self, typed: &[Placed<String>]) -> Option<HeaderValue> {
        if typed.iter().any(|text| text.as_str() == "*") {
            return None;
        }
        let names = typed.iter().filter_map(|name| self.header_name(name));
        let names: Vec<String> = names.map(|name| name.as_str().to_owned()).collect();
        HeaderValue::try_from(names.join(", ")).ok()
    }
}
