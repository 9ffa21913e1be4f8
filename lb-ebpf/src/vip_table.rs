//! The VIP table: an open-addressing hash table over an array map.
//!
//! Every packet asks it, and most packets of a host that is also something else are not for a VIP.
//! A BPF hash map would do, at a price: its general hash, its bucket list and the call itself cost
//! more than the rest of the balancer's look-ups together. Here a look-up is one multiply-and-xor
//! hash and, as a rule, one cache line.
//!
//! - A key lies in one of the [`RUN_MAX`] cells from its *home* on; the first cell that was never
//!   used ends the search. With at least [`CELLS_PER_KEY`] cells to a key, a run that is full is
//!   rarer than one in a million keys; the agent then refuses the VIP and says so.
//! - One writer, the agent; readers never wait. A value has two generations, and one 8-byte word
//!   says which is live, so an update is two writes of which only the second is seen: the
//!   *generation flip*. A cell is used for another key only after a grace period.
//!
//! The hash is not keyed: whoever may configure VIPs may as well stop the agent.

use core::borrow::Borrow;

use crate::{
    abi::{Vip, VipCell, VipKey, cell_state},
    address::Address,
};

/// Cells that a key may lie in.
pub const RUN_MAX: u32 = 8;

/// Cells of the table for each key that it may hold, before rounding up to a power of two.
pub const CELLS_PER_KEY: u32 = 8;

/// Cells of a table for `vips` VIPs, each with an address of its own: a power of two.
pub const fn cells(vips: u32) -> u32 {
    const ENTRIES_PER_VIP: u32 = 2;
    (vips * ENTRIES_PER_VIP * CELLS_PER_KEY).next_power_of_two()
}

/// Indexes of the cells that `key` may lie in, in the order in which they are searched; `mask` is
/// the number of cells minus one.
#[inline(always)]
pub fn run(key: &VipKey, mask: u32) -> impl Iterator<Item = u32> + use<> {
    let home = home(key);
    (0..RUN_MAX).map(move |step| (home + step) & mask)
}

/// The value of `key`, where `cell` reads a cell of the table.
#[inline(always)]
pub fn find<C: Borrow<VipCell>>(
    key: &VipKey,
    mask: u32,
    cell: impl Fn(u32) -> Option<C>,
) -> Option<Vip> {
    for index in run(key, mask) {
        let cell = cell(index)?;
        let cell = cell.borrow();
        let state = cell.state;
        if state == cell_state::EMPTY {
            return None;
        }
        let live = state == cell_state::LIVE_FIRST || state == cell_state::LIVE_SECOND;
        if live && cell.key.names(key) {
            // The states are 1 and 2. An index is one addition to an address; a choice between two
            // values would read both.
            return Some(cell.generations[state as usize / 2]);
        }
    }
    None
}

/// Where the search for `key` begins, not yet cut to the table's size.
///
/// [`mix`] multiplies by three odd numbers (digits of the golden ratio, and of the square roots of 2
/// and 3), which carry every bit of the key upwards; a shift brings the high bits down in between.
#[inline(always)]
fn home(key: &VipKey) -> u32 {
    let rest = u64::from(key.port) << 8 | u64::from(key.protocol);
    (mix(key.address, rest) >> 40) as u32
}

/// Mixes an address with up to 64 bits of ports and protocol, not keyed. Different values of `rest`
/// under one address give different results.
#[inline(always)]
pub(crate) fn mix(address: Address, rest: u64) -> u64 {
    let [a, b, c, d] = address.words().map(u64::from);
    let mixed = (a << 32 | b).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (c << 32 | d);
    let mixed = mixed.wrapping_mul(0x6a09_e667_f3bc_c909);
    (mixed ^ mixed >> 29 ^ rest).wrapping_mul(0xbb67_ae85_84ca_a73b)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{vec, vec::Vec};

    use super::*;

    const MASK: u32 = 63;

    fn key(last: u8) -> VipKey {
        VipKey::new(Address::v4([203, 0, 113, last]), 443, 6)
    }

    fn live(key: VipKey, id: u32) -> VipCell {
        let vip = Vip {
            id,
            ..Vip::default()
        };
        let state = cell_state::LIVE_FIRST;
        VipCell {
            key,
            generations: [vip, Vip::default()],
            state,
            reserved: 0,
        }
    }

    fn find_in(cells: &[VipCell], key: VipKey) -> Option<u32> {
        find(&key, MASK, |index| cells.get(index as usize)).map(|vip| vip.id)
    }

    #[test]
    fn a_search_ends_at_the_first_cell_that_was_never_used() {
        let mut cells = vec![VipCell::default(); 64];
        let run: Vec<_> = run(&key(1), MASK).collect();
        cells[run[1] as usize] = live(key(1), 7);
        assert_eq!(find_in(&cells, key(1)), None, "nothing stands before it");
        cells[run[0] as usize] = live(key(2), 8);
        assert_eq!(find_in(&cells, key(1)), Some(7), "another key does");
        cells[run[0] as usize].state = cell_state::REMOVED;
        assert_eq!(find_in(&cells, key(1)), Some(7), "a removed one does");
        assert_eq!(find_in(&cells, key(2)), None);
    }

    #[test]
    fn the_live_generation_is_the_answer() {
        let mut cells = vec![VipCell::default(); 64];
        let home = run(&key(1), MASK).next().unwrap() as usize;
        cells[home] = live(key(1), 7);
        cells[home].generations[1].id = 9;
        assert_eq!(find_in(&cells, key(1)), Some(7));
        cells[home].state = cell_state::LIVE_SECOND;
        assert_eq!(find_in(&cells, key(1)), Some(9));
    }

    #[test]
    fn a_search_ends_after_the_run() {
        let mut cells = vec![VipCell::default(); 64];
        let run: Vec<_> = run(&key(1), MASK).collect();
        assert_eq!(run.len() as u32, RUN_MAX);
        for index in &run {
            cells[*index as usize] = live(key(2), 8);
        }
        let behind = (run[7] + 1) & MASK;
        cells[behind as usize] = live(key(1), 7);
        assert_eq!(find_in(&cells, key(1)), None);
    }

    #[test]
    fn ten_thousand_neighbouring_keys_find_a_place() {
        // Consecutive addresses, ports and protocols: what an operator writes, and what a weak
        // hash would pile up.
        let count = cells(10_000);
        let mut used = vec![false; count as usize];
        let mut place = |key: VipKey| {
            let free = run(&key, count - 1).find(|index| !used[*index as usize]);
            used[free.expect("a run is full") as usize] = true;
        };
        for number in 0..5_000_u32 {
            let [_, _, high, low] = number.to_be_bytes();
            let v4 = Address::v4([203, 0, high, low]);
            place(VipKey::new(v4, 443, 6));
            place(VipKey::address_entry(v4));
            let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
            place(VipKey::new(Address::v6(v6), number as u16 + 1, 17));
            place(VipKey::new(Address::v6(v6), number as u16 + 1, 6));
        }
    }

    #[test]
    fn sizes_are_powers_of_two_with_room() {
        assert_eq!(cells(1), 16);
        assert_eq!(cells(512), 8192);
        assert_eq!(cells(10_000), 262_144);
    }
}
