//! The task that keeps a snapshot up to date and tells what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::Stream;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time;
use tracing::{debug, warn};

use super::kick::Kicks;
use super::{Error, Resolution, Snapshot, link, neigh, route};

/// What the kernel tells us about, unasked.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Changes come in bursts (a routing daemon, a link that goes up): routes are asked for again when
/// nothing has come in for this long, or after [`SETTLE_MAX`].
const SETTLE: Duration = Duration::from_millis(10);

/// A burst without end is cut here.
const SETTLE_MAX: Duration = Duration::from_millis(200);

/// Everything is read anew this often, in case a message was lost.
const RESYNC_EVERY: Duration = Duration::from_secs(30);

/// The ways to a set of addresses, kept up to date. Ends when dropped.
pub struct Watch {
    addresses: watch::Sender<BTreeSet<IpAddr>>,
    /// What is known; every change of the set, of the ways or of an interface makes a new value.
    pub ways: watch::Receiver<Ways>,
    events: Arc<AtomicU64>,
    handle: Handle,
    tasks: [JoinHandle<()>; 2],
}

/// What is known at one moment.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// By address.
    pub ways: Arc<BTreeMap<IpAddr, Resolution>>,
    /// What they follow from.
    pub snapshot: Arc<Snapshot>,
}

impl Watch {
    /// Replaces the set of addresses.
    pub fn follow(&self, addresses: BTreeSet<IpAddr>) {
        self.addresses.send_if_modified(|now| {
            let changed = *now != addresses;
            *now = addresses;
            changed
        });
    }

    /// Messages received from the kernel so far.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// All interfaces, read now.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub async fn links(&self) -> Result<BTreeMap<u32, super::Link>, Error> {
        link::list(&self.handle).await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Starts watching in the current network namespace and Tokio runtime, with the ways to `addresses`
/// looked up once when this returns.
///
/// # Errors
///
/// When there is no netlink, or the first look fails.
pub async fn start(addresses: BTreeSet<IpAddr>) -> Result<Watch, Error> {
    let (connection, handle, messages) = new_multicast_connection(&GROUPS)?;
    let connection = tokio::spawn(connection);
    let (addresses, followed) = watch::channel(addresses);
    let (ways, known) = watch::channel(Ways::default());
    let events = Arc::new(AtomicU64::new(0));
    let mut watcher = Watcher {
        handle: handle.clone(),
        followed,
        ways,
        snapshot: Snapshot::default(),
        kicks: Kicks::default(),
        events: Arc::clone(&events),
    };
    watcher.resync().await?;
    watcher.publish();
    let messages = messages.map(|(message, _)| message);
    let tasks = [connection, tokio::spawn(watcher.run(messages))];
    Ok(Watch {
        addresses,
        ways: known,
        events,
        handle,
        tasks,
    })
}

struct Watcher {
    handle: Handle,
    followed: watch::Receiver<BTreeSet<IpAddr>>,
    ways: watch::Sender<Ways>,
    snapshot: Snapshot,
    kicks: Kicks,
    events: Arc<AtomicU64>,
}

/// How much of the snapshot a message puts in doubt, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Doubt {
    /// Nothing that matters.
    Nothing,
    /// Taken in already; only what follows from it changes.
    Neighbour,
    /// Routes have to be asked for again.
    Routes,
    /// Messages were lost.
    Everything,
}

impl Watcher {
    async fn run(mut self, messages: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>>) {
        let mut messages = std::pin::pin!(messages);
        let mut resync_at = time::Instant::now() + RESYNC_EVERY;
        loop {
            self.ask().await;
            let next = self
                .kicks
                .next()
                .map_or(resync_at, |at| resync_at.min(at.into()));
            let doubt = tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.take_burst(message, &mut messages).await,
                    None => return,
                },
                changed = self.followed.changed() => match changed {
                    Ok(()) => Doubt::Everything,
                    Err(_) => return,
                },
                () = time::sleep_until(next) => {
                    if next < resync_at { Doubt::Nothing } else { Doubt::Everything }
                }
            };
            match doubt {
                Doubt::Everything => {
                    resync_at = time::Instant::now() + RESYNC_EVERY;
                    if let Err(error) = self.resync().await {
                        warn!(%error, "cannot read the kernel's network state; trying again");
                    }
                }
                Doubt::Routes => self.ask_routes().await,
                Doubt::Neighbour | Doubt::Nothing => {}
            }
            if doubt > Doubt::Nothing {
                self.publish();
            }
        }
    }

    /// Takes in a message and those that come right after it.
    async fn take_burst(
        &mut self,
        first: NetlinkMessage<RouteNetlinkMessage>,
        messages: &mut (impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin),
    ) -> Doubt {
        let mut doubt = self.take_in(first);
        let deadline = time::Instant::now() + SETTLE_MAX;
        // A neighbour's answer is what packets wait for: it is passed on at once.
        while doubt > Doubt::Neighbour {
            let quiet = deadline.min(time::Instant::now() + SETTLE);
            match time::timeout_at(quiet, messages.next()).await {
                Ok(Some(message)) => doubt = doubt.max(self.take_in(message)),
                Ok(None) | Err(_) => break,
            }
        }
        doubt
    }

    fn take_in(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> Doubt {
        self.events.fetch_add(1, Ordering::Relaxed);
        let message = match message.payload {
            NetlinkPayload::InnerMessage(message) => message,
            NetlinkPayload::Overrun(_) => return Doubt::Everything,
            _ => return Doubt::Nothing,
        };
        match message {
            RouteNetlinkMessage::NewNeighbour(message) => {
                let Some((key, news)) = neigh::parse(&message) else {
                    return Doubt::Nothing;
                };
                let needed = self.snapshot.needed(&self.followed.borrow()).contains(&key);
                let entry = self.snapshot.neighbours.entry(key).or_insert(news);
                *entry = entry.followed_by(news);
                if needed {
                    Doubt::Neighbour
                } else {
                    Doubt::Nothing
                }
            }
            RouteNetlinkMessage::DelNeighbour(message) => {
                let Some((key, _)) = neigh::parse(&message) else {
                    return Doubt::Nothing;
                };
                // The kernel has forgotten it; its MAC address is still the best guess.
                if let Some(entry) = self.snapshot.neighbours.get_mut(&key) {
                    entry.state = neigh::State::Missing;
                }
                Doubt::Nothing
            }
            RouteNetlinkMessage::NewLink(message) => {
                let link = link::parse(&message);
                let old = self
                    .snapshot
                    .links
                    .insert(message.header.index, link.clone());
                if old.as_ref() == Some(&link) {
                    Doubt::Nothing
                } else {
                    Doubt::Routes
                }
            }
            RouteNetlinkMessage::DelLink(message) => {
                let index = message.header.index;
                self.snapshot.links.remove(&index);
                self.snapshot
                    .neighbours
                    .retain(|(ifindex, _), _| *ifindex != index);
                Doubt::Routes
            }
            _ => Doubt::Routes,
        }
    }

    /// Reads everything anew. MAC addresses known before stay known, on links that are still there.
    async fn resync(&mut self) -> Result<(), Error> {
        self.snapshot.links = link::list(&self.handle).await?;
        self.ask_routes().await;
        let mut neighbours = neigh::list(&self.handle).await?;
        let needed = self.snapshot.needed(&self.followed.borrow_and_update());
        for (key, old) in &self.snapshot.neighbours {
            let news = neighbours.get(key).copied();
            let news = news.unwrap_or(super::Neighbour {
                mac: None,
                state: neigh::State::Missing,
            });
            if needed.contains(key) {
                neighbours.insert(*key, old.followed_by(news));
            }
        }
        self.snapshot.neighbours = neighbours;
        Ok(())
    }

    async fn ask_routes(&mut self) {
        let addresses = self.followed.borrow().clone();
        self.snapshot.routes = route::list(&self.handle, &addresses).await;
    }

    /// Has the kernel resolve what is missing and confirm what is stale.
    async fn ask(&mut self) {
        let needed = self.snapshot.needed(&self.followed.borrow());
        let due = self
            .kicks
            .due(&needed, &self.snapshot.neighbours, Instant::now());
        for (ifindex, address) in due {
            if let Err(error) = neigh::ask(&self.handle, ifindex, address).await {
                debug!(%address, ifindex, %error, "cannot have a neighbour resolved");
            }
        }
    }

    fn publish(&self) {
        let ways = self.snapshot.resolve_all(&self.followed.borrow());
        self.ways.send_if_modified(|known| {
            let changed = *known.ways != ways || known.snapshot.links != self.snapshot.links;
            known.snapshot = Arc::new(self.snapshot.clone());
            known.ways = Arc::new(ways);
            changed
        });
    }
}
