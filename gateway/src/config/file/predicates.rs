//! What a request must be for a route, as typed: a text for the usual case, a table for more.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::either::Either;
use super::{Named, Placed};

/// `match = { … }` of a route; all that is given must hold.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Predicates {
    /// Names of listeners; left out: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Placed<String>>,
    /// `api.example.com`, or `*.example.com` for all names below; left out: any host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Placed<String>>,
    /// `/a/b`, `/users/{id}`, `/v2/{*rest}` for `/v2` and all below, or `{ regex = "…" }` of the
    /// whole path; left out: any path.
    #[serde(default = "any_path")]
    pub path: Placed<PathMatch>,
    /// Left out: any method. GET stands for HEAD too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Placed<String>>,
    /// name = `"value"`, `{ regex = "…" }` (of the whole value) or `{ present = true }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Named<Placed<ValueMatch>>,
    /// Parameters of the query, in the forms of `headers`; names and values are plain text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: Named<Placed<ValueMatch>>,
    /// Cookies, in the forms of `headers`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: Named<Placed<ValueMatch>>,
}

fn any_path() -> Placed<PathMatch> {
    Placed::absent(PathMatch::Pattern("/{*rest}".to_owned()))
}

/// What a path must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Of this form.
    Pattern(String),
    /// A path the expression matches as a whole.
    Regex(String),
}

/// The table form of a path match.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PathMatchTable {
    regex: String,
}

impl Either for PathMatch {
    type Table = PathMatchTable;
    const FORMS: &'static str = "a path or `{ regex = \"…\" }`";

    fn from_table(table: PathMatchTable) -> Self {
        Self::Regex(table.regex)
    }

    fn from_text<E: de::Error>(text: &str) -> Result<Self, E> {
        Ok(Self::Pattern(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for PathMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

impl Serialize for PathMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Pattern(pattern) => pattern.serialize(serializer),
            Self::Regex(regex) => PathMatchTable {
                regex: regex.clone(),
            }
            .serialize(serializer),
        }
    }
}

impl JsonSchema for PathMatch {
    fn schema_name() -> Cow<'static, str> {
        "PathMatch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "regex": { "type": "string" } },
                    "required": ["regex"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

/// What a header, a query parameter or a cookie must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// This value.
    Exact(String),
    /// A value the expression matches as a whole.
    Regex(String),
    /// There (true) or not there (false).
    Present(bool),
}

/// The table forms of such a match.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ValueMatchTable {
    Regex(String),
    Present(bool),
}

impl Either for ValueMatch {
    type Table = ValueMatchTable;
    const FORMS: &'static str = "a value, `{ regex = \"…\" }` or `{ present = true }`";

    fn from_table(table: ValueMatchTable) -> Self {
        match table {
            ValueMatchTable::Regex(expression) => Self::Regex(expression),
            ValueMatchTable::Present(present) => Self::Present(present),
        }
    }

    fn from_text<E: de::Error>(text: &str) -> Result<Self, E> {
        Ok(Self::Exact(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for ValueMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

impl Serialize for ValueMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exact(value) => value.serialize(serializer),
            Self::Regex(text) => ValueMatchTable::Regex(text.clone()).serialize(serializer),
            Self::Present(there) => ValueMatchTable::Present(*there).serialize(serializer),
        }
    }
}

impl JsonSchema for ValueMatch {
    fn schema_name() -> Cow<'static, str> {
        "ValueMatch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": {
                        "regex": { "type": "string" },
                        "present": { "type": "boolean" }
                    },
                    "minProperties": 1,
                    "maxProperties": 1,
                    "additionalProperties": false
                }
            ]
        })
    }
}
