//! Tables: which backend owns each slot of a VIP's ring, and the two ways to build one.
//!
//! | | [`maglev`] (default) | [`rendezvous`] |
//! |---|---|---|
//! | a backend owns | its share, to the slot | its share within 5 %, to the slot |
//! | slots that move though their owner stays, when one of 100 leaves | 0.55 % | 0.02 % |
//! | the same, when 10 of 1000 leave | 2.3 % | 0.7 % |
//! | build, 65 537 slots, 1000 backends | 1.5 ms | 3 ms |
//!
//! The figures are those of `cargo xtask bench maglev`, for rings of 65 537 slots.
//!
//! What they have in common stands here: who takes part, and the order in which a backend wants the
//! slots. Either table is a function of the set {(address, weight)} and the size alone. So balancers
//! that list the same backends in different order, or that came to them by different changes, build
//! the same table.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{maglev, rendezvous};

#[cfg(test)]
pub(crate) mod tests;

/// Sizes a ring may have. They are prime, so every skip of a preference list visits every slot.
///
/// More slots cost memory and buy evenness and stability: about 100 slots per backend keep backends
/// within 1 % of each other.
pub const SIZES: [u32; 14] = [
    251,
    509,
    1021,
    2039,
    4093,
    8191,
    16_381,
    32_749,
    SIZE_DEFAULT,
    131_071,
    262_139,
    524_287,
    655_373,
    1_048_573,
];

/// Slots of a ring for which the configuration names no size: the small table of the Maglev paper.
pub const SIZE_DEFAULT: u32 = 65_537;

/// Backends of one ring, at most: slots hold 16-bit indices.
pub const MEMBERS_MAX: usize = u16::MAX as usize;

/// Seeds of the three independent hashes of an address. Changing one moves every flow of every
/// deployment, so they are fixed for good: the first digits of pi (as in Blowfish's P-array).
pub(crate) const SEED_OFFSET: u64 = 0x243f_6a88_85a3_08d3;
pub(crate) const SEED_SKIP: u64 = 0x1319_8a2e_0370_7344;
pub(crate) const SEED_TURN: u64 = 0xa409_3822_299f_31d0;

/// How the owners of a ring's slots are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// Maglev hashing as published: shares are exact to the slot.
    #[default]
    Maglev,
    /// Rendezvous hashing with limits: shares are exact within 5 %, and a change of one backend
    /// moves next to nothing of the others.
    Rendezvous,
}

impl Table {
    /// Every table there is, the default first.
    pub const ALL: [Self; 2] = [Self::Maglev, Self::Rendezvous];

    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::Rendezvous => "rendezvous",
        }
    }

    /// Builds a ring of `size` slots: for each slot, the index into `members` of its owner.
    ///
    /// The same members in another order give the same owners. Takes time proportional to
    /// `size · ln(size)` and memory proportional to `size + members`.
    ///
    /// # Errors
    ///
    /// When `size` is not one of [`SIZES`], nobody has a weight, two members share an address, or
    /// there are more members with a weight than slots.
    pub fn build(self, members: &[Member], size: u32) -> Result<Vec<u16>, Error> {
        match self {
            Self::Maglev => maglev::build(members, size),
            Self::Rendezvous => rendezvous::build(members, size),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One backend as the ring sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The backend's identity: its preference list follows from it. Unique among the members.
    pub address: IpAddr,
    /// Share of slots relative to the other members; 0 owns none.
    pub weight: u16,
}

/// Why no ring could be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The list is empty, or all its weights are 0.
    #[error("no backend has a weight above 0")]
    NoMembers,
    /// Some would own nothing.
    #[error("{members} backends do not fit into a ring of {size} slots")]
    TooManyMembers {
        /// Members with a weight above 0.
        members: usize,
        /// Slots asked for.
        size: u32,
    },
    /// Not one of [`SIZES`].
    #[error("a ring cannot have {0} slots: the size must be one of the primes listed")]
    Size(u32),
    /// Both would have the same preference list.
    #[error("the address {0} is listed twice")]
    Duplicate(IpAddr),
}

/// Those of `members` that have a weight, in the order of their turns, which does not depend on the
/// order of the list. Refuses what [`Table::build`] refuses.
pub(crate) fn contenders(members: &[Member], size: u32) -> Result<Vec<Contender>, Error> {
    if !SIZES.contains(&size) {
        return Err(Error::Size(size));
    }
    let mut contenders: Vec<Contender> = members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.weight > 0)
        .map(|(index, member)| Contender::new(index, member, size))
        .collect();
    if contenders.is_empty() {
        return Err(Error::NoMembers);
    }
    if contenders.len() > MEMBERS_MAX.min(size as usize) || members.len() > MEMBERS_MAX {
        return Err(Error::TooManyMembers {
            members: contenders.len(),
            size,
        });
    }
    contenders.sort_unstable_by_key(|contender| (contender.turn, contender.address));
    if let Some(pair) = contenders
        .windows(2)
        .find(|pair| pair[0].address == pair[1].address)
    {
        return Err(Error::Duplicate(
            members[usize::from(pair[0].index)].address,
        ));
    }
    Ok(contenders)
}

/// A member with a weight above 0, and its preference list.
pub(crate) struct Contender {
    /// Position in the caller's list.
    pub(crate) index: u16,
    pub(crate) weight: u16,
    /// IPv4 addresses in their IPv4-mapped form, so that every address has one spelling.
    address: [u8; 16],
    /// Place among the contenders: lower takes its turns earlier.
    pub(crate) turn: u64,
    pub(crate) preferences: Preferences,
}

impl Contender {
    fn new(index: usize, member: &Member, size: u32) -> Self {
        let address = octets(member.address);
        Self {
            // A list that is too long is refused before the index is used.
            index: index as u16,
            weight: member.weight,
            address,
            turn: hash(SEED_TURN, address),
            preferences: Preferences::new(address, size),
        }
    }
}

/// A *preference list*: every slot once, in the order in which a backend wants them. It is `next`,
/// `next + skip`, `next + 2·skip`, … modulo the ring's size.
///
/// The Maglev paper writes the list out, `M` numbers per backend; walking along it needs two.
#[derive(Clone, Copy)]
pub(crate) struct Preferences {
    next: u32,
    skip: u32,
}

impl Preferences {
    /// Section 3.4: `offset = h1(name) mod M`, `skip = h2(name) mod (M - 1) + 1`.
    pub(crate) fn new(address: [u8; 16], size: u32) -> Self {
        let size = u64::from(size);
        Self {
            next: (hash(SEED_OFFSET, address) % size) as u32,
            skip: (hash(SEED_SKIP, address) % (size - 1) + 1) as u32,
        }
    }

    /// Takes the first slot off the list. `next` and `skip` are below `size`, which is far below
    /// 2^31: one subtraction does for the modulo.
    #[inline]
    pub(crate) fn take(&mut self, size: u32) -> u32 {
        let slot = self.next;
        let next = slot + self.skip;
        self.next = if next >= size { next - size } else { next };
        slot
    }
}

/// Which slots have an owner: one bit each, so that the ring under construction stays in the cache.
pub(crate) struct Taken(Vec<u64>);

impl Taken {
    pub(crate) fn none(size: u32) -> Self {
        Self(vec![0; size.div_ceil(u64::BITS) as usize])
    }

    #[inline]
    pub(crate) fn holds(&self, slot: u32) -> bool {
        self.0[slot as usize / 64] & 1 << (slot % 64) != 0
    }

    /// Takes `slot`, unless it is taken already: then says false.
    #[inline]
    pub(crate) fn take(&mut self, slot: u32) -> bool {
        let (word, bit) = (&mut self.0[slot as usize / 64], 1 << (slot % 64));
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        true
    }
}

/// An address's one spelling, for hashes.
pub(crate) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// A fixed 64-bit hash of an address: each half is mixed into the seed by the finalizer of
/// SplitMix64 (Steele et al., OOPSLA'14), a bijection whose every output bit depends on every input bit.
pub(crate) fn hash(seed: u64, address: [u8; 16]) -> u64 {
    let address = u128::from_be_bytes(address);
    let (high, low) = ((address >> 64) as u64, address as u64);
    mix(mix(seed ^ high) ^ low)
}

/// The finalizer of SplitMix64, after one step of its counter (so that 0 does not stay 0).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
