//! Instances under active checks: each says by itself whether it is well, and counts apart what it
//! was asked by the checks and by requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::eventually;
use super::gateway::Gateway;
use super::hostile::{Connection, Hostile, path};

/// Checks that are asked often. A machine under load may keep one waiting, but hardly two.
pub(crate) const OFTEN: &str = "health = { path = \"/healthz\", every = \"500ms\", \
    timeout = \"500ms\", jitter_percent = 0, fall = 2, rise = 1 }";

/// Answers `/healthz` as it is told, and everything else with its name.
pub(crate) struct Checked {
    pub(crate) address: SocketAddr,
    told: Arc<Told>,
    server: Hostile,
}

struct Told {
    name: String,
    well: AtomicBool,
    slow: AtomicBool,
    /// Checks are answered once this is false.
    silent: watch::Sender<bool>,
    checks: AtomicU64,
    requests: AtomicU64,
}

impl Checked {
    /// An instance that is well.
    pub(crate) async fn start(name: &str) -> Self {
        let told = Arc::new(Told {
            name: name.to_owned(),
            well: AtomicBool::new(true),
            slow: AtomicBool::new(false),
            silent: watch::Sender::new(false),
            checks: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        });
        let shared = Arc::clone(&told);
        let server = Hostile::start(move |connection| serve(connection, Arc::clone(&shared))).await;
        Self {
            address: server.address,
            told,
            server,
        }
    }

    /// So many, called `0`, `1` and so on.
    pub(crate) async fn several(count: usize) -> Vec<Self> {
        let all = (0..count).map(|index| async move { Self::start(&index.to_string()).await });
        futures_util::future::join_all(all).await
    }

    /// An instance that is ill from the start.
    pub(crate) async fn ill(name: &str) -> Self {
        let instance = Self::start(name).await;
        instance.set_well(false);
        instance
    }

    /// Tells it what to say from now on.
    pub(crate) fn set_well(&self, well: bool) {
        self.told.well.store(well, Ordering::Relaxed);
    }

    /// Tells it to take longer for each answer than the machine may keep another waiting.
    pub(crate) fn set_slow(&self) {
        self.told.slow.store(true, Ordering::Relaxed);
    }

    /// Tells it to answer no check until it is told otherwise.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.told.silent.send_replace(silent);
    }

    /// Checks it was asked.
    pub(crate) fn checks(&self) -> u64 {
        self.told.checks.load(Ordering::Relaxed)
    }

    /// Requests other than checks.
    pub(crate) fn requests(&self) -> u64 {
        self.told.requests.load(Ordering::Relaxed)
    }

    /// Connections that were accepted.
    pub(crate) fn connections(&self) -> u64 {
        self.server.connections()
    }

    /// Waits until the gateway finds it well, or ill.
    pub(crate) async fn is_found(&self, gateway: &Gateway, well: bool) {
        let address = self.address;
        let series =
            format!("weir_gateway_instance_healthy{{service=\"app\",instance=\"{address}\"}}");
        eventually(
            &format!("{} is found well: {well}", self.told.name),
            async || ((gateway.metric(&series).await > 0.5) == well).then_some(()),
        )
        .await;
    }
}

async fn serve(mut connection: Connection, told: Arc<Told>) {
    while let Some(head) = connection.request().await {
        if path(&head).starts_with("/healthz") {
            told.checks.fetch_add(1, Ordering::Relaxed);
            let mut silent = told.silent.subscribe();
            // The sender lives as long as what it is read from.
            let _ = silent.wait_for(|silent| !silent).await;
            let status = if told.well.load(Ordering::Relaxed) {
                "200 OK"
            } else {
                "500 Ill"
            };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            if !connection.write(answer.as_bytes()).await {
                return;
            }
            continue;
        }
        told.requests.fetch_add(1, Ordering::Relaxed);
        if told.slow.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        if !connection.answer(&told.name).await {
            return;
        }
    }
}
