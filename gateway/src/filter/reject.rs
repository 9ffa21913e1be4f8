//! Every refusal of the gateway, once: status, reason code, and the answer the client sees.
//!
//! The reason code is the one word for a refusal everywhere: metric label, access log field and
//! the `reason` member of the problem document (RFC 9457). Texts never repeat what the client
//! sent and never say anything about keys or secrets.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

/// Media type of a problem document (RFC 9457 section 3).
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Defines the refusals from one table: what it means, variant, status, reason code, title.
macro_rules! refusals {
    ($(
        $(#[$meaning:meta])+
        $variant:ident $({ $($fields:tt)+ })? = $status:ident, $name:literal, $title:literal;
    )+) => {
        /// Why a request was refused.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Reject {
            $($(#[$meaning])+ $variant $({ $($fields)+ })?,)+
        }

        impl Reject {
            /// The reason codes of all refusals.
            pub const NAMES: &[&str] = &[$($name),+];

            /// Status, reason code, title.
            fn row(&self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Self::$variant { .. } => (StatusCode::$status, $name, $title),)+
                }
            }
        }
    };
}

refusals! {
    /// The request cannot be read for a reason that has no name of its own.
    BadRequest = BAD_REQUEST, "bad-request",
        "The request cannot be read.";
    /// The request line is not `method SP target SP version` (RFC 9112 3).
    BadRequestLine = BAD_REQUEST, "bad-request-line",
        "The request line is malformed.";
    /// Another version than HTTP/1.0, 1.1 and 2; HTTP/0.9 has none (RFC 9112 2.3).
    HttpVersion = HTTP_VERSION_NOT_SUPPORTED, "http-version",
        "This version of HTTP is not spoken here.";
    /// A line ends in LF alone, or a CR stands alone (RFC 9112 2.2).
    BareLineFeed = BAD_REQUEST, "bare-line-feed",
        "A line of the head does not end in CR LF.";
    /// A header line without colon, or with a name that is no token (RFC 9110 5.1).
    BadHeaderName = BAD_REQUEST, "bad-header-name",
        "A header name is malformed.";
    /// White space between header name and colon (RFC 9112 5.1).
    SpaceBeforeColon = BAD_REQUEST, "space-before-colon",
        "A header name is followed by white space.";
    /// A control character in a header value (RFC 9110 5.5).
    BadHeaderValue = BAD_REQUEST, "bad-header-value",
        "A header value holds a control character.";
    /// A header continued on the next line: obs-fold (RFC 9112 5.2).
    FoldedHeader = BAD_REQUEST, "folded-header",
        "A header is folded over several lines.";
    /// A header name with an underscore, which many programs take for a hyphen.
    UnderscoreHeader = BAD_REQUEST, "underscore-header",
        "A header name holds an underscore.";
    /// A header that may stand once only, several times.
    RepeatedHeader = BAD_REQUEST, "repeated-header",
        "A header is repeated that may stand once only.";
    /// A Content-Length that is not one decimal number (RFC 9110 8.6).
    BadLength = BAD_REQUEST, "bad-content-length",
        "The Content-Length is no plain number.";
    /// Content-Length more than once, equal or not (RFC 9112 6.3).
    RepeatedLength = BAD_REQUEST, "repeated-content-length",
        "The request states its Content-Length twice.";
    /// Content-Length with Transfer-Encoding (RFC 9112 6.3).
    ConflictingLength = BAD_REQUEST, "conflicting-length",
        "The request states its length in two ways.";
    /// A Transfer-Encoding other than a final `chunked` (RFC 9112 6.1).
    BadTransferEncoding = BAD_REQUEST, "bad-transfer-encoding",
        "Only a single, final chunked transfer encoding is understood.";
    /// The chunked framing of the body is broken (RFC 9112 7.1).
    BadChunk = BAD_REQUEST, "bad-chunk",
        "The chunked body is malformed.";
    /// Chunk extensions of more than 256 bytes in a chunk, or 8 KiB in a body (RFC 9112 7.1.1).
    ChunkExtension = BAD_REQUEST, "chunk-extension",
        "The chunk extensions are too large.";
    /// A trailer line is malformed (RFC 9112 7.1.2).
    BadTrailer = BAD_REQUEST, "bad-trailer",
        "A trailer field is malformed.";
    /// A trailer field that decides on framing, routing or authentication (RFC 9110 6.5.1).
    ForbiddenTrailer = BAD_REQUEST, "forbidden-trailer",
        "A field stands in the trailers that may stand in the head only.";
    /// The trailer section is over `trailer_bytes_max` or `trailers_max`.
    TrailersTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "trailers-too-large",
        "The trailer section is too large.";
    /// No host (RFC 9112 3.2).
    HostMissing = BAD_REQUEST, "host-missing",
        "The request names no host.";
    /// Several Host fields (RFC 9112 3.2).
    HostRepeated = BAD_REQUEST, "host-repeated",
        "The request names its host twice.";
    /// Host and `:authority` or an absolute target differ (RFC 9113 8.3.1).
    HostMismatch = BAD_REQUEST, "host-mismatch",
        "The request names two different hosts.";
    /// A user name before the host (RFC 9110 4.2.4).
    HostUserinfo = BAD_REQUEST, "host-userinfo",
        "The host holds a user name.";
    /// A host or port that is none (RFC 9112 3.2).
    BadHost = BAD_REQUEST, "bad-host",
        "The request names no valid host.";
    /// A target of a scheme other than `http` and `https`.
    BadScheme = BAD_REQUEST, "bad-scheme",
        "Only http and https are served.";
    /// The target `*`: it concerns no service (RFC 9112 3.2.4).
    AsteriskForm = BAD_REQUEST, "asterisk-form",
        "A request for the server as a whole is not forwarded.";
    /// A target that starts with no slash, or holds a byte no target may hold.
    BadTarget = BAD_REQUEST, "bad-target",
        "The request target is malformed.";
    /// A target with a fragment (RFC 9110 7.1).
    PathFragment = BAD_REQUEST, "path-fragment",
        "The request target holds a fragment.";
    /// A percent sign without two hexadecimal digits (RFC 3986 2.1).
    PathEscape = BAD_REQUEST, "path-escape",
        "The request path holds a malformed escape.";
    /// An escaped NUL or another control character.
    PathControl = BAD_REQUEST, "path-control",
        "The request path holds a control character.";
    /// An escaped slash: a separator to some readers.
    PathEncodedSlash = BAD_REQUEST, "path-encoded-slash",
        "The request path holds an escaped slash.";
    /// A backslash: a separator to some readers.
    PathBackslash = BAD_REQUEST, "path-backslash",
        "The request path holds a backslash.";
    /// `.` or `..` as a segment, or what some readers take for one.
    PathDotSegment = BAD_REQUEST, "path-dot-segment",
        "The request path holds a dot segment.";
    /// Two slashes in a row: one to some readers.
    PathEmptySegment = BAD_REQUEST, "path-empty-segment",
        "The request path holds an empty segment.";
    /// An overlong UTF-8 sequence: an ASCII character to lenient readers.
    PathOverlong = BAD_REQUEST, "path-overlong",
        "The request path holds an overlong sequence.";
    /// A parameter (`;x`) in the path, where the configuration refuses those.
    PathParameter = BAD_REQUEST, "path-parameter",
        "The request path holds a parameter.";
    /// The header section is over `header_bytes_max`.
    HeadersTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large",
        "The header section is too large.";
    /// The header section has more than `headers_max` fields.
    TooManyHeaders = REQUEST_HEADER_FIELDS_TOO_LARGE, "too-many-headers",
        "The header section has too many fields.";
    /// The request target is over `uri_bytes_max`.
    UriTooLong = URI_TOO_LONG, "uri-too-long",
        "The request target is too long.";
    /// The body is over `body_bytes_max`.
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body-too-large",
        "The request body is too large.";
    /// The body came more slowly than `body_rate_min`.
    BodyTooSlow = REQUEST_TIMEOUT, "body-too-slow",
        "The request body came too slowly.";
    /// An `Expect` other than `100-continue` (RFC 9110 10.1.1).
    ExpectationFailed = EXPECTATION_FAILED, "expectation-failed",
        "Only the expectation 100-continue is understood.";
    /// CONNECT or TRACE. A reverse proxy goes where its routes say and not where clients do, so
    /// CONNECT has no meaning here (RFC 9110 section 9.3.6: an origin server may refuse it), by
    /// HTTP/2 (RFC 8441) as little; tunnels are upgrades of HTTP/1.1. TRACE would show the client
    /// what only instances are told (RFC 9110 section 9.3.8).
    MethodNotImplemented = NOT_IMPLEMENTED, "method-not-implemented",
        "This method is not forwarded.";
    /// A parameter of the path, taken out by an expression, makes no path where it is put.
    PathRewritten = BAD_REQUEST, "path-rewritten",
        "The request path cannot be rewritten.";
    /// The request was meant for another server: SNI and host disagree (RFC 9110 15.5.20).
    Misdirected = MISDIRECTED_REQUEST, "misdirected",
        "This connection was opened for another host.";
    /// No route matches.
    RouteNotFound = NOT_FOUND, "route-not-found",
        "Nothing is served under this host and path.";
    /// A route matches in all but the method.
    MethodNotAllowed {
        /// The methods that would match, as the value of `Allow` (RFC 9110 10.2.1).
        allow: HeaderValue,
    } = METHOD_NOT_ALLOWED, "method-not-allowed",
        "This method is not allowed here; Allow lists those that are.";
    /// No bearer token in `Authorization`.
    TokenMissing = UNAUTHORIZED, "token-missing",
        "A bearer token is required.";
    /// The token is no signed JWT in compact form, or lacks a claim the gateway needs.
    TokenMalformed = UNAUTHORIZED, "token-malformed",
        "The bearer token cannot be read.";
    /// The token is over `token_bytes_max`.
    TokenTooLarge = UNAUTHORIZED, "token-too-large",
        "The bearer token is too large.";
    /// The signature does not belong to the key the token names.
    TokenSignature = UNAUTHORIZED, "token-signature",
        "The token's signature is not valid.";
    /// The token's `alg` is not the one its key is for (`none` included).
    TokenAlgorithm = UNAUTHORIZED, "token-algorithm",
        "The token's algorithm is not accepted.";
    /// No key of the key set has the token's `kid`.
    TokenKeyUnknown = UNAUTHORIZED, "token-key-unknown",
        "The token was signed with an unknown key.";
    /// `exp` has passed.
    TokenExpired = UNAUTHORIZED, "token-expired",
        "The token has expired.";
    /// `nbf` has not come yet.
    TokenNotYetValid = UNAUTHORIZED, "token-not-yet-valid",
        "The token is not valid yet.";
    /// `iss` is another issuer.
    TokenIssuer = UNAUTHORIZED, "token-issuer",
        "The token's issuer is not accepted.";
    /// `aud` does not name this API.
    TokenAudience = UNAUTHORIZED, "token-audience",
        "The token is meant for another audience.";
    /// The token lacks a scope the route's authentication asks for.
    TokenScope = FORBIDDEN, "token-scope",
        "The token does not grant the scope needed here.";
    /// No API key was sent.
    ApiKeyMissing = UNAUTHORIZED, "api-key-missing",
        "An API key is required.";
    /// The API key is none of the configured ones.
    ApiKeyUnknown = UNAUTHORIZED, "api-key-unknown",
        "The API key is not accepted.";
    /// The sender is over its rate limit.
    RateLimited {
        /// Whole seconds until a request will pass again, at least 1.
        retry_after: u64,
    } = TOO_MANY_REQUESTS, "rate-limited",
        "Too many requests; see Retry-After.";
    /// The sender has as many requests under way as it may.
    InFlightLimited = TOO_MANY_REQUESTS, "in-flight-limited",
        "Too many requests at a time; wait for earlier ones to end.";
    /// The rate limiter's key set is full and the limit says `when_full = "refuse"`.
    LimiterFull = SERVICE_UNAVAILABLE, "limiter-full",
        "The request cannot be counted against its limit right now.";
    /// The service has no instance in health.
    NoInstance = SERVICE_UNAVAILABLE, "no-instance",
        "No instance of the service is available.";
    /// As many requests of the route are in flight as its `in_flight_max` allows.
    RouteBusy = SERVICE_UNAVAILABLE, "route-busy",
        "Too many requests for this are under way.";
    /// As many requests are in flight as the service's limit allows, and nobody more may wait.
    ServiceBusy = SERVICE_UNAVAILABLE, "service-busy",
        "The service has too much to do.";
    /// The request waited for `queue_timeout` without its turn having come.
    QueueTimeout = SERVICE_UNAVAILABLE, "queue-timeout",
        "The service had too much to do for too long.";
    /// The request waited, until one that matters more needed its room.
    QueueDisplaced = SERVICE_UNAVAILABLE, "queue-displaced",
        "The service has too much to do for requests of this priority.";
    /// The process has as many open files as it may: none is left for a connection.
    NoDescriptor = SERVICE_UNAVAILABLE, "no-descriptor",
        "The gateway cannot open another connection.";
    /// The process is near its `memory_max`.
    MemoryShort = SERVICE_UNAVAILABLE, "memory-short",
        "The gateway has no room for requests of this priority.";
    /// The worker's event loop is later than `lag_max`.
    GatewayBusy = SERVICE_UNAVAILABLE, "gateway-busy",
        "The gateway has too much to do for requests of this priority.";
    /// The instance is at its `requests_max` or `connections_max`, and `waiting_max` wait already.
    UpstreamBusy = SERVICE_UNAVAILABLE, "upstream-busy",
        "All instances of the service are busy.";
    /// The request has waited for `waiting_timeout`, and the instance is still at its limit.
    UpstreamQueueTimeout = SERVICE_UNAVAILABLE, "upstream-queue-timeout",
        "All instances of the service stayed busy.";
    /// The service's circuit breaker is open: too many requests have failed.
    CircuitOpen {
        /// Whole seconds until requests are let through again, at least 1.
        retry_after: u64,
    } = SERVICE_UNAVAILABLE, "circuit-open",
        "The service fails too often and is given a rest.";
    /// The chosen instance refused the connection, or cannot be reached.
    UpstreamConnect = BAD_GATEWAY, "upstream-connect",
        "The service could not be reached.";
    /// No connection to the chosen instance stood within `connect_timeout`.
    UpstreamConnectTimeout = GATEWAY_TIMEOUT, "upstream-connect-timeout",
        "The service could not be reached in time.";
    /// No TLS with the chosen instance: its certificate is not the right one, or it does not accept
    /// the gateway's.
    UpstreamTls = BAD_GATEWAY, "upstream-tls",
        "No trusted connection to the service could be made.";
    /// The instance stopped taking the request's body for `body_idle_timeout`.
    UpstreamSendTimeout = GATEWAY_TIMEOUT, "upstream-send-timeout",
        "The service did not take the request in time.";
    /// The instance's answer states its length in two ways, or in one that is none.
    UpstreamFraming = BAD_GATEWAY, "upstream-framing",
        "The service's answer is ambiguous.";
    /// The instance did not answer within the route's `retry.per_try_timeout`.
    UpstreamTryTimeout = GATEWAY_TIMEOUT, "upstream-try-timeout",
        "The service did not answer an attempt in time.";
    /// The instance's answer is no HTTP response, or it broke off before the head.
    UpstreamProtocol = BAD_GATEWAY, "upstream-protocol",
        "The service gave no valid answer.";
    /// The instance did not answer within the route's `timeout`.
    UpstreamTimeout = GATEWAY_TIMEOUT, "upstream-timeout",
        "The service did not answer in time.";
    /// The client did not finish its request in time.
    RequestTimeout = REQUEST_TIMEOUT, "request-timeout",
        "The request was not completed in time.";
    /// The instance would not upgrade, or the client asked in a way that cannot be passed on.
    UpgradeRefused = BAD_GATEWAY, "upgrade-refused",
        "The protocol upgrade was not possible.";
    /// A fault of the gateway itself.
    Internal = INTERNAL_SERVER_ERROR, "internal",
        "The gateway failed to handle the request.";
}

impl Reject {
    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        self.row().0
    }

    /// The reason code, in kebab-case; the same in metrics, access log and problem documents.
    pub fn name(&self) -> &'static str {
        self.row().1
    }

    /// One sentence for the person who reads the answer.
    pub fn title(&self) -> &'static str {
        self.row().2
    }

    /// The answer to a refused request: a problem document (RFC 9457) with the fields this
    /// refusal calls for (`Allow`, `WWW-Authenticate`, `Retry-After`).
    ///
    /// `request_id` is repeated in the body, so that a user's report leads to the log line.
    pub fn response(&self, request_id: &str) -> Response<Full<Bytes>> {
        let body = serde_json::to_vec(&Problem {
            kind: format!("urn:weir:reject:{}", self.name()),
            title: self.title(),
            status: self.status().as_u16(),
            reason: self.name(),
            request_id,
        })
        .expect("a struct of texts and numbers is always JSON");
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Self::MethodNotAllowed { allow } = self {
            headers.insert(header::ALLOW, allow.clone());
        }
        if let Some(challenge) = self.challenge() {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The challenge of a 401 or 403 (RFC 6750 section 3). A request without any token gets no
    /// error code: it made no mistake yet. API keys have no registered scheme; naming one of our
    /// own still keeps the answer lawful (RFC 9110 15.5.2 demands a challenge with every 401).
    fn challenge(&self) -> Option<HeaderValue> {
        let value = match self {
            Self::TokenMissing => "Bearer",
            Self::TokenScope => r#"Bearer error="insufficient_scope""#,
            Self::ApiKeyMissing | Self::ApiKeyUnknown => "ApiKey",
            _ if self.status() == StatusCode::UNAUTHORIZED => {
                let text = format!(
                    r#"Bearer error="invalid_token", error_description="{}""#,
                    self.name()
                );
                return HeaderValue::try_from(text).ok();
            }
            _ => return None,
        };
        Some(HeaderValue::from_static(value))
    }

    /// Seconds after which the client should try again, for refusals that pass by themselves.
    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after } | Self::CircuitOpen { retry_after } => {
                Some(*retry_after)
            }
            Self::InFlightLimited
            | Self::LimiterFull
            | Self::NoInstance
            | Self::UpstreamBusy
            | Self::UpstreamQueueTimeout
            | Self::RouteBusy
            | Self::ServiceBusy
            | Self::QueueTimeout
            | Self::QueueDisplaced
            | Self::NoDescriptor
            | Self::GatewayBusy => Some(1),
            // Memory comes back with the end of what is under way, which takes longer.
            Self::MemoryShort => Some(5),
            _ => None,
        }
    }
}

/// A problem document (RFC 9457 section 3.1) with two members of ours.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    reason: &'a str,
    request_id: &'a str,
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn all() -> Vec<Reject> {
        use Reject as R;
        let allow = HeaderValue::from_static("GET, HEAD");
        vec![
            R::MethodNotAllowed { allow },
            R::TokenMissing,
            R::TokenExpired,
            R::TokenScope,
            R::ApiKeyUnknown,
            R::RateLimited { retry_after: 7 },
            R::NoInstance,
            R::CircuitOpen { retry_after: 4 },
            R::RouteNotFound,
        ]
    }

    #[test]
    fn refusals_carry_the_fields_they_call_for() {
        let expired = r#"Bearer error="invalid_token", error_description="token-expired""#;
        let expected = [
            (405, "allow", "GET, HEAD"),
            (401, "www-authenticate", "Bearer"),
            (401, "www-authenticate", expired),
            (
                403,
                "www-authenticate",
                r#"Bearer error="insufficient_scope""#,
            ),
            (401, "www-authenticate", "ApiKey"),
            (429, "retry-after", "7"),
            (503, "retry-after", "1"),
            (503, "retry-after", "4"),
            (404, "cache-control", "no-store"),
        ];
        for (reject, (status, field, value)) in all().into_iter().zip(expected) {
            let response = reject.response("r-1");
            assert_eq!(response.status(), status, "{reject:?}");
            assert_eq!(response.headers()[field], value, "{reject:?}");
            assert_eq!(
                response.headers()["content-type"],
                "application/problem+json"
            );
        }
    }

    #[test]
    fn reason_codes_are_unique_and_in_kebab_case() {
        let mut names = Reject::NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reject::NAMES.len());
        let fits = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        assert!(names.iter().all(fits), "{names:?}");
    }

    #[tokio::test]
    async fn the_body_is_a_problem_document() {
        let body = Reject::TokenExpired.response("r-1").into_body();
        let body = body.collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "type": "urn:weir:reject:token-expired",
            "title": "The token has expired.",
            "status": 401,
            "reason": "token-expired",
            "request_id": "r-1",
        });
        assert_eq!(body, expected);
    }
}
