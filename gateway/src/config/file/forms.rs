//! Values that may be written in more than one form: a text for the usual case, a table for more.
//!
//! Serde's untagged enums would do the same, but lose the place and say only that nothing fitted.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::super::error::{HINT_MARK, SECRET_IN_CLEAR};

/// A PEM file with chain and key, or `{ chain = …, key = … }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Leaf first.
    pub chain: String,
    /// The key of the leaf.
    pub key: String,
}

impl<'de> Deserialize<'de> for Certificate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        /// The table form.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Files {
            chain: String,
            key: String,
        }

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Certificate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a PEM file, or `{ chain = \"…\", key = \"…\" }`")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<Certificate, E> {
                Ok(Certificate {
                    chain: path.to_owned(),
                    key: path.to_owned(),
                })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Certificate, A::Error> {
                let files = Files::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Certificate {
                    chain: files.chain,
                    key: files.key,
                })
            }
        }

        deserializer.deserialize_any(Visitor)
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

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        /// The table forms.
        #[derive(Deserialize)]
        #[serde(rename_all = "kebab-case")]
        enum Reference {
            File(String),
            Env(String),
        }

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Source;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`{ file = \"…\" }` or `{ env = \"…\" }`")
            }

            /// Never repeats the text: it may be the secret itself.
            fn visit_str<E: de::Error>(self, _: &str) -> Result<Source, E> {
                let hint = "write { file = \"path\" } or { env = \"NAME\" }";
                Err(E::custom(format_args!(
                    "{SECRET_IN_CLEAR}{HINT_MARK}{hint}"
                )))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
                let table = MapAccessDeserializer::new(map);
                Ok(match Reference::deserialize(table)? {
                    Reference::File(path) => Source::File(path),
                    Reference::Env(name) => Source::Env(name),
                })
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
