//! The start, step by step. See the parent module for the order and why it is so.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time;
use tracing::{enabled, error, info, warn};

use super::{Agent, Desired, EVENTS_WAITING_MAX, Error, Task, publish};
use crate::config::{Config, HashKey, Secret};
use crate::control::published::Published;
use crate::control::runtime;
use crate::control::state::{self, Healths};
use crate::dataplane::{self, Dataplane, KernelLog, Maps, Sizes, clock};
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
    dataplane::check_interfaces(&config.agent.interfaces)?;
    let hash_key = config.agent.hash_secret.as_ref().map(Secret::read);
    let hash_key = hash_key.transpose()?;
    let (events, received) = mpsc::channel(EVENTS_WAITING_MAX);
    let mut agent = gather(file, config, started, events).await?;
    if let Err(error) = agent.bring_up(hash_key) {
        return Err(agent.give_up(error));
    }
    let (adopted, took) = (agent.dataplane.adopted(), started.elapsed());
    info!(adopted, ?took, "running");
    Ok((agent, received))
}

/// Everything the agent has to know before it changes anything that packets see.
async fn gather(
    file: &Path,
    config: Config,
    started: Instant,
    events: mpsc::Sender<health::Event>,
) -> Result<Agent, Error> {
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
    Ok(Agent {
        file: file.to_owned(),
        socket: None,
        desired: Arc::new(Desired {
            config,
            runtime: changes,
            effective,
            healths,
        }),
        published,
        dataplane,
        attached: Vec::new(),
        net,
        probes: health::start(events),
        meters: Meters::default(),
        settle_at: None,
        panics: BTreeSet::new(),
        grace: None,
        retry_at: None,
        started,
        _kernel_log: logger,
    })
}

impl Agent {
    /// From here on packets see what happens.
    fn bring_up(&mut self, hash_key: Option<HashKey>) -> Result<(), Error> {
        if let Some(HashKey(bytes)) = hash_key {
            let key = u128::from_le_bytes(bytes);
            self.dataplane
                .set_hash_key([key as u64, (key >> 64) as u64])?;
        }
        self.publish()?;
        self.attach()?;
        let targets = publish::targets(&self.desired.effective.config);
        self.probes.set_targets(targets);
        Ok(())
    }

    /// Leaves nothing behind that was not there before. What was adopted stays, and goes on.
    fn give_up(self, error: Error) -> Error {
        if !self.dataplane.adopted()
            && let Err(left) = self.dataplane.remove()
        {
            warn!(%left, "cannot remove what was made so far");
        }
        error
    }

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

impl Agent {
    /// An interface that was deleted and made anew (a virtual one, a driver reloaded) has lost its
    /// program: it gets it again.
    pub(super) fn attach_again(&mut self) {
        let snapshot = self.net.ways.borrow().snapshot.clone();
        let mode = self.desired.config.agent.xdp_mode;
        for attached in &mut self.attached {
            let found = snapshot
                .links
                .iter()
                .find(|(_, link)| link.name == attached.interface);
            let Some((&ifindex, _)) = found.filter(|(index, _)| **index != attached.ifindex) else {
                continue;
            };
            let interface = attached.interface.clone();
            warn!(interface, ifindex, "the interface was made anew");
            match self.dataplane.attach(&interface, mode) {
                Ok(again) => *attached = again,
                Err(error) => error!(interface, %error, "cannot attach the program again"),
            }
        }
    }
}

/// What is in the maps: nothing, or what an earlier agent left.
fn published(adopted: bool, sizes: Sizes, maps: &Maps) -> Result<Published, Error> {
    if !adopted {
        return Ok(Published::new(sizes));
    }
    let ring = |start, len| maps.read_ring(start, len);
    let backends = maps.read_backends()?;
    let now_s = clock::now_s() as u16;
    let published = Published::adopt(sizes, maps.read_vips(), backends, ring, now_s);
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
