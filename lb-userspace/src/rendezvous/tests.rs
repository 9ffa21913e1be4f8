//! Properties of the table: shares within their limits, slots that stay, and the definition.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::table::tests::{any_members, disruption, equal, extra_moves, slots, weighted};
use crate::table::{SEED_TURN, SIZE_DEFAULT, SIZES, Table, hash, octets};

fn owners(members: &[Member], size: u32) -> Vec<IpAddr> {
    crate::table::tests::owners(Table::Rendezvous, members, size)
}

#[test]
fn limits_are_the_share_and_five_percent() {
    // Weight, total, size, rounding; least and most.
    let cases = [
        // A share of 1000 slots: 950 and 1050, exactly.
        ((1, 1, 1000, 0), (950, 1050)),
        ((1, 1, 1000, u16::MAX), (950, 1050)),
        // A share of 65.5: 62.2 and 68.8, rounded up by 8 and by 2 in 10.
        ((1, 10, 655, 0), (62, 68)),
        ((1, 10, 655, 0x4000), (62, 69)),
        ((1, 10, 655, 0xd000), (63, 69)),
        // A share of 2.5: 2.4 and 2.6. Nobody needs more than the share rounded down.
        ((1, 2, 5, 0), (2, 3)),
        ((1, 2, 5, u16::MAX), (2, 3)),
        // A share of 1 is a slot, and may be two: rounded 0.95 and 1.05.
        ((1, 251, 251, 0), (1, 1)),
        ((1, 251, 251, u16::MAX), (1, 2)),
        // A share of less may be nothing.
        ((1, 502, 251, 0), (0, 1)),
        ((1, 502, 251, u16::MAX), (0, 1)),
        // The extremes.
        (
            (u16::MAX, 65_535, 1_048_573, u16::MAX),
            (996_145, 1_101_002),
        ),
        ((1, 65_535 * 65_535, 251, u16::MAX), (0, 1)),
    ];
    for ((weight, total, size, rounding), (least, most)) in cases {
        let limits = Limits::new(weight, total, size, rounding);
        assert_eq!(
            limits,
            Limits { least, most },
            "{weight} of {total} in {size}, rounding {rounding}"
        );
    }
}

/// The definition, written out: all looks of all backends in the order of time, then the making up.
fn definition(members: &[Member], size: u32) -> Vec<IpAddr> {
    let total = members.iter().map(|member| u64::from(member.weight)).sum();
    let mut members: Vec<Member> = members.to_vec();
    members.retain(|member| member.weight > 0);
    members.sort_by_key(|member| hash(SEED_TURN, octets(member.address)));
    let lists: Vec<Vec<u32>> = members
        .iter()
        .map(|member| {
            let mut list = Preferences::new(octets(member.address), size);
            (0..size).map(|_| list.take(size)).collect()
        })
        .collect();
    let limits: Vec<Limits> = members
        .iter()
        .map(|m| {
            Limits::new(
                m.weight,
                total,
                size,
                hash(SEED_TURN, octets(m.address)) as u16,
            )
        })
        .collect();
    let mut looks = Vec::new();
    for (i, member) in members.iter().enumerate() {
        let phase = hash(SEED_TURN, octets(member.address)) >> 28;
        let mut age = phase;
        for (left, &slot) in (1..=u64::from(size)).rev().zip(&lists[i]) {
            looks.push((age / u64::from(member.weight), i, slot));
            age += u64::from(size) * LOOK / left;
        }
    }
    looks.sort_unstable();
    let mut owned = vec![0; members.len()];
    let mut owner = vec![None; size as usize];
    for (_, i, slot) in looks {
        if owner[slot as usize].is_none() && owned[i] < limits[i].most {
            owner[slot as usize] = Some(i);
            owned[i] += 1;
        }
    }
    let mut owner: Vec<usize> = owner.into_iter().map(Option::unwrap).collect();
    for i in 0..members.len() {
        for &slot in &lists[i] {
            let from = owner[slot as usize];
            if owned[i] < limits[i].least && owned[from] > limits[from].least {
                owned[from] -= 1;
                owned[i] += 1;
                owner[slot as usize] = i;
            }
        }
    }
    owner.into_iter().map(|i| members[i].address).collect()
}

#[test]
fn ages_grow_by_the_slots_that_are_left() {
    let ages = ages(251);
    assert_eq!(ages.len(), 251);
    assert_eq!(ages[..3], [0, LOOK, LOOK + 251 * LOOK / 250]);
    // Half the list is done after ln 2 = 0.693 times as many looks as there are slots.
    let half = ages[126] as f64 / (251 * LOOK) as f64;
    assert!((0.69..0.70).contains(&half), "{half}");
}

#[test]
fn few_backends_get_their_share_without_limits() {
    // Nobody comes near a limit, so nothing moves between those that stay.
    let cases: [&[u16]; 4] = [&[2, 1], &[100, 100, 10], &[7; 5], &[100; 10]];
    for weights in cases {
        let members = weighted(weights);
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        let slots = slots(&build(&members, SIZE_DEFAULT).unwrap(), weights.len());
        for (slots, &weight) in slots.into_iter().zip(weights) {
            let share = f64::from(weight) * f64::from(SIZE_DEFAULT) / total as f64;
            let ratio = f64::from(slots) / share;
            assert!((0.98..1.02).contains(&ratio), "{weights:?}: {ratio:.3}");
        }
        let moved = disruption(Table::Rendezvous, &members, SIZE_DEFAULT);
        assert_eq!(moved, 0.0, "{weights:?}");
    }
}

#[test]
fn the_largest_ring_and_the_extremes_of_weight() {
    let size = SIZES[SIZES.len() - 1];
    // A list to its end, at the slowest and beside the fastest.
    assert_eq!(build(&weighted(&[1]), size), Ok(vec![0; size as usize]));
    let slots = slots(&build(&weighted(&[1, u16::MAX]), size).unwrap(), 2);
    assert!((15..=17).contains(&slots[0]), "{slots:?}");
}

#[test]
fn removing_one_backend_moves_next_to_nothing_of_the_others() {
    // In percent of all slots, where Maglev moves 0.26, 0.55, 0.94, 0.58. The lower bounds tell a
    // broken measurement.
    let cases = [(100, 0.0005, 0.05), (400, 0.05, 0.20), (1000, 0.10, 0.25)];
    for (count, low, high) in cases {
        let moved = 100.0 * disruption(Table::Rendezvous, &equal(count), SIZE_DEFAULT);
        assert!(
            (low..high).contains(&moved),
            "{count} backends: {moved:.3} %"
        );
    }
}

#[test]
fn other_changes_move_as_little() {
    let before = equal(100);
    let one_more = equal(101);
    let mut heavier = before.clone();
    heavier[7].weight = 200;
    let mut lighter = before.clone();
    lighter[7].weight = 99;
    let old = owners(&before, SIZE_DEFAULT);
    for (case, after, changed) in [
        ("added", &one_more, one_more[100].address),
        ("twice the weight", &heavier, before[7].address),
        ("a little less weight", &lighter, before[7].address),
    ] {
        let new = owners(after, SIZE_DEFAULT);
        assert_ne!(old, new, "{case}");
        let moved = 100.0 * extra_moves(&old, &new, changed);
        assert!(moved < 0.05, "{case}: {moved:.3} %");
    }
}

#[test]
fn the_table_never_changes_from_version_to_version() {
    // A balancer of the next version must agree with its neighbours of this one, whatever machine it is.
    let ring = build(&equal(5), 251).unwrap();
    let expected = [
        2, 3, 2, 4, 3, 2, 0, 0, 2, 1, 1, 1, 4, 0, 2, 3, 2, 3, 1, 4, 3, 3, 1, 0,
    ];
    assert_eq!(ring[..24], expected);
    let weights: Vec<u16> = (0..1000).collect();
    let ring = build(&weighted(&weights), SIZE_DEFAULT).unwrap();
    let fold = |sum: u64, &owner: &u16| sum.wrapping_mul(31).wrapping_add(u64::from(owner));
    assert_eq!(
        ring.iter().fold(0, fold),
        8_889_329_876_960_129_114,
        "the whole of a large ring"
    );
}

proptest! {
    #[test]
    fn the_table_is_the_definition(
        members in any_members(),
        size in proptest::sample::select(&SIZES[..3]),
    ) {
        prop_assume!(members.iter().any(|member| member.weight > 0));
        prop_assert_eq!(owners(&members, size), definition(&members, size));
    }

    #[test]
    fn every_member_gets_its_share_within_five_percent(
        members in any_members(),
        size in proptest::sample::select(&SIZES[..6]),
    ) {
        let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
        prop_assume!(total > 0);
        let ring = build(&members, size).unwrap();
        prop_assert_eq!(ring.len(), size as usize);
        for (member, slots) in members.iter().zip(slots(&ring, members.len())) {
            let share = f64::from(member.weight) * f64::from(size) / total as f64;
            // Rounded to a whole slot: down and up.
            let (least, most) = ((0.95 * share).floor(), (1.05 * share).ceil());
            prop_assert!((least..=most).contains(&f64::from(slots)), "{:?}: {}", member, slots);
            prop_assert!(slots > 0 || share < 1.0);
        }
    }
}

proptest! {
    // Two rings a case, of a size at which the bound means something.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_removal_moves_few_others(
        first in any::<u32>(),
        count in 20..200_u32,
        gone in any::<proptest::sample::Index>(),
    ) {
        let address = |i: u32| IpAddr::V4(first.wrapping_add(i * 257).into());
        let members: Vec<Member> =
            (0..count).map(|i| Member { address: address(i), weight: 1 }).collect();
        let mut left = members.clone();
        let gone = left.remove(gone.index(members.len())).address;
        let size = 16_381;
        let moved = extra_moves(&owners(&members, size), &owners(&left, size), gone);
        // Maglev of this size moves 1.3 % in the mean.
        prop_assert!(moved < 0.006, "{moved}");
    }
}
