//! No packet sees a mixed table, however often tables are published while it looks.

use tests::mixed::{self, Seen, Writer};

/// The ring size of the default configuration.
const RING_SIZE: u32 = 65_537;
/// The smallest: its old ring is written over soonest.
const RING_SIZE_MIN: u32 = 251;
/// Rounds of haste until it must have been seen.
const ROUNDS_MAX: usize = 20;

/// The silence of packets means something only if they are there all the time.
fn check_that_packets_looked(seen: &Seen) {
    let least = u64::from(seen.publishes);
    assert!(seen.packets > least && seen.absent == 0, "{seen:?}");
}

#[test]
fn no_packet_sees_a_mixed_table() {
    if !crate::granted() {
        return;
    }
    let seen = mixed::publish(Writer::Agent, 300, RING_SIZE).unwrap();
    check_that_packets_looked(&seen);
    assert_eq!(seen.mixed, 0, "{seen:?}");
}

#[test]
fn a_table_that_is_overwritten_in_use_is_seen_mixed() {
    if !crate::granted() {
        return;
    }
    let seen = mixed::publish(Writer::InPlace, 100, RING_SIZE).unwrap();
    check_that_packets_looked(&seen);
    assert!(seen.mixed > 0, "{seen:?}");
}

#[test]
fn a_ring_that_is_used_again_without_a_grace_period_is_seen_mixed() {
    if !crate::granted() {
        return;
    }
    // A packet sees it only if it is in flight for longer than two publishes take, so once more is
    // normal where others use the processors too.
    let mut rounds = (0..ROUNDS_MAX).map(|_| mixed::publish(Writer::Hasty, 20_000, RING_SIZE_MIN));
    assert!(rounds.any(|seen| seen.unwrap().mixed > 0));
}
