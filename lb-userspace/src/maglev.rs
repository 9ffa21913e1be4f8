//! The ring: which backend owns each slot (Maglev hashing, Eisenbud et al., NSDI'16, section 3.4).
//!
//! Every backend has a *preference list*: a permutation of all slots that follows from its address
//! alone. Backends take turns, and at each turn a backend takes the first slot of its list that is
//! still free, until none is. That gives every backend its share of slots, and leaves almost all
//! slots with their owner when the set of backends changes.
//!
//! Where the paper says less than a product needs:
//!
//! - **Weights are exact.** Before the first turn the slots are apportioned by largest remainder, and
//!   a backend takes exactly as many turns as it has been given slots. So a backend of weight `w` out
//!   of a total `W` owns `floor(M·w/W)` or `ceil(M·w/W)` of `M` slots. The proof is at `apportion`.
//! - **Order does not matter.** Turns go by a hash of the address, not by the position in the list,
//!   so balancers that list the same backends in different order build the same ring.
//! - **History does not matter.** The ring is a function of the backends that are in it now.
//!
//! With equal weights the turns are the paper's own, round after round.

use std::net::IpAddr;

use thiserror::Error;

#[cfg(test)]
mod tests;

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

/// Slots of a ring for which the configuration names no size: the paper's small table.
pub const SIZE_DEFAULT: u32 = 65_537;

/// Backends of one ring, at most: slots hold 16-bit indices.
pub const MEMBERS_MAX: usize = u16::MAX as usize;

/// Seeds of the three independent hashes of an address. Changing one moves every flow of every
/// deployment, so they are fixed for good: the first digits of pi (as in Blowfish's P-array).
const SEED_OFFSET: u64 = 0x243f_6a88_85a3_08d3;
const SEED_SKIP: u64 = 0x1319_8a2e_0370_7344;
const SEED_TURN: u64 = 0xa409_3822_299f_31d0;

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

/// Builds a ring of `size` slots: for each slot, the index into `members` of its owner.
///
/// The same members in another order give the same owners. Takes time proportional to
/// `size · ln(size)` and memory proportional to `size + members`.
///
/// # Errors
///
/// When `size` is not one of [`SIZES`], nobody has a weight, two members share an address, or there
/// are more members with a weight than slots.
pub fn build(members: &[Member], size: u32) -> Result<Vec<u16>, Error> {
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
    let weights: Vec<u16> = contenders
        .iter()
        .map(|contender| contender.weight)
        .collect();
    let slots = apportion(&weights, size);
    Ok(populate(&contenders, &turns(&slots), size))
}

/// A member with a weight above 0, and its preference list.
struct Contender {
    /// Position in the caller's list.
    index: u16,
    weight: u16,
    /// IPv4 addresses in their IPv4-mapped form, so that every address has one spelling.
    address: [u8; 16],
    /// Place among the contenders: lower takes its turns earlier.
    turn: u64,
    preferences: Preferences,
}

impl Contender {
    fn new(index: usize, member: &Member, size: u32) -> Self {
        let address = match member.address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
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

/// The rest of a preference list: `next`, `next + skip`, `next + 2·skip`, … modulo the ring's size.
///
/// The paper writes the list out, `M` numbers per backend; walking along it instead needs two.
#[derive(Clone, Copy)]
struct Preferences {
    next: u32,
    skip: u32,
}

impl Preferences {
    /// Section 3.4: `offset = h1(name) mod M`, `skip = h2(name) mod (M - 1) + 1`.
    fn new(address: [u8; 16], size: u32) -> Self {
        let size = u64::from(size);
        Self {
            next: (hash(SEED_OFFSET, address) % size) as u32,
            skip: (hash(SEED_SKIP, address) % (size - 1) + 1) as u32,
        }
    }

    /// Takes the first slot of the list. `next` and `skip` are below `size`, which is far below 2^31:
    /// one subtraction does for the modulo.
    #[inline]
    fn take(&mut self, size: u32) -> u32 {
        let slot = self.next;
        let next = slot + self.skip;
        self.next = if next >= size { next - size } else { next };
        slot
    }
}

/// Shares out `size` slots in proportion to `weights`, by largest remainder: everybody gets the whole
/// part of its share, and the slots left over go, one each, to the largest fractions. Ties go to the
/// earlier in the list.
///
/// *The guarantee.* Let `W` be the sum of the weights. The fractions left over sum up to the slots
/// left over, and each is below 1, so there are fewer slots left over than contenders with a fraction
/// above 0: nobody gets two, and nobody without a fraction gets one. Hence contender `i` gets
/// `floor(size·w_i/W)` or `ceil(size·w_i/W)` slots, and all slots are given away.
fn apportion(weights: &[u16], size: u32) -> Vec<u32> {
    let total: u64 = weights.iter().copied().map(u64::from).sum();
    // At most 2^16 · 2^21: no overflow.
    let share = |weight: u16| u64::from(weight) * u64::from(size);
    let mut slots: Vec<u32> = weights.iter().map(|&w| (share(w) / total) as u32).collect();
    let left_over = size - slots.iter().sum::<u32>();
    let mut by_fraction: Vec<usize> = (0..weights.len()).collect();
    by_fraction.sort_by_key(|&i| std::cmp::Reverse(share(weights[i]) % total));
    for &i in &by_fraction[..left_over as usize] {
        slots[i] += 1;
    }
    slots
}

/// Who takes a turn, from the first turn to the last: contender `i` appears `slots[i]` times.
///
/// The largest share takes a turn in each round. A share of `n` slots out of a largest share of `r`
/// takes its turn `k` in round `floor(k·r/n)`: evenly spread, and everybody takes one in the first
/// round. Within a round turns go by the order of the list. (Sorted by counting, so that one heavy
/// contender among many light ones does not make for thousands of nearly empty rounds to walk.)
fn turns(slots: &[u32]) -> Vec<u16> {
    let rounds = slots.iter().copied().max().unwrap_or(0);
    let mut starts = vec![0; rounds as usize + 1];
    for &share in slots {
        for_each_round(share, rounds, |round| starts[round + 1] += 1);
    }
    for round in 0..rounds as usize {
        starts[round + 1] += starts[round];
    }
    let mut turns = vec![0; starts[rounds as usize] as usize];
    for (contender, &share) in slots.iter().enumerate() {
        for_each_round(share, rounds, |round| {
            let place: &mut u32 = &mut starts[round];
            turns[*place as usize] = contender as u16;
            *place += 1;
        });
    }
    turns
}

/// Calls `visit` with `floor(k·rounds/share)` for each `k` in `0..share`, without a division each.
fn for_each_round(share: u32, rounds: u32, mut visit: impl FnMut(usize)) {
    if share == 0 {
        return;
    }
    let (step, remainder) = (rounds / share, rounds % share);
    let (mut round, mut fraction) = (0, 0);
    for _ in 0..share {
        visit(round as usize);
        round += step;
        fraction += remainder;
        if fraction >= share {
            fraction -= share;
            round += 1;
        }
    }
}

/// The paper's Pseudocode 1 over a given sequence of turns: whoever's turn it is takes the first slot
/// of its list that is free.
///
/// Nearly all the time of a build is spent here, in about `size · ln(size)` looks at a slot, so what
/// is looked at stays in the first-level cache: one bit per slot, eight bytes per contender.
fn populate(contenders: &[Contender], turns: &[u16], size: u32) -> Vec<u16> {
    let mut preferences: Vec<Preferences> = contenders.iter().map(|c| c.preferences).collect();
    let mut taken = vec![0_u64; size.div_ceil(u64::BITS) as usize];
    let mut owners = vec![0; size as usize];
    for &contender in turns {
        let preferences = &mut preferences[usize::from(contender)];
        let slot = loop {
            let slot = preferences.take(size) as usize;
            let (word, bit) = (&mut taken[slot / 64], 1 << (slot % 64));
            if *word & bit == 0 {
                *word |= bit;
                break slot;
            }
        };
        owners[slot] = contenders[usize::from(contender)].index;
    }
    owners
}

/// A fixed 64-bit hash of an address: each half is mixed into the seed by the finalizer of
/// SplitMix64 (Steele et al., OOPSLA'14), a bijection whose every output bit depends on every input bit.
fn hash(seed: u64, address: [u8; 16]) -> u64 {
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
