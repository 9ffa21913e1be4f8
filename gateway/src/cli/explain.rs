//! `weir-gateway explain METHOD URL`: which route a request takes, by the very code that serves
//! it, and why the others do not match. Nothing is sent.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context as _, anyhow};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use serde::Serialize;

use super::{ConfigFile, Failure, output};
use crate::config::{self, Config, ListenerConfig};
use crate::filter::reject::Reject;
use crate::normalise::target::KnownHosts;
use crate::route::action::Action;
use crate::route::predicate::{Mismatch, Rule};
use crate::route::split::{Split, Target};
use crate::route::table::Outcome;
use crate::{normalise, route};

/// Routes that do not match, shown to people at most.
const OTHERS_SHOWN_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Method, such as GET
    #[arg(value_parser = method)]
    method: Method,
    /// Absolute URL, such as https://api.example.com/v2/orders/7
    url: Uri,
    /// A header the request carries; may be given several times
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The listener it comes in at; left out: the one whose port the URL has, or else the first of
    /// its scheme
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// The answer.
#[derive(Serialize)]
struct Answer {
    method: String,
    host: String,
    /// Where it comes in.
    listener: String,
    /// As the routes see it: normalised.
    path: String,
    /// The reason code of the refusal, if no route takes the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refusal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Taken>,
    /// All other routes, the nearest first: those that fail last, and whose paths are most alike.
    others: Vec<Other>,
}

#[derive(Serialize)]
struct Refusal {
    status: u16,
    reason: &'static str,
    title: &'static str,
    /// The methods that would match, for a 405.
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<String>,
}

#[derive(Serialize)]
struct Taken {
    name: String,
    parameters: BTreeMap<String, String>,
    /// In the order they run.
    filters: Vec<Step>,
    /// What is done once all filters have accepted, in order.
    steps: Vec<String>,
    /// Where the request may go, with the share of each.
    services: Vec<Share>,
    timeout_ms: u128,
}

/// A service and its part of the requests.
#[derive(Serialize)]
struct Share {
    service: String,
    /// Of all requests that no condition sends elsewhere.
    percent: f64,
    /// Whether this very request goes there by a condition.
    pinned: bool,
    endpoints: Vec<String>,
}

#[derive(Serialize)]
struct Step {
    kind: &'static str,
    name: String,
}

#[derive(Serialize)]
struct Other {
    name: String,
    why: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = config::load(arguments.file.path())?;
    let head = request(arguments)?;
    let listener = listener(&config, arguments)?;
    let answer = explain(&config, listener, head);
    if arguments.json {
        output::json(&answer)?;
    } else {
        output::text(&text(&answer))?;
    }
    if answer.route.is_some() {
        Ok(())
    } else {
        Err(Failure::Negative)
    }
}

/// The head of the request as it would arrive.
fn request(arguments: &Arguments) -> Result<Parts, Failure> {
    if arguments.url.authority().is_none() {
        let error = anyhow!("`{}` is no absolute URL", arguments.url);
        return Err(Failure::Other(
            error,
            Some("write for example https://api.example.com/v2"),
        ));
    }
    // In HTTP/2 the authority of the URL is the host.
    let request = Request::builder().version(Version::HTTP_2);
    let request = request
        .method(arguments.method.clone())
        .uri(arguments.url.clone());
    let (mut head, ()) = request
        .body(())
        .context("this is no request")
        .map_err(Failure::from)?
        .into_parts();
    head.headers.extend(
        arguments
            .headers
            .iter()
            .map(|(name, value)| (Some(name.clone()), value.clone())),
    );
    Ok(head)
}

/// The listener the request comes in at.
fn listener(config: &Config, arguments: &Arguments) -> Result<String, Failure> {
    let listeners = &config.listeners;
    if let Some(name) = &arguments.listener {
        if listeners.iter().any(|listener| listener.name == *name) {
            return Ok(name.clone());
        }
        let known: Vec<&str> = listeners.iter().map(|one| one.name.as_str()).collect();
        let error = anyhow!("there is no listener `{name}`, only {}", known.join(", "));
        return Err(Failure::Other(error, None));
    }
    let url = &arguments.url;
    let https = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
    let fit = |listener: &&ListenerConfig| listener.tls.is_some() == https;
    let fitting = || listeners.iter().filter(fit);
    let here = fitting().find(|listener| listener.bind.port() == port);
    let listener = here.or(fitting().next()).or(listeners.first());
    let listener = listener.context("there is no listener")?;
    Ok(listener.name.clone())
}

fn explain(config: &Config, listener: String, mut head: Parts) -> Answer {
    let method = head.method.to_string();
    let host = match normalise::normalise(&mut head, &config.limits, &KnownHosts::default()) {
        Ok(host) => host.name.to_string(),
        Err(reject) => {
            let host = head.uri.host().unwrap_or_default().to_owned();
            let path = head.uri.path().to_owned();
            let refused = Some(refusal(&reject));
            return Answer {
                method,
                host,
                listener,
                path,
                refused,
                route: None,
                others: Vec::new(),
            };
        }
    };
    let path = head.uri.path().to_owned();
    let request = route::Request {
        listener: &listener,
        host: &host,
        method: &head.method,
        path: &path,
        query: head.uri.query(),
        headers: &head.headers,
    };
    let found = config.routes.find(&request);
    let chosen = found.as_ref().ok().map(|found| &found.route.name);
    let mut others = config.routes.explain(&request);
    others.retain(|(rule, _)| Some(&rule.route.name) != chosen);
    // A stable sort: among equals the order of precedence stays.
    others.sort_by_key(|(rule, outcome)| distance(rule, outcome, &request));
    let others = others
        .into_iter()
        .map(|(rule, outcome)| other(rule, &outcome))
        .collect();
    let refused = found.as_ref().err().map(refusal);
    let route = found.ok().map(|found| taken(config, &found, &request));
    Answer {
        method,
        host,
        listener,
        path,
        refused,
        route,
        others,
    }
}

/// What becomes of a request that takes this route.
fn taken(config: &Config, found: &route::Match<'_>, request: &route::Request<'_>) -> Taken {
    let route = found.route;
    let step = |filter: &crate::filter::chain::FilterKind| Step {
        kind: filter.kind(),
        name: filter.name().to_owned(),
    };
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let parameters = found.parameters(request.path).into_iter();
    let services = match &route.action {
        Action::Forward(forwarding) => services(config, &forwarding.split, request),
        Action::Redirect(_) | Action::Respond(_) => Vec::new(),
    };
    Taken {
        name: route.name.to_string(),
        parameters: parameters.map(owned).collect(),
        filters: route.chain.filters().iter().map(step).collect(),
        steps: steps(config, found, request),
        services,
        timeout_ms: route.timeout.as_millis(),
    }
}

fn services(config: &Config, split: &Split, request: &route::Request<'_>) -> Vec<Share> {
    let pinned = split.pinned_by(request.headers, request.query);
    let share = |(index, target): (usize, &Target)| {
        let service = &config.services[target.service];
        Share {
            service: service.name.clone(),
            percent: split.percent(target),
            pinned: pinned == Some(index),
            endpoints: service.shown(),
        }
    };
    split.targets().iter().enumerate().map(share).collect()
}

/// What a route does, step by step, as sentences without a subject.
fn steps(config: &Config, found: &route::Match<'_>, request: &route::Request<'_>) -> Vec<String> {
    let route = found.route;
    let mut steps = Vec::new();
    if route.cors.is_some() {
        steps.push("answers preflights; tells pages of other sites what they may".to_owned());
    }
    match &route.action {
        Action::Redirect(redirect) => steps.push(format!("redirects, {redirect}")),
        Action::Respond(respond) => {
            let (status, bytes) = (respond.status.as_u16(), respond.body.len());
            steps.push(format!("answers {status} itself, with {bytes} bytes"));
        }
        Action::Forward(forwarding) => {
            let split = &forwarding.split;
            let pinned = split.pinned_by(request.headers, request.query);
            let only = (split.targets().len() == 1).then_some(0);
            let target = pinned.or(only).map(|index| &split.targets()[index]);
            if let Some(by) = split.by() {
                steps.push(format!("chooses a service by {by}"));
            }
            let own = target.and_then(|target| target.rewrite.as_ref());
            if let Some(rewrite) = own.or(forwarding.rewrite.as_ref()) {
                if let Some(host) = &rewrite.host {
                    steps.push(format!(
                        "rewrites the host to {}",
                        host.to_str().unwrap_or("?")
                    ));
                }
                if let Some(path) = &rewrite.path {
                    let made = path.make(found.path, request.path);
                    steps.push(format!("rewrites the path to {made}"));
                }
            }
            let changed = forwarding.request_headers.iter();
            let own = target.and_then(|target| target.request_headers.as_ref());
            for changes in changed.chain(own) {
                steps.push(format!("changes request headers: {changes}"));
            }
            for mirror in &forwarding.mirrors {
                let service = &config.services[mirror.service].name;
                let percent = mirror.share.as_percent();
                steps.push(format!("copies {percent}% of requests to {service}"));
            }
        }
    }
    if let Some(changes) = &route.response_headers {
        steps.push(format!("changes response headers: {changes}"));
    }
    steps
}

/// How far a route is from taking the request: the least is the nearest.
fn distance(rule: &Rule, outcome: &Outcome, request: &route::Request<'_>) -> (u8, usize) {
    let stage = match outcome {
        Outcome::Chosen | Outcome::LessSpecific => 0,
        Outcome::Mismatch(Mismatch::Method) => 1,
        Outcome::Mismatch(Mismatch::Condition(_)) => 2,
        Outcome::Mismatch(Mismatch::Listener) => 3,
        Outcome::Mismatch(Mismatch::Path) => 4,
        Outcome::Mismatch(Mismatch::Host) => 5,
    };
    let path = rule.path.to_string();
    let alike = path.bytes().zip(request.path.bytes());
    let alike = alike.take_while(|(wanted, is)| wanted == is).count();
    (stage, usize::MAX - alike)
}

fn refusal(reject: &Reject) -> Refusal {
    let allow = match reject {
        Reject::MethodNotAllowed { allow } => allow.to_str().ok().map(str::to_owned),
        _ => None,
    };
    Refusal {
        status: reject.status().as_u16(),
        reason: reject.name(),
        title: reject.title(),
        allow,
    }
}

fn other(rule: &Rule, outcome: &Outcome) -> Other {
    let why = match outcome {
        Outcome::Chosen => "matches".to_owned(),
        Outcome::LessSpecific => "matches, but is less specific".to_owned(),
        Outcome::Mismatch(Mismatch::Host) => format!("is for host {}", rule.host),
        Outcome::Mismatch(Mismatch::Path) => format!("is for path {}", rule.path),
        Outcome::Mismatch(Mismatch::Listener) => {
            format!("is served on {}", rule.listeners.join(", "))
        }
        Outcome::Mismatch(Mismatch::Condition(unmet)) => {
            format!("wants {}", rule.conditions.unmet(unmet))
        }
        Outcome::Mismatch(Mismatch::Method) => {
            let methods: Vec<&str> = rule.methods.iter().map(Method::as_str).collect();
            format!("is for method {}", methods.join(", "))
        }
    };
    Other {
        name: rule.route.name.to_string(),
        why,
    }
}

fn text(answer: &Answer) -> String {
    let mut text = format!(
        "{} {} on host {} at listener {}\n\n",
        answer.method, answer.path, answer.host, answer.listener
    );
    if let Some(refusal) = &answer.refused {
        let Refusal {
            status,
            reason,
            title,
            ..
        } = refusal;
        let _ = writeln!(text, "refused: {status} {reason}: {title}");
        if let Some(allow) = &refusal.allow {
            let _ = writeln!(text, "allowed: {allow}");
        }
    }
    if let Some(route) = &answer.route {
        let _ = writeln!(text, "route: {}", route.name);
        for (name, value) in &route.parameters {
            let _ = writeln!(text, "  {name} = {value:?}");
        }
        for filter in &route.filters {
            let _ = writeln!(text, "must pass: {} ({})", filter.name, filter.kind);
        }
        for step in &route.steps {
            let _ = writeln!(text, "then: {step}");
        }
        for share in &route.services {
            let endpoints = share.endpoints.join(", ");
            let _ = write!(text, "service: {} ({endpoints})", share.service);
            let pinned = route.services.iter().any(|one| one.pinned);
            let _ = match (share.pinned, route.services.len()) {
                (_, 1) => writeln!(text),
                (true, _) => writeln!(text, ": this request, by a condition"),
                (false, _) if pinned => writeln!(text, ": not this request"),
                (false, _) => writeln!(text, ": {}%", share.percent),
            };
        }
        let _ = writeln!(text, "timeout: {} ms", route.timeout_ms);
    }
    if !answer.others.is_empty() {
        text.push_str("\nother routes:\n");
    }
    for other in answer.others.iter().take(OTHERS_SHOWN_MAX) {
        let _ = writeln!(text, "  {} {}", other.name, other.why);
    }
    if answer.others.len() > OTHERS_SHOWN_MAX {
        let more = answer.others.len() - OTHERS_SHOWN_MAX;
        let _ = writeln!(text, "  … and {more} others; --json shows all");
    }
    text
}

fn method(text: &str) -> Result<Method, String> {
    text.parse().map_err(|_| "not a method".to_owned())
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write `name: value`")?;
    let name = HeaderName::try_from(name.trim()).map_err(|_| "not a header name")?;
    let value = HeaderValue::try_from(value.trim()).map_err(|_| "not a header value")?;
    Ok((name, value))
}
