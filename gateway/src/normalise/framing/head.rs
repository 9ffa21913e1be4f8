//! The head of one HTTP/1.1 request: strict grammar, and how long its body is.

use super::HeadLimits;

/// Defines the violations from one table: what it means, variant.
macro_rules! violations {
    ($($(#[$meaning:meta])+ $variant:ident,)+) => {
        /// Why a request head or body is not handed on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Violation {
            $($(#[$meaning])+ $variant,)+
        }

        impl Violation {
            /// Every violation, in the order of their codes.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),+];
        }
    };
}

violations! {
    /// A line ends in LF without CR, or a CR stands alone.
    BareLineFeed,
    /// The request line is not `method SP target SP HTTP/x.y`, or its target holds a byte that no
    /// target may hold.
    RequestLine,
    /// The version is neither 1.0 nor 1.1; HTTP/0.9 has none.
    Version,
    /// The target has a fragment, which readers cut off or take for a part of the path.
    Fragment,
    /// A header line has no colon, or an empty or odd name.
    HeaderName,
    /// White space between a header name and its colon (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// A header value holds a control character.
    HeaderValue,
    /// A header line is continued on the next line (obs-fold, RFC 9112 section 5.2).
    FoldedHeader,
    /// A header name with an underscore, where the configuration refuses those.
    UnderscoreName,
    /// `Content-Length` is not one plain decimal number.
    ContentLength,
    /// `Content-Length` comes twice, be it with equal values.
    RepeatedLength,
    /// `Transfer-Encoding` is anything but a single `chunked`.
    TransferEncoding,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthConflict,
    /// The head is larger than `header_bytes_max`.
    HeadTooLarge,
    /// The head has more lines than `headers_max`.
    TooManyHeaders,
    /// The request target is larger than `target_bytes_max`.
    TargetTooLong,
    /// The head was not complete in time.
    HeadTimeout,
    /// The size line or the data of a chunk is malformed.
    Chunk,
    /// The extensions of one chunk, or of all chunks of a body, are too large.
    ChunkExtension,
    /// A trailer line is malformed.
    Trailer,
    /// The trailer section is over `trailer_bytes_max` or `trailers_max`.
    TrailersTooLarge,
}

impl Violation {
    /// A number from 1 on, for where only a number fits; 0 means none.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8 + 1
    }

    /// The violation with this code.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        let index = usize::from(code).checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// Whether it is in the body, after a head that was handed on.
    #[must_use]
    pub fn is_in_body(self) -> bool {
        use Violation::{Chunk, ChunkExtension, Trailer, TrailersTooLarge};
        matches!(self, Chunk | ChunkExtension | Trailer | TrailersTooLarge)
    }
}

/// How the body of a request is delimited (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Sized(u64),
    Chunked,
}

/// Checks a complete head, from the request line to the empty line, both with their CR LF.
pub(super) fn check(head: &[u8], limits: HeadLimits) -> Result<Length, Violation> {
    if head.len() > limits.header_bytes_max {
        return Err(Violation::HeadTooLarge);
    }
    let mut starts = 0;
    let mut lines = memchr::memchr_iter(b'\n', head).map(|newline| {
        let line = &head[starts..newline];
        starts = newline + 1;
        line.strip_suffix(b"\r")
    });
    let request_line = lines.next().flatten().ok_or(Violation::RequestLine)?;
    let http_11 = check_request_line(request_line, limits.target_bytes_max)?;

    let mut framing = Framing::default();
    let mut count = 0;
    for line in lines.map_while(|line| line.filter(|line| !line.is_empty())) {
        count += 1;
        if count > limits.headers_max {
            return Err(Violation::TooManyHeaders);
        }
        let (name, value) = split_header(line)?;
        if limits.underscores_refused && name.contains(&b'_') {
            return Err(Violation::UnderscoreName);
        }
        framing.header(name, value, http_11)?;
    }
    framing.length()
}

/// Returns whether the version is 1.1.
pub(super) fn check_request_line(line: &[u8], target_bytes_max: usize) -> Result<bool, Violation> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
        return Err(Violation::RequestLine);
    };
    if target.len() > target_bytes_max {
        return Err(Violation::TargetTooLong);
    }
    if method.is_empty() || !method.iter().copied().all(is_token) || target.is_empty() {
        return Err(Violation::RequestLine);
    }
    if let Some(odd) = target.iter().find(|byte| !is_target(**byte)) {
        return Err(if *odd == b'#' {
            Violation::Fragment
        } else {
            Violation::RequestLine
        });
    }
    match (parts.next(), parts.next()) {
        (Some(b"HTTP/1.1"), None) => Ok(true),
        (Some(b"HTTP/1.0"), None) => Ok(false),
        (Some(version), None) if is_version(version) => Err(Violation::Version),
        // HTTP/0.9: `GET /path` and no more.
        (None, None) => Err(Violation::Version),
        _ => Err(Violation::RequestLine),
    }
}

/// `HTTP/x.y` (RFC 9112 section 2.3).
fn is_version(text: &[u8]) -> bool {
    matches!(text, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Whether a target may hold the byte. The four graphic characters left out are what `http::Uri`
/// refuses or, for `#`, cuts off; all others are brought into normal form later.
fn is_target(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>' | b'`')
}

fn split_header(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Violation::FoldedHeader);
    }
    let colon = line.iter().position(|byte| !is_token(*byte));
    let Some(colon) = colon.filter(|colon| *colon > 0 && line[*colon] == b':') else {
        return Err(no_name(line));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if has_control(value) {
        // A CR inside a line is how one header becomes two for a lenient reader.
        return Err(if value.contains(&b'\r') {
            Violation::BareLineFeed
        } else {
            Violation::HeaderValue
        });
    }
    Ok((name, value.trim_ascii()))
}

/// What is wrong with a line that does not begin with a name and a colon.
fn no_name(line: &[u8]) -> Violation {
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    let plain = name.trim_ascii_end();
    let spaced = name.len() < line.len() && plain.len() < name.len() && !plain.is_empty();
    if spaced && plain.iter().copied().all(is_token) {
        Violation::SpaceBeforeColon
    } else {
        Violation::HeaderName
    }
}

/// The framing headers seen so far.
#[derive(Default)]
struct Framing {
    content_length: Option<u64>,
    chunked: bool,
}

impl Framing {
    fn header(&mut self, name: &[u8], value: &[u8], http_11: bool) -> Result<(), Violation> {
        // The lengths are looked at first: nearly every header stops there.
        if name.len() == 14 && name.eq_ignore_ascii_case(b"content-length") {
            let length = parse_length(value).ok_or(Violation::ContentLength)?;
            // Even two equal values are refused: RFC 9110 section 8.6 allows either, one is simpler.
            if self.content_length.replace(length).is_some() {
                return Err(Violation::RepeatedLength);
            }
        } else if name.len() == 17 && name.eq_ignore_ascii_case(b"transfer-encoding") {
            let plain = value.eq_ignore_ascii_case(b"chunked") && http_11;
            if !plain || std::mem::replace(&mut self.chunked, true) {
                return Err(Violation::TransferEncoding);
            }
        }
        Ok(())
    }

    fn length(self) -> Result<Length, Violation> {
        match (self.content_length, self.chunked) {
            (Some(_), true) => Err(Violation::LengthConflict),
            (None, true) => Ok(Length::Chunked),
            (length, false) => Ok(Length::Sized(length.unwrap_or(0))),
        }
    }
}

/// Digits only: no sign, no list, no leading or trailing anything.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // hyper reserves the two highest values for its own marks; nobody sends 16 EiB.
    std::str::from_utf8(value)
        .ok()?
        .parse()
        .ok()
        .filter(|length| *length < u64::MAX - 2)
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    KINDS[byte as usize] & TOKEN != 0
}

/// Whether there is what no field value may hold (RFC 9110 section 5.5). Without an early end, and
/// without a table, many bytes are looked at at once.
fn has_control(value: &[u8]) -> bool {
    let control = |byte: u8| (byte < b' ') & (byte != b'\t') | (byte == 0x7f);
    value
        .iter()
        .fold(false, |found, byte| found | control(*byte))
}

const TOKEN: u8 = 1;

/// What each byte is, looked up: every byte of every name is asked for.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        if character.is_ascii_alphanumeric() {
            kinds[byte] |= TOKEN;
        }
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut mark = 0;
    while mark < marks.len() {
        kinds[marks[mark] as usize] |= TOKEN;
        mark += 1;
    }
    kinds
};
