//! How much a request matters: what is shed first when not all can be served.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::request::Parts;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::filter::Context;
use crate::filter::key::RequestKey;

/// The class of a request. The order of the variants is the order in which they are shed.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Nobody waits for it: batches, prefetching, crawlers.
    Sheddable,
    /// Everything nobody has said anything about.
    #[default]
    Default,
    /// What must work even if nothing else does: health of the business, payments, operators.
    Critical,
}

impl Class {
    /// All classes, the first shed first.
    pub const ALL: [Self; 3] = [Self::Sheddable, Self::Default, Self::Critical];

    /// The name in the file and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sheddable => "sheddable",
            Self::Default => "default",
            Self::Critical => "critical",
        }
    }

    /// The class of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// Its position in [`Self::ALL`].
    pub(super) fn index(self) -> usize {
        match self {
            Self::Sheddable => 0,
            Self::Default => 1,
            Self::Critical => 2,
        }
    }
}

/// Where a request may say its own class, and what its words mean.
///
/// Only places somebody vouches for: a claim of an accepted token, the name of an accepted API
/// key, or a header set by a trusted proxy. A header from anybody else is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassSource {
    /// The place: a claim, the API key or a header.
    pub from: RequestKey,
    /// Classes by the values found there. The names of classes are understood where this is empty.
    pub values: BTreeMap<String, Class>,
}

impl ClassSource {
    /// The class this request is given, if it is given one. `peer` is the address the connection
    /// comes from, `trusted` those whose headers are believed.
    pub(super) fn class(
        &self,
        context: &Context,
        head: &Parts,
        peer: IpAddr,
        trusted: &[IpNet],
    ) -> Option<Class> {
        match &self.from {
            RequestKey::Claim(claim) => {
                let claims = &context.identity.as_ref()?.claims;
                match claims.get(claim)? {
                    Value::String(text) => self.of(text),
                    other => self.of(&other.to_string()),
                }
            }
            RequestKey::ApiKey => self.of(&context.api_key.as_ref()?.subject),
            RequestKey::Header(name) if trusted.iter().any(|one| one.contains(&peer)) => {
                let mut values = head.headers.get_all(name).iter();
                let value = values.next()?;
                // Two values are two opinions: neither counts.
                let single = values.next().is_none();
                single.then(|| self.of(value.to_str().ok()?.trim()))?
            }
            _ => None,
        }
    }

    /// The highest class a request could be given.
    pub(super) fn highest(&self) -> Class {
        let named = self.values.values().max().copied();
        named.unwrap_or(Class::Critical)
    }

    fn of(&self, value: &str) -> Option<Class> {
        if self.values.is_empty() {
            return Class::named(value);
        }
        self.values.get(value).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::filter::Identity;

    const PROXY: &str = "10.0.0.1";
    const STRANGER: &str = "192.0.2.1";

    fn source(from: &str, values: &[(&str, Class)]) -> ClassSource {
        let owned = |(name, class): &(&str, Class)| ((*name).to_owned(), *class);
        ClassSource {
            from: from.parse().unwrap(),
            values: values.iter().map(owned).collect(),
        }
    }

    fn class(source: &ClassSource, peer: &str, priority: &[&str]) -> Option<Class> {
        let mut context = Context::new(STRANGER.parse().unwrap());
        let claims = serde_json::json!({ "tier": "gold", "level": 2, "class": "critical" });
        let identity = |subject: &str, claims| {
            let (auth, subject) = ("a".into(), subject.to_owned());
            Some(Arc::new(Identity {
                auth,
                subject,
                claims,
            }))
        };
        context.identity = identity("alice", claims.as_object().unwrap().clone());
        context.api_key = identity("crawler", serde_json::Map::new());
        let mut request = http::Request::builder();
        for value in priority {
            request = request.header("x-priority", *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        source.class(&context, &head, peer.parse().unwrap(), &trusted)
    }

    #[test]
    fn only_vouched_places_give_a_class() {
        use Class::{Critical, Sheddable};

        let gold = [("gold", Critical), ("2", Sheddable)];
        let robots = [("crawler", Sheddable)];
        /// The place, what its values mean, who sends it, what is sent, the class.
        type Row<'r> = (
            &'r str,
            &'r [(&'r str, Class)],
            &'r str,
            &'r [&'r str],
            Option<Class>,
        );
        let table: [Row<'_>; 12] = [
            ("jwt.class", &[], STRANGER, &[], Some(Critical)),
            ("jwt.tier", &[], STRANGER, &[], None),
            ("jwt.tier", &gold, STRANGER, &[], Some(Critical)),
            ("jwt.level", &gold, STRANGER, &[], Some(Sheddable)),
            ("jwt.none", &gold, STRANGER, &[], None),
            ("api-key", &robots, STRANGER, &[], Some(Sheddable)),
            (
                "header.x-priority",
                &[],
                PROXY,
                &["critical"],
                Some(Critical),
            ),
            ("header.x-priority", &[], PROXY, &["urgent"], None),
            ("header.x-priority", &[], PROXY, &[], None),
            ("header.x-priority", &[], STRANGER, &["critical"], None),
            (
                "header.x-priority",
                &[],
                PROXY,
                &["critical", "critical"],
                None,
            ),
            ("header.x-priority", &gold, PROXY, &["critical"], None),
        ];
        for (from, values, peer, sent, expected) in table {
            let found = class(&source(from, values), peer, sent);
            assert_eq!(found, expected, "{from} {values:?} {peer} {sent:?}");
        }
    }

    #[test]
    fn the_highest_class_bounds_what_a_request_can_be_given() {
        assert_eq!(source("jwt.tier", &[]).highest(), Class::Critical);
        let robots = source("api-key", &[("crawler", Class::Sheddable)]);
        assert_eq!(robots.highest(), Class::Sheddable);
    }

    #[test]
    fn names_and_positions_belong_together() {
        for (index, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), index);
            assert_eq!(Class::named(class.name()), Some(class));
            let written = serde_json::to_value(class).unwrap();
            assert_eq!(written, class.name());
        }
        assert!(Class::Sheddable < Class::Default && Class::Default < Class::Critical);
    }
}
