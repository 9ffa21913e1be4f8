//! The gateway beside its peers: requests per CPU-second, latency and memory of the same work.
//!
//! Proxies run on CPU 0 with one thread each, generator and origin on CPU 1; within a round each
//! proxy has its turn, in an order that changes, so that what disturbs the machine disturbs all.

mod awake;
mod case;
pub(crate) mod chain;
mod cores;
mod footprint;
mod latency;
mod load;
mod proxy;
mod row;
mod target;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use ::tests::certs::Authority;
use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use tempfile::TempDir;

use self::case::Case;
use self::load::{Bed, HOST};
use self::proxy::{Kind, Program, Running, Setup, free_address};
pub(crate) use self::row::Row;
use crate::options::{self, Options};
use crate::report::{complain, say};

/// Where the proxies run, and where the rest does.
const PROXY_CPU: usize = 0;
const LOAD_CPU: usize = 1;

/// Where the proxies are; `cargo xtask bench` knows. Those that are not given are left out.
#[derive(clap::Args, Debug)]
pub(crate) struct Programs {
    /// Our gateway
    #[arg(long, value_name = "PATH")]
    weir: Option<PathBuf>,
    /// How ours was built, for whoever reads its rows
    #[arg(long, value_name = "HOW")]
    weir_built: Option<Built>,
    /// A peer
    #[arg(long, value_name = "PATH")]
    nginx: Option<PathBuf>,
    /// A peer
    #[arg(long, value_name = "PATH")]
    haproxy: Option<PathBuf>,
    /// A peer
    #[arg(long, value_name = "PATH")]
    envoy: Option<PathBuf>,
    /// A peer
    #[arg(long, value_name = "PATH")]
    caddy: Option<PathBuf>,
}

/// How our gateway was built.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Built {
    /// By a profile of its work
    ByProfile,
    /// Without one
    Plain,
}

impl Built {
    fn describe(self) -> &'static str {
        match self {
            Self::ByProfile => "built by a profile",
            Self::Plain => "built without a profile",
        }
    }
}

/// Runs the cases that are asked for, and prints their tables.
pub(crate) fn run(options: &Options, places: &Programs) -> Result<Vec<Row>> {
    let programs = programs(&options.gateway, places)?;
    stay_on(LOAD_CPU)?;
    raise_descriptors()?;
    let mut ground = Ground::new(options)?;
    let mut rows = shared(&mut ground, &programs)?;
    // These start proxies of their own.
    let parts: [Part; 4] = [
        latency::busy_polling,
        chain::run,
        cores::run,
        footprint::run,
    ];
    for part in parts {
        match part(&mut ground, &programs) {
            Ok(more) => rows.extend(more),
            Err(error) => complain(&format!("error: {error:#}")),
        }
    }
    ensure!(!rows.is_empty(), "no case contains {:?}", ground.only);
    target::table(&rows);
    Ok(rows)
}

type Part = fn(&mut Ground, &[Program]) -> Result<Vec<Row>>;

/// What is measured on proxies that all run the whole time.
fn shared(ground: &mut Ground, programs: &[Program]) -> Result<Vec<Row>> {
    let cases: Vec<Case> = Case::all()
        .filter(|case| ground.wants(&case.name()))
        .collect();
    let mut rows = Vec::new();
    if cases.is_empty() && !latency::CASES.iter().any(|case| ground.wants(case)) {
        return Ok(rows);
    }
    let running = ground.start_all(programs)?;
    for case in &cases {
        rows.extend(case::run(ground, &running, case)?);
    }
    rows.extend(latency::one_connection(ground, &running)?);
    rows.extend(latency::open_loop(ground, &running)?);
    Ok(rows)
}

/// What all measurements need.
pub(crate) struct Ground {
    bed: Bed,
    directory: TempDir,
    certificate: PathBuf,
    only: String,
    rounds: usize,
    window: Duration,
    warm_up: Duration,
}

impl Ground {
    fn new(options: &Options) -> Result<Self> {
        let wanted = &options.gateway;
        let directory = tempfile::tempdir().context("a directory for the proxies")?;
        let identity = Authority::new()?.issue(&[HOST])?;
        let certificate = directory.path().join("certificate.pem");
        let text = identity.certificate_pem + &identity.key_pem;
        std::fs::write(&certificate, text).context("writing the certificate")?;
        let (rounds, seconds, warm_up) = if wanted.quick {
            (3, 0.3, 0.1)
        } else {
            (5, 0.8, 0.2)
        };
        Ok(Self {
            bed: Bed::new()?,
            directory,
            certificate,
            only: options.only.clone(),
            rounds: wanted.rounds.unwrap_or(rounds).max(1),
            window: Duration::from_secs_f64(wanted.seconds.unwrap_or(seconds)),
            warm_up: Duration::from_secs_f64(warm_up),
        })
    }

    fn wants(&self, case: &str) -> bool {
        case.contains(&self.only)
    }

    /// A proxy of one worker that passes everything on.
    fn setup(&self, name: &str) -> Result<Setup> {
        Ok(Setup {
            directory: self.directory.path().join(name),
            certificate: self.certificate.clone(),
            origin: self.bed.origin(),
            plain: free_address()?,
            tls: free_address()?,
            cpus: &[PROXY_CPU],
            routes: 0,
            busy_poll: false,
            chain: None,
        })
    }

    /// Those of `programs` that start; of the others it is said why not.
    fn start_all(&self, programs: &[Program]) -> Result<Vec<Running>> {
        let mut running = Vec::new();
        for program in programs {
            match program.start(&self.setup(program.name)?) {
                Ok(proxy) => running.push(proxy),
                Err(error) => complain(&format!("without {}: {error:#}", program.name)),
            }
        }
        ensure!(!running.is_empty(), "no proxy has started");
        Ok(running)
    }
}

/// The proxies that are wanted and there, ours first.
fn programs(options: &options::Gateway, places: &Programs) -> Result<Vec<Program>> {
    let offered = [
        ("weir", Kind::Weir, places.weir.as_ref()),
        ("weir-b", Kind::Weir, options.binary.as_ref()),
        ("nginx", Kind::Nginx, places.nginx.as_ref()),
        ("haproxy", Kind::Haproxy, places.haproxy.as_ref()),
        ("envoy", Kind::Envoy, places.envoy.as_ref()),
        ("caddy", Kind::Caddy, places.caddy.as_ref()),
    ];
    let only = &options.proxies;
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let mut programs = Vec::new();
    for (name, kind, path) in offered {
        let Some(path) = path.filter(|_| wanted(name)) else {
            continue;
        };
        match Program::new(name, kind, path) {
            Ok(mut program) => {
                if let ("weir", Some(built)) = (name, places.weir_built) {
                    program.version += &format!(", {}", built.describe());
                }
                say(&format!("{name} {}", program.version));
                programs.push(program);
            }
            Err(error) => complain(&format!("without {name}: {error:#}")),
        }
    }
    ensure!(
        !programs.is_empty(),
        "none of the proxies can be run: give paths to them"
    );
    Ok(programs)
}

/// As many descriptors as we may have, and the proxies with us.
fn raise_descriptors() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("the limit of descriptors")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit of descriptors")
}

fn stay_on(cpu: usize) -> Result<()> {
    let this = Pid::from_raw(0);
    let usable = sched_getaffinity(this).context("our own CPUs")?;
    ensure!(
        usable.is_set(PROXY_CPU)? && usable.is_set(LOAD_CPU)?,
        "needs the CPUs {PROXY_CPU} and {LOAD_CPU}"
    );
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(this, &cpus).with_context(|| format!("moving to CPU {cpu}"))
}
