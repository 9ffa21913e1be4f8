//! A check by the gRPC health checking protocol: `grpc.health.v1.Health/Check`.
//!
//! Its two messages have one field each, so they are written and read here: the request is
//! `string service = 1`, the answer `enum status = 1` where 1 is SERVING.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;

use super::{Failure, Target, USER_AGENT};

const PATH: &str = "/grpc.health.v1.Health/Check";
/// Bytes of an answer; a good one has 7.
const ANSWER_BYTES_MAX: usize = 4096;
/// Before each message: a byte for compression and four for the length.
const FRAME_HEAD_BYTES: usize = 5;
/// Field 1, length-delimited.
const SERVICE_TAG: u8 = 0x0a;
/// Field 1, a number.
const STATUS_TAG: u8 = 0x08;

pub(super) fn request(
    target: &Target,
    service: &str,
    host: Option<&str>,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let host = host.map_or_else(|| target.address.to_string(), ToOwned::to_owned);
    Request::post(format!("{}://{host}{PATH}", target.scheme()))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::new(frame(service)))
}

/// The request message in its frame.
fn frame(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(SERVICE_TAG);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(FRAME_HEAD_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put(message);
    frame.freeze()
}

/// Passes an answer with gRPC status 0 that says SERVING.
pub(super) async fn judge(response: Response<Incoming>) -> Result<(), Failure> {
    if response.status() != StatusCode::OK {
        return Err(Failure::Status(response.status()));
    }
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(Failure::Body)?;
    // An answer without a message has its status among the headers.
    let none = HeaderMap::new();
    let trailers = body.trailers().unwrap_or(&none);
    let status = trailers
        .get("grpc-status")
        .or_else(|| head.headers.get("grpc-status"));
    let status = status.map_or("missing".into(), |status| {
        String::from_utf8_lossy(status.as_bytes()).into_owned()
    });
    if status != "0" {
        return Err(Failure::GrpcStatus(status));
    }
    match serving_status(&body.to_bytes()) {
        1 => Ok(()),
        2 => Err(Failure::GrpcHealth("NOT_SERVING")),
        3 => Err(Failure::GrpcHealth("SERVICE_UNKNOWN")),
        _ => Err(Failure::GrpcHealth("UNKNOWN")),
    }
}

/// The status in an answer; 0 (UNKNOWN) if it has none or cannot be read.
fn serving_status(frame: &[u8]) -> u8 {
    match frame.get(FRAME_HEAD_BYTES..) {
        Some([STATUS_TAG, status, ..]) if frame[0] == 0 => *status,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_framed() {
        assert_eq!(frame("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(frame("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = frame(&"a".repeat(300));
        assert_eq!(
            long[..8],
            [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02],
            "300 as a varint"
        );
    }

    #[test]
    fn answers_are_read() {
        let table: [(&[u8], u8); 5] = [
            (&[0, 0, 0, 0, 2, 8, 1], 1),
            (&[0, 0, 0, 0, 2, 8, 2], 2),
            (&[0, 0, 0, 0, 0], 0),
            (&[1, 0, 0, 0, 2, 8, 1], 0),
            (&[0, 0], 0),
        ];
        for (frame, expected) in table {
            assert_eq!(serving_status(frame), expected, "{frame:?}");
        }
    }
}
