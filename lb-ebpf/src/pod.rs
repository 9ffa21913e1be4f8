//! Tells aya that the ABI types are plain bytes.
#![expect(
    unsafe_code,
    reason = "aya::Pod is an unsafe trait; the ABI types are made for it"
)]

use aya::Pod;

use crate::abi;

// SAFETY: repr(C), integers only, every bit pattern valid, no padding (sizes asserted in `abi`).
unsafe impl Pod for abi::AddressKey {}
// SAFETY: as above.
unsafe impl Pod for abi::Settings {}
// SAFETY: as above.
unsafe impl Pod for abi::VipCell {}
// SAFETY: as above.
unsafe impl Pod for abi::RingCell {}
// SAFETY: as above.
unsafe impl Pod for abi::MarkCell {}
// SAFETY: as above.
unsafe impl Pod for abi::Budget {}
// SAFETY: as above.
unsafe impl Pod for abi::Backend {}
// SAFETY: as above.
unsafe impl Pod for abi::Counts {}
// SAFETY: as above.
unsafe impl Pod for abi::Harness {}
