//! The proxies: what they are called, how they are started, and how they end.

mod caddy;
mod envoy;
mod haproxy;
mod nginx;
mod weir;

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ::tests::cleanup::{Guard, Resource};
use ::tests::wait;
use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::usage;

/// How long a proxy may take to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(3);
/// Ports looked at for listeners: below those that the kernel gives to clients.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// Client connections that every proxy has room for.
pub(super) const CONNECTIONS_MAX: usize = 12_000;

/// Which software it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Weir,
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
}

impl Kind {
    /// Processes that it consists of when it has started, at least.
    fn processes(self, cpus: &[usize]) -> usize {
        match self {
            // The master listens before it has made its workers.
            Self::Nginx => 1 + cpus.len(),
            Self::Weir | Self::Haproxy | Self::Envoy | Self::Caddy => 1,
        }
    }

    /// Whether it has a setting for staying awake between requests.
    pub(super) fn can_poll_busily(self) -> bool {
        matches!(self, Self::Weir | Self::Haproxy)
    }
}

/// A proxy that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// As it stands in the rows, like the version.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

/// What a proxy is to be.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// For its files.
    pub(crate) directory: PathBuf,
    /// PEM: certificate and key.
    pub(crate) certificate: PathBuf,
    pub(crate) origin: SocketAddr,
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// CPUs it may run on; it gets as many workers.
    pub(crate) cpus: &'static [usize],
    /// Routes of which the first is asked for: `/r/0/…`, `/r/1/…`; with none, all paths go through.
    pub(crate) routes: usize,
    /// It is to stay awake between requests, if it can.
    pub(crate) busy_poll: bool,
    /// Ours only: what is put into the configuration and into each route.
    pub(crate) chain: Option<Chain>,
}

/// Steps of the full chain, in our configuration's words.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// Sections.
    pub(crate) sections: String,
    /// The value of `use` of each route.
    pub(crate) used: String,
}

impl Program {
    /// Asks the program at `path` for its version.
    pub(crate) fn new(name: &'static str, kind: Kind, path: &Path) -> Result<Self> {
        let argument = match kind {
            Kind::Nginx | Kind::Haproxy => "-v",
            Kind::Weir | Kind::Envoy => "--version",
            Kind::Caddy => "version",
        };
        let output = Command::new(path).arg(argument).output();
        let output = output.with_context(|| format!("running {}", path.display()))?;
        ensure!(
            output.status.success(),
            "{name} {argument}: {}",
            output.status
        );
        let said = [output.stdout, output.stderr].concat();
        let version = version(&String::from_utf8_lossy(&said));
        Ok(Self {
            name,
            kind,
            path: path.to_owned(),
            version: version.with_context(|| format!("{name} {argument} says no version"))?,
        })
    }

    /// Starts it, and waits until it listens.
    pub(crate) fn start(&self, setup: &Setup) -> Result<Running> {
        std::fs::create_dir_all(&setup.directory).context("a directory for a proxy")?;
        let mut command = match self.kind {
            Kind::Weir => weir::command(&self.path, setup),
            Kind::Nginx => nginx::command(&self.path, setup),
            Kind::Haproxy => haproxy::command(&self.path, setup),
            Kind::Envoy => envoy::command(&self.path, setup),
            Kind::Caddy => caddy::command(&self.path, setup),
        }?;
        let log = setup.directory.join("log");
        let file = File::create(&log).context("a log for a proxy")?;
        command
            .current_dir(&setup.directory)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let spawn = || anyhow::Ok(on_cpus(setup.cpus, || command.spawn())??);
        let started = Guard::making(spawn, |child| Resource::Process(pid_of(child)));
        let (child, guard) = started.with_context(|| format!("starting {}", self.name))?;
        let mut running = Running {
            program: self.clone(),
            setup: setup.clone(),
            pids: vec![pid_of(&child)],
            child,
            log,
            guards: vec![guard],
        };
        running.wait_listening()?;
        running.wait_processes(START_LIMIT)?;
        Ok(running)
    }
}

/// The first word that looks like `1.2.3`.
fn version(said: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._+~-".contains(c);
    let words = said.split(|c: char| !is_part(c));
    let mut versions = words
        .map(|word| word.trim_start_matches('v'))
        .filter(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'));
    versions.next().map(str::to_owned)
}

/// A child inherits the CPUs of the thread that starts it.
fn on_cpus<T>(cpus: &[usize], start: impl FnOnce() -> T) -> Result<T> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).context("our own CPUs")?;
    let mut wanted = CpuSet::new();
    cpus.iter().try_for_each(|&cpu| wanted.set(cpu))?;
    sched_setaffinity(this, &wanted).with_context(|| format!("moving to the CPUs {cpus:?}"))?;
    let started = start();
    sched_setaffinity(this, &before).context("moving back")?;
    Ok(started)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32)
}

/// A proxy that runs; it ends when this is dropped.
pub(crate) struct Running {
    pub(crate) program: Program,
    pub(crate) setup: Setup,
    child: Child,
    log: PathBuf,
    pids: Vec<Pid>,
    /// Killed on a signal to us.
    guards: Vec<Guard>,
}

impl Running {
    fn wait_listening(&mut self) -> Result<()> {
        let addresses = [self.setup.plain, self.setup.tls];
        let what = format!("{} to listen", self.program.name);
        let listening = wait::until(&what, START_LIMIT, || {
            let ended = !matches!(self.child.try_wait(), Ok(None));
            let listens = addresses.iter().all(|to| TcpStream::connect(to).is_ok());
            (ended || listens).then_some(listens)
        });
        if !matches!(listening, Ok(true)) {
            bail!(
                "{} does not listen:\n{}",
                self.program.name,
                self.last_words()
            );
        }
        Ok(())
    }

    /// Notes its processes when all are there: what others use would not be counted.
    fn wait_processes(&mut self, limit: Duration) -> Result<()> {
        let (name, main) = (self.program.name, self.pids[0]);
        let wanted = self.program.kind.processes(self.setup.cpus);
        let there = wait::until(&format!("{name}'s processes"), limit, || {
            let family = usage::family(main);
            (family.len() >= wanted).then_some(family)
        });
        let Ok(pids) = there else {
            let found = usage::family(main).len();
            let said = self.last_words();
            bail!("{name} has {found} processes after {limit:?}, not {wanted}:\n{said}");
        };
        self.pids = pids;
        let workers = self.pids[1..].iter();
        self.guards
            .extend(workers.map(|&pid| Guard::new(Resource::Process(pid))));
        Ok(())
    }

    /// All its processes.
    pub(crate) fn pids(&self) -> &[Pid] {
        &self.pids
    }

    /// The end of what it has printed.
    pub(crate) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(self.pids[0], Signal::SIGTERM);
        let child = &mut self.child;
        let ended = wait::until("the proxy to end", END_LIMIT, || {
            child.try_wait().ok().flatten()
        });
        if ended.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // What is reaped may have given its number to somebody else.
        self.guards.drain(..).for_each(Guard::disarm);
    }
}

/// An address on loopback that nobody listens on.
pub(crate) fn free_address() -> Result<SocketAddr> {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = PORTS.end - PORTS.start;
    let offset = (std::process::id() % u32::from(width)) as u16;
    for _ in PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (offset.wrapping_add(step)) % width;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port from {} to {}", PORTS.start, PORTS.end)
}

/// Writes a file of a proxy's; returns its path.
fn write(setup: &Setup, name: &str, text: &str) -> Result<PathBuf> {
    let path = setup.directory.join(name);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_where_programs_say_them() {
        let cases = [
            ("nginx version: nginx/1.22.1\n", Some("1.22.1")),
            (
                "HAProxy version 2.6.12-1+deb12u4 2025/04/22 - https://haproxy.org/\n",
                Some("2.6.12-1+deb12u4"),
            ),
            (
                "\nenvoy  version: 55a1c5f/1.40.0/Clean/RELEASE/BoringSSL\n",
                Some("1.40.0"),
            ),
            ("v2.11.7 h1:abc=\n", Some("2.11.7")),
            ("weir-gateway 0.1.0\n", Some("0.1.0")),
            ("nothing", None),
        ];
        for (said, expected) in cases {
            assert_eq!(version(said).as_deref(), expected, "{said}");
        }
    }

    /// A shell in place of nginx, with two children.
    fn with_two_children(directory: &Path, cpus: &'static [usize]) -> Running {
        let sleeping = ["-c", "sleep 600 & sleep 600 & wait"];
        let child = Command::new("sh").args(sleeping).spawn().unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Running {
            program: Program {
                name: "nginx",
                kind: Kind::Nginx,
                path: "sh".into(),
                version: String::new(),
            },
            setup: Setup {
                directory: directory.to_owned(),
                certificate: PathBuf::new(),
                origin: nowhere,
                plain: nowhere,
                tls: nowhere,
                cpus,
                routes: 0,
                busy_poll: false,
                chain: None,
            },
            pids: vec![pid_of(&child)],
            child,
            log: directory.join("log"),
            guards: Vec::new(),
        }
    }

    #[test]
    fn nginx_is_its_master_and_as_many_workers_as_configured() {
        let directory = tempfile::tempdir().unwrap();
        let mut running = with_two_children(directory.path(), &[0, 1]);
        running.wait_processes(START_LIMIT).unwrap();
        assert_eq!(running.pids().len(), 3);
        running.setup.cpus = &[0, 1, 2];
        let error = running.wait_processes(Duration::ZERO).unwrap_err();
        let expected = "nginx has 3 processes after 0ns, not 4:\n";
        assert_eq!(error.to_string(), expected);
        for &child in &running.pids()[1..] {
            kill(child, Signal::SIGKILL).unwrap();
        }
    }

    #[test]
    fn free_addresses_differ() {
        assert_ne!(free_address().unwrap(), free_address().unwrap());
    }
}
