//! What BPF computes and compares (RFC 9669, 4). Pure functions of the operands.
use super::instruction::{Arithmetic, Test, Width};

/// `left OPERATOR right`, zero-extended when it is of half width.
pub(super) fn compute(kind: Arithmetic, width: Width, left: u64, right: u64) -> u64 {
    match width {
        Width::Half => u64::from(compute_half(kind, left as u32, right as u32)),
        Width::Full => compute_full(kind, left, right),
    }
}

macro_rules! compute {
    ($name:ident, $word:ty, $signed:ty) => {
        /// Division by 0 gives 0, the rest of it the dividend; shifts count modulo the width.
        fn $name(kind: Arithmetic, left: $word, right: $word) -> $word {
            match kind {
                Arithmetic::Add => left.wrapping_add(right),
                Arithmetic::Subtract => left.wrapping_sub(right),
                Arithmetic::Multiply => left.wrapping_mul(right),
                Arithmetic::Divide => left.checked_div(right).unwrap_or(0),
                Arithmetic::Or => left | right,
                Arithmetic::And => left & right,
                Arithmetic::ShiftLeft => left.wrapping_shl(right as u32),
                Arithmetic::ShiftRight => left.wrapping_shr(right as u32),
                Arithmetic::Negate => left.wrapping_neg(),
                Arithmetic::Modulo => left.checked_rem(right).unwrap_or(left),
                Arithmetic::Xor => left ^ right,
                Arithmetic::Move => right,
                Arithmetic::ShiftRightSigned => {
                    (left as $signed).wrapping_shr(right as u32) as $word
                }
            }
        }
    };
}
compute!(compute_half, u32, i32);
compute!(compute_full, u64, i64);

/// Whether a conditional jump is taken.
pub(super) fn holds(test: Test, width: Width, left: u64, right: u64) -> bool {
    let (left, right, signed_left, signed_right) = match width {
        Width::Half => {
            let (left, right) = (left as u32, right as u32);
            let signed = [left, right].map(|number| i64::from(number as i32));
            (u64::from(left), u64::from(right), signed[0], signed[1])
        }
        Width::Full => (left, right, left as i64, right as i64),
    };
    match test {
        Test::Equal => left == right,
        Test::NotEqual => left != right,
        Test::AnyBit => left & right != 0,
        Test::Greater => left > right,
        Test::GreaterOrEqual => left >= right,
        Test::Less => left < right,
        Test::LessOrEqual => left <= right,
        Test::GreaterSigned => signed_left > signed_right,
        Test::GreaterOrEqualSigned => signed_left >= signed_right,
        Test::LessSigned => signed_left < signed_right,
        Test::LessOrEqualSigned => signed_left <= signed_right,
    }
}

/// The lower `bits` of `number`, in big-endian order if `swap`. The machine is little-endian.
pub(super) fn in_order(swap: bool, bits: u32, number: u64) -> u64 {
    match (swap, bits) {
        (false, 16) => u64::from(number as u16),
        (false, 32) => u64::from(number as u32),
        (true, 16) => u64::from((number as u16).swap_bytes()),
        (true, 32) => u64::from((number as u32).swap_bytes()),
        (true, _) => number.swap_bytes(),
        (false, _) => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: u64 = 1 << 63;

    #[test]
    fn arithmetic() {
        use Arithmetic as A;
        use Width::{Full, Half};
        let cases = [
            (A::Add, Full, u64::MAX, 2, 1),
            (A::Add, Half, 0xffff_ffff, 2, 1),
            (A::Subtract, Half, 0, 1, 0xffff_ffff),
            (A::Multiply, Full, 1 << 40, 1 << 30, 0),
            (A::Divide, Full, 7, 2, 3),
            (A::Divide, Full, 7, 0, 0),
            (A::Divide, Half, 7, 1 << 32, 0),
            (A::Modulo, Full, 7, 4, 3),
            (A::Modulo, Full, 7, 0, 7),
            (A::Modulo, Half, 0xa_0000_0007, 0, 7),
            (A::ShiftLeft, Full, 1, 65, 2),
            (A::ShiftLeft, Half, 1, 33, 2),
            (A::ShiftRight, Full, TOP, 63, 1),
            (A::ShiftRightSigned, Full, TOP, 63, u64::MAX),
            (A::ShiftRightSigned, Half, 0x8000_0000, 31, 0xffff_ffff),
            (A::Negate, Half, 1, 0, 0xffff_ffff),
            (A::Move, Half, 5, u64::MAX, 0xffff_ffff),
            (A::Or, Full, 0b1100, 0b1010, 0b1110),
            (A::And, Full, 0b1100, 0b1010, 0b1000),
            (A::Xor, Full, 0b1100, 0b1010, 0b0110),
        ];
        for (kind, width, left, right, expected) in cases {
            let found = compute(kind, width, left, right);
            assert_eq!(found, expected, "{kind:?} {width:?} {left:#x} {right:#x}");
        }
    }

    #[test]
    fn comparisons() {
        use Test as T;
        use Width::{Full, Half};
        let cases = [
            (T::Equal, Half, 0x1_0000_0005, 5, true),
            (T::Equal, Full, 0x1_0000_0005, 5, false),
            (T::NotEqual, Full, 1, 2, true),
            (T::AnyBit, Full, 0b110, 0b010, true),
            (T::AnyBit, Full, 0b110, 0b001, false),
            (T::Greater, Full, u64::MAX, 0, true),
            (T::GreaterSigned, Full, u64::MAX, 0, false),
            (T::LessSigned, Half, 0xffff_ffff, 0, true),
            (T::LessSigned, Full, 0xffff_ffff, 0, false),
            (T::Less, Full, 1, 2, true),
            (T::LessOrEqual, Full, 2, 2, true),
            (T::LessOrEqualSigned, Full, TOP, 0, true),
            (T::GreaterOrEqual, Full, 2, 2, true),
            (T::GreaterOrEqualSigned, Full, TOP, 0, false),
        ];
        for (test, width, left, right, expected) in cases {
            let found = holds(test, width, left, right);
            assert_eq!(found, expected, "{test:?} {width:?} {left:#x} {right:#x}");
        }
    }

    #[test]
    fn byte_orders() {
        let number = 0x0102_0304_0506_0708;
        let cases = [
            (true, 16, 0x0807),
            (true, 32, 0x0807_0605),
            (true, 64, 0x0807_0605_0403_0201),
            (false, 16, 0x0708),
            (false, 32, 0x0506_0708),
            (false, 64, number),
        ];
        for (swap, bits, expected) in cases {
            assert_eq!(in_order(swap, bits, number), expected, "{swap} {bits}");
        }
    }
}
