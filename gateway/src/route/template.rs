//! Header values made from the request: `user-{jwt.sub}`.
//!
//! A value that needs what the request does not have is not made at all, so that a field set from
//! a token's claim is absent rather than half right where there was no token.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::predicate::{PathRule, Request};
use super::{cookie, query};
use crate::filter::{Context, Identity};

/// Where the request's id stands, whether it is the client's or ours.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What values may be made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'r> {
    /// The request, with its id, before anything else was changed in it.
    pub request: Request<'r>,
    /// What its path matched.
    pub path: &'r PathRule,
    /// The name of its route.
    pub route: &'r str,
    /// `http` or `https`, as the client sees it.
    pub scheme: &'r str,
    /// What the filters found out.
    pub context: &'r Context,
}

/// A text with places that each request fills.
#[derive(Clone, Debug)]
pub struct Template {
    parts: Box<[Part]>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

/// A place in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Variable {
    ClientIp,
    Host,
    Method,
    Path,
    Query,
    Scheme,
    Listener,
    Route,
    ApiKey,
    Claim(Box<str>),
    Header(HeaderName),
    Cookie(Box<str>),
    QueryParameter(Box<str>),
    PathParameter(Box<str>),
}

/// All variables, for error texts.
const VARIABLES: &str = "`{client-ip}`, `{host}`, `{method}`, `{path}`, `{query}`, `{scheme}`, \
     `{listener}`, `{route}`, `{request-id}`, `{api-key}`, `{jwt.CLAIM}`, `{header.NAME}`, \
     `{cookie.NAME}`, `{query.NAME}`, `{path.NAME}`; a brace itself is written twice";

impl Template {
    /// Reads a template. The error is a reason and a hint, both in one line.
    pub fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(brace) = rest.find(['{', '}']) {
            let (before, at) = rest.split_at(brace);
            literal.push_str(before);
            if let Some(after) = at.strip_prefix("{{").or_else(|| at.strip_prefix("}}")) {
                literal.push_str(&at[..1]);
                rest = after;
                continue;
            }
            let inner = at.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let Some((name, after)) = inner else {
                return Err(("a brace is open or closed alone".to_owned(), VARIABLES));
            };
            let variable = Variable::parse(name)
                .ok_or_else(|| (format!("unknown variable `{{{name}}}`"), VARIABLES))?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Variable(variable));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        let parts = parts.into();
        Ok(Self { parts })
    }

    /// The text, if no request changes it.
    pub fn fixed(&self) -> Option<&str> {
        match &*self.parts {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The names of the path parameters it needs.
    pub fn path_parameters(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(Variable::PathParameter(name)) => Some(&**name),
            _ => None,
        })
    }

    /// The value for one request, or nothing if the request lacks something it needs, or has what
    /// no header could carry.
    pub fn make(&self, facts: &Facts<'_>) -> Option<HeaderValue> {
        let mut value = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => value.extend_from_slice(text.as_bytes()),
                Part::Variable(variable) => value.extend_from_slice(&variable.of(facts)?),
            }
        }
        HeaderValue::from_bytes(&value).ok()
    }
}

impl Variable {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "client-ip" => Self::ClientIp,
            "host" => Self::Host,
            "method" => Self::Method,
            "path" => Self::Path,
            "query" => Self::Query,
            "scheme" => Self::Scheme,
            "listener" => Self::Listener,
            "route" => Self::Route,
            "request-id" => Self::Header(REQUEST_ID),
            "api-key" => Self::ApiKey,
            _ => match text.split_once('.')? {
                (_, "") => return None,
                ("jwt", claim) => Self::Claim(claim.into()),
                ("header", name) => Self::Header(HeaderName::try_from(name).ok()?),
                ("cookie", name) => Self::Cookie(name.into()),
                ("query", name) => Self::QueryParameter(name.into()),
                ("path", name) => Self::PathParameter(name.into()),
                _ => return None,
            },
        })
    }

    fn of<'r>(&self, facts: &Facts<'r>) -> Option<Cow<'r, [u8]>> {
        let Facts {
            request, context, ..
        } = facts;
        let text = |text: &'r str| Some(Cow::Borrowed(text.as_bytes()));
        match self {
            Self::ClientIp => Some(context.client.to_string().into_bytes().into()),
            Self::Host => text(request.host),
            Self::Method => text(request.method.as_str()),
            Self::Path => text(request.path),
            Self::Query => text(request.query.unwrap_or_default()),
            Self::Scheme => text(facts.scheme),
            Self::Listener => text(request.listener),
            Self::Route => text(facts.route),
            Self::ApiKey => text(&context.api_key.as_deref()?.subject),
            Self::Claim(name) => claim(context.identity.as_deref()?, name),
            Self::Header(name) => Some(request.headers.get(name)?.as_bytes().into()),
            Self::Cookie(name) => cookie::first(request.headers, name).map(Cow::Borrowed),
            Self::QueryParameter(name) => query::first(request.query, name),
            Self::PathParameter(name) => {
                let parameters = facts.path.parameters(request.path);
                let found = parameters.into_iter().find(|(known, _)| *known == &**name);
                text(found?.1)
            }
        }
    }
}

/// A claim as text; lists are joined with spaces, as scopes are written.
fn claim<'i>(identity: &'i Identity, name: &str) -> Option<Cow<'i, [u8]>> {
    Some(match identity.claims.get(name)? {
        Value::Null => return None,
        Value::String(text) => text.as_bytes().into(),
        Value::Array(all) if all.iter().all(Value::is_string) => {
            let texts: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
            texts.join(" ").into_bytes().into()
        }
        other => other.to_string().into_bytes().into(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, Method};

    use super::*;
    use crate::route::path::PathPattern;

    /// Runs `test` with the facts of `GET /users/7?page=2` from alice.
    pub(in crate::route) fn with_facts(test: impl FnOnce(&Facts<'_>)) {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_static("r-1"));
        headers.insert("x-tenant", HeaderValue::from_static("acme"));
        headers.insert("cookie", HeaderValue::from_static("session=s1"));
        let mut context = Context::new("192.0.2.1".parse().unwrap());
        let claims = serde_json::json!({
            "sub": "alice", "tenant": 7, "none": null, "roles": ["a", "b"], "odd": "a\nb"
        });
        context.identity = Some(Arc::new(Identity {
            auth: "a".into(),
            subject: "alice".to_owned(),
            claims: claims.as_object().unwrap().clone(),
        }));
        let path = PathRule::Pattern(PathPattern::parse("/users/{id}").unwrap());
        test(&Facts {
            request: Request {
                listener: "public",
                host: "a.test",
                method: &Method::GET,
                path: "/users/7",
                query: Some("page=2&q=a%20b"),
                headers: &headers,
            },
            path: &path,
            route: "users",
            scheme: "https",
            context: &context,
        });
    }

    #[test]
    fn values_are_made_of_what_the_request_has() {
        let cases = [
            ("plain", Some("plain")),
            ("", Some("")),
            ("{{}}", Some("{}")),
            ("{client-ip}", Some("192.0.2.1")),
            (
                "{method} {scheme}://{host}{path}?{query}",
                Some("GET https://a.test/users/7?page=2&q=a%20b"),
            ),
            ("{listener}/{route}/{request-id}", Some("public/users/r-1")),
            ("user-{jwt.sub}", Some("user-alice")),
            ("{jwt.tenant}", Some("7")),
            ("{jwt.roles}", Some("a b")),
            ("{header.x-tenant}", Some("acme")),
            ("{cookie.session}", Some("s1")),
            ("{query.q}", Some("a b")),
            ("{path.id}", Some("7")),
            ("x{jwt.none}", None),
            ("x{jwt.missing}", None),
            ("{jwt.odd}", None),
            ("{header.x-other}", None),
            ("{cookie.other}", None),
            ("{query.other}", None),
            ("{path.other}", None),
            ("{api-key}", None),
        ];
        with_facts(|facts| {
            for (text, expected) in cases {
                let made = Template::parse(text).unwrap().make(facts);
                let made = made.as_ref().map(|value| value.to_str().unwrap());
                assert_eq!(made, expected, "{text}");
            }
        });
    }

    #[test]
    fn templates_without_variables_are_fixed() {
        let fixed = |text| Template::parse(text).unwrap().fixed().map(str::to_owned);
        assert_eq!(fixed("a{{b}}"), Some("a{b}".to_owned()));
        assert_eq!(fixed("a{host}"), None);
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for text in [
            "{",
            "}",
            "a{b",
            "{}",
            "{ip}",
            "{jwt}",
            "{jwt.}",
            "{header.a b}",
            "{a.b}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
