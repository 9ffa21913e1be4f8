//! What a route does with its requests, as typed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::either::Either;
use super::{Named, Placed, Source, ValueMatch};
use crate::config::units::{Duration, Size};

/// A service's part in `split = { … }`: a weight, or `{ weight = …, … }`.
#[derive(Clone, Debug)]
pub struct SplitMember(pub SplitTable);

/// The table form of [`SplitMember`].
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitTable {
    /// Its share, of the sum of all weights; 0: only requests that meet `when`.
    pub weight: Placed<u32>,
    /// Requests that meet any of these go here, whatever the weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Placed<When>>,
    /// In place of the route's `rewrite`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Placed<Rewrite>>,
    /// After the route's `request_headers`.
    #[serde(default, skip_serializing_if = "HeaderChanges::is_empty")]
    pub request_headers: HeaderChanges,
    /// After the route's `response_headers`.
    #[serde(default, skip_serializing_if = "HeaderChanges::is_empty")]
    pub response_headers: HeaderChanges,
}

impl Either for SplitMember {
    type Table = SplitTable;
    const FORMS: &'static str = "a weight or `{ weight = …, when = [{ … }] }`";

    fn from_table(table: SplitTable) -> Self {
        Self(table)
    }

    fn from_number<E: de::Error>(number: i64) -> Result<Self, E> {
        let weight = u32::try_from(number).map_err(|_| Self::unfit(number))?;
        Ok(Self(SplitTable {
            weight: Placed::absent(weight),
            when: Vec::new(),
            rewrite: None,
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
        }))
    }
}

impl<'de> Deserialize<'de> for SplitMember {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

impl Serialize for SplitMember {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for SplitMember {
    fn schema_name() -> Cow<'static, str> {
        "SplitMember".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<SplitTable>();
        json_schema!({ "anyOf": [{ "type": "integer", "minimum": 0 }, table] })
    }
}

/// Conditions on a request; all that is given must hold.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// As in `match`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Named<Placed<ValueMatch>>,
    /// As in `match`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: Named<Placed<ValueMatch>>,
    /// As in `match`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cookies: Named<Placed<ValueMatch>>,
}

/// `rewrite = { … }`: what the instance sees in place of what the client sent.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// The host, with port where one is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Placed<String>>,
    /// The whole path, with the parameters of the route's own: `/v1/orders/{id}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Placed<String>>,
    /// What stands before the `{*rest}` of the route's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Placed<String>>,
}

/// `redirect = { … }`: sends the client elsewhere; what is left out stays as it is.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "found")]
    pub status: Placed<u16>,
    /// `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Placed<String>>,
    /// Without port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Placed<String>>,
    /// Left out: with `scheme` that scheme's own, else the one the client used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Placed<u16>>,
    /// The whole path, with the parameters of the route's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Placed<String>>,
    /// What stands before the `{*rest}` of the route's path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Placed<String>>,
    /// Whether the query is passed on.
    #[serde(default = "kept")]
    pub query: KeepQuery,
}

/// What becomes of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeepQuery {
    /// It is passed on.
    Keep,
    /// It ends here.
    Drop,
}

fn found() -> Placed<u16> {
    Placed::absent(302)
}

fn kept() -> KeepQuery {
    KeepQuery::Keep
}

/// `respond = { … }`: the gateway answers itself.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// From 200 on.
    #[serde(default = "ok")]
    pub status: Placed<u16>,
    /// A text, or `{ file = "…" }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Placed<Text>>,
    /// What the body is.
    #[serde(default = "plain_text")]
    pub content_type: Placed<String>,
}

fn ok() -> Placed<u16> {
    Placed::absent(200)
}

fn plain_text() -> Placed<String> {
    Placed::absent("text/plain; charset=utf-8".to_owned())
}

/// A text, or the file or environment variable that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// As it stands.
    Plain(String),
    /// Read when the configuration is.
    From(Source),
}

impl Either for Text {
    type Table = Source;
    const FORMS: &'static str = "a text or `{ file = \"…\" }`";

    fn from_table(source: Source) -> Self {
        Self::From(source)
    }

    fn from_text<E: de::Error>(text: &str) -> Result<Self, E> {
        Ok(Self::Plain(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(deserializer)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(text) => text.serialize(serializer),
            Self::From(source) => source.serialize(serializer),
        }
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let source = generator.subschema_for::<Source>();
        json_schema!({ "anyOf": [{ "type": "string" }, source] })
    }
}

/// `request_headers = { … }`, `response_headers = { … }`. Values may hold `{variables}`; a brace
/// itself is written twice.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderChanges {
    /// Put in place of what is there; removed where a variable has no value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: Named<Placed<String>>,
    /// Added to what is there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub add: Named<Placed<String>>,
    /// Taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<Placed<String>>,
}

impl HeaderChanges {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// One of `mirror = [{ … }]`: a service that gets copies of requests; its answers are not used.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The service.
    pub service: Placed<String>,
    /// How many of the requests; left out, without `fraction`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<Placed<f64>>,
    /// The same as a fraction, such as `"1/1000"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Placed<String>>,
    /// Requests with larger bodies are not copied.
    #[serde(default = "copied_body")]
    pub body_bytes_max: Placed<Size>,
    /// Copies under way at a time, over all workers; further ones are not made.
    #[serde(default = "copies")]
    pub in_flight_max: Placed<usize>,
}

fn copied_body() -> Placed<Size> {
    Placed::absent(Size(64 << 10))
}

fn copies() -> Placed<usize> {
    Placed::absent(100)
}

/// `cors = { … }`: which other web sites' pages may call the route.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// `https://app.example.com`, `https://*.example.com`, or `*` for all.
    pub origins: Placed<Vec<Placed<String>>>,
    /// `*` for all; left out: the route's methods, or GET, HEAD and POST.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Placed<String>>,
    /// Request headers beside those that are always allowed; `*` for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Placed<String>>,
    /// Response headers pages may read beside those they always may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<Placed<String>>,
    /// Whether requests carry cookies and the like.
    #[serde(default)]
    pub credentials: bool,
    /// How long browsers remember the answer to a preflight.
    #[serde(default = "remembered")]
    pub max_age: Placed<Duration>,
}

fn remembered() -> Placed<Duration> {
    Placed::absent(Duration::from_secs(5))
}
