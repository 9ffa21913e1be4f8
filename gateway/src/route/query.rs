//! Parameters in the query of a URL, as forms write them: `a=1&b=two%20words`.
//!
//! Names and values are compared decoded, so that no spelling of a parameter slips past a route;
//! the query itself is passed on as it was sent.

use std::borrow::Cow;

/// The first value of a parameter, decoded; `name` is plain text. A parameter without `=` has an
/// empty value.
pub(crate) fn first<'q>(query: Option<&'q str>, name: &str) -> Option<Cow<'q, [u8]>> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // Empty pairs, as in `a=1&&b=2`, are no parameters with an empty name.
        (!pair.is_empty() && *decoded(key) == *name.as_bytes()).then(|| decoded(value))
    })
}

/// Escapes and `+` resolved; escapes that are none stay as they are.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        let escape = |digits: &[u8]| {
            let digit = |place: usize| char::from(*digits.get(place)?).to_digit(16);
            u8::try_from(digit(0)? << 4 | digit(1)?).ok()
        };
        let (byte, after) = match (*first, escape(others)) {
            (b'+', _) => (b' ', others),
            (b'%', Some(byte)) => (byte, &others[2..]),
            (byte, _) => (byte, others),
        };
        bytes.push(byte);
        rest = after;
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_and_decoded() {
        let cases = [
            ("a=1", "a", Some("1")),
            ("a=1&a=2", "a", Some("1")),
            ("b=1&a=2", "a", Some("2")),
            ("a", "a", Some("")),
            ("a=", "a", Some("")),
            ("a=b=c", "a", Some("b=c")),
            ("a=two%20words+or%2bmore", "a", Some("two words or+more")),
            ("%61=1", "a", Some("1")),
            ("a%3D=1", "a=", Some("1")),
            ("a=%zz%4", "a", Some("%zz%4")),
            ("aa=1", "a", None),
            ("A=1", "a", None),
            ("", "a", None),
            ("&&", "", None),
        ];
        for (query, name, expected) in cases {
            let found = first(Some(query), name);
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{query}");
        }
        assert_eq!(first(None, "a"), None);
    }
}
