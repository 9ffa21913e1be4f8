//! Configuration as typed: the shape of `weir.toml`, with the place of everything that may be wrong.
//!
//! Only shape is decided here: keys, and whether a value is text, a number or a table. What values
//! mean is decided in `check`.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::error::Mistake;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) agent: Option<Spanned<Agent>>,
    #[serde(default)]
    pub(super) vips: BTreeMap<Spanned<String>, Vip>,
}

/// `[agent]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    pub(super) interfaces: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) metrics: Option<Spanned<String>>,
    pub(super) socket: Option<Spanned<String>>,
    pub(super) bpffs: Option<Spanned<String>>,
    pub(super) xdp_mode: Option<Spanned<String>>,
    pub(super) source_v4: Option<Spanned<String>>,
    pub(super) source_v6: Option<Spanned<String>>,
    pub(super) hash_secret: Option<Spanned<Secret>>,
    pub(super) settle_after: Option<Spanned<String>>,
    pub(super) settle_deadline: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) limits: Limits,
}

/// `hash_secret = { file = "…" }` or `{ env = "…" }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Secret {
    pub(super) file: Option<Spanned<String>>,
    pub(super) env: Option<Spanned<String>>,
}

/// `[agent.limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) vips_max: Option<Spanned<i64>>,
    pub(super) backends_max: Option<Spanned<i64>>,
    pub(super) ring_slots_max: Option<Spanned<i64>>,
    pub(super) exceptions_max: Option<Spanned<i64>>,
    pub(super) flows_max: Option<Spanned<i64>>,
    pub(super) inserts_per_second_max: Option<Spanned<i64>>,
}

/// `[vips.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vip {
    pub(super) address: Option<Spanned<String>>,
    pub(super) forward: Option<Spanned<String>>,
    pub(super) hash: Option<Spanned<String>>,
    pub(super) ring_size: Option<Spanned<i64>>,
    pub(super) table: Option<Spanned<String>>,
    pub(super) tracking: Option<Spanned<String>>,
    pub(super) health: Option<Spanned<Health>>,
    #[serde(default)]
    pub(super) backends: BTreeMap<Spanned<String>, Backend>,
}

/// `health = { … }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    pub(super) tcp: Option<Spanned<bool>>,
    pub(super) http: Option<Spanned<String>>,
    pub(super) host: Option<Spanned<String>>,
    pub(super) status: Option<Spanned<String>>,
    pub(super) port: Option<Spanned<i64>>,
    pub(super) every: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) fall: Option<Spanned<i64>>,
    pub(super) rise: Option<Spanned<i64>>,
}

/// `NAME = { … }` under `[vips.NAME.backends]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backend {
    pub(super) address: Option<Spanned<String>>,
    pub(super) weight: Option<Spanned<i64>>,
}

/// Reads the text into its shape, up to the first thing that does not fit.
pub(super) fn parse(text: &str) -> Result<File, (Range<usize>, Mistake)> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        (span, mistake(error.message()))
    })
}

/// Adds what to do to the deserializer's words.
fn mistake(message: &str) -> Mistake {
    // A syntax error tells what was expected on a second line.
    let message = message
        .trim()
        .replace('\n', ", ")
        .replace("expected i64", "expected a number");
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return unknown_key(rest);
    }
    let hint = if message == "duplicate key" {
        "the key stands further up already: remove one of them"
    } else if message.contains("expected a string") {
        "text, addresses and durations stand in double quotes"
    } else if message.starts_with("invalid type: string") {
        "numbers, true and false stand without quotes"
    } else {
        "the file is TOML, see https://toml.io; weir.toml in the examples shows every key"
    };
    Mistake::new(message, hint)
}

/// Rephrases "`weigth`, expected one of `address`, `weight`" and finds the key that was meant.
fn unknown_key(rest: &str) -> Mistake {
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let typed = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    let reason = format!("unknown key `{typed}`");
    match nearest(typed, known.iter().copied()) {
        Some(key) => Mistake::new(reason, format!("did you mean `{key}`?")),
        None => Mistake::new(reason, format!("known keys here: {}", known.join(", "))),
    }
}

/// The one of `known` that `typed` is most likely a misspelling of.
pub(super) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|key| (strsim::damerau_levenshtein(typed, key), key))
        .min()
        .filter(|(distance, key)| *distance <= key.len().max(3) / 3)
        .map(|(_, key)| key)
}
