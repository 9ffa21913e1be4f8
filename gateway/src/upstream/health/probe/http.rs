//! A check by `GET`: the status decides, and what the body says where that is asked for.

use std::ops::RangeInclusive;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::{Failure, Target, USER_AGENT};
use crate::config::UpstreamProtocol;

/// Bytes of an answer in which the expected text must stand.
const BODY_BYTES_MAX: usize = 64 * 1024;

pub(super) fn request(
    target: &Target,
    path: &str,
    host: Option<&str>,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let host = host.map_or_else(|| target.address.to_string(), ToOwned::to_owned);
    let request = match target.protocol {
        UpstreamProtocol::Http1 => Request::get(path)
            .header(header::HOST, host)
            .header(header::CONNECTION, "close"),
        UpstreamProtocol::Http2 => Request::get(format!("{}://{host}{path}", target.scheme())),
    };
    request
        .header(header::USER_AGENT, USER_AGENT)
        .body(Full::default())
}

/// Passes an answer with one of `statuses` and, if given, `text` in its body.
pub(super) async fn judge(
    response: Response<Incoming>,
    statuses: &[RangeInclusive<u16>],
    text: Option<&str>,
) -> Result<(), Failure> {
    let status = response.status();
    if !statuses
        .iter()
        .any(|range| range.contains(&status.as_u16()))
    {
        return Err(Failure::Status(status));
    }
    match text {
        Some(text) => find(response.into_body(), text.as_bytes()).await,
        None => Ok(()),
    }
}

async fn find(mut body: Incoming, text: &[u8]) -> Result<(), Failure> {
    let mut seen = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Failure::Http)?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        // The text may begin in what was looked through before.
        let from = seen.len().saturating_sub(text.len());
        let room = BODY_BYTES_MAX - seen.len();
        seen.extend_from_slice(&data[..data.len().min(room)]);
        if seen[from..]
            .windows(text.len())
            .any(|window| window == text)
        {
            return Ok(());
        }
        if seen.len() == BODY_BYTES_MAX {
            break;
        }
    }
    Err(Failure::Text(BODY_BYTES_MAX))
}
