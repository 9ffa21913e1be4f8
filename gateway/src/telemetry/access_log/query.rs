//! Queries without the values that do not belong in a log.

/// What stands in the place of a value.
const REDACTED: &str = "***";

/// The query with the values of `redact`ed parameters replaced. Names are compared as a server
/// would read them: percent-decoded, and without regard to case.
pub(super) fn redacted(query: &str, redact: &[Box<str>], out: &mut Vec<u8>) {
    for (index, parameter) in query.split('&').enumerate() {
        if index > 0 {
            out.push(b'&');
        }
        let named = parameter.split_once('=');
        match named.filter(|(name, _)| redact.iter().any(|secret| is(name, secret))) {
            Some((name, _)) => {
                out.extend_from_slice(name.as_bytes());
                out.push(b'=');
                out.extend_from_slice(REDACTED.as_bytes());
            }
            None => out.extend_from_slice(parameter.as_bytes()),
        }
    }
}

/// Whether an encoded name is this one.
fn is(encoded: &str, name: &str) -> bool {
    let mut left = encoded.as_bytes();
    for wanted in name.bytes() {
        let (byte, rest) = match left {
            [b'%', high, low, rest @ ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, rest),
                _ => return false,
            },
            [byte, rest @ ..] => (*byte, rest),
            [] => return false,
        };
        if !byte.eq_ignore_ascii_case(&wanted) {
            return false;
        }
        left = rest;
    }
    left.is_empty()
}

fn digit(letter: u8) -> Option<u8> {
    char::from(letter).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out_however_their_name_is_written() {
        let redact = ["token".into(), "pass".into()];
        let table = [
            ("", ""),
            ("a=1&b=2", "a=1&b=2"),
            ("token=abc", "token=***"),
            ("a=1&TOKEN=abc&b=2", "a=1&TOKEN=***&b=2"),
            ("%74oken=abc&t%6Fken=x", "%74oken=***&t%6Fken=***"),
            ("token", "token"),
            ("token=", "token=***"),
            (
                "tokens=1&xtoken=2&%zztoken=3",
                "tokens=1&xtoken=2&%zztoken=3",
            ),
            ("pass=a=b&&x", "pass=***&&x"),
        ];
        for (query, expected) in table {
            let mut out = Vec::new();
            redacted(query, &redact, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{query}");
        }
    }
}
