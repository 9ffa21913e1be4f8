//! Values that may be written in more than one form: something short for the usual case, a table
//! for more.
//!
//! Serde's untagged enums would do the same, but lose the place and say only that nothing fitted.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// A value of two forms.
pub(super) trait Either: Sized {
    /// The table form.
    type Table: for<'de> Deserialize<'de>;
    /// Both forms, as errors say what was expected.
    const FORMS: &'static str;

    /// From the table form.
    fn from_table(table: Self::Table) -> Self;

    /// From a text; a wrong type unless it is told otherwise.
    fn from_text<E: Error>(text: &str) -> Result<Self, E> {
        Err(E::invalid_type(
            Unexpected::Str(text),
            &Forms::<Self>::new(),
        ))
    }

    /// From a number; a wrong type unless it is told otherwise.
    fn from_number<E: Error>(number: i64) -> Result<Self, E> {
        Err(E::invalid_type(
            Unexpected::Signed(number),
            &Forms::<Self>::new(),
        ))
    }

    /// The error for a number that does not fit.
    fn unfit<E: Error>(number: i64) -> E {
        E::invalid_value(Unexpected::Signed(number), &Forms::<Self>::new())
    }

    /// Reads either form.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Forms::new())
    }
}

/// Takes what it finds, and says what it expected.
struct Forms<T>(PhantomData<T>);

impl<T> Forms<T> {
    fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Either> Visitor<'de> for Forms<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::FORMS)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        T::from_number(number)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::Table::deserialize(MapAccessDeserializer::new(map)).map(T::from_table)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Certificate, Endpoint, PathMatch, Source, SplitMember, Text, ValueMatch};
    use super::*;

    #[derive(Debug, Deserialize)]
    struct One<T> {
        #[expect(dead_code, reason = "only errors are looked at")]
        a: T,
    }

    fn error<T: for<'de> Deserialize<'de> + fmt::Debug>(value: &str) -> String {
        let error = toml::from_str::<One<T>>(&format!("a = {value}")).unwrap_err();
        error.message().to_owned()
    }

    #[test]
    fn errors_say_what_was_found_and_what_is_wanted() {
        let table = [
            (
                error::<PathMatch>("7"),
                "invalid type: integer `7`, expected a path or `{ regex = \"…\" }`",
            ),
            (
                error::<ValueMatch>("true"),
                "invalid type: boolean `true`, expected a value, `{ regex = \"…\" }` or \
                 `{ present = true }`",
            ),
            (
                error::<SplitMember>("\"5\""),
                "invalid type: string \"5\", expected a weight or `{ weight = …, when = [{ … }] }`",
            ),
            (
                error::<SplitMember>("-5"),
                "invalid value: integer `-5`, expected a weight or \
                 `{ weight = …, when = [{ … }] }`",
            ),
            (
                error::<Endpoint>("[]"),
                "invalid type: sequence, expected an address with port, or \
                 `{ address = \"…\", weight = 2 }`",
            ),
            (
                error::<Text>("1.5"),
                "invalid type: floating point `1.5`, expected a text or `{ file = \"…\" }`",
            ),
            (
                error::<Certificate>("{ chain = \"a\" }"),
                "missing field `key`",
            ),
            (
                error::<PathMatch>("{ regexp = \"a\" }"),
                "unknown field `regexp`, expected `regex`",
            ),
            (
                error::<Source>("1"),
                "invalid type: integer `1`, expected `{ file = \"…\" }` or `{ env = \"…\" }`",
            ),
        ];
        for (error, expected) in table {
            assert_eq!(error, expected);
        }
    }
}
