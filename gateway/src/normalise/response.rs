//! One reading of a response: where it ends must be said once.
//!
//! hyper takes the reading RFC 9112 section 6.3 prefers: `Transfer-Encoding` before
//! `Content-Length`, equal lengths as one, an unknown coding up to the end of the connection. The
//! fields it passed over would still be in the head the client gets, about a body that is another
//! by then. Line ends and values need no look: the head is written anew from what hyper has read.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use crate::filter::reject::Reject;

/// Refuses a head that states the length of its body in two ways.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Reject> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next();
    let plain = match (length, coding) {
        (None, None) => true,
        (Some(length), None) => is_length(length.as_bytes()) && lengths.next().is_none(),
        (None, Some(coding)) => {
            coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none()
        }
        (Some(_), Some(_)) => false,
    };
    if plain {
        Ok(())
    } else {
        Err(Reject::UpstreamFraming)
    }
}

/// One decimal number: no sign, no list.
fn is_length(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn the_length_is_said_once() {
        let table: [(&[(&str, &str)], bool); 11] = [
            (&[], true),
            (&[("content-length", "5")], true),
            (&[("transfer-encoding", "Chunked")], true),
            (&[("content-length", "5, 5")], false),
            (&[("content-length", "5"), ("content-length", "5")], false),
            (&[("content-length", "+5")], false),
            (&[("content-length", "")], false),
            (
                &[("content-length", "5"), ("transfer-encoding", "chunked")],
                false,
            ),
            (&[("transfer-encoding", "gzip, chunked")], false),
            (&[("transfer-encoding", "identity")], false),
            (
                &[
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
                false,
            ),
        ];
        for (fields, plain) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, value.parse().unwrap());
            }
            assert_eq!(check(&headers).is_ok(), plain, "{fields:?}");
        }
    }
}
