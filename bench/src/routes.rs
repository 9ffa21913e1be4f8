//! Looking a request's route up: what it costs among ten routes, and among many more.

use std::{fmt::Write as _, hint::black_box, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use gateway::{config::Config, route::Request};
use http::{HeaderMap, Method};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::report::table;

/// How many routes the tables hold.
const ROUTES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Requests of one timed turn; each asks for another route.
const LOOKUPS: usize = 20_000;
/// The least of so many turns counts: noise only ever adds. Turns are short, so that some are not
/// disturbed.
const TURNS: usize = 99;

/// One line of the result.
#[derive(Serialize)]
pub(crate) struct Row {
    case: &'static str,
    routes: usize,
    ns_per_lookup: f64,
}

/// How the routes of a table differ.
const CASES: [(&str, Shape); 7] = [
    ("host", |n| {
        (
            format!("host = \"h{n}.test\""),
            format!("h{n}.test"),
            "/a/b".to_owned(),
        )
    }),
    ("exact path", |n| path(n, "", "")),
    ("parameter", |n| path(n, "/{id}", "/7")),
    ("prefix", |n| path(n, "/{*rest}", "/a/b")),
    ("expression", |n| {
        let regex = format!("path = {{ regex = \"/p{n}/[a-z]+\" }}");
        (regex, "a.test".to_owned(), format!("/p{n}/abc"))
    }),
    ("expression, later on", |n| {
        let regex = format!("path = {{ regex = \"/[a-z]+/p{n}/[0-9]+\" }}");
        (regex, "a.test".to_owned(), format!("/abc/p{n}/7"))
    }),
    ("expression, within", |n| {
        let regex = format!("path = {{ regex = \"/p{n}-[0-9]+(\\\\.html)?\" }}");
        (regex, "a.test".to_owned(), format!("/p{n}-7.html"))
    }),
];

/// What route number n matches, and the host and path of a request for it.
type Shape = fn(usize) -> (String, String, String);

fn path(number: usize, pattern: &str, asked: &str) -> (String, String, String) {
    let matched = format!("path = \"/api/v1/p{number}{pattern}\"");
    let asked = format!("/api/v1/p{number}{asked}");
    (matched, "a.test".to_owned(), asked)
}

/// Runs all cases and prints them.
pub(crate) fn run() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (case, shape) in CASES {
        for routes in ROUTES {
            rows.push(Row {
                case,
                routes,
                ns_per_lookup: time(shape, routes)?,
            });
        }
    }
    let cells = rows.iter().map(|row| {
        let nanoseconds = format!("{:.1}", row.ns_per_lookup);
        vec![row.case.to_owned(), row.routes.to_string(), nanoseconds]
    });
    table(
        &["routes differ in", "routes", "ns per look-up"],
        &cells.collect::<Vec<_>>(),
    );
    Ok(rows)
}

fn time(shape: Shape, routes: usize) -> Result<f64> {
    let mut text = "[listeners.public]\nbind = \"127.0.0.1:80\"\n\
                    [services.app]\nendpoints = [\"127.0.0.1:81\"]\n"
        .to_owned();
    let mut asked = Vec::with_capacity(routes);
    for number in 0..routes {
        let (matched, host, path) = shape(number);
        writeln!(
            text,
            "[routes.r{number}]\nmatch = {{ {matched} }}\nservice = \"app\""
        )?;
        asked.push((host, path));
    }
    // In steps that visit every route, but no two neighbours: as requests come. Their texts lie in
    // the order they are looked at in, as those of requests do, which were just received.
    let asked: Vec<(String, String)> = (0..routes)
        .map(|turn| asked[turn * 7_919 % routes].clone())
        .collect();
    let config = Config::parse(&text, Path::new("")).context("the routes under test")?;
    let headers = HeaderMap::new();
    let mut least = f64::INFINITY;
    for _ in 0..TURNS {
        let mut found = 0;
        let started = processor_time()?;
        for (host, path) in asked.iter().cycle().take(LOOKUPS) {
            let request = Request {
                listener: "public",
                host,
                method: &Method::GET,
                path,
                query: None,
                headers: &headers,
            };
            found += usize::from(black_box(config.routes.find(&request)).is_ok());
        }
        let took = processor_time()? - started;
        least = least.min(took.as_nanos() as f64 / LOOKUPS as f64);
        ensure!(
            found == LOOKUPS,
            "{} requests found no route",
            LOOKUPS - found
        );
    }
    Ok(least)
}

/// What this thread has used up: others on the same core do not count.
fn processor_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
