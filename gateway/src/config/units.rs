//! Durations, sizes and rates: in the file always text with a unit, here always a type.
//!
//! Each type reads itself from text, and writes itself back in the form a person would choose,
//! so that `config --effective` is a file that loads again.

mod byte_rate;

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use self::byte_rate::ByteRate;

/// The longest duration that makes sense anywhere in the file.
const DURATION_MAX: std::time::Duration = std::time::Duration::from_secs(366 * 24 * 3600);

/// Size units that are written, largest first.
const SIZE_UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Decimal size units: read, but never written.
const SIZE_UNITS_DECIMAL: [(&str, u64); 3] =
    [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];

/// The periods a rate may be given in, in seconds.
const RATE_UNITS: [(&str, u32); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

/// Text that is no value with a unit: what is wrong, and how to write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitError {
    message: String,
    hint: &'static str,
}

/// Serde carries errors as one text; the reader of the file takes the hint out again.
impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}{}",
            self.message,
            super::error::HINT_MARK,
            self.hint
        )
    }
}

/// A length of time such as `"500ms"`, `"3s"` or `"1m 30s"`; zero is allowed here and refused
/// where it makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub std::time::Duration);

impl Duration {
    const HINT: &str = r#"write a number and a unit: "250ms", "3s", "2m", "1h""#;

    /// A duration of whole milliseconds, for defaults.
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// A duration of whole seconds, for defaults.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }
}

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match humantime::parse_duration(text) {
            Ok(duration) if duration <= DURATION_MAX => Ok(Self(duration)),
            Ok(_) => Err(UnitError {
                message: format!("duration `{text}` is out of range"),
                hint: "the longest duration is 366 days",
            }),
            Err(_) => Err(UnitError {
                message: format!("invalid duration `{text}`"),
                hint: Self::HINT,
            }),
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A number of bytes such as `"512B"`, `"16KiB"` or `"1GiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    const HINT: &str = r#"write a whole number and a unit: "512B", "16KiB", "8MiB", "1GiB""#;
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = |what: &str| UnitError {
            message: format!("{what} `{text}`"),
            hint: Self::HINT,
        };
        let (number, unit) = split_number(text).ok_or_else(|| refuse("invalid size"))?;
        let (_, factor) = SIZE_UNITS
            .iter()
            .chain(&SIZE_UNITS_DECIMAL)
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| refuse("invalid size"))?;
        number
            .checked_mul(*factor)
            .map(Self)
            .ok_or_else(|| refuse("too large a size"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, factor) = SIZE_UNITS
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

/// A number of requests in a period, such as `"100/s"` or `"5/m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests in each period.
    pub count: NonZeroU32,
    /// The period in seconds: a second, a minute, an hour or a day.
    pub period_seconds: u32,
}

impl Rate {
    const HINT: &str = r#"write requests per period: "100/s", "30/m", "1000/h", "5000/d""#;

    /// The time in which one request is earned back, at least a nanosecond.
    pub fn interval(&self) -> std::time::Duration {
        let period = std::time::Duration::from_secs(u64::from(self.period_seconds));
        (period / self.count.get()).max(std::time::Duration::from_nanos(1))
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let parse = || {
            let (count, unit) = text.split_once('/')?;
            let (_, period_seconds) = RATE_UNITS.iter().find(|(name, _)| *name == unit.trim())?;
            Some(Self {
                count: count.trim().parse().ok()?,
                period_seconds: *period_seconds,
            })
        };
        parse().ok_or_else(|| UnitError {
            message: format!("invalid rate `{text}`"),
            hint: Self::HINT,
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = RATE_UNITS
            .iter()
            .find(|(_, seconds)| *seconds == self.period_seconds);
        write!(f, "{}/{}", self.count, unit.map_or("s", |(name, _)| name))
    }
}

/// `"16KiB"` into 16 and `"KiB"`.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

/// Reads text with [`FromStr`]; a bare number gets the hint on units instead of a type error.
struct UnitVisitor<T> {
    what: &'static str,
    hint: &'static str,
    value: std::marker::PhantomData<T>,
}

impl<T: FromStr<Err = UnitError>> UnitVisitor<T> {
    fn unit_missing<E: de::Error>(&self, number: impl fmt::Display) -> E {
        let message = format!("{} `{number}` has no unit", self.what);
        E::custom(UnitError {
            message,
            hint: self.hint,
        })
    }
}

impl<T: FromStr<Err = UnitError>> de::Visitor<'_> for UnitVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} as text", self.what)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        Err(self.unit_missing(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        Err(self.unit_missing(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        Err(self.unit_missing(number))
    }
}

/// Serde and JSON Schema for a type that is text with a unit.
macro_rules! text_with_unit {
    ($type:ident, $what:literal, $pattern:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(UnitVisitor {
                    what: $what,
                    hint: Self::HINT,
                    value: std::marker::PhantomData,
                })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

text_with_unit!(Duration, "duration", r"^\s*([0-9]+\s*[a-zA-Z]+\s*)+$");
text_with_unit!(Size, "size", r"^[0-9]+\s*(B|kB|KiB|MB|MiB|GB|GiB)$");
text_with_unit!(Rate, "rate", r"^[0-9]+\s*/\s*[smhd]$");
text_with_unit!(
    ByteRate,
    "rate of bytes",
    r"^[0-9]+\s*(B|kB|KiB|MB|MiB|GB|GiB)\s*/\s*s$"
);

#[cfg(test)]
mod tests {
    use std::time::Duration as StdDuration;

    use super::*;

    #[test]
    fn durations_are_read_and_written_back() {
        let cases = [
            ("500ms", StdDuration::from_millis(500), "500ms"),
            ("3s", StdDuration::from_secs(3), "3s"),
            ("90s", StdDuration::from_secs(90), "1m 30s"),
            ("1m 30s", StdDuration::from_secs(90), "1m 30s"),
            ("0s", StdDuration::ZERO, "0s"),
        ];
        for (text, expected, written) in cases {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.0, expected, "{text}");
            assert_eq!(duration.to_string(), written);
        }
        for text in [
            "",
            "3",
            "-1s",
            "3 parsecs",
            "s",
            "400days",
            "99999999999999999999s",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_back() {
        let cases = [
            ("0B", 0, "0B"),
            ("512B", 512, "512B"),
            ("16KiB", 16_384, "16KiB"),
            ("16 KiB", 16_384, "16KiB"),
            ("1kB", 1_000, "1000B"),
            ("1536KiB", 1_572_864, "1536KiB"),
            ("1GiB", 1 << 30, "1GiB"),
        ];
        for (text, expected, written) in cases {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.0, expected, "{text}");
            assert_eq!(size.to_string(), written);
        }
        for text in [
            "",
            "16",
            "KiB",
            "1.5MiB",
            "1kib",
            "-1B",
            "99999999999999999999B",
            "18446744073709551615KiB",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_read_and_written_back() {
        let cases = [
            ("100/s", 100, StdDuration::from_millis(10), "100/s"),
            ("30 / m", 30, StdDuration::from_secs(2), "30/m"),
            ("1/d", 1, StdDuration::from_secs(86_400), "1/d"),
        ];
        for (text, count, interval, written) in cases {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(
                (rate.count.get(), rate.interval()),
                (count, interval),
                "{text}"
            );
            assert_eq!(rate.to_string(), written);
        }
        for text in [
            "",
            "100",
            "0/s",
            "100/",
            "/s",
            "100/week",
            "-1/s",
            "1.5/s",
            "4294967296/s",
        ] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
