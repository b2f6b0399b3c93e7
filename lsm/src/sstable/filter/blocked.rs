//! A blocked bloom filter: each key sets bits of one cache line alone, so that
//! asking costs one miss of the processor's cache (Putze, Sanders, Singler:
//! Cache-, Hash- and Space-Efficient Bloom Filters, section 3).
//!
//! ```text
//! SIZE    FIELD
//! 1       probes: bits that a key sets, 1 to 7
//! 64 * n  lines: bit b of a line is bit b % 8 of its byte b / 8; n at least 1
//! ```
//!
//! Of the 64-bit hash the upper half chooses the line, multiplied by n and cut
//! off; the hash times an odd constant gives nine bits for each probe, from
//! the lowest on.
//!
//! Ten bits and six probes a key give a false alarm in about 90 misses: lines
//! fill unevenly, which costs a little of what a filter in one piece keeps out.

use crate::error::Damage;

const LINE_BYTES: usize = 64;
const LINE_BITS: usize = LINE_BYTES * 8;
const WORDS: usize = LINE_BYTES / 8;
/// Bits of a hash that choose a bit of a line.
const PROBE_BITS: usize = 9;
const _: () = assert!(1 << PROBE_BITS == LINE_BITS);
const PROBES_MAX: usize = 64 / PROBE_BITS;
const BITS_PER_KEY: usize = 10;
/// For ten bits a key; the optimum of an unblocked filter would be seven.
const PROBES: u8 = 6;
/// The golden ratio's bits: makes probes that have little to do with the line. Part of the format.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// A cache line, aligned as one.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Line([u64; WORDS]);
const _: () = assert!(size_of::<Line>() == LINE_BYTES);

/// A filter over 64-bit hashes.
#[derive(Debug)]
pub(crate) struct BlockedBloom {
    probes: u8,
    lines: Box<[Line]>,
}

impl BlockedBloom {
    /// The filter over `hashes`.
    pub(crate) fn new(hashes: &[u64]) -> Self {
        let lines = (hashes.len() * BITS_PER_KEY).div_ceil(LINE_BITS).max(1);
        let mut bloom = Self { probes: PROBES, lines: vec![Line::default(); lines].into() };
        for hash in hashes {
            let line = bloom.line(*hash);
            for (word, bit) in bits(PROBES, *hash) {
                bloom.lines[line].0[word] |= bit;
            }
        }
        bloom
    }

    /// Whether `hash` may be among those that the filter was made of.
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        let line = &self.lines[self.line(hash)].0;
        // Without a branch a bit: a mispredicted one costs as much as all of them.
        bits(self.probes, hash).fold(true, |all, (word, bit)| all & (line[word] & bit != 0))
    }

    fn line(&self, hash: u64) -> usize {
        let line = (u128::from(hash) * self.lines.len() as u128) >> 64;
        usize::try_from(line).expect("it is below the number of lines")
    }

    /// The filter's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.bytes());
        bytes.push(self.probes);
        bytes.extend(self.lines.iter().flat_map(|line| line.0).flat_map(u64::to_le_bytes));
        bytes
    }

    /// The filter in `bytes`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let Some((&probes, bytes)) = bytes.split_first() else {
            return Err(Damage("a blocked bloom filter is empty"));
        };
        let (lines, rest) = bytes.as_chunks::<LINE_BYTES>();
        if !(1..=PROBES_MAX).contains(&usize::from(probes)) || lines.is_empty() || !rest.is_empty() {
            return Err(Damage("a blocked bloom filter has another size or number of probes"));
        }
        let word = |line: &[u8; LINE_BYTES], at: usize| {
            let (words, _) = line.as_chunks::<8>();
            u64::from_le_bytes(words[at])
        };
        let lines = lines.iter().map(|line| Line(std::array::from_fn(|at| word(line, at)))).collect();
        Ok(Self { probes, lines })
    }

    /// Bytes of its lines.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }
}

/// The word of the line and the bit of the word of each probe.
fn bits(probes: u8, hash: u64) -> impl Iterator<Item = (usize, u64)> {
    let spread = hash.wrapping_mul(SPREAD);
    (0..probes).map(move |probe| {
        let [low, high, ..] = (spread >> (usize::from(probe) * PROBE_BITS)).to_le_bytes();
        let bit = usize::from(u16::from_le_bytes([low, high])) % LINE_BITS;
        (bit / 64, 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sstable::testing::Random;

    #[test]
    fn it_hides_no_hash_and_few_others_pass_however_many_there_are() {
        for count in [1, 50, 1_000, 100_000] {
            let mut random = Random::new(count);
            let hashes: Vec<_> = (0..count).map(|_| random.number()).collect();
            let bloom = BlockedBloom::decode(&BlockedBloom::new(&hashes).encode()).unwrap();
            assert!(hashes.iter().all(|hash| bloom.may_contain(*hash)));
            let false_alarms = (0..100_000).filter(|_| bloom.may_contain(random.number())).count();
            assert!(false_alarms < 1_400, "{false_alarms} of {count}");
        }
    }

    #[test]
    fn bytes_are_the_probes_and_the_lines() {
        let mut bytes = BlockedBloom::new(&[0x0123_4567_89ab_cdef]).encode();
        assert_eq!(bytes.len(), 65);
        assert_eq!(bytes[0], 6);
        let set: Vec<_> = (0..512).filter(|bit| bytes[1 + bit / 8] & (1 << (bit % 8)) != 0).collect();
        assert_eq!(set, [123, 155, 157, 187, 212, 243]);
        for forged in [0, 8] {
            bytes[0] = forged;
            assert!(BlockedBloom::decode(&bytes).is_err());
        }
        for len in [0, 1, 64, 66, 128] {
            assert!(BlockedBloom::decode(&vec![6; len]).is_err(), "{len}");
        }
    }
}
