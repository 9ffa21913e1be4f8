//! Access logs of the real process: what is in a line, where lines go, and what rotation, reloads
//! and missing folders do to them.

use std::net::UdpSocket;

use http_body_util::Empty;
use serde_json::{Value, json};

use crate::support::client;
use crate::support::eventually;
use crate::support::gateway::{BASE, Gateway, route, service};
use crate::support::origin::Origin;

/// The usual base with another access log.
fn configuration(origin: &Origin, log: &str) -> String {
    let (start, rest) = BASE.split_once("[access_log]").unwrap();
    let (_, rest) = rest.split_once("\n\n").unwrap();
    let service = service("app", &[origin.address], "");
    let route = route("all", "/{*rest}", "app", "");
    format!("{start}{log}\n{rest}{service}{route}")
}

async fn start(log: &str) -> (Gateway, Origin) {
    let origin = Origin::start("one").await;
    let gateway = Gateway::start_with(&configuration(&origin, log), &[]).await;
    (gateway, origin)
}

/// The lines of a file once there are so many.
async fn lines(gateway: &Gateway, file: &str, count: usize) -> Vec<String> {
    eventually(&format!("{count} lines in {file}"), async || {
        let text = std::fs::read_to_string(gateway.file(file)).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

const FILE: &str = "[access_log]\nto = \"file\"\npath = \"access.log\"\n";

#[tokio::test]
async fn fields_are_chosen_and_renamed_and_secrets_left_out() {
    let log = format!(
        "{FILE}fields = [\"method\", \"target\", \"status\", \"listener\", \
         \"request.user-agent\", \"response.content-length\", \"service\"]\n\
         rename = {{ \"request.user-agent\" = \"agent\", target = \"uri\" }}\n"
    );
    let (gateway, _origin) = start(&log).await;
    let request = client::request("/a?q=1&password=hunter2")
        .header("user-agent", "evil\"agent\\")
        .body(Empty::new())
        .unwrap();
    let answer = client::send(gateway.address(), request).await;
    let lines = lines(&gateway, "access.log", 1).await;
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    let expected = json!({
        "method": "GET",
        "uri": "/a?q=1&password=***",
        "status": 200,
        "listener": "public",
        "agent": "evil\"agent\\",
        "response.content-length": answer.header("content-length"),
        "service": "app",
    });
    assert_eq!(line, expected);
}

#[tokio::test]
async fn several_logs_each_with_its_format_and_choice() {
    let syslog = UdpSocket::bind("127.0.0.1:0").unwrap();
    let log = format!(
        "[access_logs.all]\nto = \"file\"\npath = \"all.log\"\nformat = \"combined\"\n\
         [access_logs.none]\nto = \"off\"\n\
         [access_logs.trouble]\nto = \"file\"\npath = \"trouble.log\"\n\
         format = \"{{status}} {{path}} {{reason}}\"\nonly = {{ status = [\"4xx\"] }}\n\
         [access_logs.sampled]\nto = \"file\"\npath = \"sampled.log\"\nformat = \"{{path}}\"\n\
         sample = \"0%\"\nalways = {{ failed = true }}\n\
         [access_logs.far]\nto = \"syslog\"\nformat = \"{{path}}\"\n\
         syslog = {{ address = \"udp:{}\", app_name = \"edge\" }}\n",
        syslog.local_addr().unwrap()
    );
    let (gateway, _origin) = start(&log).await;
    let request = client::request("/fine").header("user-agent", "a b\"c");
    client::send(gateway.address(), request.body(Empty::new()).unwrap()).await;
    let bad = b"GET /bad HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
    client::raw(gateway.address(), bad).await;

    let all = lines(&gateway, "all.log", 2).await;
    // Two workers: which of them hands on first is open.
    let fine = all.iter().find(|line| line.contains("/fine")).unwrap();
    let (start, rest) = fine.split_once('[').unwrap();
    assert_eq!(start, "127.0.0.1 - - ");
    let (_, rest) = rest.split_once("] ").unwrap();
    assert!(rest.starts_with("\"GET /fine HTTP/1.1\" 200 "), "{rest}");
    assert!(rest.ends_with(r#" "-" "a b\x22c""#), "{rest}");
    let trouble = lines(&gateway, "trouble.log", 1).await;
    assert_eq!(trouble.len(), 1);
    assert!(trouble[0].starts_with("400 "), "{trouble:?}");
    assert!(
        trouble[0].ends_with("repeated-content-length"),
        "{trouble:?}"
    );
    assert_eq!(lines(&gateway, "sampled.log", 1).await.len(), 1);
    syslog
        .set_read_timeout(Some(crate::support::PATIENCE))
        .unwrap();
    let mut buffer = [0; 1024];
    let messages = [(); 2].map(|()| {
        let length = syslog.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    });
    let end = format!(" edge {} access - /fine", gateway.pid());
    let is_fine = |message: &String| message.starts_with("<134>1 20") && message.ends_with(&end);
    assert!(messages.iter().any(is_fine), "{messages:?}");
    let log = gateway.file("trouble.log").display().to_string();
    let series = format!("weir_gateway_access_log_lines_total{{log=\"{log}\"}}");
    assert!((gateway.metric(&series).await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_rotated_file_is_opened_again() {
    let (gateway, _origin) = start(FILE).await;
    client::get(gateway.address(), "/1").await;
    lines(&gateway, "access.log", 1).await;
    let (path, moved) = (gateway.file("access.log"), gateway.file("access.log.1"));
    std::fs::rename(&path, &moved).unwrap();
    gateway.signal("-USR1").await;
    eventually("a new file", async || path.exists().then_some(())).await;
    client::get(gateway.address(), "/2").await;
    let line: Value = serde_json::from_str(&lines(&gateway, "access.log", 1).await[0]).unwrap();
    assert_eq!(line["path"], "/2");
    assert_eq!(std::fs::read_to_string(moved).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn a_reload_changes_the_log_and_a_folder_that_is_missing_is_waited_for() {
    let (gateway, origin) = start(FILE).await;
    client::get(gateway.address(), "/1").await;
    lines(&gateway, "access.log", 1).await;
    let other = FILE.replace("access.log", "later/other.log") + "format = \"{path}\"\n";
    std::fs::write(gateway.file("gateway.toml"), configuration(&origin, &other)).unwrap();
    gateway.signal("-HUP").await;
    let log = gateway.file("later/other.log").display().to_string();
    let series = |name: &str| format!("weir_gateway_access_log_{name}{{log=\"{log}\"}}");
    eventually("the new log", async || {
        client::get(gateway.address(), "/2").await;
        (gateway.metric(&series("failing")).await > 0.5).then_some(())
    })
    .await;
    std::fs::create_dir(gateway.file("later")).unwrap();
    let written = lines(&gateway, "later/other.log", 1).await;
    assert!(written.iter().all(|line| line == "/2"), "{written:?}");
    let dropped = gateway.metric(&series("lines_dropped_total")).await;
    assert!(dropped < 0.5, "{dropped} lines were not held");
}

#[tokio::test]
async fn a_disk_that_is_full_costs_lines_and_nothing_else() {
    // Every write to it fails with ENOSPC.
    let log = FILE.replace("access.log", "/dev/full");
    let (gateway, _origin) = start(&log).await;
    assert_eq!(client::get(gateway.address(), "/1").await.status, 200);
    let series = "weir_gateway_access_log_failing{log=\"/dev/full\"}";
    eventually("the log fails", async || {
        (gateway.metric(series).await > 0.5).then_some(())
    })
    .await;
    assert_eq!(client::get(gateway.address(), "/2").await.status, 200);
    let failures = "weir_gateway_access_log_failures_total{log=\"/dev/full\"}";
    assert!(gateway.metric(failures).await > 0.5);
}

#[tokio::test]
async fn the_end_of_the_process_loses_no_line() {
    let (mut gateway, _origin) = start(FILE).await;
    for number in 0..50 {
        client::get(gateway.address(), &format!("/{number}")).await;
    }
    gateway.terminate().await;
    assert!(gateway.ended().await.success());
    assert_eq!(lines(&gateway, "access.log", 50).await.len(), 50);
}
