//! From eight bytes to an instruction (RFC 9669, 3 to 5). What CPU v4 brought is refused: nothing
//! here could run it, and our objects are built for v3.
use anyhow::{Context, Error, Result, anyhow, bail};

use super::{
    Arithmetic, Atomic, Callee, Instruction, Operand, Place, Register, SLOT_BYTES, Test, Width,
};

/// The fields of an encoded instruction.
#[derive(Clone, Copy, Debug)]
pub(in crate::disasm) struct Slot {
    pub(in crate::disasm) code: u8,
    pub(in crate::disasm) destination: Register,
    pub(in crate::disasm) source: Register,
    pub(in crate::disasm) offset: i16,
    pub(in crate::disasm) immediate: i32,
}

// Instruction classes: the lower three bits of the code (RFC 9669, 3).
const LD: u8 = 0;
const LDX: u8 = 1;
const ST: u8 = 2;
const STX: u8 = 3;
const ALU: u8 = 4;
const JMP: u8 = 5;
const JMP32: u8 = 6;
const ALU64: u8 = 7;
// Modes of loads and stores: the upper three bits (RFC 9669, 5).
const IMM: u8 = 0x00;
const MEM: u8 = 0x60;
const ATOMIC: u8 = 0xc0;
/// The operand is a register rather than the immediate.
const SOURCE_IS_REGISTER: u8 = 0x08;
/// An atomic instruction leaves in its register what it found.
const FETCH: i32 = 0x01;
/// `source` of a call that goes to a function of the object.
const PSEUDO_CALL: u8 = 1;

impl Slot {
    /// Takes eight bytes apart, little-endian as our target is.
    pub(in crate::disasm) fn new(bytes: [u8; SLOT_BYTES]) -> Self {
        let [code, registers, o0, o1, i0, i1, i2, i3] = bytes;
        Self {
            code,
            destination: Register(registers & 0x0f),
            source: Register(registers >> 4),
            offset: i16::from_le_bytes([o0, o1]),
            immediate: i32::from_le_bytes([i0, i1, i2, i3]),
        }
    }

    /// True for the first slot of a 64-bit constant.
    pub(in crate::disasm) fn is_wide(self) -> bool {
        self.code == LD | IMM | 0x18
    }

    /// True for a call of a function of the object, which may be subject to relocation.
    pub(in crate::disasm) fn is_local_call(self) -> bool {
        self.code == JMP | 0x80 && self.source.0 == PSEUDO_CALL
    }

    /// The instruction in slot `at`; constants of two slots are the caller's.
    pub(in crate::disasm) fn decode(self, at: usize) -> Result<Instruction> {
        self.check_registers()?;
        let operand = if self.code & SOURCE_IS_REGISTER != 0 {
            Operand::Register(self.source)
        } else {
            Operand::Constant(self.immediate)
        };
        match self.code & 0x07 {
            ALU => self.arithmetic(Width::Half, operand),
            ALU64 => self.arithmetic(Width::Full, operand),
            JMP => self.jump(Width::Full, operand, at),
            JMP32 => self.jump(Width::Half, operand, at),
            LDX if self.mode() == MEM => Ok(Instruction::Load {
                bytes: self.bytes(),
                destination: self.destination,
                from: self.place(self.source),
            }),
            ST if self.mode() == MEM => Ok(self.store(Operand::Constant(self.immediate))),
            STX if self.mode() == MEM => Ok(self.store(Operand::Register(self.source))),
            STX if self.mode() == ATOMIC => self.atomic(),
            _ => Err(self.unknown()),
        }
    }

    fn check_registers(self) -> Result<()> {
        let named = [self.destination, self.source].map(|register| register.0);
        if named.iter().any(|&number| number > 10) {
            bail!("names a register beyond r10");
        }
        Ok(())
    }

    fn arithmetic(self, width: Width, operand: Operand) -> Result<Instruction> {
        use Arithmetic as A;
        const KINDS: [A; 13] = [
            A::Add,
            A::Subtract,
            A::Multiply,
            A::Divide,
            A::Or,
            A::And,
            A::ShiftLeft,
            A::ShiftRight,
            A::Negate,
            A::Modulo,
            A::Xor,
            A::Move,
            A::ShiftRightSigned,
        ];
        // A non-zero offset makes CPU v4's signed division and moves out of these.
        if self.offset != 0 {
            return Err(self.unknown());
        }
        let number = usize::from(self.code >> 4);
        if number == 13 && width == Width::Half {
            return Ok(Instruction::ByteOrder {
                swap: self.code & SOURCE_IS_REGISTER != 0,
                bits: self.immediate as u32,
                register: self.destination,
            });
        }
        let kind = *KINDS.get(number).with_context(|| self.unknown())?;
        Ok(Instruction::Arithmetic {
            kind,
            width,
            destination: self.destination,
            operand,
        })
    }

    fn jump(self, width: Width, right: Operand, at: usize) -> Result<Instruction> {
        use Test as T;
        let target = (at + 1).wrapping_add_signed(isize::from(self.offset));
        let test = match (self.code >> 4, width) {
            (0, Width::Full) => return Ok(Instruction::Jump { target }),
            (8, Width::Full) => return self.call(at),
            (9, Width::Full) => return Ok(Instruction::Exit),
            (1, _) => T::Equal,
            (2, _) => T::Greater,
            (3, _) => T::GreaterOrEqual,
            (4, _) => T::AnyBit,
            (5, _) => T::NotEqual,
            (6, _) => T::GreaterSigned,
            (7, _) => T::GreaterOrEqualSigned,
            (10, _) => T::Less,
            (11, _) => T::LessOrEqual,
            (12, _) => T::LessSigned,
            (13, _) => T::LessOrEqualSigned,
            _ => return Err(self.unknown()),
        };
        Ok(Instruction::Branch {
            test,
            width,
            left: self.destination,
            right,
            target,
        })
    }

    fn call(self, at: usize) -> Result<Instruction> {
        let callee = match self.source.0 {
            0 => Callee::Helper(self.immediate),
            PSEUDO_CALL => Callee::Function((at + 1).wrapping_add_signed(self.immediate as isize)),
            _ => bail!("calls a kernel function, which nothing here can stand in for"),
        };
        Ok(Instruction::Call(callee))
    }

    fn atomic(self) -> Result<Instruction> {
        let (kind, fetch) = match self.immediate {
            0xe1 => (Atomic::Exchange, true),
            0xf1 => (Atomic::CompareExchange, true),
            immediate => {
                let kind = match immediate & !FETCH {
                    0x00 => Atomic::Add,
                    0x40 => Atomic::Or,
                    0x50 => Atomic::And,
                    0xa0 => Atomic::Xor,
                    _ => return Err(self.unknown()),
                };
                (kind, immediate & FETCH != 0)
            }
        };
        Ok(Instruction::Atomic {
            kind,
            fetch,
            bytes: self.bytes(),
            at: self.place(self.destination),
            operand: self.source,
        })
    }

    fn store(self, value: Operand) -> Instruction {
        Instruction::Store {
            bytes: self.bytes(),
            to: self.place(self.destination),
            value,
        }
    }

    fn place(self, base: Register) -> Place {
        Place {
            base,
            offset: self.offset,
        }
    }

    fn mode(self) -> u8 {
        self.code & 0xe0
    }

    fn bytes(self) -> usize {
        [4, 2, 1, 8][usize::from(self.code >> 3 & 3)]
    }

    fn unknown(self) -> Error {
        anyhow!(
            "is no instruction of BPF CPU v3 (code {:#04x}, offset {}, immediate {})",
            self.code,
            self.offset,
            self.immediate
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: [u8; SLOT_BYTES]) -> Result<Instruction> {
        Slot::new(bytes).decode(10)
    }

    #[test]
    fn fields_are_where_the_standard_puts_them() {
        let place = |base, offset| Place {
            base: Register(base),
            offset,
        };
        let cases = [
            (
                "w1 = -2",
                [0xb4, 0x01, 0, 0, 0xfe, 0xff, 0xff, 0xff],
                Instruction::Arithmetic {
                    kind: Arithmetic::Move,
                    width: Width::Half,
                    destination: Register(1),
                    operand: Operand::Constant(-2),
                },
            ),
            (
                "r2 = *(u16 *)(r9 - 4)",
                [0x69, 0x92, 0xfc, 0xff, 0, 0, 0, 0],
                Instruction::Load {
                    bytes: 2,
                    destination: Register(2),
                    from: place(9, -4),
                },
            ),
            (
                "*(u64 *)(r10 - 8) = r3",
                [0x7b, 0x3a, 0xf8, 0xff, 0, 0, 0, 0],
                Instruction::Store {
                    bytes: 8,
                    to: place(10, -8),
                    value: Operand::Register(Register(3)),
                },
            ),
            (
                "if w4 s<= w5 goto +2, in slot 10",
                [0xde, 0x54, 2, 0, 0, 0, 0, 0],
                Instruction::Branch {
                    test: Test::LessOrEqualSigned,
                    width: Width::Half,
                    left: Register(4),
                    right: Operand::Register(Register(5)),
                    target: 13,
                },
            ),
            (
                "call of a function three slots back",
                [0x85, 0x10, 0, 0, 0xfc, 0xff, 0xff, 0xff],
                Instruction::Call(Callee::Function(7)),
            ),
        ];
        for (description, bytes, expected) in cases {
            assert_eq!(decode(bytes).unwrap(), expected, "{description}");
        }
    }

    #[test]
    fn what_is_not_of_cpu_v3_is_refused() {
        let unknown = "is no instruction of BPF CPU v3";
        let cases = [
            ("signed division", [0x3f, 0x21, 1, 0, 0, 0, 0, 0], unknown),
            (
                "sign-extending move",
                [0xbf, 0x21, 8, 0, 0, 0, 0, 0],
                unknown,
            ),
            (
                "unconditional byte swap",
                [0xd7, 0x01, 0, 0, 16, 0, 0, 0],
                unknown,
            ),
            (
                "sign-extending load",
                [0x91, 0x21, 0, 0, 0, 0, 0, 0],
                unknown,
            ),
            ("long jump", [0x06, 0, 0, 0, 1, 0, 0, 0], unknown),
            ("legacy packet access", [0x30, 0, 0, 0, 0, 0, 0, 0], unknown),
            ("unknown atomic", [0xdb, 0x21, 0, 0, 0x20, 0, 0, 0], unknown),
            (
                "register 11",
                [0xb7, 0x0b, 0, 0, 0, 0, 0, 0],
                "names a register beyond r10",
            ),
            (
                "kernel function",
                [0x85, 0x20, 0, 0, 1, 0, 0, 0],
                "calls a kernel function",
            ),
        ];
        for (description, bytes, expected) in cases {
            let error = decode(bytes).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{description}: {error}");
        }
    }
}
