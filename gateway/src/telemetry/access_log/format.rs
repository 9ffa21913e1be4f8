//! How a line is written: as a JSON object, or by a template.

use std::io::Write as _;

use super::clock::{Clock, digits};
use super::escape;
use super::field::{Field, Line, NoField, Value};
use super::query;

/// Templates under a name, as Apache and nginx know them.
pub const PRESETS: [(&str, &str); 2] = [
    (
        "common",
        "{client} - {subject} [{time_common}] \"{request}\" {status} {bytes_out}",
    ),
    (
        "combined",
        "{client} - {subject} [{time_common}] \"{request}\" {status} {bytes_out} \
         \"{request.referer}\" \"{request.user-agent}\"",
    ),
];

/// How lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    shape: Shape,
    /// Parameters of queries whose values are left out.
    redact: Vec<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    /// Fields with what is written before their values: a comma, the key in quotes, a colon.
    Json(Vec<(Box<[u8]>, Field)>),
    Template(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<[u8]>),
    /// A field, and whether it stands between quotes.
    Field(Field, bool),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadTemplate {
    /// A `{` without `}`, or the other way round.
    Unbalanced,
    /// Between braces stands no field.
    Field(String, NoField),
    /// A control character, which would break lines apart.
    Control,
}

impl Format {
    /// A JSON object of these fields, each with its key.
    pub fn json<'n>(
        fields: impl IntoIterator<Item = (&'n str, Field)>,
        redact: Vec<Box<str>>,
    ) -> Self {
        let fields = fields.into_iter().map(|(key, field)| {
            let mut text = vec![b','];
            escape::json(&mut text, key.as_bytes());
            text.push(b':');
            (text.into(), field)
        });
        Self {
            shape: Shape::Json(fields.collect()),
            redact,
        }
    }

    /// Text with fields in braces; `{{` and `}}` are braces themselves.
    pub fn template(text: &str, redact: Vec<Box<str>>) -> Result<Self, BadTemplate> {
        if text.chars().any(char::is_control) {
            return Err(BadTemplate::Control);
        }
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        let mut quoted = false;
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            match letter {
                '{' | '}' if rest.starts_with(letter) => {
                    literal.push(letter);
                    rest = &rest[1..];
                }
                '{' => {
                    let (name, after) = rest.split_once('}').ok_or(BadTemplate::Unbalanced)?;
                    let field = Field::parse(name);
                    let field = field.map_err(|why| BadTemplate::Field(name.to_owned(), why))?;
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(
                            std::mem::take(&mut literal).into_bytes().into(),
                        ));
                    }
                    pieces.push(Piece::Field(field, quoted));
                    rest = after;
                }
                '}' => return Err(BadTemplate::Unbalanced),
                letter => {
                    quoted ^= letter == '"';
                    literal.push(letter);
                }
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.into_bytes().into()));
        }
        Ok(Self {
            shape: Shape::Template(pieces),
            redact,
        })
    }

    /// The fields a line shows.
    pub(super) fn fields(&self) -> Vec<&Field> {
        match &self.shape {
            Shape::Json(fields) => fields.iter().map(|(_, field)| field).collect(),
            Shape::Template(pieces) => {
                let fields = pieces.iter().filter_map(|piece| match piece {
                    Piece::Field(field, _) => Some(field),
                    Piece::Text(_) => None,
                });
                fields.collect()
            }
        }
    }

    /// Adds a line, its end included. `scratch` is room for parts that are put together.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        line: &Line<'_>,
        clock: &Clock,
        scratch: &mut Vec<u8>,
    ) {
        match &self.shape {
            Shape::Json(fields) => {
                let start = out.len();
                for (key, field) in fields {
                    let value = Value::of(field, line);
                    if !matches!(value, Value::None) {
                        out.extend_from_slice(key);
                        self.json_value(out, field, &value, line, clock, scratch);
                    }
                }
                // The first field's comma stands where the object begins.
                match out.get_mut(start) {
                    Some(comma) => *comma = b'{',
                    None => out.push(b'{'),
                }
                out.push(b'}');
            }
            Shape::Template(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => out.extend_from_slice(text),
                        Piece::Field(field, quoted) => {
                            self.text_value(out, (field, *quoted), line, clock, scratch);
                        }
                    }
                }
            }
        }
        out.push(b'\n');
    }

    fn json_value(
        &self,
        out: &mut Vec<u8>,
        field: &Field,
        value: &Value<'_>,
        line: &Line<'_>,
        clock: &Clock,
        scratch: &mut Vec<u8>,
    ) {
        // Most values are text of our own, which takes the shortest way.
        if !matches!(value, Value::Plain(_)) {
            if bare(out, value, line) {
                return;
            }
            if let Some(text) = self.composed(field, value, line, scratch) {
                escape::json(out, text);
                return;
            }
        }
        out.push(b'"');
        plain(out, value, line, clock);
        out.push(b'"');
    }

    fn text_value(
        &self,
        out: &mut Vec<u8>,
        (field, quoted): (&Field, bool),
        line: &Line<'_>,
        clock: &Clock,
        scratch: &mut Vec<u8>,
    ) {
        let value = Value::of(field, line);
        match self.composed(field, &value, line, scratch) {
            Some([]) => out.push(b'-'),
            Some(text) => escape::text(out, text, quoted),
            None if bare(out, &value, line) => {}
            None => plain(out, &value, line, clock),
        }
    }

    /// The text of a value that needs escapes.
    fn composed<'t>(
        &self,
        field: &Field,
        value: &Value<'t>,
        line: &Line<'_>,
        scratch: &'t mut Vec<u8>,
    ) -> Option<&'t [u8]> {
        scratch.clear();
        match value {
            // The query of the page a request came from is a query too.
            Value::Text(text) if field.is_address() => {
                let text = String::from_utf8_lossy(text);
                let (before, query) = match text.split_once('?') {
                    Some((before, query)) => (before, Some(query)),
                    None => (&*text, None),
                };
                scratch.extend_from_slice(before.as_bytes());
                self.add_query(query, scratch);
            }
            Value::Text(text) => return Some(text),
            Value::Query => {
                let query = line.captured.and_then(|read| read.query.as_deref());
                query::redacted(query.unwrap_or_default(), &self.redact, scratch);
            }
            Value::Target => self.target(line, scratch),
            Value::RequestLine => {
                scratch.extend_from_slice(line.method.as_bytes());
                scratch.push(b' ');
                self.target(line, scratch);
                scratch.push(b' ');
                scratch.extend_from_slice(line.protocol.as_bytes());
            }
            _ => return None,
        }
        Some(scratch)
    }

    fn target(&self, line: &Line<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(line.path.as_bytes());
        self.add_query(line.captured.and_then(|read| read.query.as_deref()), out);
    }

    fn add_query(&self, query: Option<&str>, out: &mut Vec<u8>) {
        if let Some(query) = query {
            out.push(b'?');
            query::redacted(query, &self.redact, out);
        }
    }
}

/// Adds a value that stands without quotes in JSON too; `false`: it is none.
fn bare(out: &mut Vec<u8>, value: &Value<'_>, line: &Line<'_>) -> bool {
    let mut number = itoa::Buffer::new();
    match value {
        Value::Number(value) => out.extend_from_slice(number.format(*value).as_bytes()),
        Value::Millis(micros) => {
            out.extend_from_slice(number.format(micros / 1000).as_bytes());
            out.push(b'.');
            digits::<3>(out, (micros % 1000) as u32);
        }
        Value::Seconds(micros) => {
            out.extend_from_slice(number.format(micros / 1_000_000).as_bytes());
            out.push(b'.');
            digits::<6>(out, (micros % 1_000_000) as u32);
        }
        Value::TimeUnix => Clock::unix(out, line.time),
        _ => return false,
    }
    true
}

/// Adds a text that needs no escapes.
fn plain(out: &mut Vec<u8>, value: &Value<'_>, line: &Line<'_>, clock: &Clock) {
    match value {
        Value::Plain(text) => out.extend_from_slice(text),
        Value::Address(std::net::IpAddr::V4(address)) => {
            let mut number = itoa::Buffer::new();
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(number.format(octet).as_bytes());
            }
        }
        // Writing to a vector cannot fail.
        Value::Address(address) => drop(write!(out, "{address}")),
        Value::Socket(address) => drop(write!(out, "{address}")),
        Value::Time => clock.rfc3339(out, line.time),
        Value::TimeCommon => clock.common(out, line.time),
        _ => out.push(b'-'),
    }
}

#[cfg(test)]
mod tests;
