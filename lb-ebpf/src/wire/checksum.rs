//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// Sum of the sixteen-bit words of `bytes`, not yet folded. `N` must be even and small enough
/// for the sum to fit (at most 128 KiB); headers are.
#[inline(always)]
pub fn words<const N: usize>(bytes: [u8; N]) -> u32 {
    const { assert!(N.is_multiple_of(2) && N <= 1 << 16) };
    let mut sum = 0;
    let mut at = 0;
    while at < N {
        sum += u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        at += 2;
    }
    sum
}

/// Folds a sum to sixteen bits with end-around carry (RFC 1071, 4.1).
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    // The first addition may itself carry once.
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum after one word of what it covers changed from `old` to `new` (RFC 1624,
/// equation 3).
#[inline(always)]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u32 + !old as u32 + new as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_1624_holds() {
        // Section 4: HC 0xDD2F, a word goes from 0x5555 to 0x3285; equation 3 gives 0x0000.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn an_update_equals_a_new_sum(
            mut bytes in any::<[u8; 20]>(), word in 0usize..10, new in any::<u16>()
        ) {
            let before = !fold(words(bytes));
            let old = u16::from_be_bytes([bytes[2 * word], bytes[2 * word + 1]]);
            bytes[2 * word..2 * word + 2].copy_from_slice(&new.to_be_bytes());
            let after = !fold(words(bytes));
            let updated = update(before, old, new);
            // All zeros and all ones both stand for zero; a receiver accepts either.
            prop_assert!(updated == after || (updated | after) == 0xffff && (updated & after) == 0);
        }
    }
}
