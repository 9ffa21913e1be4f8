//! The XDP program of the balancer: glue between the kernel and
//! [`lb_ebpf::datapath::run`], where the steps of a packet are.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
// The flow table needs an atomic instruction that the compiler has only as assembly.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
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
mod maps;
#[cfg(target_arch = "bpf")]
mod object;
#[cfg(target_arch = "bpf")]
mod tables;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::xdp_action, helpers::bpf_redirect, macros::xdp, programs::XdpContext,
    };
    use aya_log_ebpf::debug;
    use lb_ebpf::{
        abi::Counts,
        datapath::{self, Forwarded, Outcome},
        frame::Frame,
        reason::{Action, Reason},
    };

    use crate::{frame::XdpFrame, maps, tables::MapTables};

    #[xdp]
    fn weir_balancer(context: XdpContext) -> u32 {
        let mut frame = XdpFrame::new(&context);
        let received_bytes = frame.len() as u64;
        let Outcome { reason, forwarded } = datapath::run(&mut frame, &MapTables);
        count_reason(reason);
        match (reason.action(), forwarded) {
            (Action::Forward, Some(forwarded)) => {
                count_forwarded(&forwarded, received_bytes);
                transmit(&context, forwarded.ifindex)
            }
            (Action::Reply, _) => xdp_action::XDP_TX,
            (Action::Pass, _) => xdp_action::XDP_PASS,
            _ => {
                // Compiled in and off: the verifier removes it while AYA_LOG_LEVEL is 0.
                debug!(
                    &context,
                    "dropped: reason {}, {} bytes", reason as u32, received_bytes
                );
                xdp_action::XDP_DROP
            }
        }
    }

    /// Sends the frame out: back through the interface it came from, or to another one.
    #[inline(always)]
    fn transmit(context: &XdpContext, ifindex: u32) -> u32 {
        if ifindex as usize == context.ingress_ifindex() {
            return xdp_action::XDP_TX;
        }
        // SAFETY: the helper takes plain numbers and returns an XDP action.
        unsafe { bpf_redirect(ifindex, 0) as u32 }
    }

    #[inline(always)]
    fn count_reason(reason: Reason) {
        if let Some(count) = maps::REASON_COUNTS.get_ptr_mut(reason as u32) {
            // SAFETY: the element is this CPU's own, and a program is not preempted by another
            // instance of itself on the same CPU.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn count_forwarded(forwarded: &Forwarded, bytes: u64) {
        add(maps::VIP_COUNTS.get_ptr_mut(forwarded.vip_id), bytes);
        add(
            maps::BACKEND_COUNTS.get_ptr_mut(u32::from(forwarded.backend_id)),
            bytes,
        );
    }

    #[inline(always)]
    fn add(counts: Option<*mut Counts>, bytes: u64) {
        if let Some(counts) = counts {
            // SAFETY: as in `count_reason`.
            unsafe {
                (*counts).packets += 1;
                (*counts).bytes += bytes;
            }
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
