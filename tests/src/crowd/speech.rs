//! What a connection says: a stream of pseudo-random bytes of its own, cut into messages.

/// Lengths of messages in bytes, one of which is chosen each time: a keystroke, a request, most of a
/// segment, and several segments.
const LENGTHS: [usize; 4] = [1, 200, 1200, 4000];

/// The stream of one connection. Generator: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014, figure 16),
/// whose states never repeat within 2^64 steps.
#[derive(Debug)]
pub(super) struct Speech {
    state: u64,
    message: Vec<u8>,
    said: u64,
}

impl Speech {
    /// The stream number `seed`: another one begins elsewhere in the cycle.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(0xd134_2543_de82_ef95),
            message: Vec::new(),
            said: 0,
        }
    }

    /// The next message.
    pub(super) fn message(&mut self) -> &[u8] {
        let length = LENGTHS[(self.word() % LENGTHS.len() as u64) as usize];
        self.message.clear();
        while self.message.len() < length {
            let word = self.word().to_le_bytes();
            self.message.extend(word);
        }
        self.message.truncate(length);
        self.said += length as u64;
        &self.message
    }

    /// Bytes in all messages so far.
    pub(super) fn said(&self) -> u64 {
        self.said
    }

    /// A number from 0 to 1.
    pub(super) fn fraction(&mut self) -> f64 {
        self.word() as f64 / u64::MAX as f64
    }

    fn word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // First outputs for seed 1234567, as the reference implementation in C prints them.
        let mut speech = Speech::new(0);
        speech.state = 1_234_567;
        let words = [speech.word(), speech.word(), speech.word()];
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn no_two_streams_and_no_two_places_are_alike() {
        let stream = |seed| {
            let mut speech = Speech::new(seed);
            let mut all = Vec::new();
            while all.len() < 8000 {
                all.extend(speech.message());
            }
            assert_eq!(speech.said(), all.len() as u64);
            all
        };
        let mut windows: Vec<Vec<u8>> = (0..20)
            .flat_map(|seed| {
                let windows: Vec<_> = stream(seed).windows(8).map(Vec::from).collect();
                windows
            })
            .collect();
        let all = windows.len();
        windows.sort_unstable();
        windows.dedup();
        assert_eq!(windows.len(), all);
    }
}
