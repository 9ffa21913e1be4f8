//! Requests and the answers they must get; then many requests, and where they went.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::report::Report;
use super::spread::Spread;
use super::topology::{Family, LIMITED_PATH, SERVICES, World};
use crate::client::{Client, Connection, Reply, RequestError, inside};
use crate::service::WhoAmI;
use crate::wait;

/// How many requests the spread is measured with, each on a connection of its own.
const SPREAD_REQUESTS: usize = 420;

/// How many of them are under way at a time.
const SPREAD_AT_ONCE: usize = 8;

/// The smallest share of a gateway, in percent. Of 420 flows a fair split gives each of two
/// gateways 210 ± 10 (one standard deviation), so this is ten deviations away.
const GATEWAY_SHARE_PERCENT_MIN: usize = 25;

/// A limited user is refused at the latest after this many requests in a row.
const LIMIT_REQUESTS_MAX: usize = 100;

/// From the start of the last program until the first request passes.
const FIRST_ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Where a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The gateway it passed.
    pub gateway: String,
    /// The instance that answered.
    pub instance: String,
}

/// A request and the status it must be answered with.
#[derive(Debug)]
pub struct Asked {
    /// The VIP it is sent to.
    pub family: Family,
    /// The path it asks for.
    pub path: &'static str,
    /// What is special about it.
    pub description: &'static str,
    /// The right status.
    pub expected: u16,
}

/// Requests good and bad, one by one, over both families.
///
/// # Errors
///
/// When the client cannot be built; an unexpected answer goes into the report instead.
pub fn answers(world: &World, report: &mut Report) -> Result<()> {
    wait_for_first_answer(world)?;
    for family in Family::BOTH {
        let stranger = world.stranger(family);
        let forged = stranger
            .clone()
            .with_token(&world.credentials.forged_token()?);
        let expired = stranger
            .clone()
            .with_token(&world.credentials.expired_token()?);
        let alice = world.user(family, "alice")?;
        let cases = [
            ("without a token", &stranger, "/users/whoami", 401),
            ("with a forged token", &forged, "/users/whoami", 401),
            ("with an expired token", &expired, "/users/whoami", 401),
            ("with a good token", &alice, "/users/whoami", 200),
            ("with a good token", &alice, "/orders/whoami", 200),
            ("to no known route", &alice, "/invoices/whoami", 404),
        ];
        for (description, client, path, expected) in cases {
            let outcome = inside(&world.client, || client.once(path));
            let told = told(&outcome, &world.gateway_names());
            let asked = Asked {
                family,
                path,
                description,
                expected,
            };
            report.answer(&asked, &outcome, &told);
        }
        over_the_limit(world, family, report)?;
    }
    Ok(())
}

/// Many requests, each with a new connection, over both families and to all services.
///
/// # Errors
///
/// When the clients cannot be built; an unfair share goes into the report instead.
pub fn spread(world: &World, report: &mut Report) -> Result<()> {
    let requests = spread_requests(world)?;
    let names = world.gateway_names();
    let places: Vec<_> = inside(&world.client, || async {
        let ask = async |(client, path): &(Client, String)| place(&client.once(path).await, &names);
        stream::iter(&requests)
            .map(ask)
            .buffer_unordered(SPREAD_AT_ONCE)
            .collect()
            .await
    });
    let mut spread = Spread::default();
    for outcome in places {
        match outcome {
            Ok(place) => spread.add(&place),
            Err(problem) => report.failure(&problem),
        }
    }
    report.passed(spread.sum());
    let gateways: Vec<&str> = world.gateways.iter().map(|one| one.host().name()).collect();
    let instances: Vec<&str> = world.instances.iter().map(|one| one.host.name()).collect();
    for problem in unfair(&spread, &gateways, &instances) {
        report.problem(&problem);
    }
    report.spread(spread);
    Ok(())
}

/// Both families, all services, and so many users that nobody meets the limit.
fn spread_requests(world: &World) -> Result<Vec<(Client, String)>> {
    let mut requests = Vec::new();
    for number in 0..SPREAD_REQUESTS {
        let family = Family::BOTH[number % 2];
        let (service, _) = SERVICES[(number / 2) % SERVICES.len()];
        let client = world.user(family, &format!("user-{number}"))?;
        requests.push((client, format!("/{service}/whoami")));
    }
    Ok(requests)
}

/// Where `outcome` was answered, or why it was not.
///
/// # Errors
///
/// In words, when the request failed or the answer is not that of `/whoami`.
pub fn place(
    outcome: &Result<Reply, RequestError>,
    gateways: &HashMap<IpAddr, String>,
) -> Result<Place, String> {
    let reply = outcome.as_ref().map_err(ToString::to_string)?;
    if reply.status != 200 {
        return Err(format!("{} {}", reply.status, reason(reply)));
    }
    let who: WhoAmI = reply.json().map_err(|error| error.to_string())?;
    let gateway = gateways.get(&who.peer.ip());
    let gateway = gateway
        .ok_or_else(|| format!("{} is no gateway", who.peer))?
        .clone();
    Ok(Place {
        gateway,
        instance: who.instance,
    })
}

/// Waits until requests pass: the balancer probes the gateways before it sends anything there.
///
/// # Errors
///
/// With the last answer, when none is good in time.
pub fn wait_for_first_answer(world: &World) -> Result<()> {
    for family in Family::BOTH {
        let client = world
            .user(family, "first")?
            .with_timeout(Duration::from_secs(1));
        let mut last = String::new();
        let answered = wait::until("an answer through the VIP", FIRST_ANSWER_LIMIT, || {
            match inside(&world.client, || client.once("/users/whoami")) {
                Ok(reply) if reply.status == 200 => return Some(()),
                Ok(reply) => last = format!("{} {}", reply.status, reason(&reply)),
                Err(error) => last = error.to_string(),
            }
            None
        });
        answered.with_context(|| format!("{} answered last: {last}", family.vip()))?;
    }
    Ok(())
}

/// All requests of one connection meet the same gateway, and so the same limiter.
fn over_the_limit(world: &World, family: Family, report: &mut Report) -> Result<()> {
    let subject = format!("eve-{family:?}");
    let client = world.user(family, &subject)?;
    let (passed, last) = inside(&world.client, || until_refused(&client, LIMITED_PATH));
    let told = match &last {
        Ok(reply) => format!("after {passed} requests at once; {}", limit_headers(reply)),
        Err(error) => error.to_string(),
    };
    report.passed(passed);
    let description = "over the limit";
    let asked = Asked {
        family,
        path: LIMITED_PATH,
        description,
        expected: 429,
    };
    report.answer(&asked, &last, &told);
    Ok(())
}

async fn until_refused(client: &Client, path: &str) -> (usize, Result<Reply, RequestError>) {
    let mut connection = match Connection::open(client).await {
        Ok(connection) => connection,
        Err(error) => return (0, Err(error)),
    };
    let mut passed = 0;
    loop {
        let outcome = connection.get(path).await;
        let went_through = outcome.as_ref().is_ok_and(|reply| reply.status == 200);
        if !went_through || passed == LIMIT_REQUESTS_MAX {
            return (passed, outcome);
        }
        passed += 1;
    }
}

fn limit_headers(reply: &Reply) -> String {
    let shown = reply.headers.iter().filter(|(name, _)| {
        name.as_str().starts_with("ratelimit") || *name == http::header::RETRY_AFTER
    });
    let lines = shown.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?")));
    lines.collect::<Vec<_>>().join(", ")
}

/// What an answer tells, for the report.
fn told(outcome: &Result<Reply, RequestError>, gateways: &HashMap<IpAddr, String>) -> String {
    match outcome {
        Err(error) => error.to_string(),
        Ok(reply) if reply.status == 200 => match place(outcome, gateways) {
            Ok(Place { gateway, instance }) => format!("from {instance} through {gateway}"),
            Err(problem) => problem,
        },
        Ok(reply) => reason(reply),
    }
}

/// The refusal in a problem document (RFC 9457), or the start of whatever came instead.
fn reason(reply: &Reply) -> String {
    let document: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    let member = |name: &str| document.get(name).and_then(Value::as_str);
    match (
        member("reason").or(member("type")),
        member("detail").or(member("title")),
    ) {
        (Some(reason), Some(detail)) => format!("{reason}: {detail}"),
        (Some(text), None) | (None, Some(text)) => text.to_owned(),
        (None, None) => String::from_utf8_lossy(&reply.body)
            .chars()
            .take(80)
            .collect(),
    }
}

/// Who got less than a share; `gateways` share all requests, `instances` those of their service.
fn unfair(spread: &Spread, gateways: &[&str], instances: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    for gateway in gateways {
        let percent = 100 * spread.of_gateway(gateway) / spread.sum().max(1);
        if percent < GATEWAY_SHARE_PERCENT_MIN {
            problems.push(format!("{gateway} got only {percent} % of the requests"));
        }
    }
    let idle = instances
        .iter()
        .filter(|instance| spread.of_instance(instance) == 0);
    problems.extend(idle.map(|instance| format!("{instance} got no request")));
    problems
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::demo::spread::example;

    fn refusal(body: &'static str) -> Reply {
        let status = StatusCode::UNAUTHORIZED;
        Reply {
            status,
            headers: HeaderMap::new(),
            body: body.into(),
        }
    }

    #[test]
    fn a_refusal_is_told_by_its_reason_and_detail() {
        let cases = [
            (
                r#"{"reason": "token-expired", "detail": "Too old."}"#,
                "token-expired: Too old.",
            ),
            (
                r#"{"type": "about:blank", "title": "Unauthorized"}"#,
                "about:blank: Unauthorized",
            ),
            (r#"{"title": "Unauthorized"}"#, "Unauthorized"),
            ("<html>no</html>", "<html>no</html>"),
        ];
        for (body, expected) in cases {
            assert_eq!(reason(&refusal(body)), expected, "{body}");
        }
    }

    #[test]
    fn a_refused_request_has_no_place() {
        let outcome = Ok(refusal(r#"{"title": "Unauthorized"}"#));
        let expected = "401 Unauthorized Unauthorized".to_owned();
        assert_eq!(place(&outcome, &HashMap::new()), Err(expected));
    }

    #[test]
    fn whoever_got_too_little_is_named() {
        let fair = unfair(
            &example(),
            &["gateway-1", "gateway-2"],
            &["users-1", "orders-1"],
        );
        assert_eq!(fair, Vec::<String>::new());
        let unfair = unfair(
            &example(),
            &["gateway-1", "gateway-3"],
            &["users-1", "users-2"],
        );
        assert_eq!(
            unfair,
            [
                "gateway-3 got only 0 % of the requests",
                "users-2 got no request"
            ]
        );
    }
}
