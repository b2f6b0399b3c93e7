//! Digests of sorted keys, to be searched in place of the keys.
//!
//! A binary search over the entries of an index block goes from one end of it
//! to the other, and each key it looks at costs two misses of the processor's
//! cache, for its offset and for itself. Eight bytes a key, side by side, are
//! an eighth of that, and settle all but a tie: the bytes behind what all keys
//! have in common, as a number that orders as they do.

use std::ops::Range;

use super::block_builder::shared_prefix;

/// Digests of keys that ascend.
#[derive(Debug)]
pub(crate) struct KeyDigests {
    /// What all keys begin with.
    prefix: Box<[u8]>,
    digests: Box<[u64]>,
}

impl KeyDigests {
    /// Memory that each key takes here.
    pub(crate) const BYTES_PER_KEY: usize = size_of::<u64>();

    /// The digests of `keys`, which ascend; for others, [`KeyDigests::candidates`] may be any.
    pub(crate) fn new<'a>(keys: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        // What the first and the last one share, all between them do.
        let prefix = match (keys.clone().next(), keys.clone().last()) {
            (Some(first), Some(last)) => &first[..shared_prefix(first, last)],
            _ => &[],
        };
        let digest_of = |key: &[u8]| digest(key.get(prefix.len()..).unwrap_or_default());
        Self { prefix: prefix.into(), digests: keys.map(digest_of).collect() }
    }

    /// Keys before this range are before `key`, and those behind it are behind it.
    pub(crate) fn candidates(&self, key: &[u8]) -> Range<usize> {
        let shared = key.len().min(self.prefix.len());
        let (head, rest) = key.split_at(shared);
        match head.cmp(&self.prefix[..shared]) {
            std::cmp::Ordering::Less => return 0..0,
            std::cmp::Ordering::Greater => return self.digests.len()..self.digests.len(),
            std::cmp::Ordering::Equal if shared < self.prefix.len() => return 0..0,
            std::cmp::Ordering::Equal => {}
        }
        let sought = digest(rest);
        let start = self.digests.partition_point(|digest| *digest < sought);
        let count = self.digests[start..].iter().take_while(|digest| **digest == sought).count();
        start..start + count
    }
}

/// The first eight bytes as a number; zeros stand for those that are not there, so that a tie says nothing.
fn digest(bytes: &[u8]) -> u64 {
    if let Some(bytes) = bytes.first_chunk() {
        return u64::from_be_bytes(*bytes);
    }
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(padded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sstable::testing::Random;

    #[test]
    fn what_is_no_candidate_is_on_its_side_of_the_key() {
        let mut random = Random::new(3);
        for round in 0..500 {
            let prefix = vec![b'p'; random.below(12)];
            let mut key = || {
                let len = random.below(12);
                let rest = (0..len).map(|_| b"\0\x01ap\xff"[random.below(5)]);
                prefix.iter().copied().chain(rest).collect::<Vec<u8>>()
            };
            let mut keys: Vec<_> = (0..round % 40).map(|_| key()).collect();
            keys.sort();
            let digests = KeyDigests::new(keys.iter().map(|key| &key[..]));
            for mut sought in (0..40).map(|_| key()) {
                if let Some(byte) = sought.get_mut(round % 7).filter(|_| round % 3 == 0) {
                    *byte ^= 1;
                }
                let candidates = digests.candidates(&sought);
                assert!(keys[..candidates.start].iter().all(|key| *key < sought));
                assert!(keys[candidates.end..].iter().all(|key| *key > sought));
            }
        }
    }
}
