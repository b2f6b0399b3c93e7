//! Where a history's choices come from: a seed, or the bytes of a fuzzer.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// A source of small numbers.
pub enum Choices<'a> {
    /// As many as are asked for.
    Seeded(SmallRng),
    /// One byte or two each, then zeros.
    Bytes(&'a [u8]),
}

impl Choices<'_> {
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(SmallRng::seed_from_u64(seed))
    }

    /// Whether there are no more bytes to choose from.
    pub fn are_spent(&self) -> bool {
        matches!(self, Self::Bytes(bytes) if bytes.is_empty())
    }

    /// A number below `bound`, which is at least 1 and at most 65536.
    pub fn below(&mut self, bound: usize) -> usize {
        match self {
            Self::Seeded(random) => random.random_range(0..bound),
            Self::Bytes(bytes) => {
                let width = if bound > 256 { 2 } else { 1 };
                let (taken, rest) = bytes.split_at(width.min(bytes.len()));
                *bytes = rest;
                taken.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)) % bound
            }
        }
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn one_of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
