//! One BPF instruction, decoded (RFC 9669, CPU v3 and below) and written the way `llvm-objdump` does.
use std::fmt;

pub(super) use self::decode::Slot;

mod decode;

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
