//! Packets per second of real frames over a veth pair: dropped, sent back, and balanced.
//!
//! ```text
//! source (live frames) ──▶ near ═══ far: the program under test
//!                  sink ◀── near ═══ far: XDP_TX
//! ```
//!
//! All of it runs on one CPU, the sending too, so the figures compare programs and nothing else.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, PerCpuArray},
    programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp, XdpMode, links::Link as _},
};
use lb_ebpf::abi::{self, Counts, Forward, forward};
use nix::net::if_::if_nametoindex;
use serde::Serialize;
use tests::{
    command,
    netns::Namespace,
    object::{self, Object, Room},
};

use crate::{
    datapath::case::Case,
    harness,
    report::{complain, table},
};

/// Frames of one timed run.
const FRAMES: u32 = 1_000_000;
/// Frames that the kernel sends at a time.
const BATCH: u32 = 64;
/// Turns through all programs; the median counts.
const ROUNDS: usize = 7;
const FLOWS: u32 = 1 << 16;
/// Bytes of `struct xdp_md` (include/uapi/linux/bpf.h).
const CONTEXT_WORDS: usize = 6;

/// Name of the case, forwarding mode, and the program of the harness object, else the balancer.
type Program = (&'static str, Forward, Option<&'static str>);

const PROGRAMS: [Program; 4] = [
    ("veth XDP_DROP", forward::L2, Some("sink")),
    ("veth XDP_TX", forward::L2, Some("null_tx")),
    ("veth l2", forward::L2, None),
    ("veth ipip", forward::IPIP, None),
];

/// One line of the result.
#[derive(Serialize)]
pub(crate) struct Row {
    case: &'static str,
    flows: u32,
    /// Median of the rounds.
    packets_per_second: u64,
    least: u64,
    most: u64,
    /// Over all rounds.
    sent: u64,
    /// Those of them that were counted at the end of their way.
    received: u64,
}

/// A program at the far end.
struct Candidate {
    case: &'static str,
    shape: Case,
    runs: Runs,
    rates: Vec<u64>,
    received: u64,
}

enum Runs {
    /// One of the harness object.
    Harness(&'static str),
    Balancer(Box<Object>),
}

/// Runs the cases whose name contains `only`, and prints the table.
pub(crate) fn run(only: &str) -> Result<Vec<Row>> {
    harness::pin_to_first_cpu()?;
    let named = |program: &&Program| program.0.contains(only);
    let programs: Vec<_> = PROGRAMS.iter().filter(named).collect();
    if programs.is_empty() {
        return Ok(Vec::new());
    }
    complain("live frames over veth");
    let mut bed = Bed::new()?;
    let candidates = programs.into_iter().map(|program| bed.candidate(*program));
    let mut candidates = candidates.collect::<Result<Vec<_>>>()?;
    for _ in 0..ROUNDS {
        for candidate in &mut candidates {
            bed.measure(candidate)?;
        }
    }
    let rows: Vec<Row> = candidates.into_iter().map(row).collect();
    print(&rows);
    Ok(rows)
}

/// Two namespaces with a veth pair between them.
struct Bed {
    near: Namespace,
    far: Namespace,
    near_index: u32,
    far_index: u32,
    harness: Ebpf,
}

const NEAR: &str = "near";
const FAR: &str = "far";

impl Bed {
    fn new() -> Result<Self> {
        tests::cleanup::sweep();
        let name = |end| {
            format!(
                "{}{}-{end}",
                tests::cleanup::NAME_PREFIX,
                std::process::id()
            )
        };
        let near = Namespace::new(&name(NEAR))?;
        let far = Namespace::new(&name(FAR))?;
        let (one, other) = (near.name(), far.name());
        let link = [
            "link", "add", NEAR, "netns", one, "type", "veth", "peer", "name", FAR,
        ];
        command::run("ip", &[&link[..], &["netns", other]].concat())?;
        for (namespace, end) in [(one, NEAR), (other, FAR)] {
            // Nobody but us shall send: no neighbour discovery.
            let up = [
                "-n",
                namespace,
                "link",
                "set",
                end,
                "addrgenmode",
                "none",
                "up",
            ];
            command::run("ip", &up)?;
        }
        let near_index = near.enter(|| if_nametoindex(NEAR))?;
        let far_index = far.enter(|| if_nametoindex(FAR))?;
        let mut harness = load()?;
        let sink = program(&mut harness, "sink")?;
        near.enter(|| sink.attach(NEAR, XdpMode::Driver))?;
        Ok(Self {
            near,
            far,
            near_index,
            far_index,
            harness,
        })
    }

    fn candidate(&self, (case, mode, name): Program) -> Result<Candidate> {
        let shape = Case::settled(mode);
        let runs = match name {
            Some(name) => Runs::Harness(name),
            None => Runs::Balancer(Box::new(self.balancer(&shape)?)),
        };
        Ok(Candidate {
            case,
            shape,
            runs,
            rates: Vec::new(),
            received: 0,
        })
    }

    /// The balancer, whose backends are all behind the far end of the pair.
    fn balancer(&self, shape: &Case) -> Result<Object> {
        let mut fixture = shape.fixture();
        for backend in &mut fixture.backends {
            for hop in &mut backend.hops {
                hop.ifindex = self.far_index;
            }
        }
        let room = Room {
            exceptions: 1,
            flows: 1,
        };
        Object::balancer_within(&fixture, room, u32::MAX)
    }

    /// One round of one candidate.
    fn measure(&mut self, candidate: &mut Candidate) -> Result<()> {
        let frame = candidate.shape.frame();
        let mut settings: Array<_, abi::Harness> = self
            .harness
            .map_mut("HARNESS")
            .context("no map HARNESS")?
            .try_into()?;
        settings.set(0, candidate.shape.settings(FLOWS), 0)?;
        let xdp = match &mut candidate.runs {
            Runs::Harness(name) => program(&mut self.harness, name)?,
            Runs::Balancer(object) => object.xdp_mut(),
        };
        let link = self.far.enter(|| xdp.attach(FAR, XdpMode::Driver))?;
        let link = xdp.take_link(link)?;
        let before = self.arrived()?;
        let start = Instant::now();
        self.send(&frame)?;
        let took = start.elapsed();
        let after = self.arrived()?;
        link.detach()?;
        let packets = after.packets - before.packets;
        let expected = (frame.len() as u32 + candidate.growth()) as u64 * packets;
        let bytes = after.bytes - before.bytes;
        ensure!(
            packets > 0 && bytes == expected,
            "{}: {packets} packets came with {bytes} bytes, not {expected}",
            candidate.case
        );
        candidate.received += packets;
        candidate
            .rates
            .push((packets as f64 / took.as_secs_f64()) as u64);
        Ok(())
    }

    /// Sends from the near end, as if the frames had come in there and were sent back.
    fn send(&self, frame: &[u8]) -> Result<()> {
        let source: &Xdp = self
            .harness
            .program("source")
            .context("no program source")?
            .try_into()?;
        let mut context = [0_u32; CONTEXT_WORDS];
        (context[1], context[3]) = (frame.len() as u32, self.near_index);
        let context: Vec<u8> = context.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.near.enter(|| {
            source.test_run(TestRunOptions {
                data_in: Some(frame),
                ctx_in: Some(&context),
                repeat: FRAMES,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            })
        })?;
        Ok(())
    }

    /// What the sinks of both ends have counted.
    fn arrived(&self) -> Result<Counts> {
        let map = self.harness.map("ARRIVED").context("no map ARRIVED")?;
        let map: PerCpuArray<_, Counts> = map.try_into()?;
        let mut sum = Counts::default();
        for counts in map.get(&0, 0)?.iter() {
            sum.packets += counts.packets;
            sum.bytes += counts.bytes;
        }
        Ok(sum)
    }
}

impl Candidate {
    /// Bytes that it puts in front.
    fn growth(&self) -> u32 {
        match self.runs {
            Runs::Harness(_) => 0,
            Runs::Balancer(_) => self.shape.growth(),
        }
    }
}

fn load() -> Result<Ebpf> {
    let path = object::path("harness");
    let mut ebpf = Ebpf::load_file(&path).with_context(|| format!("loading {}", path.display()))?;
    for name in ["source", "sink", "null_tx"] {
        program(&mut ebpf, name)?.load()?;
    }
    Ok(ebpf)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name);
    let program = program.with_context(|| format!("the harness has no program {name}"))?;
    Ok(program.try_into()?)
}

fn row(candidate: Candidate) -> Row {
    let mut rates = candidate.rates;
    rates.sort_unstable();
    Row {
        case: candidate.case,
        flows: FLOWS,
        packets_per_second: rates[rates.len() / 2],
        least: rates[0],
        most: rates[rates.len() - 1],
        sent: rates.len() as u64 * u64::from(FRAMES),
        received: candidate.received,
    }
}

fn print(rows: &[Row]) {
    let cells = |row: &Row| {
        let rates = [row.packets_per_second, row.least, row.most];
        let rates = rates.map(|rate| format!("{:.2}", rate as f64 / 1e6));
        let lost = format!("{}", row.sent.saturating_sub(row.received));
        [row.case.to_owned()]
            .into_iter()
            .chain(rates)
            .chain([lost])
            .collect()
    };
    let rows: Vec<_> = rows.iter().map(cells).collect();
    table(
        &[
            "million packets a second",
            "median",
            "least",
            "most",
            "lost",
        ],
        &rows,
    );
}
