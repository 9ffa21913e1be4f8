//! What holds for every packet, whatever the tables say. The table of single cases, which the
//! kernel program answers too, is in the crate `tests`.

extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{
    abi::{Backend, Egress, Hop, Mark, Settings, Slot, VERSION, Vip, VipKey},
    address::{Address, Mac},
    flow_table::{Put, Remembered},
    frame::Buffer,
    reason::Action,
    track::{Event, FlowTable, FlowTables},
};

/// Every address and port is a VIP; `mode` and `backend` answer every question.
struct Everything {
    settings: Settings,
    mode: u8,
    backend: Backend,
}

impl Tables for Everything {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn vip(&self, _: &VipKey) -> Option<Vip> {
        let (ring_start, ring_size, id, forward) = (0, 1, 3, self.mode);
        Some(Vip {
            ring_start,
            ring_size,
            id,
            forward,
            hash: 0,
            ..Vip::default()
        })
    }

    fn slot(&self, _: u32) -> Option<Slot> {
        Some(Slot::settled(1))
    }

    fn backend(&self, _: u16) -> Option<Egress> {
        self.backend.egress()
    }
}

/// Every slot is settled: nobody asks.
impl FlowTables for Everything {
    fn now_s(&self) -> u32 {
        unreachable!("a settled slot asks for the time")
    }

    fn mark(&self, _: u32) -> Option<Mark> {
        unreachable!("a settled slot has no mark")
    }

    fn note_hit(&self, _: u32, _: u16) {
        unreachable!("a settled slot has no previous owner")
    }

    fn recall(&self, _: FlowTable, _: u64, _: u32) -> Option<Remembered> {
        unreachable!("a settled slot looks nothing up")
    }

    fn spend(&self, _: u32, _: u32) -> bool {
        unreachable!("a settled slot inserts nothing")
    }

    fn remember(&self, _: FlowTable, _: u64, _: Remembered, _: u32) -> Put {
        unreachable!("a settled slot inserts nothing")
    }

    fn count(&self, _: Event) {
        unreachable!("nothing happens on a settled slot")
    }
}

fn everything(mode: u8, v6: bool) -> Everything {
    let (address, family) = if v6 {
        (Address::v6([9; 16]), 6)
    } else {
        (Address::v4([10, 0, 0, 2]), 4)
    };
    let hop = Hop::new(Mac::new([3; 6]), Mac::new([4; 6]), 1);
    Everything {
        settings: Settings {
            hash_key: [1, 2],
            source_v6: Address::v6([8; 16]),
            source_v4: Address::v4([10, 0, 0, 1]),
            version: VERSION,
            quiet_s: 0,
        },
        mode,
        backend: Backend {
            address,
            hops: [hop; 2],
            family,
            ..Backend::default()
        },
    }
}

/// Bytes that look like a frame often enough to get past the first header.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        Just([0x08, 0x00, 0x45]),
        Just([0x86, 0xdd, 0x60]),
        Just([0x81, 0x00, 0x00]),
        any::<[u8; 3]>(),
    ];
    let protocol = prop_oneof![
        Just(6_u8),
        Just(17),
        Just(1),
        Just(58),
        Just(0),
        Just(44),
        any::<u8>()
    ];
    (first, protocol, prop::collection::vec(any::<u8>(), 0..160)).prop_map(
        |(first, protocol, mut frame)| {
            for (at, byte) in (12..).zip(first) {
                if at < frame.len() {
                    frame[at] = byte;
                }
            }
            let len = frame.len();
            if first[0] == 0x08 && len > 34 {
                frame[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
                frame[20..22].copy_from_slice(&[0x40, 0]);
                frame[23] = protocol;
            }
            if first[0] == 0x86 && len > 54 {
                frame[18..20].copy_from_slice(&((len - 54) as u16).to_be_bytes());
                frame[20] = protocol;
            }
            frame
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_frame_changes_only_when_it_is_sent(frame in frames(), mode in 1_u8..3, v6 in any::<bool>()) {
        let tables = everything(mode, v6);
        let mut bytes = [std::vec![0; 64], frame.clone()].concat();
        let mut buffer = Buffer::new(&mut bytes, 64);
        let outcome = run(&mut buffer, &tables);
        let grown = buffer.len() - frame.len();
        match outcome.reason.action() {
            Action::Pass | Action::Drop => {
                prop_assert_eq!(buffer.packet(), &frame[..]);
                prop_assert_eq!(outcome.forwarded, None);
            }
            Action::Reply => prop_assert_eq!(grown, 0),
            Action::Forward => {
                let expected = match (outcome.reason, v6) {
                    (Reason::ForwardedL2, _) => 0,
                    (_, false) => 20,
                    (_, true) => 40,
                };
                prop_assert_eq!(grown, expected);
                let forwarded = Forwarded { vip_id: 3, backend_id: 1, ifindex: 1 };
                prop_assert_eq!(outcome.forwarded, Some(forwarded));
                prop_assert_eq!(&buffer.packet()[..12], &[3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4]);
            }
        }
    }
}
