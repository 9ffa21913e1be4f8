//! Values of clients made harmless: nothing they contain ends a line, a field or a text early.

use std::io::Write as _;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Which bytes stand in a JSON text as they are.
const PLAIN_IN_JSON: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        plain[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    plain
};

/// Adds `value` as a JSON text, quotes included. Bytes that are no UTF-8 become U+FFFD; control
/// characters, those of Unicode too, are escaped, so that a terminal obeys none.
pub(super) fn json(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    // Nearly every value is plain, and is copied as a whole.
    if value.iter().all(|byte| PLAIN_IN_JSON[usize::from(*byte)]) {
        out.extend_from_slice(value);
    } else {
        for letter in String::from_utf8_lossy(value).chars() {
            json_letter(out, letter);
        }
    }
    out.push(b'"');
}

fn json_letter(out: &mut Vec<u8>, letter: char) {
    match letter {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        letter if letter.is_control() || is_invisible(letter) => {
            // All of these lie below U+10000. Writing to a vector cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(letter));
        }
        letter => {
            let mut bytes = [0; 4];
            out.extend_from_slice(letter.encode_utf8(&mut bytes).as_bytes());
        }
    }
}

/// Line separators, and marks that turn the direction of text around.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Adds `value` to a line of text: everything but printable ASCII becomes `\xHH`, and so do quotes
/// and backslashes. Outside of quotes the space is escaped too, since it ends the field.
pub(super) fn text(out: &mut Vec<u8>, value: &[u8], quoted: bool) {
    let plain = |byte: u8| match byte {
        b'"' | b'\\' => false,
        b' ' => quoted,
        byte => matches!(byte, b'!'..=b'~'),
    };
    if value.iter().all(|byte| plain(*byte)) {
        out.extend_from_slice(value);
        return;
    }
    for byte in value {
        if plain(*byte) {
            out.push(*byte);
        } else {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\x");
            out.extend_from_slice(&digits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_texts_hold_whatever_a_client_sends() {
        let table: [(&[u8], &str); 8] = [
            (b"plain /~", r#""plain /~""#),
            (b"", r#""""#),
            (b"a\"b\\c", r#""a\"b\\c""#),
            (b"a\r\n\tb", r#""a\r\n\tb""#),
            (b"\x00\x1b[31m\x7f", r#""\u0000\u001b[31m\u007f""#),
            ("gr\u{fc}n \u{1f600}".as_bytes(), "\"gr\u{fc}n \u{1f600}\""),
            (b"\xff\xfe", "\"\u{fffd}\u{fffd}\""),
            (
                "\u{85}\u{2028}\u{202e}".as_bytes(),
                r#""\u0085\u2028\u202e""#,
            ),
        ];
        for (value, expected) in table {
            let mut out = Vec::new();
            json(&mut out, value);
            assert_eq!(String::from_utf8(out.clone()).unwrap(), expected);
            let read: String = serde_json::from_slice(&out).unwrap();
            assert_eq!(read, String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn texts_keep_to_their_field() {
        let table: [(&[u8], &str, &str); 5] = [
            (b"plain", "plain", "plain"),
            (b"a b", "a b", r"a\x20b"),
            (b"\" 200 \"", r"\x22 200 \x22", r"\x22\x20200\x20\x22"),
            (b"a\r\nb\\n", r"a\x0d\x0ab\x5cn", r"a\x0d\x0ab\x5cn"),
            ("\u{fc}".as_bytes(), r"\xc3\xbc", r"\xc3\xbc"),
        ];
        for (value, quoted, bare) in table {
            for (within, expected) in [(true, quoted), (false, bare)] {
                let mut out = Vec::new();
                text(&mut out, value, within);
                assert_eq!(String::from_utf8(out).unwrap(), expected);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn every_value_stays_on_its_line(value in proptest::collection::vec(0_u8.., 0..64)) {
            let (mut as_json, mut as_text) = (Vec::new(), Vec::new());
            json(&mut as_json, &value);
            text(&mut as_text, &value, false);
            let read: String = serde_json::from_slice(&as_json).unwrap();
            proptest::prop_assert_eq!(read, String::from_utf8_lossy(&value));
            proptest::prop_assert!(!as_json.contains(&b'\n'));
            proptest::prop_assert!(as_text.iter().all(|byte| matches!(byte, b'!'..=b'~')));
        }
    }
}
