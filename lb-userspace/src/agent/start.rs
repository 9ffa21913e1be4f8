//! The start, step by step. See the parent module for the order and why it is so.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time;
use tracing::{enabled, info, warn};

use super::{Agent, Desired, EVENTS_WAITING_MAX, Error, Task, publish};
use crate::config::Config;
use crate::control::published::Published;
use crate::control::runtime;
use crate::control::state::{self, Healths};
use crate::dataplane::{Dataplane, KernelLog, Maps, Sizes};
use crate::metrics::Meters;
use crate::net::Unknown;
use crate::{health, net};

/// How long the first publish waits for neighbours to answer. They do within a millisecond or not at
/// all; without the wait the first ring would be built of those whose answer came first.
const NEIGHBOURS_WAIT_MAX: Duration = Duration::from_secs(1);

/// Brings everything up, in order. The second value brings what probes say.
pub(super) async fn start(
    file: &Path,
    config: Config,
) -> Result<(Agent, mpsc::Receiver<health::Event>), Error> {
    let started = Instant::now();
    let hash_key = config
        .agent
        .hash_secret
        .as_ref()
        .map(|secret| secret.read())
        .transpose()?;
    let path = runtime::path(&config.agent.socket);
    let changes = runtime::load(&path).map_err(|source| Error::Runtime {
        verb: "read",
        path,
        source,
    })?;
    let (effective, changes) = changes.over(&config);

    let mut net = net::start(state::addresses(&effective)).await?;
    let sizes = Sizes::new(config.agent.limits);
    let mut dataplane = Dataplane::open(&config.agent.bpffs, sizes, kernel_log())?;
    let published = published(dataplane.adopted(), sizes, dataplane.maps())?;
    let mut healths = Healths::default();
    healths.follow(&effective.config, &published);
    wait_for_neighbours(&mut net).await;

    let logger = start_kernel_log(&mut dataplane);
    let (events, received) = mpsc::channel(EVENTS_WAITING_MAX);
    let mut agent = Agent {
        file: file.to_owned(),
        desired: Desired {
            config,
            runtime: changes,
            effective,
            healths,
        },
        published,
        dataplane,
        attached: Vec::new(),
        net,
        probes: health::start(events),
        meters: Meters::default(),
        unsettled: BTreeMap::new(),
        panics: Default::default(),
        retry_at: None,
        started,
        _kernel_log: logger,
    };
    if let Some(key) = hash_key {
        let [low, high] =
            [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|i| key.0[at + i])));
        agent.dataplane.set_hash_key([low, high])?;
    }
    agent.publish()?;
    agent.attach()?;
    agent
        .probes
        .set_targets(publish::targets(&agent.desired.effective.config));
    info!(adopted = agent.dataplane.adopted(), took = ?started.elapsed(), "running");
    Ok((agent, received))
}

impl Agent {
    /// Puts the program on the interfaces, and takes it off those that are no longer configured.
    fn attach(&mut self) -> Result<(), Error> {
        let settings = &self.desired.config.agent;
        for interface in &settings.interfaces {
            self.attached
                .push(self.dataplane.attach(interface, settings.xdp_mode)?);
        }
        for interface in self.dataplane.detach_others(&settings.interfaces)? {
            warn!(interface, "not configured any more: program detached");
        }
        Ok(())
    }
}

/// What is in the maps: nothing, or what an earlier agent left.
fn published(adopted: bool, sizes: Sizes, maps: &Maps) -> Result<Published, Error> {
    if !adopted {
        return Ok(Published::new(sizes));
    }
    let ring = |start, len| maps.read_ring(start, len);
    let published = Published::adopt(sizes, maps.read_vips()?, maps.read_backends()?, ring);
    info!(
        vips = published.vips.len(),
        backends = published.backends.len(),
        "adopted"
    );
    Ok(published)
}

async fn wait_for_neighbours(net: &mut net::Watch) {
    let settled = net.ways.wait_for(|known| {
        let silent = |way: &net::Resolution| matches!(way, Err(Unknown::Neighbour { .. }));
        !known.ways.values().any(silent)
    });
    if time::timeout(NEIGHBOURS_WAIT_MAX, settled).await.is_err() {
        warn!("some next hops do not answer; their backends get no flows until they do");
    }
}

/// The kernel program logs when somebody wants to read it: `WEIR_LOG=info,weir::kernel=debug`.
fn kernel_log() -> KernelLog {
    if enabled!(target: "weir::kernel", tracing::Level::DEBUG) {
        KernelLog::Debug
    } else {
        KernelLog::Off
    }
}

fn start_kernel_log(dataplane: &mut Dataplane) -> Option<Task> {
    if kernel_log() == KernelLog::Off {
        return None;
    }
    match dataplane.kernel_log() {
        Ok(log) => Some(Task(tokio::spawn(log))),
        Err(error) => {
            warn!(%error, "cannot read the kernel program's log");
            None
        }
    }
}
