//! The command line from outside: exit codes, help, error texts, and what it makes of an agent's
//! answers. The agent is played by a thread that speaks just enough HTTP, so no rights are needed.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;

use tempfile::TempDir;

/// A directory for one test, with a socket path and a configuration in it.
struct Bench {
    directory: TempDir,
}

/// How a run of `weir` ended.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Bench {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file and returns its path as text.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs `weir` with these arguments, separated by white space, against this directory's socket.
    /// The directory is called `DIR` in what comes back.
    fn weir(&self, arguments: &str) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(arguments.split_whitespace())
            .env("WEIR_SOCKET", self.path("weir.sock"))
            .env_remove("WEIR_CONFIG")
            .output()
            .unwrap();
        Run::new(&output, self.directory.path())
    }

    /// Lets an agent answer one request with `status` and `body`; the request arrives in the channel
    /// as its first line, a space, and its body.
    fn agent(&self, status: &'static str, body: &'static str) -> mpsc::Receiver<String> {
        let listener = UnixListener::bind(self.path("weir.sock")).unwrap();
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            sender.send(exchange(stream, status, body)).unwrap();
        });
        requests
    }
}

impl Run {
    fn new(output: &Output, directory: &Path) -> Self {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .replace(directory.to_str().unwrap(), "DIR")
        };
        Self {
            code: output.status.code().unwrap(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

/// Reads one request and answers it.
fn exchange(mut stream: UnixStream, status: &str, body: &str) -> String {
    let mut request = String::new();
    let mut chunk = [0; 4096];
    while !is_complete(&request) {
        let n = stream.read(&mut chunk).unwrap();
        assert_ne!(n, 0, "the request ended early: {request}");
        request.push_str(std::str::from_utf8(&chunk[..n]).unwrap());
    }
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    format!(
        "{} {body}",
        head.lines().next().unwrap().trim_end_matches(" HTTP/1.1")
    )
}

/// Whether the head is there, and as much body as it promises.
fn is_complete(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

const CONFIG: &str = r#"
agent.interfaces = ["eth0"]
[vips.web]
address = "203.0.113.10:443/tcp"
health  = { http = "/healthz", port = 8081 }
[vips.web.backends]
gateway-1 = { address = "10.0.0.11" }
gateway-2 = { address = "10.0.0.12", weight = 50 }
"#;

#[test]
fn help_shows_every_subcommand() {
    let run = Bench::new().weir("--help");
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(run.stdout, @r#"
    The layer-4 load balancer of Weir: agent and command line

    Usage: weir [OPTIONS] <COMMAND>

    Commands:
      run      Run the agent in the foreground
      check    Check a configuration file and say what it means
      status   Show the agent at a glance
      vip      Show VIPs
      backend  Show and change the backends of a VIP
      stats    Show the counters of the data plane
      explain  Say which backend a packet goes to, and why
      doctor   Examine the agent and its host, and say what to do
      reload   Let the agent read its configuration file again
      detach   Take the balancer from all interfaces, with its maps and counters
      decap    Open tunnels on a backend host
      help     Print this message or the help of the given subcommand(s)

    Options:
          --json           Print JSON for programs instead of tables for people
          --socket <PATH>  Control socket of the agent [default: /run/weir.sock]
      -h, --help           Print help
      -V, --version        Print version

    Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 refused configuration.
    "#);
}

#[test]
fn every_subcommand_has_help() {
    let bench = Bench::new();
    for command in [
        "run",
        "check",
        "status",
        "vip",
        "vip list",
        "vip show",
        "backend",
        "backend list",
        "backend add",
        "backend remove",
        "backend drain",
        "backend undrain",
        "backend weight",
        "stats",
        "explain",
        "doctor",
        "reload",
        "detach",
        "decap",
        "decap attach",
        "decap detach",
        "decap status",
    ] {
        let run = bench.weir(&format!("{command} --help"));
        assert_eq!(run.code, 0, "{command}: {}", run.stderr);
        assert!(
            run.stdout.contains(&format!("Usage: weir {command}")),
            "{}",
            run.stdout
        );
        assert!(run.stdout.contains("--json"), "{command}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let bench = Bench::new();
    for arguments in [
        "",
        "frobnicate",
        "check",
        "backend add web",
        "backend add web a --address ten",
        "backend weight web a 65536",
        "backend weight web a -1",
        "explain 192.0.2.256 web",
        "decap attach --interface eth0",
    ] {
        let run = bench.weir(arguments);
        assert_eq!(
            (run.code, run.stdout.as_str()),
            (2, ""),
            "{arguments}: {}",
            run.stderr
        );
        assert!(
            run.stderr.contains("Usage") || run.stderr.contains("--help"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn a_valid_configuration_is_told_back() {
    let bench = Bench::new();
    let path = bench.write("weir.toml", CONFIG);
    let run = bench.weir(&format!("check --config {path}"));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(run.stdout, @r#"
    DIR/weir.toml is valid: 1 VIP, 2 backends on eth0

    VIP  ADDRESS               FORWARD  HASH        TABLE   TRACKING  SLOTS  BACKENDS  HEALTH
    web  203.0.113.10:443/tcp  ipip     five-tuple  maglev  moving    65537         2  http /healthz 200-299 port 8081 every 1s timeout 500ms fall 3 rise 2
    "#);

    let run = bench.weir(&format!("check --json --config {path}"));
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["vips"][0]["backends"], 2);
    assert_eq!(json["interfaces"][0], "eth0");
}

#[test]
fn the_example_configuration_is_valid() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/weir.toml");
    let run = Bench::new().weir(&format!("check --config {example}"));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn a_refused_configuration_is_exit_code_3() {
    let bench = Bench::new();
    let path = bench.write(
        "weir.toml",
        &CONFIG.replace("weight = 50", "weight = 500000"),
    );
    let run = bench.weir(&format!("check --config {path}"));
    assert_eq!((run.code, run.stdout.as_str()), (3, ""));
    insta::assert_snapshot!(run.stderr, @r#"
    error: DIR/weir.toml:8:47: weight 500000 is out of range
      |
    8 | gateway-2 = { address = "10.0.0.12", weight = 500000 }
      |                                               ^^^^^^

    hint: use a number from 0 to 65535; 0 takes no new flows, and only ratios matter
    "#);
}

#[test]
fn every_problem_of_a_configuration_is_an_error() {
    let bench = Bench::new();
    let path = bench.write("weir.toml", "[agent]\ninterfaces = []\nsocket = 'x'\n");
    let run = bench.weir(&format!("check --config {path}"));
    let errors = run
        .stderr
        .lines()
        .filter(|line| line.starts_with("error: DIR/weir.toml:"));
    assert_eq!((run.code, errors.count()), (3, 2), "{}", run.stderr);
}

#[test]
fn a_missing_file_is_exit_code_1() {
    let run = Bench::new().weir("check --config /nonexistent/weir.toml");
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    insta::assert_snapshot!(run.stderr, @r#"
    error: cannot read the configuration /nonexistent/weir.toml: No such file or directory (os error 2)

    hint: is the path right, and may this user read the file?
    "#);
}

#[test]
fn without_an_agent_it_is_said_how_to_start_one() {
    let bench = Bench::new();
    let run = bench.weir("status");
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    insta::assert_snapshot!(run.stderr, @r#"
    error: no agent is running at DIR/weir.sock

    hint: start it with `weir run --config weir.toml`, or name its socket with `--socket`
    "#);
    // All of these ask the agent first.
    for arguments in [
        "vip list",
        "vip show web",
        "backend list",
        "backend drain web a",
        "stats",
        "explain 192.0.2.7 web",
        "explain 192.0.2.7 203.0.113.10:443/tcp",
        "doctor",
        "reload",
    ] {
        let other = bench.weir(arguments);
        assert_eq!(
            (other.code, other.stderr.as_str()),
            (1, run.stderr.as_str()),
            "{arguments}"
        );
    }
}

#[test]
fn requests_say_what_was_asked_for() {
    let backend = r#"{"name":"a","address":"10.0.0.1","weight":7,"slots":9,"health":"up",
        "draining":false}"#;
    let drained = r#"{"name":"a","address":"10.0.0.1","weight":7,"slots":0,"health":"up",
        "draining":true}"#;
    // Arguments, request, answer, what is printed.
    let table = [
        (
            "backend add web a --address 10.0.0.1 --weight 7",
            r#"POST /v1/vips/web/backends/a {"address":"10.0.0.1","weight":7}"#,
            backend,
            "a at 10.0.0.1: serving, weight 7, 9 slots\n",
        ),
        (
            "backend add web a --address 10.0.0.1",
            r#"POST /v1/vips/web/backends/a {"address":"10.0.0.1"}"#,
            backend,
            "a at 10.0.0.1: serving, weight 7, 9 slots\n",
        ),
        (
            "backend weight web a 7",
            r#"PUT /v1/vips/web/backends/a/weight {"weight":7}"#,
            backend,
            "a at 10.0.0.1: serving, weight 7, 9 slots\n",
        ),
        (
            "backend drain web a",
            "PUT /v1/vips/web/backends/a/drain ",
            drained,
            "a at 10.0.0.1: draining, weight 7, 0 slots\n",
        ),
        (
            "backend undrain web ../../status",
            "DELETE /v1/vips/web/backends/..%2F..%2Fstatus/drain ",
            backend,
            "a at 10.0.0.1: serving, weight 7, 9 slots\n",
        ),
        (
            "vip list",
            "GET /v1/vips ",
            "[]",
            "VIP  ADDRESS  FORWARD  HASH  TRACKING  SLOTS  SERVING\n",
        ),
        (
            "reload",
            "POST /v1/reload ",
            r#"{"changes":[]}"#,
            "nothing changed\n",
        ),
        (
            "reload",
            "POST /v1/reload ",
            r#"{"changes":[{"change":"backend-changed","vip":"web","backend":"a","key":"weight",
                "from":"7","to":"9"}]}"#,
            "~ backend web/a: weight 7 -> 9\n",
        ),
        (
            "reload",
            "POST /v1/reload ",
            r#"{"changes":[{"change":"vip-changed","vip":"web","key":"ring_size",
                "from":"251","to":"509"}]}"#,
            "~ vip web: ring_size 251 -> 509 (moves the VIP's flows to other slots: live connections \
             are cut, but for those that full tracking knows)\n",
        ),
        (
            "detach",
            "POST /v1/detach ",
            r#"{"interfaces":["eth0"]}"#,
            "detached from eth0\n",
        ),
        (
            "explain 192.0.2.7:40000 203.0.113.10:443/tcp",
            r#"POST /v1/explain {"source":"192.0.2.7","source_port":40000,"address":"203.0.113.10","port":443,"protocol":"tcp"}"#,
            r#"{"action":"pass","reason":"not_vip","description":"Not a VIP."}"#,
            "packet  192.0.2.7:40000 -> 203.0.113.10:443/tcp\naction  pass\n\
             reason  not_vip: Not a VIP.\n",
        ),
    ];
    for (arguments, request, answer, printed) in table {
        let bench = Bench::new();
        let requests = bench.agent("200 OK", answer);
        let run = bench.weir(arguments);
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{arguments}");
        assert_eq!(requests.recv().unwrap(), request, "{arguments}");
        assert_eq!(run.stdout, printed, "{arguments}");
    }
}

#[test]
fn json_is_the_agents_own_answer() {
    let answer = r#"{"packets":5,"vips":[],"reasons":[{"name":"forwarded","action":"forward","packets":5,"description":"Sent."}],"tracking":[],"flow_tables":[]}"#;
    let bench = Bench::new();
    bench.agent("200 OK", answer);
    let run = bench.weir("stats --json");
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!((run.code, value(&run.stdout)), (0, value(answer)));
}

#[test]
fn the_agents_refusals_come_with_their_hint() {
    let bench = Bench::new();
    bench.agent(
        "404 Not Found",
        r#"{"reason":"unknown-vip","title":"Unknown VIP","status":404,
            "detail":"there is no VIP `wob`","hint":"`weir vip list` shows the names"}"#,
    );
    let run = bench.weir("vip show wob");
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    assert_eq!(
        run.stderr,
        "error: there is no VIP `wob`\n\nhint: `weir vip list` shows the names\n"
    );
}

#[test]
fn a_configuration_the_agent_refuses_is_exit_code_3() {
    let bench = Bench::new();
    bench.agent(
        "422 Unprocessable Content",
        r#"{"reason":"configuration-refused","title":"Configuration refused","status":422,
            "detail":"weir.toml:1:1: no"}"#,
    );
    let run = bench.weir("reload");
    assert_eq!(
        (run.code, run.stderr.as_str()),
        (3, "error: weir.toml:1:1: no\n")
    );
}

#[test]
fn an_answer_that_makes_no_sense_is_an_error() {
    let bench = Bench::new();
    bench.agent("200 OK", r#"{"vips":7}"#);
    let run = bench.weir("stats");
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    assert!(
        run.stderr
            .starts_with("error: the agent's answer makes no sense: "),
        "{}",
        run.stderr
    );
}

#[test]
fn a_doctor_with_a_failure_is_exit_code_1() {
    for (verdict, code) in [("ok", 0), ("warning", 0), ("failure", 1)] {
        let bench = Bench::new();
        let answer = format!(
            r#"{{"findings":[{{"check":"bpffs","verdict":"{verdict}","detail":"seen"}}]}}"#
        );
        bench.agent("200 OK", answer.leak());
        let run = bench.weir("doctor");
        assert_eq!((run.code, run.stderr.as_str()), (code, ""), "{verdict}");
        assert!(run.stdout.contains("bpffs: seen"));
    }
}

#[test]
fn a_vip_of_every_port_needs_one_to_explain() {
    let run = Bench::new().weir("explain 192.0.2.7 203.0.113.10:0/tcp");
    assert_eq!(run.code, 1);
    assert_eq!(
        run.stderr,
        "error: VIP 203.0.113.10:0/tcp stands for every port\n\nhint: name one with `--port`\n"
    );
}
