//! Statuses as typed: `503`, `"503"`, `"200-399"`, and what a route tries again on.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::super::error::HINT_MARK;

/// The statuses HTTP has (RFC 9110 section 15).
const STATUSES: std::ops::RangeInclusive<u16> = 100..=599;

/// One status, or all from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    /// From 100.
    pub first: u16,
    /// To 599, at least `first`.
    pub last: u16,
}

impl StatusRange {
    const HINT: &str = "write a status from 100 to 599, or a range such as \"200-399\"";
}

impl FromStr for StatusRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let status = |text: &str| {
                let status = text.trim().parse().ok()?;
                STATUSES.contains(&status).then_some(status)
            };
            let (first, last) = (status(first)?, status(last)?);
            (first <= last).then_some(Self { first, last })
        };
        parse().ok_or_else(|| format!("`{text}` is no status{HINT_MARK}{}", Self::HINT))
    }
}

/// A cause for another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryOn {
    /// No connection to the instance.
    Connect,
    /// The connection ended before there was an answer.
    Reset,
    /// The attempt took longer than `per_try_timeout`.
    Timeout,
    /// The answer is 500 to 599.
    ServerError,
    /// The answer is 502, 503 or 504.
    GatewayError,
    /// The answer is one that asks for another attempt by its meaning: 408, 425, 429 or 503.
    RetriableStatus,
    /// The answer is this.
    Status(u16),
}

impl RetryOn {
    /// Those that have names.
    const NAMED: [(&str, Self); 6] = [
        ("connect", Self::Connect),
        ("reset", Self::Reset),
        ("timeout", Self::Timeout),
        ("5xx", Self::ServerError),
        ("gateway-error", Self::GatewayError),
        ("retriable-status", Self::RetriableStatus),
    ];
    const HINT: &str = "write \"connect\", \"reset\", \"timeout\", \"5xx\", \"gateway-error\", \
                        \"retriable-status\" or a status from 400 to 599";
}

impl FromStr for RetryOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::NAMED.iter().find(|(name, _)| *name == text);
        let status = || {
            text.parse()
                .ok()
                .filter(|status| (400..=599).contains(status))
        };
        named
            .map(|(_, cause)| *cause)
            .or_else(|| status().map(Self::Status))
            .ok_or_else(|| {
                format!(
                    "`{text}` is no cause for another attempt{HINT_MARK}{}",
                    Self::HINT
                )
            })
    }
}

impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMED.iter().find(|(_, cause)| cause == self);
        match (self, named) {
            (Self::Status(status), _) => status.fmt(f),
            (_, Some((name, _))) => f.write_str(name),
            (_, None) => Ok(()),
        }
    }
}

/// Reads a text or a number with [`FromStr`].
struct Visitor<T>(&'static str, std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> de::Visitor<'_> for Visitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor("a status or a range", std::marker::PhantomData))
    }
}

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last {
            serializer.serialize_u16(self.first)
        } else {
            serializer.collect_str(&format_args!("{}-{}", self.first, self.last))
        }
    }
}

impl JsonSchema for StatusRange {
    fn schema_name() -> Cow<'static, str> {
        "StatusRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"] })
    }
}

impl<'de> Deserialize<'de> for RetryOn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor("a cause or a status", std::marker::PhantomData))
    }
}

impl Serialize for RetryOn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Status(status) => serializer.serialize_u16(*status),
            named => serializer.collect_str(named),
        }
    }
}

impl JsonSchema for RetryOn {
    fn schema_name() -> Cow<'static, str> {
        "RetryOn".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_statuses() {
        let table = [
            ("200", Some((200, 200))),
            ("200-399", Some((200, 399))),
            ("100 - 599", Some((100, 599))),
            ("99", None),
            ("600", None),
            ("399-200", None),
            ("2xx", None),
            ("", None),
        ];
        for (text, expected) in table {
            let range = text.parse::<StatusRange>().ok();
            let range = range.map(|range| (range.first, range.last));
            assert_eq!(range, expected, "{text:?}");
        }
    }

    #[test]
    fn causes_are_read_and_written_back() {
        for text in [
            "connect",
            "reset",
            "timeout",
            "5xx",
            "gateway-error",
            "retriable-status",
            "409",
        ] {
            assert_eq!(text.parse::<RetryOn>().unwrap().to_string(), text);
        }
        for text in ["", "4xx", "399", "600", "Reset"] {
            assert!(text.parse::<RetryOn>().is_err(), "{text:?}");
        }
    }
}
