//! Publishing into the real maps as the agent does, without the agent: plan, wait, apply.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use lb_ebpf::{
    abi::{VipKey, forward, hash_kind},
    address::Address,
    wire::protocol::TCP,
};
use lb_userspace::{
    config::{Limits, Tracking},
    control::{
        apply::apply,
        plan::{Plan, Wanted, WantedVip},
        published::Published,
    },
    dataplane::{Dataplane, KernelLog, Sizes},
    table::{Member, Table},
};
use tempfile::TempDir;

use crate::{bpffs::Bpffs, fixture::VIP_V4};

/// Port of the first VIP; the others follow.
pub const FIRST_PORT: u16 = 10_000;

/// The balancer's maps in a bpffs of their own, and what is published in them.
pub struct Publisher {
    /// The maps.
    pub dataplane: Dataplane,
    /// What is published.
    pub published: Published,
    directory: PathBuf,
    // Unmounted, and removed, when everything that is pinned there is closed.
    _bpffs: Bpffs,
    _directory: TempDir,
}

impl Publisher {
    /// Makes maps for `vips` VIPs with rings of `ring_size` slots, and loads the balancer.
    ///
    /// # Errors
    ///
    /// Without root, or when the kernel refuses.
    pub fn new(vips: u32, ring_size: u32) -> Result<Self> {
        let holder = tempfile::tempdir().context("making a directory for a bpffs")?;
        let bpffs = Bpffs::new(holder.path())?;
        let directory = bpffs.directory("publisher")?;
        let limits = Limits {
            vips_max: vips,
            ring_slots_max: vips * ring_size,
            ..Limits::default()
        };
        let sizes = Sizes::new(limits);
        Ok(Self {
            dataplane: Dataplane::open(&directory, sizes, KernelLog::Off)?,
            published: Published::new(sizes),
            directory,
            _bpffs: bpffs,
            _directory: holder,
        })
    }

    /// Where the map `name` is pinned.
    #[must_use]
    pub fn pin(&self, name: &str) -> PathBuf {
        Path::new(&self.directory).join("maps").join(name)
    }

    /// Publishes `wanted`, with all the waiting that this takes.
    ///
    /// # Errors
    ///
    /// When a table is full or cannot be written.
    pub fn publish(&mut self, wanted: &Wanted) -> Result<()> {
        let plan = Plan::new(&self.published, wanted)?;
        self.published = apply(self.dataplane.maps_mut(), &self.published, plan)?;
        Ok(())
    }
}

/// `count` backends of equal weight: 10.1.0.0, 10.1.0.1, …
#[must_use]
pub fn members(count: u16) -> Vec<Member> {
    let address = |index: u16| {
        let [high, low] = index.to_be_bytes();
        IpAddr::from(Ipv4Addr::new(10, 1, high, low))
    };
    (0..count)
        .map(|index| Member {
            address: address(index),
            weight: 100,
        })
        .collect()
}

/// VIP number `number`, with `members` of `backends`.
#[must_use]
pub fn vip(number: u16, ring_size: u32, members: Vec<Member>, backends: &[Member]) -> WantedVip {
    WantedVip {
        name: format!("vip-{number}"),
        key: key(number),
        forward: forward::IPIP,
        hash: hash_kind::FIVE_TUPLE,
        ring_size,
        table: Table::default(),
        tracking: Tracking::default(),
        members,
        backends: backends.iter().map(|backend| backend.address).collect(),
        dead: BTreeSet::new(),
        marks: Vec::new(),
    }
}

/// Key of VIP number `number`.
#[must_use]
pub const fn key(number: u16) -> VipKey {
    VipKey::new(Address::v4(VIP_V4), FIRST_PORT + number, TCP)
}
