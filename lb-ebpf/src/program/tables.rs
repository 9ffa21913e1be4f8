//! The maps as [`Tables`].

use lb_ebpf::{
    abi::{Backend, SLOTS_PER_CELL, Settings, Slot, Vip, VipKey},
    steer::Tables,
    vip_table,
};

use crate::maps;

/// The BPF maps, read in place.
pub(crate) struct MapTables;

impl Tables for MapTables {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        maps::SETTINGS.get(0)
    }

    #[inline(always)]
    fn vip(&self, key: &VipKey) -> Option<Vip> {
        vip_table::find(key, maps::VIP_CELL_MASK.load(), |index| {
            maps::VIPS.get(index)
        })
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        let cell = maps::RINGS.get(index / SLOTS_PER_CELL)?;
        let [even, odd] = cell.slots;
        Some(if index % SLOTS_PER_CELL == 0 {
            even
        } else {
            odd
        })
    }

    #[inline(always)]
    fn backend(&self, id: u16) -> Option<Backend> {
        maps::BACKENDS.get(u32::from(id)).copied()
    }
}
