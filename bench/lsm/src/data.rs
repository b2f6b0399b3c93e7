//! Keys and values: what every side is given alike.

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub(crate) const KEY_BYTES: usize = 16;
pub(crate) const VALUE_BYTES: usize = 100;

pub(crate) type Key = [u8; KEY_BYTES];

/// The `i`th key: decimal digits, as db_bench writes them, in the order of `i`.
pub(crate) fn key(i: u32) -> Key {
    let mut key = [b'0'; KEY_BYTES];
    let mut rest = i;
    for digit in key[..KEY_BYTES - 1].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key[KEY_BYTES - 1] = b'.';
    key
}

/// A key that stands between the `i`th and the next, and is nowhere.
pub(crate) fn missing_key(i: u32) -> Key {
    let mut key = key(i);
    key[KEY_BYTES - 1] = b'x';
    key
}

/// What values are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ValueKind {
    /// The second half repeats the first.
    Half,
    /// Nothing repeats.
    Random,
}

/// Values, cut from one long piece as db_bench does.
pub(crate) struct Values {
    piece: Vec<u8>,
    at: usize,
}

impl Values {
    /// Far more than a compressor looks back.
    const PIECE_BYTES: usize = 1 << 20;

    pub(crate) fn new(kind: ValueKind, seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut piece = Vec::with_capacity(Self::PIECE_BYTES + VALUE_BYTES);
        let mut half = [0; VALUE_BYTES / 2];
        while piece.len() < Self::PIECE_BYTES {
            random.fill_bytes(&mut half);
            piece.extend_from_slice(&half);
            if kind == ValueKind::Random {
                random.fill_bytes(&mut half);
            }
            piece.extend_from_slice(&half);
        }
        Self { piece, at: 0 }
    }

    pub(crate) fn next(&mut self) -> &[u8] {
        if self.at + VALUE_BYTES > self.piece.len() {
            self.at = 0;
        }
        self.at += VALUE_BYTES;
        &self.piece[self.at - VALUE_BYTES..self.at]
    }
}

/// All numbers below `count`, once each, without order and without a table:
/// a permutation by a Feistel network over the next power of four, walked on
/// past what is too large.
pub(crate) struct Shuffled {
    count: u32,
    half_bits: u32,
    seed: u64,
}

impl Shuffled {
    pub(crate) fn new(count: u32, seed: u64) -> Self {
        let bits = u32::BITS - count.next_power_of_two().leading_zeros();
        Self { count, half_bits: bits.div_ceil(2), seed }
    }

    pub(crate) fn get(&self, i: u32) -> u32 {
        let mask = (1_u64 << self.half_bits) - 1;
        let mut at = u64::from(i);
        loop {
            let (mut left, mut right) = (at >> self.half_bits, at & mask);
            for round in 0..4 {
                let mixed = (right ^ self.seed.rotate_left(round * 16)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (left, right) = (right, left ^ (mixed >> 40 & mask));
            }
            at = left << self.half_bits | right;
            if at < u64::from(self.count) {
                return at as u32;
            }
        }
    }
}
