//! A table that holds still: rendezvous hashing with limits, made of Maglev's preference lists.
//!
//! Maglev disturbs backends that stay, because a turn ends only when a free slot is found: when a slot
//! goes to somebody else, its loser goes on to the next of its list *now*, and all its later turns shift.
//! Here a turn is one look, and whoever looks at a slot first owns it. A backend of weight `w` looks at
//! slot `k` of its preference list at a time that depends on nobody else, about `k / w`. So this is
//! rendezvous hashing (Thaler and Ravishankar, 1998), with the time as the score: when a backend leaves,
//! its slots go to whoever looked next, and no other slot moves.
//!
//! The exact time is `-M·ln(1 - k/M) / w` for `M` slots. As `k/M` is evenly spread over 0 to 1, the times
//! at which somebody looks at a given slot are exponentially distributed with rate `w`, and the least of
//! such times is a backend's with probability `w` in the sum of all weights: shares follow the weights.
//!
//! Rendezvous hashing alone spreads slots unevenly (about 9 % standard deviation at 65 slots a backend).
//! Two limits hold every backend within 5 % of its share:
//!
//! - **At most**: a backend that has that many looks no more. Taken in the order of time, this is the
//!   outcome of deferred acceptance (Gale and Shapley, 1962) in which both sides rank by time: it is
//!   unique, and only the slots of backends at their limit feel a change elsewhere.
//! - **At least**: afterwards, a backend that has fewer walks its list from the start once more and
//!   takes slots from those that can spare them.
//!
//! The limits are `share · (1 ± 5 %)`, rounded up or down by a hash of the address: as backends come and
//! go, limits step one backend at a time and not all at once.
//!
//! All arithmetic is on integers, so every machine builds the same table.

use crate::table::{Contender, Error, Member, Preferences, Taken, contenders};

#[cfg(test)]
mod tests;

/// How far a backend may be above or below its share of slots.
pub const SLACK_PERCENT: u64 = 5;

/// Time from the first look to the second, of a backend of weight 1. The shortest, of weight 65 535, is
/// 2^20 then: as exact as weights need. The last look is due before `15 · 2^20 · LOOK`: no overflow.
const LOOK: u64 = 1 << 36;

/// Looks are sorted by time a part of the ring's size at a go. Smaller parts leave more looks out,
/// because their slots were taken before; larger ones have less overhead. Owners do not depend on it.
const BATCHES_PER_RING: u64 = 8;

/// Builds a ring of `size` slots: for each slot, the index into `members` of its owner.
///
/// See [`crate::table::Table::build`].
///
/// # Errors
///
/// Those of [`crate::table::Table::build`].
pub fn build(members: &[Member], size: u32) -> Result<Vec<u16>, Error> {
    let contenders = contenders(members, size)?;
    let total = contenders.iter().map(|c| u64::from(c.weight)).sum();
    let mut claimants: Vec<Claimant> = contenders
        .iter()
        .map(|contender| Claimant::new(contender, total, size))
        .collect();
    let mut owners = claim(&mut claimants, &ages(size));
    for (poor, contender) in contenders.iter().enumerate() {
        let preferences = contender.preferences;
        make_up(poor as u16, preferences, &mut claimants, &mut owners);
    }
    for owner in &mut owners {
        *owner = contenders[usize::from(*owner)].index;
    }
    Ok(owners)
}

/// When a backend of weight 1 looks at each slot of its list, `-M·ln(1 - k/M)`: the sum of
/// `M / (M - j)` for all `j` below `k`, up to a constant.
fn ages(size: u32) -> Vec<u64> {
    let mut age = 0;
    let mut ages = Vec::with_capacity(size as usize);
    for left in (1..=u64::from(size)).rev() {
        ages.push(age);
        age += u64::from(size) * LOOK / left;
    }
    ages
}

/// A contender in the race for slots.
struct Claimant {
    weight: u64,
    /// The part of its list that it has not looked at.
    preferences: Preferences,
    /// How many slots it has looked at.
    looks: usize,
    /// Added to all [`ages`], below [`LOOK`]: nobody looks twice before all of the same weight did once.
    phase: u64,
    slots: u32,
    limits: Limits,
}

impl Claimant {
    fn new(contender: &Contender, total: u64, size: u32) -> Self {
        Self {
            weight: u64::from(contender.weight),
            preferences: contender.preferences,
            looks: 0,
            phase: contender.turn / (u64::MAX / LOOK + 1),
            slots: 0,
            // The low bits: the high ones are the phase.
            limits: Limits::new(contender.weight, total, size, contender.turn as u16),
        }
    }

    fn is_full(&self) -> bool {
        self.slots == self.limits.most
    }
}

/// Slots that a backend owns in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    least: u32,
    most: u32,
}

impl Limits {
    /// A part of `weight` in `total` of `size` slots, 5 % less and 5 % more, rounded up with a
    /// probability of the fraction: `rounding` of 65 536.
    ///
    /// *All slots find owners*: everybody may own its share rounded up, which together are at least all
    /// slots, and nobody must own more than its share rounded down, which are at most all slots. A
    /// whole slot of share gives at least one slot.
    fn new(weight: u16, total: u64, size: u32, rounding: u16) -> Self {
        // At most 2^16 · 2^20.
        let share = u64::from(weight) * u64::from(size);
        // The dividend is at most 2^36 · 105 · 2^16 and a little: no overflow.
        let rounded = |percent: u64| {
            let (part, whole) = (share * percent, total * 100);
            ((part << 16) + whole * u64::from(rounding)) / (whole << 16)
        };
        let (floor, ceil) = (share / total, share.div_ceil(total));
        Self {
            least: rounded(100 - SLACK_PERCENT).max(1).min(floor) as u32,
            most: rounded(100 + SLACK_PERCENT).max(ceil) as u32,
        }
    }
}

/// One look at a slot. Ordered by time, then by turn: no two looks are equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Look {
    at: u64,
    claimant: u16,
    slot: u32,
}

/// Gives each slot to the first that looks at it and is not full: for each slot, who that is.
///
/// Some `size · ln(size)` looks are taken, nearly all of them at slots that were taken long before. Those
/// are left out first, and what remains, not much more than a look per slot, is sorted by time.
fn claim(claimants: &mut [Claimant], ages: &[u64]) -> Vec<u16> {
    let size = ages.len() as u32;
    let mut owners = vec![0; ages.len()];
    let mut taken = Taken::none(size);
    let mut free = size;
    let mut looking: Vec<u16> = (0..claimants.len() as u16).collect();
    let mut looks = Vec::new();
    let mut until = 0;
    while free > 0 {
        let weight = |&claimant: &u16| claimants[usize::from(claimant)].weight;
        let weight: u64 = looking.iter().map(weight).sum();
        until += (u64::from(size) * LOOK / BATCHES_PER_RING).div_ceil(weight);
        looks.clear();
        for &claimant in &looking {
            let state = &mut claimants[usize::from(claimant)];
            look(state, until, ages, &taken, |at, slot| {
                looks.push(Look { at, claimant, slot });
            });
        }
        looks.sort_unstable();
        for look in &looks {
            let claimant = &mut claimants[usize::from(look.claimant)];
            if !claimant.is_full() && taken.take(look.slot) {
                owners[look.slot as usize] = look.claimant;
                claimant.slots += 1;
                free -= 1;
            }
        }
        looking.retain(|&claimant| !claimants[usize::from(claimant)].is_full());
    }
    owners
}

/// Calls `found` with the time and the slot of each look that `claimant` takes before the time `until`
/// at a slot that is not taken.
fn look(
    claimant: &mut Claimant,
    until: u64,
    ages: &[u64],
    taken: &Taken,
    mut found: impl FnMut(u64, u32),
) {
    let Claimant { weight, phase, .. } = *claimant;
    let size = ages.len() as u32;
    let mut preferences = claimant.preferences;
    // A time is an age divided by the weight: `at < until` is the same as `age < until · weight`.
    let end = until.saturating_mul(weight);
    for age in &ages[claimant.looks..] {
        let age = age + phase;
        if age >= end {
            break;
        }
        let slot = preferences.take(size);
        if !taken.holds(slot) {
            found(age / weight, slot);
        }
        claimant.looks += 1;
    }
    claimant.preferences = preferences;
}

/// Gives `poor` the least it must own: the first slots of its list whose owners have more than they
/// must. There are such owners as long as somebody has too little, see [`Limits::new`].
fn make_up(
    poor: u16,
    mut preferences: Preferences,
    claimants: &mut [Claimant],
    owners: &mut [u16],
) {
    let me = usize::from(poor);
    while claimants[me].slots < claimants[me].limits.least {
        let slot = preferences.take(owners.len() as u32) as usize;
        let owner = &mut claimants[usize::from(owners[slot])];
        if owner.slots > owner.limits.least {
            owner.slots -= 1;
            claimants[me].slots += 1;
            owners[slot] = poor;
        }
    }
}
