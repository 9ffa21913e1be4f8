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

use crate::table::{Contender, Error, Member, Preferences, Taken, contenders};

#[cfg(test)]
mod tests;

/// Builds a ring of `size` slots: for each slot, the index into `members` of its owner.
///
/// See [`crate::table::Table::build`].
///
/// # Errors
///
/// Those of [`crate::table::Table::build`].
pub fn build(members: &[Member], size: u32) -> Result<Vec<u16>, Error> {
    let contenders = contenders(members, size)?;
    let weights: Vec<u16> = contenders
        .iter()
        .map(|contender| contender.weight)
        .collect();
    let slots = apportion(&weights, size);
    Ok(populate(&contenders, &turns(&slots), size))
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
    let mut taken = Taken::none(size);
    let mut owners = vec![0; size as usize];
    for &contender in turns {
        let preferences = &mut preferences[usize::from(contender)];
        let slot = loop {
            let slot = preferences.take(size);
            if taken.take(slot) {
                break slot as usize;
            }
        };
        owners[slot] = contenders[usize::from(contender)].index;
    }
    owners
}
