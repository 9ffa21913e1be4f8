//! Certificates and secrets: files and references to them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::super::error::{HINT_MARK, SECRET_IN_CLEAR};
use super::either::Either;

/// A PEM file with chain and key, or `{ chain = …, key = … }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Leaf first.
    pub chain: String,
    /// The key of the leaf.
    pub key: String,
}

/// The table form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Files {
    chain: String,
    key: String,
}

impl Either for Certificate {
    type Table = Files;
    const FORMS: &'static str = "a PEM file, or `{ chain = \"…\", key = \"…\" }`";

    fn from_table(files: Files) -> Self {
        Self {
            chain: files.chain,
            key: files.key,
        }
    }

    fn from_text<E: de::Error>(text: &str) -> Result<Self, E> {
        Ok(Self {
            chain: text.to_owned(),
            key: text.to_owned(),
        })
    }
}

impl<'de> Deserialize<'de> for Certificate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

impl JsonSchema for Certificate {
    fn schema_name() -> Cow<'static, str> {
        "Certificate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                {
                    "type": "object",
                    "properties": { "chain": { "type": "string" }, "key": { "type": "string" } },
                    "required": ["chain", "key"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

/// A secret by reference: `{ file = "path" }` or `{ env = "NAME" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The content of a file.
    File(String),
    /// The content of an environment variable.
    Env(String),
}

/// The table forms.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Reference {
    File(String),
    Env(String),
}

impl Either for Source {
    type Table = Reference;
    const FORMS: &'static str = "`{ file = \"…\" }` or `{ env = \"…\" }`";

    fn from_table(reference: Reference) -> Self {
        match reference {
            Reference::File(path) => Self::File(path),
            Reference::Env(name) => Self::Env(name),
        }
    }

    /// Never repeats the text: it may be the secret itself.
    fn from_text<E: de::Error>(_: &str) -> Result<Self, E> {
        let hint = "write { file = \"path\" } or { env = \"NAME\" }";
        Err(E::custom(format_args!(
            "{SECRET_IN_CLEAR}{HINT_MARK}{hint}"
        )))
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}
