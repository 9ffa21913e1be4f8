//! A `weir-gateway` process with a configuration of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::{PATIENCE, client, eventually};

/// What most tests start from: one plain listener, admin, a drain that begins quickly, and the
/// access log in a file.
pub(crate) const BASE: &str = r#"
[server]
workers = 2

[listeners.public]
bind = "127.0.0.1:0"

[admin]
bind = "127.0.0.1:0"
socket = "gateway.sock"

[access_log]
to = "file"
path = "access.log"

[drain]
delay = "300ms"
idle_grace = "500ms"
deadline = "60s"
"#;

/// A running gateway. Killed when dropped.
pub(crate) struct Gateway {
    child: Child,
    directory: TempDir,
    listeners: HashMap<String, SocketAddr>,
    log: mpsc::UnboundedReceiver<String>,
}

/// The process that has taken over at last. Killed when dropped: the test has started only the
/// first.
pub(crate) struct Successor(pub(crate) u32);

impl Drop for Successor {
    fn drop(&mut self) {
        let mut kill = std::process::Command::new("kill");
        let kill = kill.args(["-KILL", &self.0.to_string()]);
        // It may have ended by itself.
        let _ = kill.stderr(Stdio::null()).status();
    }
}

/// What a subcommand said.
pub(crate) struct Commanded {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Services and routes as text, to be put after a base configuration.
pub(crate) fn service(name: &str, endpoints: &[SocketAddr], more: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|one| format!("\"{one}\"")).collect();
    format!(
        "[services.{name}]\nendpoints = [{}]\n{more}\n",
        endpoints.join(", ")
    )
}

/// A route that sends everything below `path` to `service`.
pub(crate) fn route(name: &str, path: &str, service: &str, more: &str) -> String {
    format!("[routes.{name}]\nmatch = {{ path = \"{path}\" }}\nservice = \"{service}\"\n{more}\n")
}

impl Gateway {
    /// A gateway with the usual listeners and these services and routes.
    pub(crate) async fn start(services_and_routes: &str) -> Self {
        Self::start_with(&format!("{BASE}\n{services_and_routes}"), &[]).await
    }

    /// A gateway in front of one service called `app` that takes every request.
    pub(crate) async fn in_front_of(endpoints: &[SocketAddr]) -> Self {
        Self::in_front_of_with(endpoints, "", "").await
    }

    /// The same, with more settings of the service and the route.
    pub(crate) async fn in_front_of_with(
        endpoints: &[SocketAddr],
        of_service: &str,
        of_route: &str,
    ) -> Self {
        let service = service("app", endpoints, of_service);
        Self::start(&format!(
            "{service}{}",
            route("all", "/{*rest}", "app", of_route)
        ))
        .await
    }

    /// A gateway with the whole configuration given, and files beside it.
    pub(crate) async fn start_with(configuration: &str, files: &[(&str, &str)]) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_weir-gateway"));
        Self::start_as(program, configuration, files).await
    }

    /// The same with a limit of open files.
    pub(crate) async fn start_limited(configuration: &str, open_files_max: u32) -> Self {
        let mut program = Command::new("prlimit");
        program
            .arg(format!("--nofile={open_files_max}:{open_files_max}"))
            .arg(env!("CARGO_BIN_EXE_weir-gateway"));
        Self::start_as(program, configuration, &[]).await
    }

    /// The same with the program given, which takes the arguments of the gateway.
    pub(crate) async fn start_as(
        mut program: Command,
        configuration: &str,
        files: &[(&str, &str)],
    ) -> Self {
        let directory = TempDir::new().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        let path = directory.path().join("gateway.toml");
        std::fs::write(&path, configuration).unwrap();
        let mut child = program
            .args(["run", "--config"])
            .arg(&path)
            .env("RUST_LOG", "info")
            .env_remove("NO_COLOR")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let expected = configuration.matches("bind = ").count();
        let log = follow(child.stderr.take().unwrap());
        let mut gateway = Self {
            child,
            directory,
            listeners: HashMap::new(),
            log,
        };
        tokio::time::timeout(PATIENCE, gateway.read_listeners(expected))
            .await
            .expect("the gateway says where it listens");
        gateway
    }

    /// Reads the log until every listener was announced.
    async fn read_listeners(&mut self, expected: usize) {
        let mut seen = Vec::new();
        while self.listeners.len() < expected {
            let Some(line) = self.log.recv().await else {
                panic!("the gateway ended before it listened:\n{}", seen.join("\n"));
            };
            if line.contains("listening")
                && let (Some(name), Some(address)) =
                    (field(&line, "listener"), field(&line, "address"))
            {
                self.listeners.insert(name, address.parse().unwrap());
            }
            seen.push(line);
        }
    }

    /// Where the listener `public` listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listener("public")
    }

    /// Where a listener listens.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        self.listeners[name]
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the gateway runs")
    }

    /// The answer of the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> client::Answer {
        client::get(self.listener("admin"), path).await
    }

    /// The value of one line of the metrics page.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let page = self.admin("/metrics").await.text();
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }

    /// The first log line for this path, once it is there.
    pub(crate) async fn logged(&self, path: &str) -> Value {
        eventually(&format!("a log line for {path}"), async || {
            self.log_lines()
                .into_iter()
                .find(|line| line["path"] == path)
        })
        .await
    }

    /// Every complete line of the access log so far.
    pub(crate) fn log_lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.file("access.log")).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// A file beside the configuration.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        Path::new(self.directory.path()).join(name)
    }

    /// Waits until a line of the process's log contains this; false if the log ends without.
    pub(crate) async fn says(&mut self, text: &str) -> bool {
        let said = async {
            while let Some(line) = self.log.recv().await {
                if line.contains(text) {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(PATIENCE, said).await.unwrap_or(false)
    }

    /// Runs a subcommand against the control socket.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Commanded {
        let output = Command::new(env!("CARGO_BIN_EXE_weir-gateway"))
            .args(arguments)
            .arg("--socket")
            .arg(self.file("gateway.sock"))
            .output();
        let output = tokio::time::timeout(PATIENCE, output).await;
        let output = output.expect("a command ends").unwrap();
        Commanded {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Has another process take over, which serves when this returns.
    pub(crate) async fn upgrade(&self) -> Successor {
        let said = self.command(&["upgrade"]).await;
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let pid = self.status().await["pid"].as_u64().unwrap();
        Successor(u32::try_from(pid).unwrap())
    }

    /// What `status --json` says.
    pub(crate) async fn status(&self) -> Value {
        let shown = self.command(&["status", "--json"]).await;
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
        serde_json::from_str(&shown.stdout).unwrap()
    }

    /// Sends SIGTERM.
    pub(crate) async fn terminate(&self) {
        self.signal("-TERM").await;
    }

    /// Sends a signal.
    pub(crate) async fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &self.pid().to_string()])
            .status()
            .await;
        assert!(status.unwrap().success());
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .expect("the gateway ends")
            .unwrap()
    }

    /// The time the process has computed so far, all threads together.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        // The first number is the nanoseconds spent on a processor; a thread that has just ended
        // has no file any more.
        let nanos = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }

    /// The most memory the process ever had in use, in bytes.
    pub(crate) fn memory_peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim()
            .strip_suffix(" kB")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }
}

/// The lines of the process's log.
fn follow(stderr: tokio::process::ChildStderr) -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        // Read on even if nobody listens: a full pipe would stop the gateway.
        while let Ok(Some(line)) = lines.next_line().await {
            let _ = sender.send(line);
        }
    });
    receiver
}

/// The value of `name=value` in a log line.
fn field(line: &str, name: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!("{name}="))?;
    let value = rest.split(' ').next()?;
    Some(value.trim_matches('"').to_owned())
}
