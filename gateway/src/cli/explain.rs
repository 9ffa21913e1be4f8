//! `weir-gateway explain METHOD URL`: which route a request takes, by the very code that serves
//! it, and why the others do not match. Nothing is sent.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context as _, anyhow};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use serde::Serialize;

use super::{ConfigFile, Failure, output};
use crate::config::{self, Config};
use crate::filter::reject::Reject;
use crate::normalise::target::LastHost;
use crate::route::predicate::{Mismatch, Rule};
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
    /// As the routes see it: normalised.
    path: String,
    /// The reason code of the refusal, if no route takes the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Refusal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Taken>,
    /// All other routes, the most specific first.
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
    service: String,
    endpoints: Vec<String>,
    timeout_ms: u128,
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
    let answer = explain(&config, request(arguments)?);
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

fn explain(config: &Config, mut head: Parts) -> Answer {
    let method = head.method.to_string();
    let https = head.uri.scheme_str() == Some("https");
    let host = match normalise::normalise(&mut head, &config.limits, &LastHost::default()) {
        Ok(host) => host.name.to_string(),
        Err(reject) => {
            let host = head.uri.host().unwrap_or_default().to_owned();
            let path = head.uri.path().to_owned();
            let refused = Some(refusal(&reject));
            return Answer {
                method,
                host,
                path,
                refused,
                route: None,
                others: Vec::new(),
            };
        }
    };
    let path = head.uri.path().to_owned();
    // The first listener of the request's scheme stands for where it would come in.
    let scheme_fits = |listener: &&crate::config::ListenerConfig| listener.tls.is_some() == https;
    let listener = config.listeners.iter().find(scheme_fits);
    let listener = listener.or(config.listeners.first());
    let listener = listener.map_or_else(String::new, |listener| listener.name.clone());
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
    let others = config.routes.explain(&request);
    let others = others
        .into_iter()
        .filter(|(rule, _)| Some(&rule.route.name) != chosen);
    let others = others
        .map(|(rule, outcome)| other(rule, &outcome))
        .collect();
    let refused = found.as_ref().err().map(refusal);
    let route = found.ok().map(|found| {
        let service = found.route.service(Some(0)).unwrap_or_default();
        let service = &config.services[service];
        let step = |filter: &crate::filter::chain::FilterKind| Step {
            kind: filter.kind(),
            name: filter.name().to_owned(),
        };
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Taken {
            name: found.route.name.to_string(),
            parameters: found.parameters(&path).into_iter().map(owned).collect(),
            filters: found.route.chain.filters().iter().map(step).collect(),
            service: service.name.clone(),
            endpoints: service.endpoints.iter().map(ToString::to_string).collect(),
            timeout_ms: found.route.timeout.as_millis(),
        }
    });
    Answer {
        method,
        host,
        path,
        refused,
        route,
        others,
    }
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
        "{} {} on host {}\n\n",
        answer.method, answer.path, answer.host
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
        let endpoints = route.endpoints.join(", ");
        let _ = writeln!(text, "service: {} ({endpoints})", route.service);
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
        let _ = writeln!(text, "  … and {more} more; --json shows all");
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
