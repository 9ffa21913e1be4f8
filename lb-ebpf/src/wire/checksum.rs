//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// Sum of `words`, which hold bytes in the order of memory; not yet folded.
///
/// The sum of one's complements does not care for the order of bytes (RFC 1071, 2 B), nor for how
/// many of the sixteen-bit words are added at once.
#[inline(always)]
pub const fn words<const N: usize>(words: [u32; N]) -> u64 {
    let mut sum = 0;
    let mut at = 0;
    while at < N {
        sum += words[at] as u64;
        at += 1;
    }
    sum
}

/// Folds a sum to sixteen bits with end-around carry (RFC 1071, 4.1), in the byte order of what was
/// added.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    // Now at most 0x1_fffe + 1: two more carries are possible, one after the other.
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum after one word of what it covers changed from `old` to `new` (RFC 1624,
/// equation 3).
#[inline(always)]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u64 + !old as u64 + new as u64)
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
            mut header in any::<[u32; 5]>(), word in 0usize..5, new in any::<u16>()
        ) {
            let before = u16::from_be(!fold(words(header)));
            let old = u32::from_be(header[word]);
            header[word] = (old & 0xffff_0000 | u32::from(new)).to_be();
            let after = u16::from_be(!fold(words(header)));
            let old = old as u16;
            let updated = update(before, old, new);
            // All zeros and all ones both stand for zero; a receiver accepts either.
            prop_assert!(updated == after || (updated | after) == 0xffff && (updated & after) == 0);
        }
    }
}
