//! One reading of a response: where it ends must be said once.
//!
//! RFC 9112 section 6.3 allows to prefer one reading: `Transfer-Encoding` before `Content-Length`,
//! equal lengths as one, an unknown coding up to the end of the connection. The fields that were
//! passed over would still be in the head the client gets, about a body that is another by then.
//! Line ends and values need no look: the head is written anew from what was read.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use crate::filter::reject::Reject;

/// What a head says of the length of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// So many bytes.
    Exact(u64),
    /// Chunks say.
    Chunked,
}

/// What the head says of the length of its body, if it does. Refuses one that says it in two ways,
/// or in another than these.
pub(crate) fn length(headers: &HeaderMap) -> Result<Option<Length>, Reject> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next();
    let read = match (length, coding) {
        (None, None) => return Ok(None),
        (Some(length), None) if lengths.next().is_none() => {
            decimal(length.as_bytes()).map(Length::Exact)
        }
        (None, Some(coding)) if codings.next().is_none() => {
            let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            chunked.then_some(Length::Chunked)
        }
        _ => None,
    };
    read.map(Some).ok_or(Reject::UpstreamFraming)
}

/// One decimal number: no sign, no list.
fn decimal(value: &[u8]) -> Option<u64> {
    let digit = |number: u64, byte: &u8| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    };
    (!value.is_empty()).then(|| value.iter().try_fold(0, digit))?
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn the_length_is_said_once() {
        let (cl, te) = ("content-length", "transfer-encoding");
        let exact = |bytes| Ok(Some(Length::Exact(bytes)));
        // The fields, and the length; an error where there is none that all agree on.
        type Case<'a> = (&'a [(&'a str, &'a str)], Result<Option<Length>, ()>);
        let table: [Case<'_>; 14] = [
            (&[], Ok(None)),
            (&[(cl, "0")], exact(0)),
            (&[(cl, "005")], exact(5)),
            (&[(cl, "18446744073709551615")], exact(u64::MAX)),
            (&[(cl, "18446744073709551616")], Err(())),
            (&[(te, "Chunked")], Ok(Some(Length::Chunked))),
            (&[(cl, "5, 5")], Err(())),
            (&[(cl, "5"), (cl, "5")], Err(())),
            (&[(cl, "+5")], Err(())),
            (&[(cl, "")], Err(())),
            (&[(cl, "5"), (te, "chunked")], Err(())),
            (&[(te, "gzip, chunked")], Err(())),
            (&[(te, "identity")], Err(())),
            (&[(te, "chunked"), (te, "chunked")], Err(())),
        ];
        for (fields, expected) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, value.parse().unwrap());
            }
            assert_eq!(length(&headers).map_err(drop), expected, "{fields:?}");
        }
    }
}
