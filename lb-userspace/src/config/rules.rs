//! The rules that bind several values together. The file and the control API obey the same ones.

use std::net::IpAddr;

use super::error::Mistake;
use super::{Backend, Forward, Limits, Vip, units};
use crate::table;

/// What all VIPs together ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    vips: u64,
    backends: u64,
    ring_slots: u64,
}

impl Totals {
    pub(super) fn of<'a>(vips: impl Iterator<Item = &'a Vip>) -> Self {
        let mut totals = Self::default();
        vips.for_each(|vip| totals.add(vip));
        totals
    }

    pub(super) fn add(&mut self, vip: &Vip) {
        self.vips += 1;
        self.backends += vip.backends.len() as u64;
        self.ring_slots += u64::from(vip.ring_size);
    }

    pub(super) fn within(&self, limits: &Limits) -> Result<(), Mistake> {
        let bounds = [
            ("VIPs", self.vips, "vips_max", limits.vips_max),
            (
                "backends",
                self.backends,
                "backends_max",
                limits.backends_max,
            ),
            (
                "ring slots",
                self.ring_slots,
                "ring_slots_max",
                limits.ring_slots_max,
            ),
        ];
        for (what, asked, key, max) in bounds {
            if asked > u64::from(max) {
                return Err(Mistake::new(
                    format!("{asked} {what} are more than the limit of {max}"),
                    format!("raise `{key}` under `[agent.limits]`; it takes effect at a restart"),
                ));
            }
        }
        Ok(())
    }
}

pub(super) fn claimed_twice(vip: &Vip, other: &str) -> Mistake {
    Mistake::new(
        format!(
            "VIP `{}` has the same address as VIP `{other}`: {}",
            vip.name,
            vip.vip_address()
        ),
        "list all backends under one of them; only a VIP of every port (port 0) may overlap others",
    )
}

pub(super) fn no_vip_address(name: &str) -> Mistake {
    Mistake::new(
        format!("VIP `{name}` has no address"),
        "add `address = \"203.0.113.10:443/tcp\"`",
    )
}

pub(super) fn no_backend_address(name: &str) -> Mistake {
    Mistake::new(
        format!("backend `{name}` has no address"),
        "add `address = \"10.0.0.11\"`",
    )
}

/// A size of [`table::SIZES`].
pub(super) fn ring_size(&size: &i64) -> Result<u32, Mistake> {
    let known = u32::try_from(size)
        .ok()
        .filter(|size| table::SIZES.contains(size));
    known.ok_or_else(|| {
        let nearest = table::SIZES
            .iter()
            .min_by_key(|&&known| size.abs_diff(i64::from(known)));
        let nearest = nearest.expect("the list of sizes is not empty");
        let all = table::SIZES.map(|size| size.to_string()).join(", ");
        Mistake::new(
            format!("a ring cannot have {size} slots"),
            format!("the nearest size is {nearest}; all of them: {all}"),
        )
    })
}

/// A number that fits into 16 bits.
pub(super) fn weight(&weight: &i64) -> Result<u16, Mistake> {
    u16::try_from(weight).map_err(|_| {
        Mistake::new(
            format!("weight {weight} is out of range"),
            "use a number from 0 to 65535; 0 takes no new flows, and only ratios matter",
        )
    })
}

/// The source of outer headers of one family.
pub(super) fn outer_source(text: &str, v6: bool) -> Result<IpAddr, Mistake> {
    let address = units::unicast_address(text)?;
    if address.is_ipv6() == v6 {
        return Ok(address);
    }
    let (key, family) = if v6 {
        ("source_v6", "IPv6")
    } else {
        ("source_v4", "IPv4")
    };
    Err(Mistake::new(
        format!("{address} is not an {family} address"),
        format!("`{key}` is the source of outer {family} headers"),
    ))
}

/// Two backends of one VIP with the same address.
pub(super) fn same_address(backend: &Backend, other: &str) -> Mistake {
    Mistake::new(
        format!(
            "backend `{}` has the same address as `{other}`: {}",
            backend.name, backend.address
        ),
        "list a host once per VIP; to give it more flows raise its weight",
    )
}

/// Whether `vip` can forward packets to `backend`.
pub(super) fn forwardable(vip: &Vip, backend: &Backend) -> Result<(), Mistake> {
    let Backend { name, address, .. } = backend;
    if *address == vip.address {
        return Err(Mistake::new(
            format!("backend `{name}` has the address of its own VIP"),
            "use the address that the backend has besides the VIP",
        ));
    }
    if vip.forward == Forward::L2 && address.is_ipv6() != vip.address.is_ipv6() {
        return Err(Mistake::new(
            format!(
                "backend `{name}` is of another address family than its VIP {}",
                vip.address
            ),
            "`forward = \"l2\"` leaves the packet as it is; use \"ipip\" to cross families",
        ));
    }
    Ok(())
}

/// Whether the ring has a slot for everybody: a share below one slot might get none.
pub(super) fn shares_fit(vip: &Vip) -> Result<(), Mistake> {
    let weights = || vip.backends.values().filter(|backend| backend.weight > 0);
    let total: u64 = weights().map(|backend| u64::from(backend.weight)).sum();
    let Some(least) = weights().min_by_key(|backend| backend.weight) else {
        return Ok(());
    };
    let has_slot = |size: u32| u64::from(least.weight) * u64::from(size) >= total;
    if has_slot(vip.ring_size) {
        return Ok(());
    }
    let hint = match table::SIZES.into_iter().find(|&size| has_slot(size)) {
        Some(size) => format!("use `ring_size = {size}` or larger"),
        None => "no ring is large enough: raise the smallest weights".to_owned(),
    };
    Err(Mistake::new(
        format!(
            "a ring of {} slots is too small: backend `{}` has weight {} of {total} in all, less \
             than one slot",
            vip.ring_size, least.name, least.weight
        ),
        hint,
    ))
}
