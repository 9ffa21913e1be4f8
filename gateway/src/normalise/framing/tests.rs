//! Tables of byte streams and what the scanner makes of them.

use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    header_bytes_max: 256,
    headers_max: 8,
    target_bytes_max: 64,
};

fn scan(input: &str) -> Progress {
    Scanner::new(LIMITS).scan(input.as_bytes())
}

#[test]
fn clears_well_framed_messages() {
    let table = [
        ("one request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        (
            "two pipelined",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            2,
        ),
        (
            "empty lines first",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            1,
        ),
        (
            "sized body",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n",
            2,
        ),
        (
            "chunked body",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            1,
        ),
        (
            "extension",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n",
            1,
        ),
        (
            "trailer",
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nt: 1\r\n\r\n",
            1,
        ),
        (
            "body that looks like a head",
            "PUT / HTTP/1.1\r\nContent-Length: 4\r\n\r\nA\nB\n",
            1,
        ),
    ];
    for (what, input, heads) in table {
        let expected = Progress {
            cleared: input.len(),
            heads,
            violation: None,
        };
        assert_eq!(scan(input), expected, "{what}");
    }
}

#[test]
fn names_each_violation() {
    use Violation::*;
    let table = [
        ("bare LF", "GET / HTTP/1.1\nHost: a\r\n\r\n", BareLineFeed),
        (
            "bare LF ends the head",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            BareLineFeed,
        ),
        (
            "CR inside a value",
            "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
            BareLineFeed,
        ),
        ("two spaces", "GET  / HTTP/1.1\r\n\r\n", RequestLine),
        ("no version", "GET /\r\n\r\n", RequestLine),
        ("other version", "GET / HTTP/1.2\r\n\r\n", RequestLine),
        (
            "raw byte in target",
            "GET /\u{e9} HTTP/1.1\r\n\r\n",
            RequestLine,
        ),
        (
            "space before colon",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            HeaderName,
        ),
        ("no colon", "GET / HTTP/1.1\r\nHost\r\n\r\n", HeaderName),
        ("empty name", "GET / HTTP/1.1\r\n: a\r\n\r\n", HeaderName),
        (
            "NUL in value",
            "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
            HeaderValue,
        ),
        (
            "obs-fold",
            "GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
            FoldedHeader,
        ),
        (
            "two lengths",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            ContentLength,
        ),
        (
            "equal lengths",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            ContentLength,
        ),
        (
            "length list",
            "GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
            ContentLength,
        ),
        (
            "signed length",
            "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
            ContentLength,
        ),
        (
            "huge length",
            "GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            ContentLength,
        ),
        (
            "xchunked",
            "GET / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            TransferEncoding,
        ),
        (
            "coding list",
            "GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            TransferEncoding,
        ),
        (
            "chunked twice",
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            TransferEncoding,
        ),
        (
            "coding in 1.0",
            "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            TransferEncoding,
        ),
        (
            "CL and TE",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            LengthConflict,
        ),
        (
            "TE and CL",
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            LengthConflict,
        ),
    ];
    for (what, input, violation) in table {
        let expected = Progress {
            cleared: 0,
            heads: 0,
            violation: Some(violation),
        };
        assert_eq!(scan(input), expected, "{what}");
    }
}

#[test]
fn refuses_malformed_chunks() {
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let table = [
        ("no digit", "\r\n"),
        ("not hexadecimal", "g\r\n"),
        ("space after size", "1 \r\nx\r\n"),
        ("0x prefix", "0x1\r\nx\r\n"),
        ("sixteen digits", "0000000000000001\r\nx\r\n"),
        ("LF after size", "1\nx\r\n"),
        ("LF in extension", "1;a\nx\r\n"),
        ("data too long", "1\r\nxy\r\n"),
        ("folded trailer", "0\r\n x\r\n\r\n"),
        ("bare LF trailer", "0\r\nt: 1\n\r\n"),
        ("trailer without colon", "0\r\nt\r\n\r\n"),
        ("space before the trailer's colon", "0\r\nt : 1\r\n\r\n"),
        ("more data after the last chunk", "0\r\nhello\r\n0\r\n\r\n"),
    ];
    for (what, body) in table {
        let progress = scan(&format!("{head}{body}"));
        assert_eq!(progress.violation, Some(Violation::Chunk), "{what}");
        assert_eq!(progress.heads, 1, "{what}");
    }
}

#[test]
fn limits_hold_at_the_edge() {
    let head_of = |bytes: usize| {
        let fixed = "GET / HTTP/1.1\r\nx: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(bytes - fixed))
    };
    let lines = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
    let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(bytes - 1));
    let table = [
        (head_of(256), None),
        (head_of(257), Some(Violation::HeadTooLarge)),
        (lines(8), None),
        (lines(9), Some(Violation::HeadTooLarge)),
        (target(64), None),
        (target(65), Some(Violation::TargetTooLong)),
        ("G".repeat(257), Some(Violation::HeadTooLarge)),
    ];
    for (input, violation) in table {
        assert_eq!(scan(&input).violation, violation, "{input}");
    }
}

#[test]
fn http2_and_upgraded_bytes_are_not_read() {
    let mut scanner = Scanner::new(LIMITS);
    let input = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0";
    assert_eq!(scanner.scan(input).cleared, input.len());

    // Only the first head of a connection can be the preface.
    let late = "GET / HTTP/1.1\r\n\r\nPRI * HTTP/2.0\r\n\r\n";
    assert_eq!(scan(late).violation, Some(Violation::RequestLine));
}

#[test]
fn every_violation_has_a_code_of_its_own() {
    for violation in Violation::ALL {
        assert_eq!(Violation::from_code(violation as u8), Some(violation));
    }
    assert_eq!(Violation::from_code(0), None);
}

proptest! {
    /// However the bytes are cut by the network, the reading is the same.
    #[test]
    fn cuts_do_not_change_the_reading(cuts in prop::collection::vec(1usize..40, 0..12), which in 0usize..4) {
        let streams = [
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nt: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "PUT /a HTTP/1.1\r\nContent-Length: 10\r\n\r\n0123456789GET / HTTP/1.1\r\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        ];
        let input = streams[which].as_bytes();
        let whole = Scanner::new(LIMITS).scan(input);

        let mut scanner = Scanner::new(LIMITS);
        let (mut cleared, mut heads, mut violation, mut end) = (0, 0, None, 0);
        for cut in cuts.into_iter().chain([input.len()]) {
            end = (end + cut).min(input.len());
            let progress = scanner.scan(&input[cleared..end]);
            cleared += progress.cleared;
            heads += progress.heads;
            violation = violation.or(progress.violation);
            if violation.is_some() { break; }
        }
        prop_assert_eq!(heads, whole.heads);
        prop_assert_eq!(violation, whole.violation);
        if violation.is_none() { prop_assert_eq!(cleared, whole.cleared); }
    }
}
