//! What every table promises, and what the tests of each one share.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, Ipv6Addr},
};

use proptest::prelude::*;

use super::*;

/// `count` members 10.0.0.1, 10.0.0.2, … of equal weight.
pub(crate) fn equal(count: u32) -> Vec<Member> {
    weighted(&vec![100; count as usize])
}

/// Members 10.0.0.1, 10.0.0.2, … of these weights.
pub(crate) fn weighted(weights: &[u16]) -> Vec<Member> {
    let address = |i: u32| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + i));
    (1..)
        .zip(weights)
        .map(|(i, &weight)| Member {
            address: address(i),
            weight,
        })
        .collect()
}

/// Up to 40 distinct addresses of both families, with weights of every magnitude.
pub(crate) fn any_members() -> impl Strategy<Value = Vec<Member>> {
    let weight = prop_oneof![0..4_u16, 1..300_u16, any::<u16>()];
    proptest::collection::btree_map(any::<IpAddr>(), weight, 1..40).prop_map(|members| {
        members
            .into_iter()
            .map(|(address, weight)| Member { address, weight })
            .filter(|member| member.address.to_canonical() == member.address)
            .collect()
    })
}

/// Slots by member.
pub(crate) fn slots(ring: &[u16], members: usize) -> Vec<u32> {
    let mut slots = vec![0; members];
    for &owner in ring {
        slots[usize::from(owner)] += 1;
    }
    slots
}

/// Builds: the owner of each slot by address.
pub(crate) fn owners(table: Table, members: &[Member], size: u32) -> Vec<IpAddr> {
    let ring = table.build(members, size).unwrap();
    ring.iter()
        .map(|&owner| members[usize::from(owner)].address)
        .collect()
}

/// Slots that go from one backend to another although neither is the one that `changed`, as a share
/// of all.
pub(crate) fn extra_moves(before: &[IpAddr], after: &[IpAddr], changed: IpAddr) -> f64 {
    let moves = before.iter().zip(after).filter(|(old, new)| old != new);
    let extra = moves.filter(|(old, new)| **old != changed && **new != changed);
    extra.count() as f64 / before.len() as f64
}

/// Mean over ten removals from `members`: one backend goes, how many slots of the others move with it?
pub(crate) fn disruption(table: Table, members: &[Member], size: u32) -> f64 {
    let before = owners(table, members, size);
    let removals = 10;
    let total: f64 = (0..removals)
        .map(|i| {
            let mut left = members.to_vec();
            let gone = left.remove(i * members.len() / removals).address;
            extra_moves(&before, &owners(table, &left, size), gone)
        })
        .sum();
    total / removals as f64
}

#[test]
fn tables_have_one_name_each_everywhere() {
    for (table, name) in [(Table::Maglev, "maglev"), (Table::Rendezvous, "rendezvous")] {
        assert_eq!(table.name(), name);
        assert_eq!(table.to_string(), name);
        let json = serde_json::json!(name);
        assert_eq!(serde_json::to_value(table).unwrap(), json);
        assert_eq!(serde_json::from_value::<Table>(json).unwrap(), table);
    }
    assert_eq!(Table::default(), Table::ALL[0]);
}

/// Trial division: the list is short and the numbers are small.
fn is_prime(n: u32) -> bool {
    n >= 2
        && (2..)
            .take_while(|d| d * d <= n)
            .all(|d| !n.is_multiple_of(d))
}

#[test]
fn sizes_are_ascending_primes() {
    assert!(SIZES.is_sorted());
    for size in SIZES {
        assert!(is_prime(size), "{size}");
    }
    assert!(
        !is_prime(65_536) && !is_prime(65_537 * 3),
        "the check itself"
    );
}

#[test]
fn a_preference_list_visits_every_slot_once() {
    for (member, size) in [(0_u8, 251), (1, 1021), (7, 65_537)] {
        let mut preferences = Preferences::new([member; 16], size);
        let first = preferences.next;
        let visited: HashSet<u32> = (0..size).map(|_| preferences.take(size)).collect();
        assert_eq!(visited.len(), size as usize);
        assert_eq!(preferences.next, first, "and then begins anew");
    }
}

#[test]
fn a_slot_is_taken_once() {
    let mut taken = Taken::none(251);
    for slot in [0, 63, 64, 250] {
        assert!(!taken.holds(slot));
        assert!(taken.take(slot));
        assert!(taken.holds(slot));
        assert!(!taken.take(slot));
    }
    assert!(!taken.holds(1) && !taken.holds(249));
}

#[test]
fn both_families_share_a_ring() {
    let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    let v4 = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let members = [v6, v4].map(|address| Member { address, weight: 1 });
    for table in Table::ALL {
        let slots = slots(&table.build(&members, 251).unwrap(), 2);
        assert!((119..=132).contains(&slots[0]), "{table}: {slots:?}");
    }
}

#[test]
fn one_backend_owns_everything() {
    for table in Table::ALL {
        assert_eq!(table.build(&equal(1), 251), Ok(vec![0; 251]), "{table}");
        let beside_none = weighted(&[0, 7, 0]);
        assert_eq!(table.build(&beside_none, 251), Ok(vec![1; 251]), "{table}");
    }
}

#[test]
fn as_many_backends_as_slots_own_one_each() {
    for table in Table::ALL {
        let slots = slots(&table.build(&equal(251), 251).unwrap(), 251);
        assert_eq!(slots, [1; 251], "{table}");
    }
}

#[test]
fn a_removed_backend_comes_back_to_its_slots() {
    let members = equal(20);
    for table in Table::ALL {
        let before = owners(table, &members, 4093);
        let without = owners(table, &members[1..], 4093);
        assert_ne!(before, without, "{table}");
        assert_eq!(owners(table, &members, 4093), before, "{table}");
    }
}

#[test]
fn refusals() {
    let twice = equal(1)[0].address;
    let mapped = Member {
        address: "::ffff:10.0.0.1".parse().unwrap(),
        weight: 1,
    };
    let cases = [
        (vec![], 251, Error::NoMembers),
        (weighted(&[0, 0]), 251, Error::NoMembers),
        (
            equal(252),
            251,
            Error::TooManyMembers {
                members: 252,
                size: 251,
            },
        ),
        (equal(3), 250, Error::Size(250)),
        (equal(3), 0, Error::Size(0)),
        (equal(3), 257, Error::Size(257)),
        ([equal(2), equal(1)].concat(), 251, Error::Duplicate(twice)),
        (vec![equal(1)[0], mapped], 251, Error::Duplicate(twice)),
    ];
    for table in Table::ALL {
        for (members, size, error) in &cases {
            let built = table.build(members, *size);
            assert_eq!(built, Err(*error), "{table}, {} in {size}", members.len());
        }
    }
}

#[test]
fn the_most_backends_of_a_ring() {
    let crowd = MEMBERS_MAX + 1;
    let error = Error::TooManyMembers {
        members: crowd,
        size: 131_071,
    };
    for table in Table::ALL {
        let ring = table.build(&equal(MEMBERS_MAX as u32), 131_071).unwrap();
        let slots = slots(&ring, MEMBERS_MAX);
        assert!(slots.iter().all(|slots| (1..=3).contains(slots)), "{table}");
        let built = table.build(&equal(crowd as u32), 131_071);
        assert_eq!(built, Err(error), "{table}");
    }
}

proptest! {
    #[test]
    fn order_does_not_matter(members in any_members(), seed in any::<u64>()) {
        prop_assume!(members.iter().any(|member| member.weight > 0));
        let mut shuffled = members.clone();
        shuffled.sort_by_key(|member| hash(seed, octets(member.address)));
        for table in Table::ALL {
            prop_assert_eq!(owners(table, &members, 509), owners(table, &shuffled, 509));
        }
    }

    #[test]
    fn a_member_without_weight_is_as_good_as_absent(members in any_members()) {
        let present: Vec<Member> =
            members.iter().copied().filter(|member| member.weight > 0).collect();
        prop_assume!(!present.is_empty());
        for table in Table::ALL {
            prop_assert_eq!(owners(table, &members, 509), owners(table, &present, 509));
        }
    }
}
