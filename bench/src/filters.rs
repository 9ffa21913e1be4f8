//! What each step of a request costs beside its forwarding: filters, header changes, log, metrics;
//! and what a scrape costs.
//!
//! In this process, on one thread, by the code that serves requests. No socket is involved, and
//! nothing waits; the writer of the access log writes to `/dev/null`, on a thread of its own.

use std::{
    fmt::Write as _,
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use gateway::config::Config;
use gateway::filter::Context;
use gateway::route::template::Facts;
use gateway::route::{Request, Route};
use gateway::telemetry::rehearsal::Rehearsal;
use http::request::Parts;
use serde::Serialize;

use crate::gateway::chain::{AUDIENCE, ISSUER, Signer};
use crate::report::table;

/// The least of so many turns counts: noise only ever adds. They are short, so that on a machine
/// with other work some are not interrupted.
const TURNS: usize = 201;
/// Requests of one turn, and of one with signatures to check.
const REQUESTS: usize = 1_000;
const REQUESTS_SIGNED: usize = 20;
/// Senders with a token of their own, in turn.
const SENDERS: usize = 1000;
/// Routes with traffic on the page that is scraped.
const ROUTES: usize = 10_000;
/// Scrapes; the least counts.
const SCRAPES: usize = 5;

/// One line of the result.
#[derive(Serialize)]
pub(crate) struct Row {
    case: &'static str,
    ns_per_request: Option<f64>,
    page_ms: Option<f64>,
    page_bytes: Option<usize>,
}

/// One step, with what the configuration says beside a listener and a service.
struct Case {
    name: &'static str,
    sections: &'static [&'static str],
    /// Keys of the route.
    route: &'static str,
    step: fn(&Bed, usize),
    requests: usize,
}

const KEY: &str = "[auth.k]\ntype = \"api-key\"\nkeys = { ci = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\" }";
const JWT: &str = "[auth.j]\ntype = \"jwt\"\nissuer = \"ISSUER\"\naudience = [\"AUDIENCE\"]\n\
    jwks = { file = \"jwks.json\" }\nalgorithms = [\"RS256\"]\n";
const NO_CACHE: &str = "tokens_cached_max = 0";
const LIMIT: &str =
    "[limits.l]\nrate = \"1000000000/s\"\nburst = 1000000000\nkey = \"header.x-sender\"";
const JSON: &str = "[access_log]\nto = \"file\"\npath = \"/dev/null\"";
const TEMPLATE: &str = "[access_log]\nto = \"file\"\npath = \"/dev/null\"\nformat = \"{client} [{time}] {method} {path} {status} {duration_ms}\"";
const BY_SUBJECT: &str =
    "[limits.l]\nrate = \"1000000000/s\"\nburst = 1000000000\nkey = \"jwt.sub\"\n";

const CASES: [Case; 16] = [
    case(
        "no filter: the floor of the next six",
        &[],
        "",
        Bed::filters,
    ),
    case("API key", &[KEY], "use = [\"k\"]", Bed::filters),
    case(
        "JWT RS256, 1000 tokens, cached",
        &[JWT],
        "use = [\"j\"]",
        Bed::filters,
    ),
    Case {
        requests: REQUESTS_SIGNED,
        ..case(
            "JWT RS256, not cached",
            &[JWT, NO_CACHE],
            "use = [\"j\"]",
            Bed::filters,
        )
    },
    case(
        "rate limit, 1000 senders",
        &[LIMIT],
        "use = [\"l\"]",
        Bed::filters,
    ),
    case(
        "requests in flight, 1000 senders",
        &["[concurrency.c]\nin_flight_max = 10\nkey = \"header.x-sender\""],
        "use = [\"c\"]",
        Bed::filters,
    ),
    case("request of a browser, no CORS", &[], "", Bed::answer),
    case(
        "CORS, an origin of three",
        &[],
        "cors = { origins = [\"https://a.test\", \"https://*.b.test\", \"https://shop.test\"], expose = [\"x-a\"] }",
        Bed::answer,
    ),
    case(
        "header changes, three fixed",
        &[],
        "response_headers = { set = { x-a = \"1\", x-b = \"2\" }, remove = [\"server\"] }",
        Bed::answer,
    ),
    case(
        "header changes, two made from the request",
        &[],
        "response_headers = { set = { x-a = \"{method} {path}\", x-b = \"{client-ip}\" } }",
        Bed::answer,
    ),
    case(
        "traceparent, a stranger's taken out",
        &[],
        "",
        Bed::trace_of_stranger,
    ),
    case("traceparent, joined", &[], "", Bed::trace_of_proxy),
    case("access log, JSON line", &[JSON], "", Bed::log),
    case("access log, line by template", &[TEMPLATE], "", Bed::log),
    case("metrics record", &[], "", Bed::count),
    case(
        "full chain: JWT cached, rate limit, JSON line, metrics",
        &[JWT, BY_SUBJECT, JSON],
        "use = [\"j\", \"l\"]",
        Bed::full,
    ),
];

const fn case(
    name: &'static str,
    sections: &'static [&'static str],
    route: &'static str,
    step: fn(&Bed, usize),
) -> Case {
    Case {
        name,
        sections,
        route,
        step,
        requests: REQUESTS,
    }
}

/// Runs all cases and prints them.
pub(crate) fn run() -> Result<Vec<Row>> {
    let signer = Signer::new()?;
    let folder = tempfile::tempdir().context("a folder for the key set")?;
    std::fs::write(
        folder.path().join("jwks.json"),
        signer.key_set().to_string(),
    )?;
    let heads = heads(&signer)?;
    let mut rows = Vec::new();
    for case in &CASES {
        rows.push(Row {
            case: case.name,
            ns_per_request: Some(time(case, folder.path(), &heads)?),
            page_ms: None,
            page_bytes: None,
        });
    }
    rows.push(scrape()?);
    let cells = rows.iter().map(|row| {
        let or_dash = |cell: Option<String>| cell.unwrap_or_else(|| "–".to_owned());
        vec![
            row.case.to_owned(),
            or_dash(row.ns_per_request.map(|ns| format!("{ns:.0}"))),
            or_dash(row.page_ms.map(|ms| format!("{ms:.1}"))),
            or_dash(row.page_bytes.map(|bytes| bytes.to_string())),
        ]
    });
    table(
        &["step", "ns per request", "ms per page", "bytes of the page"],
        &cells.collect::<Vec<_>>(),
    );
    Ok(rows)
}

/// The heads of requests: of each sender one, with all that any step looks for.
fn heads(signer: &Signer) -> Result<Arc<[Parts]>> {
    let head = |number| {
        let token = signer.token(&format!("partner-{number}"))?;
        let request = http::Request::get("/api/v1/orders/7?page=2")
            .header("host", "api.example.com")
            .header("user-agent", "curl/8.5.0")
            .header("accept", "*/*")
            .header("origin", "https://shop.test")
            .header("authorization", format!("Bearer {token}"))
            .header("x-api-key", "abc")
            .header("x-sender", format!("partner-{number}"))
            .body(())?;
        Ok(request.into_parts().0)
    };
    (0..SENDERS).map(head).collect()
}

/// A route with what it needs around it.
struct Bed {
    rehearsal: Rehearsal,
    route: Arc<Route>,
    /// Of each sender one.
    heads: Arc<[Parts]>,
}

fn time(case: &Case, folder: &Path, heads: &Arc<[Parts]>) -> Result<f64> {
    let sections = case.sections.concat().replace("ISSUER", ISSUER);
    let text = format!(
        "{}\n[listeners.public]\nbind = \"127.0.0.1:80\"\n\
         [services.app]\nendpoints = [\"127.0.0.1:81\"]\n\
         [routes.orders]\nmatch = {{}}\nservice = \"app\"\n{}\n",
        sections.replace("AUDIENCE", AUDIENCE),
        case.route
    );
    let config = Config::parse(&text, folder).with_context(|| case.name)?;
    let route = config.routes.routes().next().context("one route")?;
    let bed = Bed {
        route: Arc::clone(route),
        rehearsal: Rehearsal::new(config)?,
        heads: Arc::clone(heads),
    };
    // Once through all, so that nothing is met for the first time.
    (0..case.requests).for_each(|number| (case.step)(&bed, number));
    let mut least = f64::INFINITY;
    for _ in 0..TURNS {
        let started = Instant::now();
        for number in 0..case.requests {
            (case.step)(&bed, number);
        }
        least = least.min(started.elapsed().as_nanos() as f64 / case.requests as f64);
    }
    Ok(least)
}

impl Bed {
    fn head(&self, number: usize) -> &Parts {
        // In steps that visit every sender, but no two neighbours: as requests come.
        &self.heads[number * 389 % self.heads.len()]
    }

    fn filters(&self, number: usize) {
        let head = self.head(number);
        let mut context = Context::new([192, 0, 2, 1].into());
        let outcome = self.route.chain.run(&mut context, head, SystemTime::now);
        assert!(black_box(outcome).is_ok(), "a filter refuses");
        black_box(&context);
    }

    /// What the route changes in an answer.
    fn answer(&self, number: usize) {
        let head = self.head(number);
        let context = Context::new([192, 0, 2, 1].into());
        let mut answer = http::HeaderMap::with_capacity(8);
        if let Some(changes) = &self.route.response_headers {
            let rule = &self.rehearsal.config().routes.rules()[0];
            let facts = Facts {
                request: Request {
                    listener: "public",
                    host: "api.example.com",
                    method: &head.method,
                    path: head.uri.path(),
                    query: head.uri.query(),
                    headers: &head.headers,
                },
                path: &rule.path,
                route: &self.route.name,
                scheme: "https",
                context: &context,
            };
            changes.settle(&facts).apply(&mut answer);
        }
        if let Some(cors) = &self.route.cors {
            cors.changes(&head.headers).apply(&mut answer);
        }
        black_box(answer);
    }

    fn trace(&self, trusted: bool) {
        const TOLD: http::HeaderValue = http::HeaderValue::from_static(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        );
        let mut headers = http::HeaderMap::with_capacity(8);
        headers.insert("traceparent", TOLD);
        assert_eq!(self.rehearsal.trace(&mut headers, trusted), trusted);
        black_box(headers);
    }

    fn trace_of_stranger(&self, _: usize) {
        self.trace(false);
    }

    fn trace_of_proxy(&self, _: usize) {
        self.trace(true);
    }

    fn log(&self, _: usize) {
        self.rehearsal.log(&self.route.name);
    }

    fn count(&self, _: usize) {
        self.rehearsal.count(&self.route);
    }

    fn full(&self, number: usize) {
        self.filters(number);
        self.log(number);
        self.count(number);
    }
}

/// A page with the series of many routes.
fn scrape() -> Result<Row> {
    let mut text = "[listeners.public]\nbind = \"127.0.0.1:80\"\n[access_log]\nto = \"off\"\n\
                    [services.app]\nendpoints = [\"127.0.0.1:81\"]\n"
        .to_owned();
    for number in 0..ROUTES {
        let path = format!("path = \"/r/{number}\"");
        writeln!(
            text,
            "[routes.r{number}]\nmatch = {{ {path} }}\nservice = \"app\""
        )?;
    }
    let config = Config::parse(&text, Path::new("")).context("the routes under test")?;
    let rehearsal = Rehearsal::new(config)?;
    let routes = || rehearsal.config().routes.routes();
    routes().for_each(|route| rehearsal.count(route));
    ensure!(routes().count() == ROUTES, "not all routes are there");
    let (mut least, mut bytes) = (f64::INFINITY, 0);
    for _ in 0..SCRAPES {
        let started = Instant::now();
        bytes = rehearsal.page();
        least = least.min(started.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(Row {
        case: "scrape, 10 000 routes with traffic",
        ns_per_request: None,
        page_ms: Some(least),
        page_bytes: Some(bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_runs() {
        let signer = Signer::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let keys = signer.key_set().to_string();
        std::fs::write(folder.path().join("jwks.json"), keys).unwrap();
        let heads = heads(&signer).unwrap();
        for case in CASES {
            let few = Case {
                requests: 1,
                ..case
            };
            let took = time(&few, folder.path(), &heads).unwrap();
            assert!(took.is_finite(), "{}", few.name);
        }
    }
}
