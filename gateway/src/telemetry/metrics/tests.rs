//! The page as a whole.

use std::sync::Arc;
use std::time::Instant;

use super::configured::ServiceHealth;
use super::series::OTHER;
use super::*;
use crate::upstream::instance::Instance;

fn metrics() -> Arc<Metrics> {
    let address = "10.0.0.1:80".parse().unwrap();
    let instance = Instance::new(address, Instant::now(), Arc::default());
    let configured = Configured {
        services: vec![ServiceHealth::new("orders", Arc::new(instance))],
        ..Configured::default()
    };
    Arc::new(Metrics::new(2, Arc::new(configured)))
}

fn outcome(status: u16, duration_us: u64) -> Outcome {
    Outcome {
        status,
        duration_us,
        upstream_us: None,
        connection_reused: None,
        bytes_in: 0,
        bytes_out: 100,
    }
}

fn assert_lines(page: &str, expected: &[&str]) {
    for line in expected {
        assert!(
            page.lines().any(|one| one == *line),
            "no line `{line}` in\n{page}"
        );
    }
}

#[test]
fn shards_add_up() {
    let metrics = metrics();
    for shard in &metrics.shards {
        let found = Found::with_room(2, 1);
        shard.exchange_begins();
        let answered = Outcome {
            upstream_us: Some(200),
            ..outcome(204, 500)
        };
        let (route, service) = ((0, "orders-v2"), Some((0, "orders")));
        found.count_at(shard, route, service, &answered);
        found.count_at(shard, (1, "orders-v2"), None, &outcome(301, 1));
        let instance = shard.instance("orders", "10.0.0.2:80");
        instance.count(&answered);
        instance.count(&Outcome {
            connection_reused: Some(true),
            ..answered
        });
        shard.exchange_ends();
        shard.exchange_begins();
        shard.count_unrouted(&outcome(404, 60_000_000));
        shard.reason("route-not-found");
        shard.connection_opens();
        shard.connection_opens();
        shard.connection_closes();
        shard.busy_poll();
        shard.handshake_done("TLSv1.3", true, std::time::Duration::from_millis(2));
    }
    let page = metrics.render(Format::Classic, Instant::now());
    let expected = [
        "# TYPE weir_gateway_requests_total counter",
        r#"weir_gateway_requests_total{route="orders-v2",service="orders",status="2xx"} 2"#,
        r#"weir_gateway_requests_total{route="orders-v2",service="",status="3xx"} 2"#,
        r#"weir_gateway_requests_total{route="",service="",status="4xx"} 2"#,
        r#"weir_gateway_request_duration_seconds_bucket{le="0.00025",route="orders-v2",service="orders"} 0"#,
        r#"weir_gateway_request_duration_seconds_bucket{le="0.0005",route="orders-v2",service="orders"} 2"#,
        r#"weir_gateway_request_duration_seconds_bucket{le="10.0",route="",service=""} 0"#,
        r#"weir_gateway_request_duration_seconds_bucket{le="+Inf",route="",service=""} 2"#,
        r#"weir_gateway_request_duration_seconds_sum{route="orders-v2",service="orders"} 0.001"#,
        r#"weir_gateway_request_duration_seconds_count{route="",service=""} 2"#,
        r#"weir_gateway_service_upstream_seconds_count{service="orders"} 2"#,
        r#"weir_gateway_service_response_bytes_sum{service="orders"} 200.0"#,
        r#"weir_gateway_instance_requests_total{service="orders",instance="10.0.0.2:80",status="2xx"} 4"#,
        r#"weir_gateway_instance_connections_total{service="orders",instance="10.0.0.2:80",connection="reused"} 2"#,
        r#"weir_gateway_refusals_total{reason="route-not-found"} 2"#,
        "weir_gateway_requests_in_flight 2",
        "weir_gateway_connections_total 4",
        "weir_gateway_connections_open 2",
        "weir_gateway_busy_polls_total 2",
        r#"weir_gateway_tls_handshakes_total{version="TLSv1.3",resumed="true"} 2"#,
        "weir_gateway_tls_handshake_duration_seconds_count 2",
        r#"weir_gateway_instance_healthy{service="orders",instance="10.0.0.1:80"} 1"#,
    ];
    assert_lines(&page, &expected);
    assert!(page.contains("\nprocess_open_fds "));
    assert!(!page.contains("# EOF"));
    let open = metrics.render(Format::OpenMetrics, Instant::now());
    assert!(open.contains("# TYPE weir_gateway_requests counter\n"));
    assert!(open.ends_with("# EOF\n"));
}

#[test]
fn an_odd_status_is_counted_somewhere() {
    let metrics = metrics();
    metrics.shards[0].count_unrouted(&outcome(999, 0));
    let page = metrics.render(Format::Classic, Instant::now());
    assert!(page.contains(r#"status="5xx"} 1"#));
}

#[test]
fn a_part_shows_series_of_its_own() {
    #[derive(Debug)]
    struct Part;
    impl Collect for Part {
        fn collect(&self, page: &mut Page<'_>) {
            page.counters("part", "A part.", |family| {
                family.count(&[("what", "a\"b\\c\nd")], 3);
            });
            page.gauge("level", "A level.", 1.5);
        }
    }
    let metrics = metrics();
    metrics.register(Arc::new(Part));
    let page = metrics.render(Format::Classic, Instant::now());
    let expected = [
        "# HELP weir_gateway_part_total A part.",
        r#"weir_gateway_part_total{what="a\"b\\c\nd"} 3"#,
        "weir_gateway_level 1.5",
    ];
    assert_lines(&page, &expected);
}

#[test]
fn routes_without_traffic_cost_a_scrape_nothing_and_many_are_bounded() {
    let metrics = metrics();
    let empty = metrics.render(Format::Classic, Instant::now()).len();
    let found = Found::with_room(100_000, 1);
    let page = metrics.render(Format::Classic, Instant::now()).len();
    assert!(page < empty + 100, "{page} against {empty} bytes");
    let shard = Shard::with_room(20);
    for route in 0..30 {
        let name = format!("route-{route}");
        let service = Some((0, "orders"));
        found.count_at(&shard, (route, &name), service, &outcome(200, 1));
    }
    let metrics = Arc::new(Metrics {
        shards: vec![Arc::new(shard)],
        ..Metrics::new(0, Arc::default())
    });
    let page = metrics.render(Format::Classic, Instant::now());
    let counters = page
        .lines()
        .filter(|line| line.starts_with("weir_gateway_requests_total{"));
    assert_eq!(counters.count(), 21);
    let other = format!(
        r#"weir_gateway_requests_total{{route="{OTHER}",service="{OTHER}",status="2xx"}} 10"#
    );
    assert_lines(&page, &[&other]);
}
