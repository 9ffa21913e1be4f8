//! Distributed traces (W3C Trace Context, Recommendation of 23 November 2021): the gateway joins
//! the trace a request belongs to, or begins one.
//!
//! `traceparent` names the trace and the span of whoever sent the request. The gateway puts its own
//! span in place of the sender's, so that spans of instances hang below the gateway's line in the
//! access log (`trace_id`, `span_id`). It keeps and exports no spans. All attempts of a request, and
//! its mirrored copies, carry the same span.
//!
//! Only trusted peers (`trusted_proxies`) are believed: whoever may choose the trace of a request
//! can fill somebody else's with his own, or have everything recorded. `tracestate` belongs to the
//! `traceparent` beside it and goes where that goes (section 3.4).

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a `traceparent` of version 00: four fields of 2, 32, 16 and 2 digits.
const BYTES: usize = 55;
/// Where the fields stand.
const TRACE_ID: Range<usize> = 3..35;
const PARENT_ID: Range<usize> = 36..52;
const FLAGS: Range<usize> = 53..55;
/// The places of the hyphens between them.
const HYPHENS: [usize; 3] = [2, 35, 52];
/// The flags that are known, of which all but these are cleared: `sampled` (section 3.2.2.5.1) and
/// `random` (Level 2).
const FLAGS_KNOWN: u8 = 0b11;
const SAMPLED: u8 = 0b01;

/// Which part the gateway takes in traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracing {
    /// None: both fields pass like any other.
    Off,
    /// It joins those of trusted peers. Without one a request belongs to none.
    Join,
    /// It begins one for every request that belongs to none.
    Begin {
        /// Of 2^64 such traces so many are marked as sampled; `None`: all.
        sampled: Option<u64>,
    },
}

/// The gateway's part of a trace, as instances are told of it: a valid `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trace(HeaderValue);

impl Trace {
    /// The trace, 32 hexadecimal digits.
    pub(crate) fn trace_id(&self) -> &[u8] {
        &self.0.as_bytes()[TRACE_ID]
    }

    /// The gateway's own span, 16 hexadecimal digits.
    pub(crate) fn span_id(&self) -> &[u8] {
        &self.0.as_bytes()[PARENT_ID]
    }

    /// Takes a request's fields, and leaves those in their place that its instance is to see.
    /// `trusted`: its peer is believed. `random` gives 64 random bits.
    pub(crate) fn settle(
        tracing: Tracing,
        headers: &mut HeaderMap,
        trusted: bool,
        mut random: impl FnMut() -> u64,
    ) -> Option<Self> {
        if tracing == Tracing::Off {
            return None;
        }
        let joined = joined(headers, trusted);
        if joined.is_none() {
            remove(headers);
        }
        let (trace_id, flags) = match (joined, tracing) {
            (Some(joined), _) => joined,
            (None, Tracing::Begin { sampled }) => {
                let sampled = sampled.is_none_or(|share| random() < share);
                let id = u128::from(random()) << 64 | u128::from(random());
                (digits(id.max(1)), if sampled { SAMPLED } else { 0 })
            }
            (None, Tracing::Off | Tracing::Join) => return None,
        };
        let mut text = *b"00-................................-................-..";
        text[TRACE_ID].copy_from_slice(&trace_id);
        let span = digits(u128::from(random().max(1)));
        text[PARENT_ID].copy_from_slice(&span[16..]);
        text[FLAGS].copy_from_slice(&digits(flags.into())[30..]);
        let value = HeaderValue::from_bytes(&text).expect("digits and hyphens are a header value");
        headers.insert(TRACEPARENT, value.clone());
        Some(Self(value))
    }
}

/// The trace the peer says the request belongs to, with its flags.
fn joined(headers: &HeaderMap, trusted: bool) -> Option<([u8; 32], u8)> {
    if !trusted {
        return None;
    }
    let mut told = headers.get_all(TRACEPARENT).iter();
    match (told.next(), told.next()) {
        (Some(told), None) => parse(told.as_bytes()),
        // Several name no parent.
        _ => None,
    }
}

/// Trace and flags of a valid `traceparent` (section 3.2). Of a later version than ours, what comes
/// after our four fields is left out (section 4.3).
fn parse(text: &[u8]) -> Option<([u8; 32], u8)> {
    let head = text.get(..BYTES)?;
    let lower_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let shaped = head.iter().enumerate().all(|(at, byte)| {
        let hyphen = HYPHENS.contains(&at);
        if hyphen {
            *byte == b'-'
        } else {
            lower_hex(byte)
        }
    });
    let length_fits = match &head[..2] {
        b"ff" => false,
        b"00" => text.len() == BYTES,
        _ => text.get(BYTES).is_none_or(|byte| *byte == b'-'),
    };
    let is_named = |range: Range<usize>| head[range].iter().any(|digit| *digit != b'0');
    if !shaped || !length_fits || !is_named(TRACE_ID) || !is_named(PARENT_ID) {
        return None;
    }
    let flags = std::str::from_utf8(&head[FLAGS]).ok()?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some((head[TRACE_ID].try_into().ok()?, flags & FLAGS_KNOWN))
}

/// Takes both fields out, with one look at the others.
fn remove(headers: &mut HeaderMap) {
    let (mut parent, mut state) = (false, false);
    for name in headers.keys() {
        parent |= *name == TRACEPARENT;
        state |= *name == TRACESTATE;
    }
    if parent {
        headers.remove(TRACEPARENT);
    }
    if state {
        headers.remove(TRACESTATE);
    }
}

/// 32 hexadecimal digits.
fn digits(number: u128) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|place| DIGITS[(number >> (4 * (31 - place))) as usize & 0xf])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const BEGIN: Tracing = Tracing::Begin { sampled: None };

    /// What an instance sees of these fields, with random numbers counted from 1.
    fn settled(tracing: Tracing, trusted: bool, fields: &[(&'static str, &str)]) -> [String; 2] {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let mut counter = 0;
        let random = || {
            counter += 1;
            counter
        };
        let trace = Trace::settle(tracing, &mut headers, trusted, random);
        let shown = |name: HeaderName| {
            let values = headers.get_all(name).iter();
            let values: Vec<&str> = values.map(|value| value.to_str().unwrap()).collect();
            values.join(" and ")
        };
        let [parent, state] = [shown(TRACEPARENT), shown(TRACESTATE)];
        if let Some(trace) = trace {
            let ids = [trace.trace_id(), trace.span_id()].map(|id| std::str::from_utf8(id));
            assert_eq!(ids, [Ok(&parent[3..35]), Ok(&parent[36..52])]);
        }
        [parent, state]
    }

    #[test]
    fn a_valid_parent_is_joined() {
        let table = [
            ("sampled", format!("00-{ID}-00f067aa0ba902b7-01"), "01"),
            ("not sampled", format!("00-{ID}-00f067aa0ba902b7-00"), "00"),
            ("random", format!("00-{ID}-00f067aa0ba902b7-03"), "03"),
            (
                "unknown flags",
                format!("00-{ID}-00f067aa0ba902b7-fd"),
                "01",
            ),
            (
                "a later version",
                format!("cc-{ID}-00f067aa0ba902b7-01"),
                "01",
            ),
            (
                "with more",
                format!("01-{ID}-00f067aa0ba902b7-01-what"),
                "01",
            ),
        ];
        for (what, told, flags) in table {
            let fields = [("traceparent", told.as_str()), ("tracestate", "a=1")];
            for tracing in [Tracing::Join, BEGIN] {
                let expected = [format!("00-{ID}-0000000000000001-{flags}"), "a=1".into()];
                assert_eq!(settled(tracing, true, &fields), expected, "{what}");
            }
            assert_eq!(settled(Tracing::Join, false, &fields), ["", ""], "{what}");
            let [parent, state] = settled(BEGIN, false, &fields);
            assert!(!parent.contains(ID) && state.is_empty(), "{what}: {parent}");
            assert_eq!(settled(Tracing::Off, false, &fields), [&told, "a=1"]);
        }
    }

    #[test]
    fn an_invalid_parent_is_no_parent() {
        let table = [
            ("empty", String::new()),
            ("short", format!("00-{ID}-00f067aa0ba902b7-0")),
            (
                "version 00 with more",
                format!("00-{ID}-00f067aa0ba902b7-01-what"),
            ),
            ("version ff", format!("ff-{ID}-00f067aa0ba902b7-01")),
            (
                "more without a hyphen",
                format!("01-{ID}-00f067aa0ba902b7-01.what"),
            ),
            ("no version", format!("0x-{ID}-00f067aa0ba902b7-01")),
            (
                "trace of zeros",
                format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            ),
            ("parent of zeros", format!("00-{ID}-{}-01", "0".repeat(16))),
            (
                "capitals",
                format!("00-{}-00f067aa0ba902b7-01", ID.to_uppercase()),
            ),
            ("no digits", format!("00-{ID}-00f067aa0ba902bx-01")),
            ("no flags", format!("00-{ID}-00f067aa0ba902b7-0x")),
            ("other hyphens", format!("00_{ID}-00f067aa0ba902b7-01")),
        ];
        let begun = "00-00000000000000010000000000000002-0000000000000003-01";
        for (what, told) in table {
            let fields = [("traceparent", told.as_str()), ("tracestate", "a=1")];
            assert_eq!(settled(Tracing::Join, true, &fields), ["", ""], "{what}");
            assert_eq!(settled(BEGIN, true, &fields), [begun, ""], "{what}");
        }
        let told = format!("00-{ID}-00f067aa0ba902b7-01");
        let twice = [("traceparent", told.as_str()), ("traceparent", &told)];
        assert_eq!(settled(Tracing::Join, true, &twice), ["", ""]);
        assert_eq!(settled(BEGIN, true, &twice), [begun, ""]);
    }

    #[test]
    fn state_passes_whole_and_never_alone() {
        let told = format!("00-{ID}-00f067aa0ba902b7-01");
        let fields = [
            ("tracestate", "a=1,b=2"),
            ("traceparent", told.as_str()),
            ("tracestate", "c=3"),
        ];
        let [_, state] = settled(Tracing::Join, true, &fields);
        assert_eq!(state, "a=1,b=2 and c=3");
        let alone = [("tracestate", "a=1")];
        assert_eq!(settled(Tracing::Join, true, &alone), ["", ""]);
    }

    #[test]
    fn a_share_of_the_traces_begun_is_sampled() {
        for (sampled, flags) in [(None, "01"), (Some(0), "00"), (Some(2), "01")] {
            let [parent, _] = settled(Tracing::Begin { sampled }, false, &[]);
            assert_eq!(&parent[FLAGS], flags, "{sampled:?}");
        }
    }
}
