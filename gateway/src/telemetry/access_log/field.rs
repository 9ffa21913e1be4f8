//! What a line can say of a request.

use std::net::{IpAddr, SocketAddr};

use http::header::{AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, REFERER, SET_COOKIE};
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// One of [`Simple`].
    Simple(Simple),
    /// `request.NAME`: a header of the request, as it arrived.
    Request(HeaderName),
    /// `response.NAME`: a header of the response, as it was sent.
    Response(HeaderName),
}

/// Declares the fields with their names.
macro_rules! fields {
    ($($variant:ident $name:literal $doc:literal,)*) => {
        /// A part of a line that has no parameter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Simple {
            $(#[doc = $doc] $variant,)*
        }

        impl Simple {
            /// Every field.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in the configuration and in JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

fields! {
    Time "time" "When the request head was complete, RFC 3339, UTC.",
    RequestId "request_id" "Ties the line to the response and to the instance's own log.",
    Client "client" "The client, after trusted proxies were looked through.",
    Subject "subject" "Who sent the request: the token's `sub`, or the API key's name.",
    Method "method" "The request method.",
    Host "host" "Without port, in lower case; empty if the request named none.",
    Path "path" "Normalised, without the query.",
    Route "route" "The route's name, if one matched.",
    Service "service" "The service's name, if the route has one.",
    Instance "instance" "The instance that answered, or was tried last.",
    Status "status" "The status sent; 499 if the client left before there was one.",
    Reason "reason" "Why the request was refused or broke off.",
    DurationUs "duration_us" "From the request head to the last byte of the response, in microseconds.",
    UpstreamUs "upstream_us" "Until the instance's response head, in microseconds.",
    Retries "retries" "Attempts after the first.",
    BytesIn "bytes_in" "Request body bytes.",
    BytesOut "bytes_out" "Response body bytes.",
    Protocol "protocol" "`HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.",
    Tls "tls" "The TLS version, if any.",
    TimeUnix "time_unix" "The time in seconds since 1970, with milliseconds.",
    TimeCommon "time_common" "The time as in the Common Log Format.",
    TraceId "trace_id" "The trace the request belongs to (W3C Trace Context).",
    SpanId "span_id" "The gateway's own part of the trace.",
    Peer "peer" "Address and port at the other end of the connection, which may be a proxy's.",
    Listener "listener" "The listener's name.",
    Scheme "scheme" "`http` or `https`.",
    Query "query" "The query as it arrived, with values of parameters in `redact` left out.",
    Target "target" "Path and query.",
    RequestLine "request" "Method, path with query, and protocol.",
    DurationMs "duration_ms" "The duration in milliseconds.",
    DurationS "duration_s" "The duration in seconds.",
    UpstreamMs "upstream_ms" "The time until the instance's response head in milliseconds.",
    UpstreamS "upstream_s" "The time until the instance's response head in seconds.",
    Hedges "hedges" "Further instances asked because the first was slow.",
}

/// The fields of a JSON line where none are chosen.
pub const DEFAULT_FIELDS: [Simple; 19] = [
    Simple::Time,
    Simple::RequestId,
    Simple::Client,
    Simple::Subject,
    Simple::Method,
    Simple::Host,
    Simple::Path,
    Simple::Route,
    Simple::Service,
    Simple::Instance,
    Simple::Status,
    Simple::Reason,
    Simple::DurationUs,
    Simple::UpstreamUs,
    Simple::Retries,
    Simple::BytesIn,
    Simple::BytesOut,
    Simple::Protocol,
    Simple::Tls,
];

/// Why a text names no field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoField {
    /// There is none of this name.
    Unknown,
    /// A header whose value would be a secret in the log.
    Secret,
}

/// Headers that carry secrets.
const SECRET: [HeaderName; 5] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    COOKIE,
    SET_COOKIE,
    HeaderName::from_static("x-api-key"),
];

impl Field {
    /// The field of this name.
    pub fn parse(name: &str) -> Result<Self, NoField> {
        let header = |name: &str| match HeaderName::try_from(name) {
            Ok(name) if SECRET.contains(&name) => Err(NoField::Secret),
            Ok(name) => Ok(name),
            Err(_) => Err(NoField::Unknown),
        };
        if let Some(name) = name.strip_prefix("request.") {
            return header(name).map(Self::Request);
        }
        if let Some(name) = name.strip_prefix("response.") {
            return header(name).map(Self::Response);
        }
        let simple = Simple::ALL.iter().find(|simple| simple.name() == name);
        simple
            .map(|simple| Self::Simple(*simple))
            .ok_or(NoField::Unknown)
    }

    /// Whether the field shows the query.
    pub(super) fn shows_query(&self) -> bool {
        use Simple::{Query, RequestLine, Target};
        matches!(self, Self::Simple(Query | Target | RequestLine))
    }

    /// Whether the field is an address that may have a query.
    pub(super) fn is_address(&self) -> bool {
        *self == Self::Request(REFERER)
    }
}

/// What was read of the headers because a log wants it.
#[derive(Debug, Default)]
pub struct Captured {
    /// The query as it arrived.
    pub query: Option<String>,
    /// Request headers.
    pub request: Vec<(HeaderName, HeaderValue)>,
    /// Response headers.
    pub response: Vec<(HeaderName, HeaderValue)>,
}

/// Everything a line may say of one request.
#[derive(Debug)]
pub struct Line<'a> {
    /// When the request head was complete.
    pub time: Timestamp,
    /// Of the header `x-request-id`: letters, digits and `-_.`.
    pub request_id: &'a [u8],
    /// Trace and span in hexadecimal, where the request is traced.
    pub trace: Option<(&'a [u8], &'a [u8])>,
    /// The client, after trusted proxies were looked through.
    pub client: IpAddr,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The listener's name.
    pub listener: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Who sent the request.
    pub subject: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The host, without port.
    pub host: &'a str,
    /// The path.
    pub path: &'a str,
    /// The route's name.
    pub route: Option<&'a str>,
    /// The service's name.
    pub service: Option<&'a str>,
    /// The instance's address.
    pub instance: Option<&'a str>,
    /// The status.
    pub status: u16,
    /// Why the request was refused or broke off.
    pub reason: Option<&'a str>,
    /// In microseconds.
    pub duration_us: u64,
    /// In microseconds.
    pub upstream_us: Option<u64>,
    /// Attempts after the first.
    pub retries: u32,
    /// Further instances asked because the first was slow.
    pub hedges: u32,
    /// Request body bytes.
    pub bytes_in: u64,
    /// Response body bytes.
    pub bytes_out: u64,
    /// The protocol.
    pub protocol: &'a str,
    /// The TLS version.
    pub tls: Option<&'a str>,
    /// What was read of the headers, if a log wanted some.
    pub captured: Option<&'a Captured>,
}

/// The value of a field.
#[derive(Debug)]
pub(super) enum Value<'a> {
    /// The request has none.
    None,
    /// Text of a client, which may hold anything.
    Text(&'a [u8]),
    /// Text that needs no escape: our own, or found to be of harmless letters before.
    Plain(&'a [u8]),
    Number(u64),
    Address(IpAddr),
    Socket(SocketAddr),
    /// Microseconds, shown as milliseconds.
    Millis(u64),
    /// Microseconds, shown as seconds.
    Seconds(u64),
    Time,
    TimeUnix,
    TimeCommon,
    Query,
    Target,
    RequestLine,
}

impl<'a> Value<'a> {
    pub(super) fn of(field: &Field, line: &Line<'a>) -> Self {
        let captured = |name: &HeaderName, headers: Option<&'a Vec<(HeaderName, HeaderValue)>>| {
            let mut headers = headers.into_iter().flatten();
            let value = headers.find(|(known, _)| known == name);
            value.map_or(Self::None, |(_, value)| Self::Text(value.as_bytes()))
        };
        match field {
            Field::Simple(simple) => Self::simple(*simple, line),
            Field::Request(name) => captured(name, line.captured.map(|read| &read.request)),
            Field::Response(name) => captured(name, line.captured.map(|read| &read.response)),
        }
    }

    fn simple(field: Simple, line: &Line<'a>) -> Self {
        let plain =
            |text: Option<&'a str>| text.map_or(Self::None, |text| Self::Plain(text.as_bytes()));
        match field {
            Simple::Time => Self::Time,
            Simple::TimeUnix => Self::TimeUnix,
            Simple::TimeCommon => Self::TimeCommon,
            Simple::RequestId => Self::Plain(line.request_id),
            Simple::TraceId => line
                .trace
                .map_or(Self::None, |(trace, _)| Self::Plain(trace)),
            Simple::SpanId => line.trace.map_or(Self::None, |(_, span)| Self::Plain(span)),
            Simple::Client => Self::Address(line.client),
            Simple::Peer => Self::Socket(line.peer),
            Simple::Listener => Self::Plain(line.listener.as_bytes()),
            Simple::Scheme => Self::Plain(line.scheme.as_bytes()),
            Simple::Subject => line
                .subject
                .map_or(Self::None, |text| Self::Text(text.as_bytes())),
            // A token (RFC 9110 section 5.6.2), which has neither quotes nor spaces.
            Simple::Method => Self::Plain(line.method.as_bytes()),
            Simple::Host => Self::Text(line.host.as_bytes()),
            Simple::Path => Self::Text(line.path.as_bytes()),
            Simple::Query => match line.captured.and_then(|read| read.query.as_ref()) {
                Some(_) => Self::Query,
                None => Self::None,
            },
            Simple::Target => Self::Target,
            Simple::RequestLine => Self::RequestLine,
            Simple::Route => plain(line.route),
            Simple::Service => plain(line.service),
            Simple::Instance => plain(line.instance),
            Simple::Status => Self::Number(u64::from(line.status)),
            Simple::Reason => plain(line.reason),
            Simple::DurationUs => Self::Number(line.duration_us),
            Simple::DurationMs => Self::Millis(line.duration_us),
            Simple::DurationS => Self::Seconds(line.duration_us),
            Simple::UpstreamUs => line.upstream_us.map_or(Self::None, Self::Number),
            Simple::UpstreamMs => line.upstream_us.map_or(Self::None, Self::Millis),
            Simple::UpstreamS => line.upstream_us.map_or(Self::None, Self::Seconds),
            Simple::Retries => Self::Number(u64::from(line.retries)),
            Simple::Hedges => Self::Number(u64::from(line.hedges)),
            Simple::BytesIn => Self::Number(line.bytes_in),
            Simple::BytesOut => Self::Number(line.bytes_out),
            Simple::Protocol => Self::Plain(line.protocol.as_bytes()),
            Simple::Tls => plain(line.tls),
        }
    }
}
