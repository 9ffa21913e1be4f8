//! Trailers: which may stand behind a body, and how many.
//!
//! Some instances treat trailer fields like header fields, though nobody has checked them there.
//! What decides on framing, routing, authentication or who the client is may therefore not come so
//! late (RFC 9110 section 6.5.1).

use http::HeaderMap;

/// How large a trailer section may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrailerLimits {
    /// Names and values together, with three bytes for each line.
    pub(crate) bytes_max: usize,
    /// Fields.
    pub(crate) fields_max: usize,
}

impl TrailerLimits {
    /// No trailers at all.
    pub(crate) const NONE: Self = Self {
        bytes_max: 0,
        fields_max: 0,
    };
}

/// What is wrong with a trailer section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TrailerFault {
    /// It is over a limit.
    #[error("the trailer section is too large")]
    TooLarge,
    /// A field stands there that may stand in the head only.
    #[error("a trailer field belongs into the head")]
    Forbidden,
}

/// The colon and CR LF: what the least spelling of a line has beside name and value.
const LINE_OVERHEAD_BYTES: usize = 3;

/// Fields that may not be trailers.
const FORBIDDEN: [&str; 32] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "max-forwards",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-real-ip",
    "x-request-id",
];

/// Checks the trailers of a message.
pub(crate) fn check(trailers: &HeaderMap, limits: TrailerLimits) -> Result<(), TrailerFault> {
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        name.as_str().len() + value.len() + LINE_OVERHEAD_BYTES
    };
    let bytes: usize = trailers.iter().map(line).sum();
    if trailers.len() > limits.fields_max || bytes > limits.bytes_max {
        return Err(TrailerFault::TooLarge);
    }
    let forbidden = |name: &http::HeaderName| {
        let name = name.as_str();
        // An underscore is a hyphen to some: then any name could be one of the above.
        FORBIDDEN.binary_search(&name).is_ok()
            || name.starts_with("x-forwarded-")
            || name.contains('_')
    };
    if trailers.keys().any(forbidden) {
        return Err(TrailerFault::Forbidden);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const LIMITS: TrailerLimits = TrailerLimits {
        bytes_max: 32,
        fields_max: 2,
    };

    fn checked(fields: &[(&str, &str)]) -> Result<(), TrailerFault> {
        let mut trailers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            trailers.append(name, value.parse().unwrap());
        }
        check(&trailers, LIMITS)
    }

    #[test]
    fn limits_hold_at_the_edge() {
        let value = |bytes: usize| "a".repeat(bytes);
        assert_eq!(checked(&[("x", "1"), ("y", "2")]), Ok(()));
        let three = [("x", "1"), ("x", "2"), ("x", "3")];
        assert_eq!(checked(&three), Err(TrailerFault::TooLarge));
        assert_eq!(checked(&[("x", &value(28))]), Ok(()));
        assert_eq!(checked(&[("x", &value(29))]), Err(TrailerFault::TooLarge));
    }

    #[test]
    fn what_belongs_into_the_head_is_refused() {
        assert!(FORBIDDEN.is_sorted());
        for name in [
            "Content-Length",
            "authorization",
            "X-Forwarded-For",
            "x_user",
        ] {
            let found = checked(&[(name, "1")]);
            assert_eq!(found, Err(TrailerFault::Forbidden), "{name}");
        }
        for name in ["grpc-status", "x-sum", "etag"] {
            assert_eq!(checked(&[(name, "1")]), Ok(()), "{name}");
        }
    }
}
