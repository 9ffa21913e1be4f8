//! Which path a request is for, in one normal form.
//!
//! Escapes of unreserved characters are decoded, other escapes written in upper case, and
//! characters that belong into no path are escaped (RFC 3986 section 6.2.2). What is left are the
//! spellings servers differ on: dot segments, empty segments, escaped slashes, backslashes,
//! parameters. The configuration says of each whether it is refused ([`PathRules`]). A route that
//! matches `/admin/*` thus sees every spelling of it that any instance could understand.

use http::Uri;
use http::uri::PathAndQuery;

use crate::config::{DotSegments, EmptySegments, PathRules, RefuseOrKeep};
use crate::filter::reject::Reject;

/// What a byte of a path calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Class {
    /// Nothing: it stands for itself (`pchar` of RFC 3986).
    Plain,
    /// `/` and `.`: nothing, unless the byte before was a slash.
    SlashOrDot,
    /// `%`, `\`, `;`, and what should have been escaped.
    Odd,
    /// Bytes that no target holds.
    Never,
}

const CLASS: [Class; 256] = {
    let mut table = [Class::Never; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => Class::Plain,
            b'-' | b'_' | b'~' | b':' | b'@' => Class::Plain,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' => Class::Plain,
            b'/' | b'.' => Class::SlashOrDot,
            b'#' | b'?' => Class::Never,
            _ => Class::Odd,
        };
        byte += 1;
    }
    table
};

/// Brings the URI into origin form with a path in normal form.
pub(crate) fn settle(uri: &mut Uri, bytes_max: usize, rules: PathRules) -> Result<(), Reject> {
    let path = uri.path();
    let query = uri.query();
    if path.len() + query.map_or(0, |query| query.len() + 1) > bytes_max {
        return Err(Reject::UriTooLong);
    }
    if query.is_some_and(|query| !query.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(Reject::BadTarget);
    }
    let normal = normal(path, rules)?;
    if normal.is_none() && uri.authority().is_none() {
        return Ok(());
    }
    let path = normal.as_deref().unwrap_or(path);
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let target = PathAndQuery::try_from(target).map_err(|_| Reject::BadTarget)?;
    *uri = Uri::from(target);
    Ok(())
}

/// The normal form of a path, or `None` if it is in normal form already.
fn normal(path: &str, rules: PathRules) -> Result<Option<String>, Reject> {
    if path == "*" {
        return Err(Reject::AsteriskForm);
    }
    if !path.starts_with('/') {
        return Err(Reject::BadTarget);
    }
    if is_plain(path) {
        return Ok(None);
    }
    let escaped = settle_escapes(path, rules)?;
    let settled = settle_segments(&escaped, rules)?;
    Ok((settled != path).then_some(settled))
}

/// Whether the path is in normal form for certain, whatever the rules: nearly all are.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.bytes().all(|byte| {
        let plain = match CLASS[usize::from(byte)] {
            Class::Plain => true,
            Class::SlashOrDot => before != b'/',
            Class::Odd | Class::Never => false,
        };
        before = byte;
        plain
    })
}

fn settle_escapes(path: &str, rules: PathRules) -> Result<String, Reject> {
    let bytes = path.as_bytes();
    let mut settled = String::with_capacity(path.len() + 16);
    let mut at = 0;
    let mut before_overlong = false;
    while at < bytes.len() {
        let escaped = bytes[at] == b'%';
        let byte = if escaped {
            let digits = bytes.get(at + 1..at + 3).and_then(parse_hex);
            digits.ok_or(Reject::PathEscape)?
        } else {
            bytes[at]
        };
        at += if escaped { 3 } else { 1 };
        // 0xC0 and 0xC1 start a sequence that is no UTF-8: lenient decoders make ASCII of it.
        if before_overlong && escaped && (0x80..=0xbf).contains(&byte) {
            return Err(Reject::PathOverlong);
        }
        before_overlong = escaped && matches!(byte, 0xc0 | 0xc1);
        settle_byte(&mut settled, byte, escaped, rules)?;
    }
    Ok(settled)
}

fn settle_byte(
    settled: &mut String,
    byte: u8,
    escaped: bool,
    rules: PathRules,
) -> Result<(), Reject> {
    let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match byte {
        0..=0x1f | 0x7f if escaped => return Err(Reject::PathControl),
        b'/' if escaped && rules.encoded_slashes == RefuseOrKeep::Refuse => {
            return Err(Reject::PathEncodedSlash);
        }
        b'\\' if rules.backslashes == RefuseOrKeep::Refuse => return Err(Reject::PathBackslash),
        b';' if rules.parameters == RefuseOrKeep::Refuse => return Err(Reject::PathParameter),
        _ if unreserved => settled.push(char::from(byte)),
        _ if !escaped => match CLASS[usize::from(byte)] {
            Class::Never => return Err(Reject::BadTarget),
            Class::Odd if byte != b';' => push_escape(settled, byte),
            _ => settled.push(char::from(byte)),
        },
        _ => push_escape(settled, byte),
    }
    Ok(())
}

fn push_escape(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    for digit in [byte >> 4, byte & 0xf] {
        text.push(char::from(DIGITS[usize::from(digit)]));
    }
}

fn parse_hex(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | digit as u8)
    })
}

/// Settles dot segments and empty segments of a path whose escapes are settled.
fn settle_segments(path: &str, rules: PathRules) -> Result<String, Reject> {
    let mut kept: Vec<&str> = Vec::new();
    let mut rest = path[1..].split('/').peekable();
    while let Some(segment) = rest.next() {
        let last = rest.peek().is_none();
        if segment.is_empty() && !last {
            match rules.empty_segments {
                EmptySegments::Refuse => return Err(Reject::PathEmptySegment),
                EmptySegments::Merge => continue,
                EmptySegments::Keep => kept.push(segment),
            }
            continue;
        }
        let Some(up) = dots(segment)? else {
            kept.push(segment);
            continue;
        };
        if rules.dot_segments == DotSegments::Refuse {
            return Err(Reject::PathDotSegment);
        }
        if up {
            remove_last(&mut kept, path)?;
        }
        if last {
            // `/a/..` is `/`, not nothing (RFC 3986 section 5.2.4).
            kept.push("");
        }
    }
    Ok(format!("/{}", kept.join("/")))
}

/// Takes back the segment before `..`. Refused where there is none, and where servers differ on
/// which one that is: beside an empty segment it depends on whether slashes are merged first.
fn remove_last(kept: &mut Vec<&str>, path: &str) -> Result<(), Reject> {
    let removed = kept.pop().ok_or(Reject::PathDotSegment)?;
    if removed.is_empty() || path.contains("//") {
        return Err(Reject::PathDotSegment);
    }
    Ok(())
}

/// Whether a segment is `..` (true) or `.` (false). Refused: dots that only some servers see,
/// behind an escaped slash or backslash, or before a parameter.
fn dots(segment: &str) -> Result<Option<bool>, Reject> {
    match segment {
        "." => return Ok(Some(false)),
        ".." => return Ok(Some(true)),
        _ if !segment.contains('.') => return Ok(None),
        _ => {}
    }
    let pieces = segment.split("%2F").flat_map(|piece| piece.split("%5C"));
    for piece in pieces {
        let name = piece.split(';').next().unwrap_or_default();
        let name = name.split("%3B").next().unwrap_or_default();
        if name == "." || name == ".." {
            return Err(Reject::PathDotSegment);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
