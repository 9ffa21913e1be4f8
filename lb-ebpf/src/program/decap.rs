//! The XDP program of backend hosts: glue over [`lb_ebpf::decap::run`].
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        unsafe_code,
        reason = "one of the two homes of unsafe: maps, helpers, packet memory"
    )
)]

#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod object;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::xdp_action,
        macros::{map, xdp},
        maps::{HashMap, PerCpuArray},
        programs::XdpContext,
    };
    use lb_ebpf::{
        abi::AddressKey,
        address::Address,
        decap::{self, DecapReason},
    };

    use crate::frame::XdpFrame;

    /// Tunnel addresses that one host may have.
    const TUNNELS_MAX: u32 = 64;

    #[map]
    static TUNNELS: HashMap<AddressKey, u32> = HashMap::with_max_entries(TUNNELS_MAX, 0);

    #[map]
    static DECAP_COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(DecapReason::COUNT, 0);

    #[xdp]
    fn weir_decap(context: XdpContext) -> u32 {
        let mut frame = XdpFrame::new(&context);
        let reason = decap::run(&mut frame, is_local);
        if let Some(count) = DECAP_COUNTS.get_ptr_mut(reason as u32) {
            // SAFETY: the element is this CPU's own, and a program is not preempted by another
            // instance of itself on the same CPU.
            unsafe { *count += 1 };
        }
        if reason.drops() {
            xdp_action::XDP_DROP
        } else {
            xdp_action::XDP_PASS
        }
    }

    #[inline(always)]
    fn is_local(address: Address) -> bool {
        TUNNELS.get_ptr(AddressKey { address }).is_some()
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
