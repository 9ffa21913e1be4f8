//! No packet sees a mixed table, however often tables are published while it looks.

use tests::mixed::{self, Seen, Writer};

/// The ring size of the default configuration: the longest that a ring takes to write.
const RING_SIZE: u32 = 65_537;

fn publish(writer: Writer, publishes: u32) -> Seen {
    let seen = mixed::publish(writer, publishes, RING_SIZE).unwrap();
    // The packets must have been there all the time for their silence to mean anything.
    assert!(seen.packets > u64::from(publishes) * 100, "{seen:?}");
    assert_eq!(seen.absent, 0, "{seen:?}");
    seen
}

#[test]
fn no_packet_sees_a_mixed_table() {
    if !crate::granted() {
        return;
    }
    let seen = publish(Writer::Agent, 300);
    assert_eq!(seen.mixed, 0, "{seen:?}");
}

#[test]
fn a_table_that_is_overwritten_in_use_is_seen_mixed() {
    if !crate::granted() {
        return;
    }
    let seen = publish(Writer::InPlace, 100);
    assert!(seen.mixed > 0, "{seen:?}");
}
