//! What a client may get from behind an instance with a bad habit.

use crate::support::client::raw;
use crate::support::gateway::{BASE, Gateway, route, service};
use crate::support::hostile::Hostile;

/// What a client may get.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected {
    /// 200 with this body.
    Body(&'static str),
    /// A refusal of the gateway.
    Refusal(u16, &'static str),
    /// The head, and a body that visibly breaks off, by this reason in the log.
    Broken(&'static str),
}

pub(super) const INVALID: Expected = Expected::Refusal(502, "upstream-protocol");
pub(super) const AMBIGUOUS: Expected = Expected::Refusal(502, "upstream-framing");
pub(super) const TIMEOUT: Expected = Expected::Refusal(504, "upstream-timeout");

/// A gateway with a service and a route `/NUMBER/` for each instance.
pub(super) async fn gateway(instances: &[Hostile], of_service: &str, of_route: &str) -> Gateway {
    let mut configuration = String::from("[server]\nbody_idle_timeout = \"2s\"\n");
    configuration += &BASE.replace("[server]", "");
    for (number, instance) in instances.iter().enumerate() {
        let name = format!("s{number}");
        configuration += &service(&name, &[instance.address], of_service);
        let path = format!("/{number}/{{*rest}}");
        configuration += &route(&name, &path, &name, of_route);
    }
    Gateway::start_with(&configuration, &[]).await
}

/// Asks each instance once, without further attempts, so that each is seen as it is.
pub(super) async fn check(
    instances: &[Hostile],
    of_service: &str,
    expected: &[(&'static str, Expected)],
) {
    // Many are asked at a time, and all but those that hang must have answered by then.
    let of_route = "timeout = \"3s\"\nretry = { attempts = 0 }";
    let gateway = gateway(instances, of_service, of_route).await;
    let checks = expected.iter().enumerate();
    let checks =
        checks.map(|(number, (name, expected))| answers(&gateway, number, name, *expected));
    futures_util::future::join_all(checks).await;
}

async fn answers(gateway: &Gateway, number: usize, name: &str, expected: Expected) {
    let path = format!("/{number}/x");
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let answer = raw(gateway.address(), request.as_bytes()).await;
    // Nothing at all is a break that every client notices.
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).unwrap_or_default();
    match expected {
        Expected::Body(expected) => {
            assert_eq!(status, "200", "{name}: {answer}");
            assert!(dechunked(body) == Some(expected.into()), "{name}: {answer}");
        }
        Expected::Refusal(code, reason) => {
            assert_eq!(status, code.to_string(), "{name}: {answer}");
            assert!(body.contains(&format!("\"{reason}\"")), "{name}: {answer}");
        }
        Expected::Broken(reason) => {
            let broken = answer.is_empty() || (status == "200" && is_broken(head, body));
            assert!(broken, "{name}: {answer}");
            let line = gateway.logged(&path).await;
            assert_eq!(line["reason"], reason, "{name}: {line}");
        }
    }
}

/// The body of a response, whichever way it is framed; `None`: it broke off.
fn dechunked(body: &str) -> Option<String> {
    if !body.ends_with("0\r\n\r\n") {
        return Some(body.to_owned());
    }
    let mut whole = String::new();
    let mut rest = body;
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole += after.get(..size)?;
        rest = after.get(size + 2..)?;
    }
}

/// Whether a client can tell that the response is not whole.
fn is_broken(head: &str, body: &str) -> bool {
    let head = head.to_ascii_lowercase();
    match head.split_once("content-length: ") {
        Some((_, rest)) => {
            let length: usize = rest.lines().next().unwrap().parse().unwrap();
            body.len() < length
        }
        None => head.contains("transfer-encoding: chunked") && !body.ends_with("0\r\n\r\n"),
    }
}
