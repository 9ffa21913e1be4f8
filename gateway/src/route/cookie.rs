//! Cookies of a request (RFC 6265 section 5.4), of one `Cookie` field or of several.

use http::HeaderMap;
use http::header::COOKIE;

/// The first value of a cookie, without the quotes that may stand around it.
pub(crate) fn first<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let fields = headers.get_all(COOKIE).iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&pair[..equals], &pair[equals + 1..]);
        (key == name.as_bytes()).then(|| unquoted(value))
    });
    values.next()
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn cookies_are_found_in_all_fields() {
        let cases: [(&[&str], &str, Option<&str>); 9] = [
            (&["a=1"], "a", Some("1")),
            (&["a=1; b=2"], "b", Some("2")),
            (&["a=1;b=2"], "b", Some("2")),
            (&["a=1", "b=2"], "b", Some("2")),
            (&["a=\"1 2\""], "a", Some("1 2")),
            (&["a=b=c"], "a", Some("b=c")),
            (&["aa=1; ba=2"], "a", None),
            (&["a"], "a", None),
            (&["a=1; a=2"], "a", Some("1")),
        ];
        for (fields, name, expected) in cases {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(COOKIE, HeaderValue::from_str(field).unwrap());
            }
            let found = first(&headers, name);
            assert_eq!(found, expected.map(str::as_bytes), "{fields:?}");
        }
    }
}
