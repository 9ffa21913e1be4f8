//! The keyed flow hash: SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF",
//! INDOCRYPT 2012, in the round numbers that Rust's and Python's hash tables use).
//!
//! A client that could predict the hash could choose its backend, so the hash is a keyed
//! pseudo-random function and the key is a secret of the deployment. What a VIP's flows have in
//! common (its address, port and protocol) is left out: it could not tell two of them apart. An
//! IPv4 flow is then six bytes, one block of SipHash.
//!
//! For a VIP of every port, the destination port is left out too: a client's connections to
//! different ports from one source port meet the same backend.

use crate::{
    abi::{HashKind, hash_kind},
    flow::{Family, Flow},
    flow_table, vip_table,
};

/// Hash of a flow under `key`, by the fields that `kind` names.
#[inline(always)]
pub fn flow(key: [u64; 2], flow: &Flow, kind: HashKind) -> u64 {
    // SipHash reads its input as little-endian words, the last of which ends in the input's length.
    let port = if kind == hash_kind::SOURCE {
        0
    } else {
        u16::from_le(flow.source_port)
    };
    let [first, second, third, fourth] = flow
        .source
        .words()
        .map(|word| u64::from(u32::from_le(word)));
    match flow.family {
        Family::V4 => sip::<1, 3>(key, [], fourth | u64::from(port) << 32, 6),
        Family::V6 => {
            let words = [first | second << 32, third | fourth << 32];
            sip::<1, 3>(key, words, u64::from(port), 18)
        }
    }
}

/// Fingerprint of a flow whose hash is `hash`, for the [flow table](crate::flow_table): with what the
/// hash leaves out, so that no two flows share it but by chance.
///
/// The hash is the secret half. What is mixed in needs no key: two flows that an attacker chooses
/// meet only if their hashes differ by what he knows, and he does not know the hashes.
#[inline(always)]
pub fn fingerprint(hash: u64, flow: &Flow) -> u64 {
    let ports = u64::from(flow.destination_port) << 16 | u64::from(flow.source_port);
    let rest = u64::from(flow.protocol) << 32 | ports;
    (hash ^ vip_table::mix(flow.destination, rest)).max(flow_table::FINGERPRINT_MIN)
}

/// Slot of a ring of `size` slots that `hash` falls into: its high half scaled by
/// multiply-and-shift, which needs no division (Lemire, "Fast random integer generation in an
/// interval", 2019).
#[inline(always)]
pub const fn slot(hash: u64, size: u32) -> u32 {
    (((hash >> 32) * size as u64) >> 32) as u32
}

/// SipHash with `C` compression and `D` finalisation rounds over whole little-endian `words`,
/// then a `tail` of up to seven bytes in the low end of a word; `len` is the length of all, in
/// bytes.
#[inline(always)]
fn sip<const C: usize, const D: usize>(
    key: [u64; 2],
    words: impl IntoIterator<Item = u64>,
    tail: u64,
    len: u8,
) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    for word in words {
        absorb::<C>(&mut state, word);
    }
    absorb::<C>(&mut state, tail | u64::from(len) << 56);
    state[2] ^= 0xff;
    for _ in 0..D {
        round(&mut state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

#[inline(always)]
fn absorb<const C: usize>(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    for _ in 0..C {
        round(state);
    }
    state[0] ^= word;
}

#[inline(always)]
fn round([v0, v1, v2, v3]: &mut [u64; 4]) {
    *v0 = v0.wrapping_add(*v1);
    *v2 = v2.wrapping_add(*v3);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v1);
    *v0 = v0.wrapping_add(*v3);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.rotate_left(32);
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::hash::Hasher;
    use std::collections::hash_map::DefaultHasher;

    use super::*;
    use crate::address::Address;

    const ZERO: [u64; 2] = [0, 0];

    fn v4(source: [u8; 4], source_port: u16) -> Flow {
        Flow {
            family: Family::V4,
            source: Address::v4(source),
            destination: Address::v4([192, 0, 2, 1]),
            source_port: source_port.to_be(),
            destination_port: 80_u16.to_be(),
            protocol: 6,
        }
    }

    #[test]
    fn the_vector_of_the_paper_holds_for_two_and_four_rounds() {
        // Appendix A: key 00..0f, message 00..0e.
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let tail = 0x000e_0d0c_0b0a_0908;
        assert_eq!(
            sip::<2, 4>(key, [0x0706_0504_0302_0100], tail, 15),
            0xa129_ca61_49be_45e5
        );
    }

    #[test]
    fn one_and_three_rounds_equal_the_standard_library() {
        let mut hasher = DefaultHasher::new();
        hasher.write(&[192, 0, 2, 9, 0x12, 0x34]);
        assert_eq!(
            flow(ZERO, &v4([192, 0, 2, 9], 0x1234), hash_kind::FIVE_TUPLE),
            hasher.finish()
        );

        let address = core::array::from_fn(|index| index as u8);
        let v6 = Flow {
            family: Family::V6,
            source: Address::v6(address),
            ..v4([0; 4], 0x1234)
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(&address);
        hasher.write(&[0x12, 0x34]);
        assert_eq!(flow(ZERO, &v6, hash_kind::FIVE_TUPLE), hasher.finish());
    }

    #[test]
    fn source_affinity_ignores_the_port_and_the_key_changes_everything() {
        let first = v4([192, 0, 2, 9], 1);
        let second = v4([192, 0, 2, 9], 2);
        let by = |key, of: &Flow, kind| flow(key, of, kind);
        assert_eq!(
            by(ZERO, &first, hash_kind::SOURCE),
            by(ZERO, &second, hash_kind::SOURCE)
        );
        assert_ne!(
            by(ZERO, &first, hash_kind::FIVE_TUPLE),
            by(ZERO, &second, hash_kind::FIVE_TUPLE)
        );
        assert_ne!(
            by(ZERO, &first, hash_kind::FIVE_TUPLE),
            by([0, 1], &first, hash_kind::FIVE_TUPLE)
        );
    }

    #[test]
    fn flows_that_share_a_hash_have_fingerprints_of_their_own() {
        let one = v4([192, 0, 2, 9], 1);
        let others = [
            v4([192, 0, 2, 9], 2),
            Flow {
                destination_port: 443_u16.to_be(),
                ..one
            },
            Flow {
                destination: Address::v4([192, 0, 2, 2]),
                ..one
            },
            Flow {
                protocol: 17,
                ..one
            },
        ];
        assert_eq!(fingerprint(5, &one), fingerprint(5, &one));
        assert_ne!(fingerprint(5, &one), fingerprint(6, &one));
        for other in others {
            assert_ne!(fingerprint(5, &one), fingerprint(5, &other), "{other:?}");
        }
    }

    #[test]
    fn slots_cover_the_ring_and_stay_in_it() {
        assert_eq!(slot(0, 65_537), 0);
        assert_eq!(slot(u64::MAX, 65_537), 65_536);
        assert_eq!(slot(u64::MAX, 1), 0);
        assert_eq!(slot(1 << 63, 10), 5);
    }
}
