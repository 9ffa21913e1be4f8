//! The metrics page of a real process: its form, and what it says of the configuration in force.

use std::collections::{BTreeMap, BTreeSet};

use http_body_util::Empty;

use crate::support::client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, route, service};
use crate::support::origin::Origin;

/// Something of everything that has series.
const EVERYTHING: &str = "[auth.keys]\ntype = \"api-key\"\nkeys = { ci = \"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\" }\n\
    [limits.rate]\nrate = \"1/h\"\nburst = 2\nkey = \"client-ip\"\n\
    [concurrency.few]\nin_flight_max = 5\nkey = \"client-ip\"\n\
    [services.app.outlier]\n[services.app.breaker]\n";

const OPEN: &str = "application/openmetrics-text";

async fn page(gateway: &Gateway) -> String {
    let request = client::request("/metrics").header("accept", OPEN);
    let request = request.body(Empty::new()).unwrap();
    let answer = client::send(gateway.listener("admin"), request).await;
    assert!(answer.header("content-type").starts_with(OPEN));
    answer.text()
}

/// The suffixes of the samples of a type (OpenMetrics 1.0, "Metric Types").
fn suffixes(kind: &str) -> &'static [&'static str] {
    match kind {
        "counter" => &["_total"],
        "gauge" => &[""],
        "histogram" => &["_bucket", "_sum", "_count"],
        "info" => &["_info"],
        other => panic!("{other} is not used"),
    }
}

/// Asserts what OpenMetrics demands of a page, and the conventions of Prometheus for names.
fn is_well_formed(page: &str) {
    let lines: Vec<&str> = page.lines().collect();
    let (last, lines) = lines.split_last().unwrap();
    assert_eq!(*last, "# EOF");
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut samples = BTreeSet::new();
    let mut current = "";
    for line in lines {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert!(helped.insert(name) && help.ends_with('.'), "{line}");
                current = name;
            }
            ["#", "TYPE", name, kind] => {
                assert_eq!(name, current, "the help stands before the type");
                assert_eq!(families.insert(name, kind), None, "{name} comes twice");
            }
            _ => {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let name = series.split('{').next().unwrap();
                let kind = families[current];
                let fits = |suffix: &&str| name.strip_suffix(*suffix) == Some(current);
                assert!(suffixes(kind).iter().any(fits), "{line} in {current}");
                assert!(samples.insert(series), "{series} comes twice");
            }
        }
    }
    for (name, kind) in &families {
        assert!(helped.contains(name), "{name} is not explained");
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(name.bytes().all(plain), "{name}");
        let ours = name.starts_with("weir_gateway_") || name.starts_with("process_");
        assert!(ours, "{name}");
        // Base units only, and no ending that belongs to the samples of another type.
        let taken = ["_total", "_info", "_count", "_sum", "_bucket", "_created"];
        let other_units = [
            "_ms",
            "_us",
            "_ns",
            "_milliseconds",
            "_microseconds",
            "_kib",
        ];
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        assert!(!ends(&taken) && !ends(&other_units), "{name}");
        if *kind == "histogram" {
            assert!(ends(&["_seconds", "_bytes"]), "{name} has no unit");
        }
    }
}

#[tokio::test]
async fn the_page_keeps_to_openmetrics() {
    let origin = Origin::start("one").await;
    let configuration = [
        service(
            "app",
            &[origin.address],
            "concurrency = { in_flight_max = 9 }",
        ),
        EVERYTHING.to_owned(),
        route("all", "/{*rest}", "app", ""),
        route(
            "guarded",
            "/guarded",
            "app",
            "use = [\"keys\", \"rate\", \"few\"]",
        ),
    ];
    let gateway = Gateway::start(&configuration.concat()).await;
    for (path, key) in [("/", ""), ("/guarded", ""), ("/guarded", "abc")] {
        let request = client::request(path).header("x-api-key", key);
        client::send(gateway.address(), request.body(Empty::new()).unwrap()).await;
    }
    let page = page(&gateway).await;
    is_well_formed(&page);
    for family in [
        "requests counter",
        "build info",
        "config info",
        "service_duration_seconds histogram",
    ] {
        let line = format!("# TYPE weir_gateway_{family}");
        assert!(page.lines().any(|one| one == line), "{line}");
    }
}

async fn reloads(gateway: &Gateway) -> [f64; 3] {
    let value = async |name: &str| gateway.metric(&format!("weir_gateway_{name}")).await;
    [
        value("reloads_total{result=\"applied\"}").await,
        value("reloads_total{result=\"refused\"}").await,
        value("config_last_reload_successful").await,
    ]
}

/// The hash the page tells.
async fn hash(gateway: &Gateway) -> String {
    let page = gateway.admin("/metrics").await.text();
    let found = page.lines().find_map(|line| {
        line.strip_prefix("weir_gateway_config_info{sha256=\"")?
            .strip_suffix("\"} 1")
    });
    found.expect("the configuration in force").to_owned()
}

#[tokio::test]
async fn which_configuration_is_in_force_and_since_when() {
    let origin = Origin::start("one").await;
    let rest = service("app", &[origin.address], "") + &route("all", "/{*rest}", "app", "");
    let began = jiff::Timestamp::now().as_second() as f64;
    let gateway = Gateway::start(&rest).await;
    let loaded = "weir_gateway_config_last_reload_success_timestamp_seconds";
    let first = (hash(&gateway).await, gateway.metric(loaded).await);
    assert!(first.1 >= began, "{first:?} began {began}");
    assert_eq!(first.0.len(), 64, "{first:?}");
    assert_eq!(reloads(&gateway).await.map(|count| count as u8), [0, 0, 1]);

    let file = gateway.file("gateway.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, "[routes.broken").unwrap();
    assert_ne!(gateway.command(&["reload"]).await.code, Some(0));
    assert_eq!(reloads(&gateway).await.map(|count| count as u8), [0, 1, 0]);
    let unchanged = (hash(&gateway).await, gateway.metric(loaded).await);
    assert_eq!(unchanged, first, "nothing has changed");

    std::fs::write(&file, format!("# other\n{text}")).unwrap();
    eventually("a later time", async || {
        assert_eq!(gateway.command(&["reload"]).await.code, Some(0));
        (gateway.metric(loaded).await > first.1).then_some(())
    })
    .await;
    assert_ne!(hash(&gateway).await, first.0);
    let [applied, refused, successful] = reloads(&gateway).await;
    assert!(applied >= 1.0);
    assert_eq!((refused as u8, successful as u8), (1, 1));
    std::fs::write(&file, &text).unwrap();
    assert_eq!(gateway.command(&["reload"]).await.code, Some(0));
    assert_eq!(hash(&gateway).await, first.0, "the hash is of the content");
}
