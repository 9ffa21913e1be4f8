//! The undo harness of the benches: makes `BPF_PROG_TEST_RUN` repeat the same work.
//!
//! A repeated test run does not restore the packet, so an encapsulating program would see its own
//! outer header from the second round on and pass. [`weir_harness`] runs before the program under
//! test: it strips the last round's outer header, restores the Ethernet header, picks the next
//! flow, and tail-calls. `null_tx` and `encap_only` are the floors to subtract: they go through
//! the same harness.
//!
//! Two things more that only tests and benches need: `live` sends real frames from one interface to
//! another, and `watch` looks at the balancer's own tables while they change.
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
mod live;
#[cfg(target_arch = "bpf")]
mod object;
#[cfg(target_arch = "bpf")]
mod watch;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::xdp_action,
        macros::{map, xdp},
        maps::{Array, PerCpuArray, ProgramArray},
        programs::XdpContext,
    };
    use lb_ebpf::{
        abi::Harness,
        frame::Frame,
        wire::{Ethernet, Ipv4, Ipv6},
    };

    use crate::frame::XdpFrame;

    #[map]
    static HARNESS: Array<Harness> = Array::with_max_entries(1, 0);

    #[map]
    static ROUNDS: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

    #[map]
    static UNDER_TEST: ProgramArray = ProgramArray::with_max_entries(1, 0);

    #[xdp]
    fn weir_harness(context: XdpContext) -> u32 {
        let mut frame = XdpFrame::new(&context);
        if prepare(&mut frame).is_some() {
            // SAFETY: the program in the slot is an XDP program; on failure the call returns.
            unsafe { UNDER_TEST.tail_call(&context, 0) };
        }
        // Seen by the bench as a failure: no program under test ends like this.
        xdp_action::XDP_ABORTED
    }

    /// Makes the packet what it was before the last round, but for its flow.
    #[inline(always)]
    pub(crate) fn prepare(frame: &mut XdpFrame<'_>) -> Option<()> {
        let harness = HARNESS.get(0)?;
        if frame.len() > harness.frame_len as usize {
            match harness.growth {
                20 => frame.shrink::<{ Ipv4::LEN }>()?,
                40 => frame.shrink::<{ Ipv6::LEN }>()?,
                _ => return None,
            }
        }
        Ethernet::from_words(harness.ethernet).write(frame, 0)?;
        let round = ROUNDS.get_ptr_mut(0)?;
        // SAFETY: the element is this CPU's own.
        let count = unsafe {
            *round = (*round).wrapping_add(1);
            *round
        };
        // An odd factor visits every flow before it repeats one, in no order that a cache likes.
        let mixed = count.wrapping_mul(0x9e37_79b1);
        let flow = mixed & harness.flow_mask;
        frame.store(
            harness.source_at as usize,
            (harness.source ^ flow).to_be_bytes(),
        )?;
        let source_port = (flow as u16).wrapping_mul(31) | 1024;
        // Scaled to the number of VIPs by multiply-and-shift, from the half that moves fastest.
        let vip = ((mixed >> 16) * harness.vips) >> 16;
        let port = (harness.first_port + vip) as u16;
        frame.store(
            harness.port_at as usize,
            [source_port.to_be(), port.to_be()],
        )
    }

    #[xdp]
    fn null_tx(_: XdpContext) -> u32 {
        xdp_action::XDP_TX
    }

    #[xdp]
    fn encap_only_20(context: XdpContext) -> u32 {
        encap_only::<{ Ipv4::LEN }>(&context)
    }

    #[xdp]
    fn encap_only_40(context: XdpContext) -> u32 {
        encap_only::<{ Ipv6::LEN }>(&context)
    }

    #[inline(always)]
    fn encap_only<const ROOM: usize>(context: &XdpContext) -> u32 {
        match XdpFrame::new(context).grow::<ROOM>() {
            Some(()) => xdp_action::XDP_TX,
            None => xdp_action::XDP_ABORTED,
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
