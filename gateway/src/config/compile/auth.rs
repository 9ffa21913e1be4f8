//! Authentication and limits: what `use` refers to.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use http::HeaderName;
use jsonwebtoken::Algorithm;

use super::super::error::Problem;
use super::super::file::{Auth, AuthKind, Limit, Named, Placed, Source, WhenFull};
use super::super::units::Duration;
use super::{Compiler, Filters};
use crate::filter::api_key::{ApiKeys, KeyHash};
use crate::filter::chain::FilterKind;
use crate::filter::jwt::{ALGORITHMS, Jwt, KeySet, Policy};
use crate::filter::rate_limit::{self, RateLimit};

/// How far clocks may differ at most; more would make `exp` meaningless.
const LEEWAY_MAX: std::time::Duration = std::time::Duration::from_secs(600);

/// The time in which a whole burst is earned back, at most.
const WINDOW_MAX: std::time::Duration = std::time::Duration::from_secs(366 * 24 * 3600);

impl Compiler<'_> {
    pub(super) fn auth(&mut self, typed: &Named<Auth>, filters: &mut Filters) {
        for (name, auth) in typed {
            self.foreign_keys(auth);
            let filter = match auth.kind {
                AuthKind::Jwt => self.jwt(name, auth).map(|jwt| {
                    filters.tokens.push(Arc::clone(&jwt));
                    FilterKind::Jwt(jwt)
                }),
                AuthKind::ApiKey => self.api_keys(name, auth).map(FilterKind::ApiKey),
            };
            // A wrong one stays known by name, so that routes using it get no second problem.
            let filter = filter.unwrap_or_else(|| FilterKind::ApiKey(nobody(name)));
            filters.by_name.insert(name.to_string(), filter);
        }
    }

    /// Refuses keys that belong to the other type.
    fn foreign_keys(&mut self, auth: &Auth) {
        let jwt_only = [
            ("issuer", place(&auth.issuer)),
            ("audience", place(&auth.audience)),
            ("jwks", place(&auth.jwks)),
            ("algorithms", place(&auth.algorithms)),
            ("scopes", place(&auth.scopes)),
            ("leeway", place(&auth.leeway)),
            ("token_bytes_max", place(&auth.token_bytes_max)),
            ("tokens_cached_max", place(&auth.tokens_cached_max)),
        ];
        let api_key_only = [("header", place(&auth.header)), ("keys", place(&auth.keys))];
        let (foreign, owner): (&[_], _) = match auth.kind {
            AuthKind::Jwt => (&api_key_only, "api-key"),
            AuthKind::ApiKey => (&jwt_only, "jwt"),
        };
        for (key, span) in foreign {
            if let Some(span) = span {
                let message = format!("`{key}` belongs to `type = \"{owner}\"` only");
                let problem = Problem::at(span.clone(), message);
                // What `keys` holds may be secrets.
                self.refuse(if *key == "keys" {
                    problem.secret()
                } else {
                    problem
                });
            }
        }
    }

    fn jwt(&mut self, name: &Placed<String>, auth: &Auth) -> Option<Arc<Jwt>> {
        let issuer = self.needed(name, "issuer", "\"https://id.example.com/\"", &auth.issuer);
        let audience = self.needed(name, "audience", "[\"orders\"]", &auth.audience);
        let jwks = self.needed(name, "jwks", "{ file = \"keys/jwks.json\" }", &auth.jwks);
        if let Some(audience) = audience.filter(|audience| audience.is_empty()) {
            self.refuse(
                Problem::at(audience.span(), "an empty `audience` would accept no token")
                    .hint("name what the tokens carry in `aud`"),
            );
        }
        let leeway_seconds = self.leeway(&auth.leeway());
        let token_bytes_max = self.bytes(&auth.token_bytes_max(), 256..=1 << 16);
        let cached_max = auth.tokens_cached_max();
        let tokens_cached_max = self.within(&cached_max, 0..=10_000_000, "tokens_cached_max");
        let algorithms = self.algorithms(auth);
        let keys = jwks.and_then(|source| self.key_set(source, &algorithms));
        let policy = Policy {
            name: name.as_str().into(),
            issuer: issuer?.to_string(),
            audience: audience?.iter().cloned().collect(),
            scopes: auth.scopes.as_deref().cloned().unwrap_or_default(),
            leeway_seconds,
            token_bytes_max,
            tokens_cached_max,
        };
        let keys = keys?;
        let mut known = self
            .previous
            .into_iter()
            .flat_map(|previous| &previous.tokens);
        let same = known.find(|jwt| jwt.is_for(&policy, &keys)).map(Arc::clone);
        Some(same.unwrap_or_else(|| Arc::new(Jwt::new(policy, keys))))
    }

    fn leeway(&mut self, leeway: &Placed<Duration>) -> u64 {
        if leeway.0 > LEEWAY_MAX {
            let message = format!("a leeway of {leeway} is too long");
            let hint = "clocks should differ by seconds; at most 10m is accepted";
            self.refuse(Problem::at(leeway.span(), message).hint(hint));
        }
        leeway.0.as_secs()
    }

    fn key_set(&mut self, source: &Placed<Source>, algorithms: &[Algorithm]) -> Option<KeySet> {
        let json = self.source(source)?;
        let keys = KeySet::parse(&json, algorithms);
        keys.map_err(|error| {
            let message = format!("key set refused: {error}");
            self.refuse(Problem::at(source.span(), message));
        })
        .ok()
    }

    fn algorithms(&mut self, auth: &Auth) -> Vec<Algorithm> {
        let mut algorithms = Vec::new();
        for name in auth.algorithms.iter().flat_map(|names| names.iter()) {
            match name.parse() {
                Ok(algorithm) => algorithms.push(algorithm),
                Err(_) => self.refuse(
                    Problem::at(name.span(), format!("unknown algorithm `{name}`"))
                        .nearest(name, ALGORITHMS),
                ),
            }
        }
        algorithms
    }

    fn api_keys(&mut self, name: &Placed<String>, auth: &Auth) -> Option<Arc<ApiKeys>> {
        let header = auth.header();
        let header_name = HeaderName::try_from(header.as_str())
            .map_err(|_| {
                self.refuse(Problem::at(
                    header.span(),
                    format!("`{}` is no header name", *header),
                ));
            })
            .ok();
        let keys = self.needed(name, "keys", "{ name = \"sha256:…\" }", &auth.keys)?;
        if keys.is_empty() {
            self.refuse(
                Problem::at(keys.span(), "without keys nobody could pass")
                    .hint("`weir-gateway hash-key` prints what to add"),
            );
        }
        self.names_of("API key", keys);
        let mut hashes = BTreeMap::new();
        for (subject, text) in keys.iter() {
            // What stands there may be a key in clear text: it is not shown again.
            let Ok(hash) = text.parse::<KeyHash>() else {
                self.refuse_plain_key(subject);
                continue;
            };
            if hashes.insert(subject.to_string(), hash).is_some() {
                self.refuse(Problem::at(subject.span(), "this API key is named twice"));
            }
        }
        let keys = ApiKeys::new(name.as_str().into(), header_name?, hashes);
        let known = self.previous.and_then(|one| one.filters.get(name.as_str()));
        Some(match known {
            Some(FilterKind::ApiKey(known)) if **known == keys => Arc::clone(known),
            _ => Arc::new(keys),
        })
    }

    /// What stands there may be a key in use, so neither it nor its line is shown.
    fn refuse_plain_key(&mut self, subject: &Placed<String>) {
        let message = format!("API key `{subject}` is no hash `sha256:…`");
        self.refuse(Problem::at(subject.span(), message).secret().hint(
            "keys stand here only as hashes: pipe the key into `weir-gateway hash-key` and copy \
             what it prints; if this is a key in use, change it",
        ));
    }

    fn needed<'t, T>(
        &mut self,
        name: &Placed<String>,
        key: &str,
        example: &str,
        value: &'t Option<Placed<T>>,
    ) -> Option<&'t Placed<T>> {
        if value.is_none() {
            self.refuse(
                Problem::at(
                    name.span(),
                    format!("authentication `{name}` has no `{key}`"),
                )
                .hint(format!("add for example `{key} = {example}`")),
            );
        }
        value.as_ref()
    }

    pub(super) fn limits(&mut self, typed: &Named<Limit>, filters: &mut Filters) {
        for (name, limit) in typed {
            let burst = self.burst(limit);
            let policy = rate_limit::Policy {
                name: name.as_str().into(),
                key: self.request_key(&limit.key),
                interval: limit.rate.interval(),
                burst,
                keys_max: self.within(&limit.keys_max, 1..=100_000_000, "keys_max"),
                allow_when_full: limit.when_full == WhenFull::Allow,
            };
            let mut known = self
                .previous
                .into_iter()
                .flat_map(|previous| &previous.rate_limits);
            let same = known
                .find(|limit| *limit.policy() == policy)
                .map(Arc::clone);
            let limit = same.unwrap_or_else(|| Arc::new(RateLimit::new(policy)));
            filters.rate_limits.push(Arc::clone(&limit));
            filters
                .by_name
                .insert(name.to_string(), FilterKind::RateLimit(limit));
        }
    }

    /// Requests at once after a pause; all of them must be earned back in bearable time, which
    /// also keeps the limiter's arithmetic in nanoseconds far from its end.
    fn burst(&mut self, limit: &Limit) -> NonZeroU32 {
        let typed = limit.burst();
        let Some(burst) = NonZeroU32::new(*typed) else {
            self.within(&typed, 1..=u32::MAX, "burst");
            return NonZeroU32::MIN;
        };
        let window = limit.rate.interval().saturating_mul(burst.get());
        if window > WINDOW_MAX {
            let message = format!(
                "at {} a burst of {burst} is earned back in years",
                *limit.rate
            );
            let hint = "choose a smaller `burst` or a higher `rate`: at most 366 days";
            self.refuse(Problem::at(limit.rate.span(), message).hint(hint));
            return NonZeroU32::MIN;
        }
        burst
    }
}

/// Where a value stands, if it is given.
fn place<T>(value: &Option<Placed<T>>) -> Option<Range<usize>> {
    value.as_ref().map(Placed::span)
}

/// Stands in for an authentication that could not be built.
fn nobody(name: &Placed<String>) -> Arc<ApiKeys> {
    let header = HeaderName::from_static("x-api-key");
    Arc::new(ApiKeys::new(name.as_str().into(), header, []))
}
