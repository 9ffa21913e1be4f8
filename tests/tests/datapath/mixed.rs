//! No packet sees a mixed table, however often tables are published while it looks.

use tests::mixed::{self, Seen, Writer};

/// The ring size of the default configuration.
const RING_SIZE: u32 = 65_537;
/// Packets to a publish at least: their silence means something only if they are there.
const PACKETS_PER_PUBLISH_MIN: u64 = 10;

fn check_that_packets_looked(seen: &Seen) {
    let least = u64::from(seen.publishes) * PACKETS_PER_PUBLISH_MIN;
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
