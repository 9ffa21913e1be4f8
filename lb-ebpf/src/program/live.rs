//! Both ends of a run with live frames: a source, and a sink that counts.

use aya_ebpf::{
    bindings::xdp_action,
    macros::{map, xdp},
    maps::PerCpuArray,
    programs::XdpContext,
};
use lb_ebpf::{abi::Counts, frame::Frame};

use crate::{frame::XdpFrame, program::prepare};

#[map]
static ARRIVED: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);

/// Sends the next flow's packet. The kernel uses the pages of sent frames again as they come back, so
/// the harness's repair of the last round is needed here too.
#[xdp]
fn source(context: XdpContext) -> u32 {
    match prepare(&mut XdpFrame::new(&context)) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Counts and drops.
#[xdp]
fn sink(context: XdpContext) -> u32 {
    let bytes = XdpFrame::new(&context).len() as u64;
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: the element is this CPU's own, and a program is not preempted by another instance
        // of itself on the same CPU.
        unsafe {
            (*arrived).packets += 1;
            (*arrived).bytes += bytes;
        }
    }
    xdp_action::XDP_DROP
}
