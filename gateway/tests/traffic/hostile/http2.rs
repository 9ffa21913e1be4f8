//! The same for instances that are spoken to in HTTP/2.

use tokio::io::AsyncReadExt;

use super::expected::Expected::{Body, Broken};
use super::expected::{self, Expected, INVALID, TIMEOUT};
use crate::support::hostile::{Connection, End, Hostile};

/// Bytes of the preface a client begins with (RFC 9113 section 3.4).
const PREFACE_BYTES: usize = 24;
/// The type of a HEADERS frame.
const HEADERS: u8 = 1;
/// `:status: 200`, from the static table of HPACK (RFC 7541 appendix A).
const STATUS_200: &[u8] = &[0x88];

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, stream]);
    frame.extend(payload);
    frame
}

fn settings() -> Vec<u8> {
    frame(4, 0, 0, &[])
}

fn reset(code: u8) -> Vec<u8> {
    frame(3, 0, 1, &[0, 0, 0, code])
}

fn good_head() -> Vec<u8> {
    frame(HEADERS, 4, 1, STATUS_200)
}

/// What each sends once a request has come, and how the connection ends.
fn habits() -> Vec<(&'static str, Vec<Vec<u8>>, End, Expected)> {
    let old = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec();
    vec![
        ("closes", vec![], End::Close, INVALID),
        ("resets", vec![], End::Reset, INVALID),
        ("hangs", vec![], End::Hang, TIMEOUT),
        ("settings, and a hang", vec![settings()], End::Hang, TIMEOUT),
        (
            "settings, and an end",
            vec![settings()],
            End::Close,
            INVALID,
        ),
        ("HTTP/1.1", vec![old], End::Hang, INVALID),
        ("garbage", vec![vec![0xff; 100]], End::Hang, INVALID),
        (
            "a refused stream",
            vec![settings(), reset(7)],
            End::Hang,
            INVALID,
        ),
        (
            "an internal error",
            vec![settings(), reset(2)],
            End::Hang,
            INVALID,
        ),
        (
            "go away",
            vec![settings(), frame(7, 0, 0, &[0; 8])],
            End::Close,
            INVALID,
        ),
        (
            "a head that cannot be read",
            vec![settings(), frame(HEADERS, 4, 1, &[0xff; 8])],
            End::Hang,
            INVALID,
        ),
        (
            "a head without status",
            vec![settings(), frame(HEADERS, 5, 1, &[])],
            End::Hang,
            INVALID,
        ),
        (
            "a body without a head",
            vec![settings(), frame(0, 1, 1, b"ok")],
            End::Hang,
            INVALID,
        ),
        (
            "a body that is reset",
            vec![settings(), good_head(), frame(0, 0, 1, b"ha"), reset(2)],
            End::Hang,
            Broken("upstream-broken"),
        ),
        (
            "a body that ends with the connection",
            vec![settings(), good_head(), frame(0, 0, 1, b"ha")],
            End::Close,
            Broken("upstream-broken"),
        ),
        (
            "a body that stands still",
            vec![settings(), good_head(), frame(0, 0, 1, b"ha")],
            End::Hang,
            Broken("upstream-stalled"),
        ),
        (
            "well",
            vec![settings(), good_head(), frame(0, 1, 1, b"ok")],
            End::Hang,
            Body("ok"),
        ),
    ]
}

/// Reads frames until a request has begun.
async fn request(connection: &mut Connection) -> std::io::Result<()> {
    let stream = &mut connection.stream;
    stream.read_exact(&mut [0; PREFACE_BYTES]).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await?;
        if head[3] == HEADERS {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn every_bad_habit_has_a_named_answer() {
    let (mut instances, mut expected) = (Vec::new(), Vec::new());
    for (name, frames, end, answer) in habits() {
        let bytes = frames.concat();
        let instance = Hostile::start(move |mut connection: Connection| {
            let bytes = bytes.clone();
            async move {
                if request(&mut connection).await.is_ok() && connection.write(&bytes).await {
                    connection.end(end).await;
                }
            }
        });
        instances.push(instance.await);
        expected.push((name, answer));
    }
    expected::check(&instances, "protocol = \"http2\"", &expected).await;
}
