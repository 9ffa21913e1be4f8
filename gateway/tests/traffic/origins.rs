//! The gateway in front of nginx, HAProxy, Apache, Node and Python, with a generated set of odd
//! requests: none of them reads another number of requests, another path or another body than
//! [`reference`], which reads what the gateway sends by the narrowest grammar there is.
//!
//! Each passes what it has read on to a reference server of its own; nginx, HAProxy and Apache add
//! how they understood the path. All get the same bytes through a gateway each.

mod oddities;
mod programs;
mod reference;

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use self::oddities::{Case, cases};
use self::programs::Program;
use self::reference::{Reference, Report};
use crate::support::PATIENCE;
use crate::support::gateway::{Gateway, route, service};

/// Cases of each set; enough that every pair of oddities that go together comes up.
const CASES: usize = 600;

/// What an origin made of the cases, and what the client was answered.
struct Outcome {
    reports: Vec<Vec<Report>>,
    statuses: Vec<Vec<u16>>,
    /// Requests that were forwarded and answered 200, by the access log.
    logged: Vec<(String, u64)>,
}

/// A gateway that does not wait long for what is missing.
async fn gateway(origin: std::net::SocketAddr, reading: &str) -> Gateway {
    let configuration = format!(
        "[server]\nworkers = 1\nheader_timeout = \"300ms\"\nbody_idle_timeout = \"300ms\"\n\
         [reading]\n{reading}\n[listeners.public]\nbind = \"127.0.0.1:0\"\n\
         [access_log]\nto = \"file\"\npath = \"access.log\"\n{}{}",
        service("app", &[origin], ""),
        route("all", "/{*rest}", "app", ""),
    );
    Gateway::start_with(&configuration, &[]).await
}

/// Sends every case on a connection of its own, one after the other, and takes down what the
/// origin reports of each.
async fn run(
    gateway: &Gateway,
    cases: &[Case],
    mut reports: impl FnMut() -> Vec<Report>,
) -> Outcome {
    let mut outcome = Outcome {
        reports: Vec::new(),
        statuses: Vec::new(),
        logged: Vec::new(),
    };
    for case in cases {
        let answer = exchange(gateway, case).await;
        outcome.statuses.push(statuses(&answer));
        outcome.reports.push(reports());
    }
    exchange(gateway, &oddities::plain("/over")).await;
    reports();
    gateway.logged("/over").await;
    let forwarded = |line: &serde_json::Value| {
        let of_case = line["path"] != "/over";
        let passed = of_case && line["status"] == 200 && line.get("instance").is_some();
        passed.then(|| {
            let path = line["path"].as_str().unwrap().to_owned();
            (path, line["bytes_in"].as_u64().unwrap())
        })
    };
    outcome.logged = gateway.log_lines().iter().filter_map(forwarded).collect();
    outcome
}

/// The answer to a case, up to the end of the connection. Every case ends with a request that asks
/// for it.
async fn exchange(gateway: &Gateway, case: &Case) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
    let mut answer = Vec::new();
    let talk = async {
        // A refused client may find the connection closed.
        let _ = stream.write_all(&case.bytes).await;
        let _ = stream.read_to_end(&mut answer).await;
    };
    tokio::time::timeout(PATIENCE, talk)
        .await
        .unwrap_or_else(|_| panic!("no end of {:?}", case.text()));
    answer
}

/// The statuses of the answers in a connection's bytes, interim ones left out.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let status = |at: usize| text[at + "HTTP/1.1 ".len()..].get(..3)?.parse().ok();
    let found = text
        .match_indices("HTTP/1.")
        .filter_map(|(at, _)| status(at));
    found.filter(|status| *status != 100).collect()
}

/// All cases through every program that is here, against the reference.
async fn compare(reading: &str, cases: &[Case]) -> Outcome {
    let direct = Reference::start().await;
    let front = gateway(direct.address(), reading).await;
    let expected = run(&front, cases, || direct.take()).await;
    assert!(
        direct.faults().is_empty(),
        "what the gateway sends is plain: {:#?}",
        direct.faults()
    );

    let mut logged = expected.logged.clone();
    let mut reported: Vec<(String, u64)> = expected.reports.iter().flatten().map(of_log).collect();
    logged.sort();
    reported.sort();
    assert_eq!(logged, reported, "the access log tells what was forwarded");

    let comparisons = Program::installed("the origins")
        .into_iter()
        .map(|program| compare_program(program, reading, cases, &expected.reports));
    futures_util::future::join_all(comparisons).await;
    expected
}

/// All cases through one program, against what the reference reads.
async fn compare_program(
    program: Program,
    reading: &str,
    cases: &[Case],
    expected: &[Vec<Report>],
) {
    let origin = program.start().await;
    let front = gateway(origin.address(), reading).await;
    let outcome = run(&front, cases, || origin.reports()).await;
    for (index, case) in cases.iter().enumerate() {
        let due: Vec<Report> = expected[index]
            .iter()
            .map(|one| program.view(one))
            .collect();
        assert_eq!(outcome.reports[index], due, "{program:?}: {}", case.text());
        let answered = outcome.statuses[index].iter().filter(|one| **one == 200);
        assert_eq!(
            answered.count(),
            due.len(),
            "{program:?}: answers to {}",
            case.text()
        );
    }
}

/// A report as the access log has it: without query.
fn of_log(report: &Report) -> (String, u64) {
    let path = report.target.split('?').next().unwrap_or_default();
    (path.to_owned(), report.body.len() as u64)
}

#[tokio::test]
async fn every_origin_reads_what_the_gateway_decided_on() {
    let cases = cases(CASES, 1);
    let outcome = compare("", &cases).await;
    let mut by_status: BTreeMap<u16, usize> = BTreeMap::new();
    for status in outcome.statuses.iter().flatten() {
        *by_status.entry(*status).or_default() += 1;
    }
    let count = |status| by_status.get(&status).copied().unwrap_or_default();
    // The set would prove nothing if all of it were refused, or all of it plain.
    assert!(
        count(200) > CASES / 2 && count(400) > CASES / 4,
        "{by_status:?}"
    );
}

#[tokio::test]
async fn odd_paths_that_are_let_through_are_read_alike() {
    let lenient = "dot_segments = \"resolve\"\nempty_segments = \"merge\"\n\
                   backslashes = \"keep\"\nunderscore_names = \"drop\"";
    let outcome = compare(lenient, &oddities::paths()).await;
    let passed = outcome
        .statuses
        .iter()
        .filter(|one| one.first() == Some(&200));
    assert!(passed.count() > oddities::paths().len() / 3);
}

#[test]
fn the_generated_set_is_always_the_same() {
    let bytes = |seed| {
        cases(CASES, seed)
            .into_iter()
            .map(|case| case.bytes)
            .collect::<Vec<_>>()
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
}
