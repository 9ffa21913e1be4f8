//! The part of `check` about health checks.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use super::check::Checker;
use super::error::Mistake;
use super::{HealthCheck, Probe, Protocol, VipAddress, file, units};

/// Bounds of the interval: shorter ones are a flood, longer ones notice nothing.
const EVERY: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
/// The shortest timeout that can succeed on a network.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// Bounds of `fall` and `rise`.
const ROW: RangeInclusive<i64> = 1..=100;

/// What stands when the file is silent.
const EVERY_DEFAULT: Duration = Duration::from_secs(1);
const TIMEOUT_DEFAULT: Duration = Duration::from_millis(500);
const FALL_DEFAULT: u16 = 3;
const RISE_DEFAULT: u16 = 2;
const STATUS_DEFAULT: RangeInclusive<u16> = 200..=299;

/// Reads `health = { … }` of a VIP at `vip`.
pub(super) fn check(
    checker: &mut Checker<'_>,
    typed: &Spanned<file::Health>,
    vip: VipAddress,
) -> Option<HealthCheck> {
    let (place, typed) = (typed.span(), typed.get_ref());
    let probe = probe(checker, &place, typed);
    let port = match &typed.port {
        Some(port) => checker.note(
            port.span(),
            units::number("port", *port.get_ref(), 1..=65_535).map(|port| port as u16),
        ),
        None => checker.note(place, default_port(vip)),
    };
    let every = checker.optional(typed.every.as_ref(), EVERY_DEFAULT, |text| {
        units::duration("every", text, EVERY)
    });
    let timeout_max = every.unwrap_or(*EVERY.end());
    let timeout_default = TIMEOUT_DEFAULT.min(timeout_max);
    let timeout = checker.optional(typed.timeout.as_ref(), timeout_default, |text| {
        units::duration("timeout", text, TIMEOUT_MIN..=timeout_max).map_err(|mistake| Mistake {
            hint: mistake.hint.map(|hint| {
                if hint.starts_with("use ") {
                    format!("{hint}: a probe must end before the next one of the same backend")
                } else {
                    hint
                }
            }),
            ..mistake
        })
    });
    let mut row = |value: &Option<Spanned<i64>>, what, default| {
        checker.optional(value.as_ref(), default, |value| {
            units::number(what, *value, ROW).map(|value| value as u16)
        })
    };
    let fall = row(&typed.fall, "fall", FALL_DEFAULT);
    let rise = row(&typed.rise, "rise", RISE_DEFAULT);
    Some(HealthCheck {
        probe: probe?,
        port: port?,
        every: every?,
        timeout: timeout?,
        fall: fall?,
        rise: rise?,
    })
}

fn probe(
    checker: &mut Checker<'_>,
    place: &std::ops::Range<usize>,
    typed: &file::Health,
) -> Option<Probe> {
    let tcp = typed.tcp.as_ref().is_some_and(|tcp| *tcp.get_ref());
    match (&typed.http, tcp) {
        (Some(path), false) => {
            let path = checker.note(path.span(), http_path(path.get_ref()));
            let host =
                checker.optional(typed.host.as_ref(), None, |host| http_host(host).map(Some));
            let status = checker.optional(typed.status.as_ref(), STATUS_DEFAULT, |text| {
                units::status_range(text)
            });
            Some(Probe::Http {
                path: path?,
                host: host?,
                status: status?,
            })
        }
        (None, true) => {
            for (key, value) in [("host", &typed.host), ("status", &typed.status)] {
                if let Some(value) = value {
                    let reason = format!("`{key}` means nothing to a TCP check");
                    let hint = "remove it, or probe over HTTP with `http = \"/healthz\"`";
                    checker.note::<()>(value.span(), Err(Mistake::new(reason, hint)));
                }
            }
            Some(Probe::Tcp)
        }
        _ => checker.note(
            place.clone(),
            Err(Mistake::new(
                "a health check takes exactly one of `http` and `tcp`",
                "write `{ http = \"/healthz\", port = 8081 }` or `{ tcp = true }`",
            )),
        ),
    }
}

/// The VIP's own port, where that is one a TCP connection can be made to.
fn default_port(vip: VipAddress) -> Result<u16, Mistake> {
    let why = match vip {
        VipAddress { port: 0, .. } => "the VIP stands for every port",
        VipAddress {
            protocol: Protocol::Udp,
            ..
        } => "the VIP takes UDP and probes use TCP",
        VipAddress { port, .. } => return Ok(port),
    };
    Err(Mistake::new(
        format!("the health check has no port, and {why}"),
        "name the port to probe: `port = 8081`",
    ))
}

fn http_path(text: &str) -> Result<String, Mistake> {
    let valid = text.starts_with('/')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && text.parse::<http::uri::PathAndQuery>().is_ok();
    if valid {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(
        format!("`{text}` is not a path"),
        "begin it with `/` and escape spaces and special characters: `/healthz?full=1`",
    ))
}

fn http_host(text: &str) -> Result<String, Mistake> {
    if !text.is_empty()
        && text
            .parse::<http::uri::Authority>()
            .is_ok_and(|a| a == text)
    {
        return Ok(text.to_owned());
    }
    Err(Mistake::new(
        format!("`{text}` cannot be a Host header"),
        "write a name, with a port if need be: `api.example.com`",
    ))
}
