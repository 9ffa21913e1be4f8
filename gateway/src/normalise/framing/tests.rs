//! Tables of byte streams and what the scanner makes of them.

use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    header_bytes_max: 256,
    headers_max: 8,
    target_bytes_max: 64,
    trailer_bytes_max: 64,
    trailers_max: 4,
    underscores_refused: true,
};

fn scan(input: &str) -> Progress {
    Scanner::new(LIMITS).scan(input.as_bytes())
}

/// Looking at everything again with each piece would take hours.
#[test]
fn a_head_in_single_bytes_is_looked_at_once() {
    const BYTES: usize = 1 << 20;
    let limits = HeadLimits {
        header_bytes_max: BYTES + 64,
        target_bytes_max: BYTES + 1,
        ..LIMITS
    };
    let long = "a".repeat(BYTES);
    let table = [
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n"),
    ];
    for head in table {
        let mut scanner = Scanner::new(limits);
        let pieces = (1..head.len()).map(|end| scanner.scan(&head.as_bytes()[..end]));
        let early = pieces.filter(|piece| piece.cleared > 0 || piece.violation.is_some());
        assert_eq!(early.count(), 0);
        let whole = scanner.scan(head.as_bytes());
        assert_eq!((whole.cleared, whole.heads), (head.len(), 1));
    }
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
        ("no version", "GET /\r\n\r\n", Version),
        ("no version, and no more", "GET /\r\n", Version),
        ("no version, bare LF", "GET /\n", BareLineFeed),
        ("other version", "GET / HTTP/1.2\r\n\r\n", Version),
        (
            "other version, early",
            "GET / HTTP/2.0\r\nHost: a\r\n",
            Version,
        ),
        ("lower-case version", "GET / http/1.1\r\n\r\n", RequestLine),
        ("two digits", "GET / HTTP/1.10\r\n\r\n", RequestLine),
        (
            "something behind the version",
            "GET / HTTP/1.1 x\r\n\r\n",
            RequestLine,
        ),
        (
            "space behind the version",
            "GET / HTTP/1.1 \r\n\r\n",
            RequestLine,
        ),
        ("tab for a space", "GET\t/ HTTP/1.1\r\n\r\n", RequestLine),
        ("space first", " GET / HTTP/1.1\r\n\r\n", RequestLine),
        ("method is no token", "G(T / HTTP/1.1\r\n\r\n", RequestLine),
        ("fragment", "GET /a#b HTTP/1.1\r\n\r\n", Fragment),
        (
            "angle bracket in target",
            "GET /<a> HTTP/1.1\r\n\r\n",
            RequestLine,
        ),
        ("NUL in target", "GET /a\0 HTTP/1.1\r\n\r\n", RequestLine),
        (
            "raw byte in target",
            "GET /\u{e9} HTTP/1.1\r\n\r\n",
            RequestLine,
        ),
        (
            "space before colon",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            SpaceBeforeColon,
        ),
        (
            "tab before colon",
            "GET / HTTP/1.1\r\nContent-Length\t: 1\r\n\r\n",
            SpaceBeforeColon,
        ),
        (
            "space inside a name",
            "GET / HTTP/1.1\r\nHost x: a\r\n\r\n",
            HeaderName,
        ),
        (
            "underscore",
            "GET / HTTP/1.1\r\nContent_Length: 1\r\n\r\n",
            UnderscoreName,
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
            RepeatedLength,
        ),
        (
            "equal lengths",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            RepeatedLength,
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
            "hexadecimal length",
            "GET / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n",
            ContentLength,
        ),
        (
            "no length",
            "GET / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            ContentLength,
        ),
        (
            "length with a space inside",
            "GET / HTTP/1.1\r\nContent-Length: 1 1\r\n\r\n",
            ContentLength,
        ),
        (
            "length with a form feed",
            "GET / HTTP/1.1\r\nContent-Length: \x0c1\r\n\r\n",
            HeaderValue,
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
            "quoted coding",
            "GET / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
            TransferEncoding,
        ),
        (
            "coding with parameter",
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked;a=b\r\n\r\n",
            TransferEncoding,
        ),
        (
            "no coding",
            "GET / HTTP/1.1\r\nTransfer-Encoding:\r\n\r\n",
            TransferEncoding,
        ),
        (
            "coding after a comma",
            "GET / HTTP/1.1\r\nTransfer-Encoding: ,chunked\r\n\r\n",
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

const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn refuses_malformed_chunks() {
    use Violation::{Chunk, Trailer};
    let table = [
        ("no digit", "\r\n", Chunk),
        ("not hexadecimal", "g\r\n", Chunk),
        ("space after size", "1 \r\nx\r\n", Chunk),
        ("space before size", " 1\r\nx\r\n", Chunk),
        ("sign", "+1\r\nx\r\n", Chunk),
        ("0x prefix", "0x1\r\nx\r\n", Chunk),
        ("underscore", "1_0\r\nx\r\n", Chunk),
        ("sixteen digits", "0000000000000001\r\nx\r\n", Chunk),
        ("LF after size", "1\nx\r\n", Chunk),
        ("CR after size", "1\rx\r\n", Chunk),
        ("LF in extension", "1;a\nx\r\n", Chunk),
        ("NUL in extension", "1;a\0\r\nx\r\n", Chunk),
        ("data too long", "1\r\nxy\r\n", Chunk),
        ("data ends in LF", "1\r\nx\n0\r\n\r\n", Chunk),
        ("LF after the last chunk", "0\n\r\n", Chunk),
        ("folded trailer", "0\r\n x\r\n\r\n", Trailer),
        ("bare LF trailer", "0\r\nt: 1\n\r\n", Trailer),
        ("bare LF ends the body", "0\r\n\n", Trailer),
        ("CR in a trailer", "0\r\nt: 1\rx\r\n\r\n", Trailer),
        ("trailer without colon", "0\r\nt\r\n\r\n", Trailer),
        ("trailer without name", "0\r\n: t\r\n\r\n", Trailer),
        (
            "space before the trailer's colon",
            "0\r\nt : 1\r\n\r\n",
            Trailer,
        ),
        (
            "more data after the last chunk",
            "0\r\nhello\r\n0\r\n\r\n",
            Trailer,
        ),
    ];
    for (what, body, violation) in table {
        let progress = scan(&format!("{CHUNKED}{body}"));
        assert_eq!(progress.violation, Some(violation), "{what}");
        assert_eq!(progress.heads, 1, "{what}");
    }
}

#[test]
fn limits_of_chunks_hold_at_the_edge() {
    use Violation::{ChunkExtension, TrailersTooLarge};
    let extension = |bytes: usize| format!("1;{}\r\nx\r\n", "a".repeat(bytes));
    let trailers = |count: usize| format!("0\r\n{}\r\n", "t: 1\r\n".repeat(count));
    let trailer = |bytes: usize| format!("0\r\nt:{}\r\n\r\n", "a".repeat(bytes - 4));
    let table = [
        (extension(256), None),
        (extension(257), Some(ChunkExtension)),
        (extension(256).repeat(32), None),
        (
            format!("{}1;a\r\n", extension(256).repeat(32)),
            Some(ChunkExtension),
        ),
        (trailers(4), None),
        (trailers(5), Some(TrailersTooLarge)),
        (trailer(64), None),
        (trailer(65), Some(TrailersTooLarge)),
    ];
    for (body, violation) in table {
        assert_eq!(
            scan(&format!("{CHUNKED}{body}")).violation,
            violation,
            "{body}"
        );
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
        (lines(9), Some(Violation::TooManyHeaders)),
        (target(64), None),
        (target(65), Some(Violation::TargetTooLong)),
        ("G".repeat(257), Some(Violation::HeadTooLarge)),
    ];
    for (input, violation) in table {
        assert_eq!(scan(&input).violation, violation, "{input}");
    }
}

#[test]
fn underscores_pass_where_they_may() {
    let limits = HeadLimits {
        underscores_refused: false,
        ..LIMITS
    };
    let progress = Scanner::new(limits).scan(b"GET / HTTP/1.1\r\nX_Y: a\r\n\r\n");
    assert_eq!((progress.heads, progress.violation), (1, None));
}

#[test]
fn http2_and_upgraded_bytes_are_not_read() {
    let mut scanner = Scanner::new(LIMITS);
    let input = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0";
    assert_eq!(scanner.scan(input).cleared, input.len());

    // Only the first head of a connection can be the preface.
    let late = "GET / HTTP/1.1\r\n\r\nPRI * HTTP/2.0\r\n\r\n";
    assert_eq!(scan(late).violation, Some(Violation::Version));

    // However it is cut, and not what only begins like it.
    let mut scanner = Scanner::new(LIMITS);
    for end in 1..PREFACE_HEAD.len() {
        assert_eq!(scanner.scan(&input[..end]).violation, None, "{end} bytes");
    }
    let like = scan("PRI * HTTP/2.0\r\nHost: a\r\n\r\n");
    assert_eq!(like.violation, Some(Violation::Version));
}

#[test]
fn every_violation_has_a_code_of_its_own() {
    for violation in Violation::ALL {
        let code = violation.code();
        assert_eq!(Violation::from_code(code), Some(*violation));
    }
    assert_eq!(Violation::from_code(0), None);
    let past = Violation::ALL.len() as u8 + 1;
    assert_eq!(Violation::from_code(past), None);
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
