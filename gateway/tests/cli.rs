//! The command line as people and scripts meet it: what is printed where, and the exit code.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A file with one mistake.
const WRONG: &str = "[listeners.public]\nbind = \"127.0.0.1:8080\"\ntimeut = \"3s\"\n";

/// Runs `weir-gateway` in a folder, and shows exit code, stdout and stderr as one text.
fn run_with(folder: &Path, arguments: &[&str], stdin: &str) -> String {
    let output = output_of(folder, arguments, stdin).expect("the binary under test starts");
    let mut shown = format!("$ weir-gateway {}\n", arguments.join(" "));
    for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
        if !bytes.is_empty() {
            shown += &format!("--- {name}\n{}", String::from_utf8_lossy(&bytes));
        }
    }
    let code = output
        .status
        .code()
        .map_or("none: killed".to_owned(), |code| code.to_string());
    shown + &format!("--- exit code {code}\n")
}

fn output_of(folder: &Path, arguments: &[&str], stdin: &str) -> std::io::Result<Output> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir-gateway"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("WEIR_GATEWAY_CONFIG")
        .env("COLUMNS", "100")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut pipe = child.stdin.take().expect("stdin is piped");
    // A command that does not read its stdin may have ended already.
    match pipe.write_all(stdin.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error),
        _ => drop(pipe),
    }
    child.wait_with_output()
}

/// Runs `weir-gateway` on the example configuration.
fn run(arguments: &[&str]) -> String {
    run_with(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples"),
        arguments,
        "",
    )
}

const EXAMPLE: [&str; 2] = ["--config", "gateway.toml"];

#[test]
fn help() {
    let commands: [&[&str]; 7] = [
        &[],
        &["run"],
        &["check"],
        &["explain"],
        &["schema"],
        &["config"],
        &["hash-key"],
    ];
    let pages = commands.map(|command| run(&[command, &["--help"]].concat()));
    insta::assert_snapshot!(pages.join("\n"));
}

#[test]
fn wrong_usage_exits_with_2() {
    let cases: [&[&str]; 5] = [
        &["serve"],
        &["run", "--confg", "x"],
        &["explain", "GET"],
        &["explain", "G T", "http://a/"],
        &["explain", "GET", "http://a/", "--header", "no colon"],
    ];
    insta::assert_snapshot!(cases.map(run).join("\n"));
}

#[test]
fn a_refused_configuration_exits_with_3_whoever_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("wrong.toml"), WRONG).unwrap();
    let file = ["--config", "wrong.toml"];
    let cases: [&[&str]; 4] = [
        &["run"],
        &["check"],
        &["explain", "GET", "http://a/"],
        &["config", "--effective"],
    ];
    let mut shown = Vec::new();
    for command in cases {
        shown.push(run_with(folder.path(), &[command, &file].concat(), ""));
    }
    shown.push(run_with(
        folder.path(),
        &["check", "--config", "missing.toml"],
        "",
    ));
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn check_says_what_a_configuration_means() {
    let example = run(&[&["check"], &EXAMPLE[..]].concat());
    let folder = tempfile::tempdir().unwrap();
    let unused = "[listeners.public]\nbind = \"127.0.0.1:8080\"\n\
                  [services.a]\nendpoints = [\"127.0.0.1:80\"]\n\
                  [limits.b]\nrate = \"5/s\"\nkey = \"client-ip\"\n";
    std::fs::write(folder.path().join("unused.toml"), unused).unwrap();
    let unused = run_with(folder.path(), &["check", "--config", "unused.toml"], "");
    insta::assert_snapshot!([example, unused].join("\n"));
}

#[test]
fn explain_names_the_route_and_why_not_the_others() {
    let cases: [&[&str]; 11] = [
        &["explain", "GET", "http://shop.example.com/orders/7"],
        &[
            "explain",
            "GET",
            "http://shop.example.com/orders/7",
            "-H",
            "cookie: canary=1",
        ],
        &["explain", "GET", "http://old.example.com/shop/a?b=1"],
        &["explain", "GET", "http://any.test/robots.txt"],
        &[
            "explain",
            "GET",
            "http://api.example.com/v2/orders/7?page=2",
        ],
        &[
            "explain",
            "GET",
            "http://api.example.com/v2/orders/7",
            "-H",
            "x-beta: on",
        ],
        &[
            "explain",
            "DELETE",
            "https://API.example.com:8443/v2/orders/%37/../8",
        ],
        &[
            "explain",
            "DELETE",
            "http://www.example.com/users/7",
            "--json",
        ],
        &["explain", "GET", "http://other.test/", "--json"],
        &["explain", "DELETE", "http://api.example.com/v2/orders"],
        &["explain", "GET", "/v2/orders"],
    ];
    insta::assert_snapshot!(
        cases
            .map(|case| run(&[case, &EXAMPLE[..]].concat()))
            .join("\n")
    );
}

#[test]
fn explain_looks_from_the_listener_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[listeners.inside]\nbind = \"127.0.0.1:8080\"\n\
                [listeners.outside]\nbind = \"127.0.0.1:8081\"\n\
                [services.a]\nendpoints = [\"127.0.0.1:80\"]\n\
                [routes.all]\nmatch = {}\nservice = \"a\"\n\
                [routes.in]\nmatch = { path = \"/x\", listeners = [\"inside\"] }\nservice = \"a\"\n\
                [routes.out]\nmatch = { path = \"/x\", listeners = [\"outside\"] }\nservice = \"a\"\n";
    std::fs::write(folder.path().join("two.toml"), text).unwrap();
    let table = [
        // The first, that of the port, that asked for in spite of the port.
        ("http://a.test/x", None, "inside", "in"),
        ("http://a.test:8081/x", None, "outside", "out"),
        ("https://a.test:8081/x", None, "inside", "in"),
        ("http://a.test/x", Some("outside"), "outside", "out"),
        ("http://a.test:8081/x", Some("inside"), "inside", "in"),
    ];
    for (url, listener, at, route) in table {
        let mut arguments = vec!["explain", "GET", url, "--config", "two.toml"];
        arguments.extend(listener.iter().flat_map(|name| ["--listener", name]));
        let shown = run_with(folder.path(), &arguments, "");
        let found = format!("GET /x on host a.test at listener {at}\n\nroute: {route}\n");
        assert!(shown.contains(&found), "{shown}");
        let json = run_with(folder.path(), &[&arguments[..], &["--json"]].concat(), "");
        assert!(json.contains(&format!("\"listener\": \"{at}\"")), "{json}");
    }
    let arguments = [
        "explain",
        "GET",
        "http://a.test/x",
        "--config",
        "two.toml",
        "--listener",
        "no",
    ];
    let shown = run_with(folder.path(), &arguments, "");
    let refused =
        "--- stderr\nerror: there is no listener `no`, only inside, outside\n--- exit code 1\n";
    assert!(shown.ends_with(refused), "{shown}");
}

#[test]
fn config_writes_out_every_default() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[listeners.public]\nbind = \"127.0.0.1:8080\"\n\
                [services.a]\nendpoints = [\"127.0.0.1:80\"]\n\
                [limits.b]\nrate = \"5/s\"\nkey = \"client-ip\"\n\
                [routes.c]\nmatch = {}\nuse = [\"b\"]\nservice = \"a\"\n";
    std::fs::write(folder.path().join("short.toml"), text).unwrap();
    let arguments = ["config", "--effective", "--config", "short.toml"];
    insta::assert_snapshot!(run_with(folder.path(), &arguments, ""));
}

#[test]
fn schema_is_json_that_knows_the_sections() {
    let shown = run(&["schema"]);
    let json = shown
        .split_once("--- stdout\n")
        .unwrap()
        .1
        .split_once("--- exit")
        .unwrap()
        .0;
    let schema: serde_json::Value = serde_json::from_str(json).unwrap();
    let mut sections: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
    sections.sort();
    let expected = [
        "access_log",
        "access_logs",
        "admin",
        "auth",
        "concurrency",
        "drain",
        "limits",
        "listeners",
        "overload",
        "reading",
        "routes",
        "server",
        "services",
        "tracing",
    ];
    assert_eq!(sections, expected);
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn hash_key_reads_stdin_and_refuses_what_could_be_guessed() {
    let folder = Path::new(".");
    // Of `printf 0123456789abcdef0123456789abcdef | sha256sum`.
    let good = run_with(folder, &["hash-key"], "0123456789abcdef0123456789abcdef\n");
    assert_eq!(
        good,
        "$ weir-gateway hash-key\n--- stdout\n\
         sha256:3eb1bd439947eb762998e566ccc2e099c791118b2f40579cc4f7da2b5061b7f9\n--- exit code 0\n"
    );
    let short = run_with(folder, &["hash-key"], "secret\n");
    assert!(
        !short.contains("--- stdout") && !short.contains("secret\n"),
        "{short}"
    );
    assert!(short.ends_with("hint: make one with `openssl rand -base64 32`\n--- exit code 1\n"));
}
