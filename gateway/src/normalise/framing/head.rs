//! The head of one HTTP/1.1 request: strict grammar, and how long its body is.

use super::HeadLimits;

/// Why a request head or body is not handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Violation {
    /// A line ends in LF without CR, or a CR stands alone.
    BareLineFeed = 1,
    /// The request line is not `method SP target SP HTTP/1.x`.
    RequestLine,
    /// A header line has no colon, an empty or odd name, or a space before the colon.
    HeaderName,
    /// A header value holds a control character.
    HeaderValue,
    /// A header line is continued on the next line (obs-fold, RFC 9112 section 5.2).
    FoldedHeader,
    /// `Content-Length` is not one plain decimal number.
    ContentLength,
    /// `Transfer-Encoding` is anything but a single `chunked`.
    TransferEncoding,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthConflict,
    /// The head is larger than `limits.header_bytes_max` or has too many lines.
    HeadTooLarge,
    /// The request target is larger than `target_bytes_max`.
    TargetTooLong,
    /// The head was not complete in time.
    HeadTimeout,
    /// A chunk of the body is malformed.
    Chunk,
}

impl Violation {
    /// Every violation, in the order of their codes.
    pub(super) const ALL: [Self; 12] = [
        Self::BareLineFeed,
        Self::RequestLine,
        Self::HeaderName,
        Self::HeaderValue,
        Self::FoldedHeader,
        Self::ContentLength,
        Self::TransferEncoding,
        Self::LengthConflict,
        Self::HeadTooLarge,
        Self::TargetTooLong,
        Self::HeadTimeout,
        Self::Chunk,
    ];

    /// The violation with this discriminant.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|violation| *violation as u8 == code)
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
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r"));
    let request_line = lines.next().flatten().ok_or(Violation::RequestLine)?;
    let http_11 = check_request_line(request_line, limits.target_bytes_max)?;

    let mut framing = Framing::default();
    let mut count = 0;
    for line in lines.map_while(|line| line.filter(|line| !line.is_empty())) {
        count += 1;
        if count > limits.headers_max {
            return Err(Violation::HeadTooLarge);
        }
        let (name, value) = split_header(line)?;
        framing.header(name, value, http_11)?;
    }
    framing.length()
}

/// Returns whether the version is 1.1.
fn check_request_line(line: &[u8], target_bytes_max: usize) -> Result<bool, Violation> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Violation::RequestLine);
    };
    if target.len() > target_bytes_max {
        return Err(Violation::TargetTooLong);
    }
    let target_plain = target.iter().all(u8::is_ascii_graphic);
    if method.is_empty()
        || !method.iter().copied().all(is_token)
        || target.is_empty()
        || !target_plain
    {
        return Err(Violation::RequestLine);
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err(Violation::RequestLine),
    }
}

fn split_header(line: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Violation::FoldedHeader);
    }
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(Violation::HeaderName)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(Violation::HeaderName);
    }
    // A CR inside a line is how one header becomes two for a lenient reader.
    if value.contains(&b'\r') {
        return Err(Violation::BareLineFeed);
    }
    if value
        .iter()
        .any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f)
    {
        return Err(Violation::HeaderValue);
    }
    Ok((name, value.trim_ascii()))
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
                return Err(Violation::ContentLength);
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
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
