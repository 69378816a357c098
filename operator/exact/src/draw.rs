//! Randomness that anybody can compute at any place: a value is a function of seed, step and index, never of what was
//! drawn before.

use alloy_primitives::{B256, U256, keccak256};

/// Philox 4x32-10: four words for a counter under a key (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
/// SC 2011). The known answers in the tests are those of the authors' Random123.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let first = MULTIPLIERS[0] * u64::from(counter[0]);
        let second = MULTIPLIERS[1] * u64::from(counter[2]);
        counter = [high(second) ^ counter[1] ^ key[0], low(second), high(first) ^ counter[3] ^ key[1], low(first)];
    }
    counter
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

fn low(word: u64) -> u32 {
    word as u32
}

/// The operator `random`: the highest `bits` of a word. The key is the seed's first eight bytes, big-endian; the counter
/// holds the block of four that the index is in (low word, high word), the step and the stream.
pub fn uniform(seed: &B256, stream: u32, step: u32, index: u64, bits: u8) -> i64 {
    let word = |at: usize| u32::from_be_bytes([seed[at], seed[at + 1], seed[at + 2], seed[at + 3]]);
    let block = index / 4;
    let words = philox([low(block), high(block), step, stream], [word(0), word(4)]);
    let which = usize::try_from(index % 4).unwrap_or(0);
    i64::from(words[which]) >> (32 - u32::from(bits))
}

/// The operator `sample`: which of `rows` is the j-th of a step, with replacement. keccak-256 of seed, step and j, each
/// in 32 bytes, modulo `rows`.
pub fn row(seed: &B256, step: u32, j: u64, rows: u64) -> i64 {
    let mut bytes = [0; 96];
    bytes[..32].copy_from_slice(seed.as_slice());
    bytes[32..64].copy_from_slice(&U256::from(step).to_be_bytes::<32>());
    bytes[64..].copy_from_slice(&U256::from(j).to_be_bytes::<32>());
    let drawn = U256::from_be_bytes(keccak256(bytes).0) % U256::from(rows);
    i64::try_from(drawn).unwrap_or(0) // below rows, which are fewer than 2^52
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8])]
    #[case([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd])]
    #[case([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0],
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1])]
    fn known_answers_of_philox(#[case] counter: [u32; 4], #[case] key: [u32; 2], #[case] expected: [u32; 4]) {
        assert_eq!(philox(counter, key), expected);
    }

    #[test]
    fn values_depend_on_all_that_they_are_drawn_from_and_on_nothing_else() {
        let seed = B256::repeat_byte(7);
        let one = uniform(&seed, 1, 2, 5, 16);
        assert_eq!(one, uniform(&seed, 1, 2, 5, 16));
        let others = [
            uniform(&B256::repeat_byte(8), 1, 2, 5, 16),
            uniform(&seed, 2, 2, 5, 16),
            uniform(&seed, 1, 3, 5, 16),
            uniform(&seed, 1, 2, 6, 16),
            uniform(&seed, 1, 2, 5 + (1 << 34), 16),
        ];
        assert!(others.iter().all(|other| *other != one), "{one} {others:?}");
    }

    #[test]
    fn uniform_fills_its_range_evenly() {
        let seed = B256::repeat_byte(1);
        let drawn: Vec<i64> = (0..4096).map(|index| uniform(&seed, 0, 0, index, 3)).collect();
        for value in 0..8 {
            let share = drawn.iter().filter(|other| **other == value).count();
            assert!((400..640).contains(&share), "{value} was drawn {share} times of 4096");
        }
        assert!((0..64).all(|index| uniform(&seed, 0, 0, index, 32) >= 0));
    }

    #[test]
    fn rows_are_drawn_from_all_rows() {
        let seed = B256::repeat_byte(3);
        let drawn: Vec<i64> = (0..2_000).map(|j| row(&seed, 9, j, 10)).collect();
        for value in 0..10 {
            let share = drawn.iter().filter(|other| **other == value).count();
            assert!((140..260).contains(&share), "{value} was drawn {share} times of 2000");
        }
        assert_ne!(drawn[..50], (0..50).map(|j| row(&seed, 10, j, 10)).collect::<Vec<_>>()[..]);
    }
}
