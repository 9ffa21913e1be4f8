//! One BPF instruction, decoded (RFC 9669, CPU v3 and below) and written the way `llvm-objdump` does.
use std::fmt;

use anyhow::{Context, Result, bail};

/// Bytes of an encoded instruction; a 64-bit constant takes two of these slots.
pub(super) const SLOT_BYTES: usize = 8;

/// A register: `r0` result, `r1` to `r5` arguments, `r6` to `r9` kept by calls, `r10` stack frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register(pub(super) u8);

/// How many bits an operation works on. The upper half of a 32-bit result is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// The lower half of the registers.
    Half,
    /// All 64 bits.
    Full,
}

/// The right side of an operation. Constants are sign-extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Register(Register),
    Constant(i32),
}

/// What an arithmetic instruction does. The order is that of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Or,
    And,
    ShiftLeft,
    ShiftRight,
    Negate,
    Modulo,
    Xor,
    Move,
    ShiftRightSigned,
}

/// What a conditional jump asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
    NotEqual,
    GreaterSigned,
    GreaterOrEqualSigned,
    Less,
    LessOrEqual,
    LessSigned,
    LessOrEqualSigned,
}

/// What an atomic instruction does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Atomic {
    Add,
    Or,
    And,
    Xor,
    Exchange,
    /// Compares with `r0`, and leaves there what was found.
    CompareExchange,
}

/// An address in a register plus an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) base: Register,
    pub(super) offset: i16,
}

/// What a 64-bit constant stands for once the object is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    Number(u64),
    /// A map, by its index in the object.
    Map(usize),
    /// A byte of a data section: the section's index in the object, and the offset in it.
    Global {
        section: usize,
        offset: u64,
    },
}

/// Who is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callee {
    /// A function of the object, by the slot where it begins.
    Function(usize),
    /// A helper of the kernel, by its number (`include/uapi/linux/bpf.h`).
    Helper(i32),
}

/// An instruction. Jump targets are slots of the object's code, counted from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    Arithmetic {
        kind: Arithmetic,
        width: Width,
        destination: Register,
        operand: Operand,
    },
    /// Keeps the lower `bits`, in big-endian order if `swap`.
    ByteOrder {
        swap: bool,
        bits: u32,
        register: Register,
    },
    Jump {
        target: usize,
    },
    Branch {
        test: Test,
        width: Width,
        left: Register,
        right: Operand,
        target: usize,
    },
    Load {
        bytes: usize,
        destination: Register,
        from: Place,
    },
    Store {
        bytes: usize,
        to: Place,
        value: Operand,
    },
    Atomic {
        kind: Atomic,
        /// Leaves in `operand` what was found.
        fetch: bool,
        bytes: usize,
        at: Place,
        operand: Register,
    },
    Constant {
        destination: Register,
        value: Constant,
    },
    Call(Callee),
    Exit,
    /// The second slot of a 64-bit constant: no instruction of its own.
    Rest,
}

/// The fields of an encoded instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) code: u8,
    pub(super) destination: Register,
    pub(super) source: Register,
    pub(super) offset: i16,
    pub(super) immediate: i32,
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
    pub(super) fn new(bytes: [u8; SLOT_BYTES]) -> Self {
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
    pub(super) fn is_wide(self) -> bool {
        self.code == LD | IMM | 0x18
    }

    /// True for a call of a function of the object, which may be subject to relocation.
    pub(super) fn is_local_call(self) -> bool {
        self.code == JMP | 0x80 && self.source.0 == PSEUDO_CALL
    }

    /// The instruction in slot `at`; constants of two slots are the caller's.
    pub(super) fn decode(self, at: usize) -> Result<Instruction> {
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

    fn unknown(self) -> anyhow::Error {
        anyhow::anyhow!(
            "is no instruction of BPF CPU v3 (code {:#04x}, offset {}, immediate {})",
            self.code,
            self.offset,
            self.immediate
        )
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.offset < 0 { '-' } else { '+' };
        write!(f, "{} {sign} {}", self.base, self.offset.unsigned_abs())
    }
}

impl Width {
    /// The name of a register at this width.
    pub(super) fn name(self, register: Register) -> String {
        let letter = match self {
            Self::Half => 'w',
            Self::Full => 'r',
        };
        format!("{letter}{}", register.0)
    }

    /// The name of an operand at this width.
    pub(super) fn operand(self, operand: Operand) -> String {
        match operand {
            Operand::Register(register) => self.name(register),
            Operand::Constant(number) => number.to_string(),
        }
    }
}

impl Arithmetic {
    /// The operator, for an assignment `a OPERATOR b`; a negation has none.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+=",
            Self::Subtract => "-=",
            Self::Multiply => "*=",
            Self::Divide => "/=",
            Self::Or => "|=",
            Self::And => "&=",
            Self::ShiftLeft => "<<=",
            Self::ShiftRight => ">>=",
            Self::Negate => "= -",
            Self::Modulo => "%=",
            Self::Xor => "^=",
            Self::Move => "=",
            Self::ShiftRightSigned => "s>>=",
        }
    }
}

impl Test {
    /// The operator, `s` in front of a signed one.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::AnyBit => "&",
            Self::NotEqual => "!=",
            Self::GreaterSigned => "s>",
            Self::GreaterOrEqualSigned => "s>=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::LessSigned => "s<",
            Self::LessOrEqualSigned => "s<=",
        }
    }
}

impl Atomic {
    /// Name in listings.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Or => "or",
            Self::And => "and",
            Self::Xor => "xor",
            Self::Exchange => "exchange",
            Self::CompareExchange => "compare_exchange",
        }
    }
}
