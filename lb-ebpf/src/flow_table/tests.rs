//! The flow table by itself, in the memory of the test.

extern crate std;

use std::vec::Vec;

use super::*;

const LIVE_S: u32 = 60;

struct Table(Vec<FlowBucket>);

impl Table {
    fn of(buckets: usize) -> Self {
        Self((0..buckets).map(|_| FlowBucket::default()).collect())
    }

    fn find(&self, fingerprint: u64, now_s: Option<u32>) -> Option<Remembered> {
        find(fingerprint, now_s, &self.0.as_slice())
    }

    fn put(&self, fingerprint: u64, owner: u16, seen_s: u32) -> Put {
        put(fingerprint, of(owner, seen_s), LIVE_S, &self.0.as_slice())
    }

    fn len(&self) -> usize {
        flows(&self.0.as_slice()).count()
    }
}

fn of(owner: u16, seen_s: u32) -> Remembered {
    Remembered {
        owner,
        tag: 7,
        seen_s,
    }
}

/// Fingerprints that look like those of flows.
fn fingerprint(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 29).max(FINGERPRINT_MIN)
}

#[test]
fn what_is_remembered_is_found_and_replaced() {
    let table = Table::of(4);
    assert_eq!(table.find(9, None), None);
    assert_eq!(table.put(9, 1, 100), Put::Inserted);
    assert_eq!(table.find(9, None), Some(of(1, 100)));
    assert_eq!(table.put(9, 2, 101), Put::Updated);
    assert_eq!(table.find(9, None), Some(of(2, 101)));
    assert_eq!(table.find(10, None), None);
    assert_eq!(table.len(), 1);
}

#[test]
fn being_found_counts_as_being_seen_unless_asked_without_a_time() {
    let table = Table::of(1);
    table.put(9, 1, 100);
    assert_eq!(table.find(9, Some(130)), Some(of(1, 100)));
    assert_eq!(table.find(9, None), Some(of(1, 130)));
    assert_eq!(table.find(9, None), Some(of(1, 130)));
}

#[test]
fn a_full_bucket_evicts_the_flow_that_was_quiet_for_longest_and_says_whether_it_lived() {
    for (what, at, put) in [
        ("all live", 160, Put::Evicted),
        ("the oldest has ended", 161, Put::Inserted),
    ] {
        // One bucket: both homes are the same.
        let table = Table::of(1);
        for number in 0..4 {
            assert_eq!(table.put(2 + number, 1, 100 + number as u32), Put::Inserted);
        }
        assert_eq!(table.put(50, 2, at), put, "{what}");
        assert_eq!(table.find(2, None), None, "{what}");
        assert!(
            (3..6).all(|flow| table.find(flow, None).is_some()),
            "{what}"
        );
        assert_eq!(table.find(50, None), Some(of(2, at)), "{what}");
    }
}

#[test]
fn a_flow_that_counts_as_ended_stays_while_there_is_an_empty_entry() {
    let table = Table::of(1);
    table.put(2, 1, 100);
    for number in 0..3 {
        assert_eq!(table.put(50 + number, 2, 1000), Put::Inserted);
    }
    assert_eq!(table.find(2, None), Some(of(1, 100)));
    assert_eq!(table.put(60, 2, 1000), Put::Inserted);
    assert_eq!(table.find(2, None), None);
}

#[test]
fn a_clock_that_lags_evicts_nobody_too_early() {
    let table = Table::of(1);
    for number in 0..4 {
        table.put(2 + number, 1, 101);
    }
    // Another CPU has seen them in the second to come: they are quiet for no time at all.
    assert_eq!(table.put(50, 1, 100), Put::Evicted);
}

#[test]
fn as_many_flows_as_a_table_is_for_evict_nobody() {
    let flows = 2 * 4096;
    let table = Table::of(buckets(flows) as usize);
    assert_eq!(table.0.len(), 4096);
    for number in 0..u64::from(flows) {
        assert_eq!(table.put(fingerprint(number), 1, 100), Put::Inserted);
    }
    assert_eq!(table.len(), flows as usize);
}

#[test]
fn a_flood_forgets_flows_and_the_table_never_grows() {
    let table = Table::of(64);
    let evicted = (0..10_000)
        .filter(|number| table.put(fingerprint(*number), 1, 100) == Put::Evicted)
        .count();
    assert_eq!(table.len() + evicted, 10_000);
    assert!(table.len() <= 256);
    assert!(table.len() > 250);
}

#[test]
fn a_claimed_entry_is_nobodys_and_is_left_alone() {
    let table = Table::of(1);
    for entry in &table.0[0].entries {
        entry.fingerprint.store(CLAIMED, Ordering::Relaxed);
    }
    assert_eq!(table.find(9, None), None);
    // It is not stolen from its writer: the exchange finds it claimed and claims nothing anew.
    assert_eq!(table.len(), 0);
    assert_eq!(table.put(9, 1, 100), Put::Lost);
}

#[test]
fn retain_forgets_what_is_not_wanted() {
    let table = Table::of(1);
    table.put(2, 1, 100);
    table.put(3, 2, 100);
    assert_eq!(retain(&table.0.as_slice(), |flow| flow.owner != 1), 1);
    assert_eq!(table.find(2, None), None);
    assert_eq!(table.find(3, None), Some(of(2, 100)));
    assert_eq!(table.put(4, 1, 100), Put::Inserted);
}

#[test]
fn writers_on_many_threads_leave_whole_entries() {
    let table = Table::of(2);
    // The owner follows from the fingerprint, so a value under another's fingerprint is seen.
    let owner = |fingerprint: u64| (fingerprint & 0x7fff) as u16;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let table = &table;
            scope.spawn(move || {
                for round in 0..20_000 {
                    let written = fingerprint(round * 4 + thread);
                    table.put(written, owner(written), 100);
                    let read = fingerprint(round * 4 + (thread + 1) % 4);
                    if let Some(found) = table.find(read, Some(101)) {
                        assert_eq!(found.owner, owner(read));
                    }
                }
            });
        }
    });
    for (fingerprint, remembered) in flows(&table.0.as_slice()) {
        assert_eq!(remembered.owner, owner(fingerprint));
    }
}

#[test]
fn sizes_are_powers_of_two_with_room() {
    assert_eq!(buckets(1), 1);
    assert_eq!(buckets(2), 1);
    assert_eq!(buckets(3), 2);
    assert_eq!(buckets(1 << 19), 262_144);
}
