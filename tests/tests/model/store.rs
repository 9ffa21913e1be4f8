//! The agent's writes: packets come between any two of them, and any of them may be the last.

use lb_ebpf::abi::{Backend, Mark, Slot, Vip, VipKey};
use lb_userspace::control::apply::{Forget, Store};
use thiserror::Error;

use crate::wire::Wire;

/// Why a write was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum NotWritten {
    #[error("the write was refused")]
    Refused,
    #[error("the agent is dead")]
    Dead,
}

impl Wire {
    /// What comes before a write that may be refused.
    fn before_write(&mut self) -> Result<(), NotWritten> {
        let write = self.before_any_write()?;
        if self.faults.refuse_at == Some(write) {
            self.faults.taking_back = true;
            self.faults.takings_back += 1;
            return Err(NotWritten::Refused);
        }
        Ok(())
    }

    /// What comes before each write. Returns its number in this publish.
    fn before_any_write(&mut self) -> Result<u32, NotWritten> {
        self.random_packets();
        let write = self.faults.writes;
        self.faults.writes += 1;
        match self.faults.is_dead() {
            true => Err(NotWritten::Dead),
            false => Ok(write),
        }
    }

    fn write_marks(&self, start: u32, marks: &[Mark]) {
        for (cell, mark) in self.memory.marks[start as usize..].iter().zip(marks) {
            cell.set(*mark);
        }
    }

    fn write_slots(&mut self, start: u32, slots: &[Slot]) {
        let start = start as usize;
        self.memory.slots[start..start + slots.len()].copy_from_slice(slots);
    }
}

impl Store for Wire {
    type Error = NotWritten;

    fn wait_grace_period(&mut self) {
        self.pass_all();
    }

    fn write_ring(&mut self, start: u32, slots: &[Slot], marks: &[Mark]) -> Result<(), NotWritten> {
        if let Err(error) = self.before_write() {
            // Rings are long: the agent dies somewhere in the middle.
            let some = self.random.below(slots.len() as u32) as usize;
            self.write_marks(start, &marks[..some.min(marks.len())]);
            if self.random.below(2) == 0 {
                self.write_marks(start, marks);
                self.write_slots(start, &slots[..some]);
            }
            return Err(error);
        }
        if self.may_be_read(start, start + slots.len() as u32) {
            let text = format!("a ring is written at {start} that packets in flight may read");
            self.failure.get_or_insert(text);
        }
        self.write_marks(start, marks);
        self.write_slots(start, slots);
        Ok(())
    }

    fn write_vip(&mut self, key: VipKey, vip: Option<Vip>) -> Result<(), NotWritten> {
        self.before_write()?;
        let old = match vip {
            Some(vip) => self.memory.vips.insert(key, vip),
            None => self.memory.vips.remove(&key),
        };
        let door = self.doors.iter().position(|door| door.key() == key);
        if let Some(number) = door {
            self.tally.flips += 1;
            if self.faults.taking_back {
                self.note_undone(number, old);
            }
            if self.untracked.contains(&number) {
                self.note_untracked(number);
            }
            self.judge_flip(number, old, vip);
        }
        Ok(())
    }

    fn write_backend(&mut self, id: u16, backend: &Backend) -> Result<(), NotWritten> {
        self.before_write()?;
        self.memory.backends[usize::from(id)] = *backend;
        Ok(())
    }

    fn clear_vip_counts(&mut self, _: u32) -> Result<(), NotWritten> {
        self.before_write()
    }

    fn clear_backend_counts(&mut self, _: u16) -> Result<(), NotWritten> {
        self.before_write()
    }

    /// This is memory, which refuses nothing; but the agent may die in the middle.
    fn forget_flows(&mut self, which: Forget<'_>) {
        let buckets = self.memory.flow_buckets();
        let swept = match self.before_any_write() {
            Ok(_) => buckets,
            Err(_) => self.random.below(buckets),
        };
        self.sweeps += 1;
        self.memory.forget_flows(swept, which);
        self.judge_sweep();
    }
}
