//! The kernel's side of the helpers that our programs call.
use super::{Cause, Execution, Machine, UNDEFINED};
use crate::disasm::helper;
use crate::disasm::memory::PACKET;

/// The kernel keeps at least an Ethernet header (`bpf_xdp_adjust_head`).
const FRAME_BYTES_MIN: usize = 14;
/// What helpers answer to what they refuse, as `-errno`.
pub(super) const EINVAL: i64 = -22;
const XDP_REDIRECT: u64 = 4;

impl Execution<'_, '_> {
    pub(super) fn help(&mut self, number: i32) -> Result<(), Cause> {
        *self.helpers.entry(number).or_default() += 1;
        let result = self.helped(number)?;
        self.registers[1..6].fill(UNDEFINED);
        self.registers[0] = result;
        Ok(())
    }

    /// The kernel's side of a helper: its result.
    fn helped(&mut self, number: i32) -> Result<u64, Cause> {
        let [_, r1, r2, r3, r4, ..] = self.registers;
        let Machine {
            maps,
            memory,
            now_ns,
            ..
        } = &mut *self.machine;
        Ok(match helper::name(number).as_str() {
            "map_lookup_elem" => maps.look_up(r1, r2, memory)?,
            "map_update_elem" => maps.update(r1, [r2, r3, r4], memory)? as u64,
            "map_delete_elem" => maps.delete(r1, r2, memory)? as u64,
            "ktime_get_ns" | "ktime_get_boot_ns" | "ktime_get_coarse_ns" => *now_ns,
            "get_smp_processor_id" => 0,
            // Any number is as random as another.
            "get_prandom_u32" => 4,
            "redirect" => XDP_REDIRECT,
            "xdp_adjust_head" => self.adjust_head(r2 as i32)? as u64,
            // Nobody reads the logs: written, and gone.
            "perf_event_output" | "ringbuf_output" => 0,
            name => return Err(Cause::Helper(name.to_owned())),
        })
    }

    fn adjust_head(&mut self, by: i32) -> Result<i64, Cause> {
        let (start, end) = self.packet;
        let moved = start.checked_add_signed(by as isize);
        let Some(moved) = moved.filter(|moved| moved + FRAME_BYTES_MIN <= end) else {
            return Ok(EINVAL);
        };
        self.packet = (moved, end);
        self.machine.memory.bound_packet(moved..end);
        self.write_context()?;
        Ok(0)
    }

    /// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
    /// egress_ifindex. Packets lie below 2^32, so that the addresses fit.
    pub(super) fn write_context(&mut self) -> Result<(), Cause> {
        let (start, end) = self.packet;
        let [data, data_end] = [start, end].map(|offset| PACKET as u32 + offset as u32);
        let fields = [data, data_end, data, self.machine.ingress, 0, 0];
        let bytes = fields.map(u32::to_le_bytes).concat();
        let Machine {
            memory, context, ..
        } = &mut *self.machine;
        Ok(memory.overwrite(*context, &bytes)?)
    }
}
