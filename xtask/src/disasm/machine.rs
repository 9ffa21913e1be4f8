//! A BPF machine that counts: runs a program on one packet, without a kernel and without unsafe
//! code, the same on every computer.
//!
//! It counts what the *object* says. The kernel's verifier takes branches away that read-only
//! globals decide, and replaces look-ups in arrays by a few instructions; so the count is a
//! yardstick for changes of our code, not the number of cycles.
//!
//! What the verifier proves is not proved again: here, a program that goes wrong is stopped when
//! it does.
use std::collections::BTreeMap;

use anyhow::Result;

use super::arithmetic;
use super::instruction::{
    Atomic, Callee, Constant, Instruction, Operand, Place, Register, Test, Width,
};
use super::maps::Maps;
use super::memory::{Access, AccessError, Memory};
use super::object::{Function, Object};

mod helpers;

/// A run that takes longer is stopped; the kernel's verifier does not follow more either
/// (`BPF_COMPLEXITY_LIMIT_INSNS`).
pub(super) const INSTRUCTIONS_MAX: u64 = 1_000_000;
/// `MAX_CALL_FRAMES`, `MAX_BPF_STACK` of the kernel.
const FRAMES_MAX: usize = 8;
const STACK_BYTES: usize = 512;
/// Room that a driver leaves before and behind a packet (`XDP_PACKET_HEADROOM`; behind, a guess).
const HEADROOM: usize = 256;
const TAILROOM: usize = 64;
/// What stands in registers that a call leaves undefined.
const UNDEFINED: u64 = 0xdead_dead_dead_dead;
/// Bytes of `struct xdp_md`.
const CONTEXT_BYTES: usize = 24;

/// A program that was stopped.
#[derive(Debug, thiserror::Error)]
#[error("{program} was stopped at {place}: {cause}")]
pub(super) struct Stopped {
    program: String,
    place: String,
    cause: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("it calls {0}, which is not simulated; `machine/helpers.rs` is the place to add it")]
    Helper(String),
    #[error("{0:#}")]
    Map(#[from] anyhow::Error),
    #[error("more than {INSTRUCTIONS_MAX} instructions: an endless loop?")]
    Endless,
    #[error("more than {FRAMES_MAX} calls deep")]
    Depth,
    #[error("there is no instruction")]
    NoInstruction,
}

/// An object with its maps, ready to run.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    object: &'a Object,
    memory: Memory,
    maps: Maps,
    /// Address of each data section.
    globals: Vec<u64>,
    context: u64,
    /// Interface that packets come in through.
    ingress: u32,
    /// What the monotonic clock says, in nanoseconds. It stands still.
    now_ns: u64,
}

/// What a run left.
#[derive(Debug)]
pub(super) struct Run {
    /// The XDP action.
    pub(super) action: u64,
    /// The packet as it leaves.
    pub(super) packet: Vec<u8>,
    /// How often each slot of the object's code was executed.
    pub(super) visits: Vec<u64>,
    /// Calls of helpers, by number.
    pub(super) helpers: BTreeMap<i32, u64>,
}

impl Run {
    /// Instructions executed; a call of a helper is one.
    pub(super) fn instructions(&self) -> u64 {
        self.visits.iter().sum()
    }
}

impl<'a> Machine<'a> {
    /// A machine with empty maps.
    pub(super) fn new(object: &'a Object, ingress: u32, now_ns: u64) -> Result<Self> {
        let mut memory = Memory::default();
        let globals = object.globals.iter().map(|section| {
            let access = if section.writable {
                Access::ReadWrite
            } else {
                Access::Read
            };
            memory.add(section.name.clone(), section.bytes.clone(), access)
        });
        let globals = globals.collect();
        let context = memory.add("the context", vec![0; CONTEXT_BYTES], Access::Read);
        Ok(Self {
            object,
            maps: Maps::new(&object.maps, &mut memory)?,
            memory,
            globals,
            context,
            ingress,
            now_ns,
        })
    }

    /// Sets an element of a map, as user space would.
    pub(super) fn set(&mut self, map: &str, key: &[u8], value: &[u8]) -> Result<()> {
        self.maps.set(map, key, value, &mut self.memory)
    }

    /// Sets every element of an array.
    pub(super) fn fill(&mut self, map: &str, value: &[u8]) -> Result<()> {
        self.maps.fill(map, value, &mut self.memory)
    }

    /// An element of a map, as user space would see it.
    pub(super) fn value(&self, map: &str, key: &[u8]) -> Result<Option<&[u8]>> {
        self.maps.value(map, key, &self.memory)
    }

    /// Runs `program` on a packet. The maps keep what it leaves there.
    pub(super) fn run(&mut self, program: &Function, packet: &[u8]) -> Result<Run, Stopped> {
        let mut bytes = vec![0; HEADROOM];
        bytes.extend(packet);
        let end = bytes.len();
        bytes.resize(end + TAILROOM, 0);
        self.memory.place_packet(bytes, HEADROOM..end);
        let mut execution = Execution::new(self, program.start, HEADROOM, end);
        let outcome = execution.run();
        let place = execution.at;
        execution.leave_all();
        let (registers, visits, helpers) =
            (execution.registers, execution.visits, execution.helpers);
        match outcome {
            Ok(()) => Ok(Run {
                action: registers[0],
                packet: self.memory.packet().to_vec(),
                visits,
                helpers,
            }),
            Err(cause) => Err(Stopped {
                program: program.name(),
                place: self.object.place(place),
                cause,
            }),
        }
    }
}

/// Where a function goes back to.
#[derive(Debug)]
struct Frame {
    slot: usize,
    kept: [u64; 5],
}

/// A run that is under way.
struct Execution<'m, 'a> {
    machine: &'m mut Machine<'a>,
    registers: [u64; 11],
    /// The slot that is executed.
    at: usize,
    /// The one after it.
    next: usize,
    callers: Vec<Frame>,
    /// Bases of the stack regions, that of the running function last.
    stacks: Vec<u64>,
    /// Where the packet begins and ends in its region.
    packet: (usize, usize),
    executed: u64,
    visits: Vec<u64>,
    helpers: BTreeMap<i32, u64>,
}

impl<'m, 'a> Execution<'m, 'a> {
    fn new(machine: &'m mut Machine<'a>, start: usize, packet_start: usize, end: usize) -> Self {
        let visits = vec![0; machine.object.code.len()];
        let context = machine.context;
        let mut execution = Self {
            machine,
            registers: [UNDEFINED; 11],
            at: start,
            next: start,
            callers: Vec::new(),
            stacks: Vec::new(),
            packet: (packet_start, end),
            executed: 0,
            visits,
            helpers: BTreeMap::new(),
        };
        execution.registers[1] = context;
        execution.enter();
        execution
    }

    fn run(&mut self) -> Result<(), Cause> {
        self.write_context()?;
        loop {
            self.at = self.next;
            let instruction = self.machine.object.code.get(self.at).copied();
            let instruction = instruction.ok_or(Cause::NoInstruction)?;
            self.executed += 1;
            if self.executed > INSTRUCTIONS_MAX {
                return Err(Cause::Endless);
            }
            self.visits[self.at] += 1;
            self.next = self.at + 1;
            if instruction == Instruction::Exit {
                self.leave();
                let Some(caller) = self.callers.pop() else {
                    return Ok(());
                };
                self.return_to(&caller);
            } else {
                self.execute(instruction)?;
            }
        }
    }

    fn execute(&mut self, instruction: Instruction) -> Result<(), Cause> {
        match instruction {
            Instruction::Arithmetic {
                kind,
                width,
                destination,
                operand,
            } => {
                let (left, right) = (self.register(destination), self.operand(operand));
                self.set(destination, arithmetic::compute(kind, width, left, right));
            }
            Instruction::ByteOrder {
                swap,
                bits,
                register,
            } => {
                let number = arithmetic::in_order(swap, bits, self.register(register));
                self.set(register, number);
            }
            Instruction::Jump { target } => self.next = target,
            Instruction::Branch {
                test,
                width,
                left,
                right,
                target,
            } => {
                let (left, right) = (self.register(left), self.operand(right));
                if arithmetic::holds(test, width, left, right) {
                    self.next = target;
                }
            }
            Instruction::Load {
                bytes,
                destination,
                from,
            } => {
                let number = self.machine.memory.load(self.address(from), bytes)?;
                self.set(destination, number);
            }
            Instruction::Store { bytes, to, value } => {
                let (address, number) = (self.address(to), self.operand(value));
                self.machine.memory.store(address, bytes, number)?;
            }
            Instruction::Atomic { .. } => self.atomic(instruction)?,
            Instruction::Constant { destination, value } => {
                self.set(destination, self.constant(value));
                self.next = self.at + 2;
            }
            Instruction::Call(Callee::Function(start)) => self.call(start)?,
            Instruction::Call(Callee::Helper(number)) => self.help(number)?,
            Instruction::Exit | Instruction::Rest => return Err(Cause::NoInstruction),
        }
        Ok(())
    }

    fn atomic(&mut self, instruction: Instruction) -> Result<(), Cause> {
        let Instruction::Atomic {
            kind,
            fetch,
            bytes,
            at,
            operand,
        } = instruction
        else {
            return Err(Cause::NoInstruction);
        };
        let width = if bytes == 8 { Width::Full } else { Width::Half };
        let address = self.address(at);
        let found = self.machine.memory.load(address, bytes)?;
        let number = self.register(operand);
        let new = match kind {
            Atomic::Add => found.wrapping_add(number),
            Atomic::Or => found | number,
            Atomic::And => found & number,
            Atomic::Xor => found ^ number,
            Atomic::Exchange => number,
            Atomic::CompareExchange => {
                let expected = self.registers[0];
                let same = arithmetic::holds(Test::Equal, width, found, expected);
                if same { number } else { found }
            }
        };
        self.machine.memory.store(address, bytes, new)?;
        match kind {
            Atomic::CompareExchange => self.registers[0] = found,
            _ if fetch => self.set(operand, found),
            _ => {}
        }
        Ok(())
    }

    fn call(&mut self, start: usize) -> Result<(), Cause> {
        if self.callers.len() + 1 >= FRAMES_MAX {
            return Err(Cause::Depth);
        }
        let mut kept = [0; 5];
        kept.copy_from_slice(&self.registers[6..]);
        self.callers.push(Frame {
            slot: self.next,
            kept,
        });
        self.registers[6..10].fill(UNDEFINED);
        self.enter();
        self.next = start;
        Ok(())
    }

    fn return_to(&mut self, caller: &Frame) {
        self.registers[1..6].fill(UNDEFINED);
        self.registers[6..].copy_from_slice(&caller.kept);
        self.next = caller.slot;
    }

    /// A stack for the function that begins; `r10` points behind its end.
    fn enter(&mut self) {
        let name = format!("the stack, {} calls deep", self.stacks.len());
        let bytes = vec![0; STACK_BYTES];
        let base = self.machine.memory.add(name, bytes, Access::ReadWrite);
        self.stacks.push(base);
        self.registers[10] = base + STACK_BYTES as u64;
    }

    fn leave(&mut self) {
        if let Some(base) = self.stacks.pop() {
            self.machine.memory.remove(base);
        }
    }

    fn leave_all(&mut self) {
        while !self.stacks.is_empty() {
            self.leave();
        }
    }

    fn constant(&self, value: Constant) -> u64 {
        match value {
            Constant::Number(number) => number,
            Constant::Map(index) => self.machine.maps.handle(index),
            Constant::Global { section, offset } => {
                self.machine.globals[section].wrapping_add(offset)
            }
        }
    }

    fn address(&self, place: Place) -> u64 {
        self.register(place.base)
            .wrapping_add_signed(i64::from(place.offset))
    }

    fn operand(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Register(register) => self.register(register),
            Operand::Constant(number) => i64::from(number) as u64,
        }
    }

    fn register(&self, register: Register) -> u64 {
        self.registers[usize::from(register.0)]
    }

    fn set(&mut self, register: Register, number: u64) {
        self.registers[usize::from(register.0)] = number;
    }
}

#[cfg(test)]
mod tests;
