//! Bloom filters of a table: which filter keys it has, with few false alarms.
//!
//! What is hashed is the filter key of [`FilterKey`]: the whole user key, or
//! its beginning. A key is hashed once with xxh3, and `bloomfilter` gets that
//! hash: one caller shows one [`FilterHash`] to many tables. A filter is cut
//! into partitions of at most [`PARTITION_KEYS_MAX`] keys, which bounds what
//! writing one holds in memory.
//!
//! Filters know point entries only. Range tombstones are never asked through
//! them.
//!
//! The partitions are blocks, stored raw. Those of kind 1 are what
//! `bloomfilter` 3 serializes: a version byte, the bitmap's length (u64), the
//! number of hashes (u32), the seed (32 bytes) and the bitmap. Those of kind 2
//! are described in `blocked.rs`. The filter index is a block, too:
//!
//! ```text
//! SIZE    FIELD
//! 1       filter kind: 1 bloom, 2 blocked bloom, over the xxh3 of the filter key
//! varint  number of partitions
//!         each partition, ascending:
//! varint  length of the greatest filter key in it
//! ...     that key
//! varint  offset of its block
//! varint  stored bytes of its block
//! ```
//!
//! Ten bits and seven hashes a key give a false alarm in about 120 misses.

mod blocked;

use bloomfilter::Bloom;
use twox_hash::XxHash3_64;

use self::blocked::BlockedBloom;
use super::format::BlockHandle;
use crate::error::Damage;
use crate::varint;
use crate::{FilterKey, FilterKind};

/// The most filter keys in a partition.
pub(crate) const PARTITION_KEYS_MAX: usize = 100_000;
const BITS_PER_KEY: usize = 10;
const HASH_COUNT_MAX: u32 = 30;
/// Of `bloomfilter`'s two SipHashes. Part of the format.
const SEED: [u8; 32] = *b"Hayloft SSTable bloom filter v1.";
/// Of the xxh3 of a key. Part of the format.
const HASH_SEED: u64 = 0x4861_796c_6f66_7431;

impl FilterKind {
    fn tag(self) -> u8 {
        match self {
            Self::Bloom => 1,
            Self::BlockedBloom => 2,
        }
    }

    fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Bloom),
            2 => Some(Self::BlockedBloom),
            _ => None,
        }
    }
}

impl FilterKey {
    /// How many first bytes of `user_key` the filters know.
    pub(crate) fn filter_key_bytes(self, user_key: &[u8]) -> usize {
        match self {
            Self::WholeKey => user_key.len(),
            Self::ThroughTerminator(terminator) => {
                user_key.windows(2).position(|pair| pair == terminator).map_or(user_key.len(), |at| at + 2)
            }
        }
    }
}

/// The hash of a key's filter key, computed once and shown to many tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FilterHash {
    hash: u64,
    filter_key_bytes: usize,
    rule: FilterKey,
}

impl FilterHash {
    /// The hash for point reads of `user_key`, or for scans of a whole filter prefix.
    pub(crate) fn of_key(user_key: &[u8], rule: FilterKey) -> Self {
        let filter_key_bytes = rule.filter_key_bytes(user_key);
        Self { hash: key_hash(&user_key[..filter_key_bytes]), filter_key_bytes, rule }
    }

    /// The [`key_hash`] of the whole `user_key`, which this hash was made of.
    pub(crate) fn whole_key_hash(self, user_key: &[u8]) -> u64 {
        if self.filter_key_bytes == user_key.len() { self.hash } else { key_hash(user_key) }
    }
}

/// The hash of a key: of a filter key in filters, of a whole user key in the tags of data blocks.
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(HASH_SEED, key)
}

/// Collects the filter keys of a table that is written.
#[derive(Debug)]
pub(crate) struct FilterBuilder {
    kind: FilterKind,
    rule: FilterKey,
    /// Of the current partition.
    hashes: Vec<u64>,
    last_key: Vec<u8>,
    partition_count: u64,
    /// The filter index without its head.
    index: Vec<u8>,
}

impl FilterBuilder {
    pub(crate) fn new(kind: FilterKind, rule: FilterKey) -> Self {
        let (hashes, last_key, index) = (Vec::new(), Vec::new(), Vec::new());
        Self { kind, rule, hashes, last_key, partition_count: 0, index }
    }

    /// Whether `user_key` brings a new filter key and the current partition has
    /// no room for it: then that has to be written first.
    pub(crate) fn is_partition_full_for(&self, user_key: &[u8]) -> bool {
        self.hashes.len() >= PARTITION_KEYS_MAX && self.is_new(self.filter_key(user_key))
    }

    /// Adds a user key, at or after the one before. Returns its [`key_hash`].
    pub(crate) fn add(&mut self, user_key: &[u8]) -> u64 {
        let key_hash = key_hash(user_key);
        let filter_key = self.filter_key(user_key);
        if self.is_new(filter_key) {
            let is_whole = filter_key.len() == user_key.len();
            self.hashes.push(if is_whole { key_hash } else { self::key_hash(filter_key) });
            self.last_key.clear();
            self.last_key.extend_from_slice(filter_key);
        }
        key_hash
    }

    /// The current partition's block, to be written; none if it has no key.
    /// Then comes [`FilterBuilder::partition_written`].
    pub(crate) fn finish_partition(&mut self) -> Option<Vec<u8>> {
        if self.hashes.is_empty() {
            return None;
        }
        Some(match self.kind {
            FilterKind::Bloom => bloom_over(&self.hashes).into_bytes(),
            FilterKind::BlockedBloom => BlockedBloom::new(&self.hashes).encode(),
        })
    }

    /// The current partition stands at `handle`; the next one begins.
    pub(crate) fn partition_written(&mut self, handle: BlockHandle) {
        varint::encode_slice(&mut self.index, &self.last_key);
        varint::encode(&mut self.index, handle.offset);
        varint::encode(&mut self.index, handle.stored_bytes.into());
        self.partition_count += 1;
        self.hashes.clear();
    }

    /// The filter index; none if no partition was written.
    pub(crate) fn finish_index(&self) -> Option<Vec<u8>> {
        if self.partition_count == 0 {
            return None;
        }
        let mut block = vec![self.kind.tag()];
        varint::encode(&mut block, self.partition_count);
        block.extend_from_slice(&self.index);
        Some(block)
    }

    /// Bytes of filters that are not written yet.
    pub(crate) fn bytes(&self) -> usize {
        self.hashes.len() * BITS_PER_KEY / 8 + self.index.len()
    }

    fn filter_key<'a>(&self, user_key: &'a [u8]) -> &'a [u8] {
        &user_key[..self.rule.filter_key_bytes(user_key)]
    }

    fn is_new(&self, filter_key: &[u8]) -> bool {
        (self.hashes.is_empty() && self.partition_count == 0) || self.last_key != filter_key
    }
}

/// REQUIRES: there are hashes.
fn bloom_over(hashes: &[u64]) -> Bloom<u64> {
    let bytes = (hashes.len() * BITS_PER_KEY).div_ceil(8);
    let mut bloom = Bloom::new_with_seed(bytes, hashes.len(), &SEED).expect("the sizes are not zero");
    hashes.iter().for_each(|hash| bloom.set(hash));
    bloom
}

/// The greatest filter key of a partition, and where the partition is.
pub(crate) type PartitionPlace = (Box<[u8]>, BlockHandle);

/// The partitions' kind, and the partitions that a filter index names, each with the greatest filter key in it.
pub(crate) fn decode_index(mut bytes: &[u8]) -> Result<(FilterKind, Vec<PartitionPlace>), Damage> {
    const CUT: Damage = Damage("the filter index is cut off");
    let (&tag, rest) = bytes.split_first().ok_or(CUT)?;
    let kind = FilterKind::from_tag(tag).ok_or(Damage("the filter kind is unknown"))?;
    bytes = rest;
    let count = varint::take_usize(&mut bytes).ok_or(CUT)?;
    let mut partitions = Vec::new();
    for _ in 0..count {
        let last_key = varint::take_slice(&mut bytes).ok_or(CUT)?;
        let offset = varint::take(&mut bytes).ok_or(CUT)?;
        let stored_bytes = varint::take(&mut bytes).and_then(|bytes| bytes.try_into().ok()).ok_or(CUT)?;
        partitions.push((last_key.into(), BlockHandle { offset, stored_bytes }));
    }
    if !bytes.is_empty() {
        return Err(Damage("the filter index has bytes to spare"));
    }
    if !partitions.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(Damage("the filter index is out of order"));
    }
    Ok((kind, partitions))
}

/// A filter over hashes: one partition of an open table.
#[derive(Debug)]
pub(crate) enum Partition {
    Bloom(Bloom<u64>),
    Blocked(BlockedBloom),
}

impl Partition {
    /// The filter of this kind in `bytes`, a partition's block.
    pub(crate) fn decode(kind: FilterKind, bytes: &[u8]) -> Result<Self, Damage> {
        match kind {
            FilterKind::Bloom => decode_bloom(bytes).map(Self::Bloom),
            FilterKind::BlockedBloom => BlockedBloom::decode(bytes).map(Self::Blocked),
        }
    }

    fn may_contain(&self, hash: u64) -> bool {
        match self {
            Self::Bloom(bloom) => bloom.check(&hash),
            Self::Blocked(bloom) => bloom.may_contain(hash),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Bloom(bloom) => bloom.as_slice().len(),
            Self::Blocked(bloom) => bloom.bytes(),
        }
    }
}

fn decode_bloom(bytes: &[u8]) -> Result<Bloom<u64>, Damage> {
    let bloom = Bloom::from_slice(bytes).map_err(|_| Damage("a bloom filter does not decode"))?;
    let is_ours =
        bloom.seed() == SEED && bloom.number_of_hash_functions() <= HASH_COUNT_MAX && !bloom.is_empty();
    if is_ours { Ok(bloom) } else { Err(Damage("a bloom filter has another seed or an absurd size")) }
}

/// The filters of an open table, all in memory.
#[derive(Debug)]
pub(crate) struct Filter {
    rule: FilterKey,
    partitions: Vec<(Box<[u8]>, Partition)>,
}

impl Filter {
    /// Filters over `rule`, ascending, each with the greatest filter key in it.
    pub(crate) fn new(rule: FilterKey, partitions: Vec<(Box<[u8]>, Partition)>) -> Self {
        Self { rule, partitions }
    }

    /// Whether there may be point entries with the filter key of `key`, which
    /// `hash` was made of. True where the table's filters follow another rule.
    pub(crate) fn may_contain(&self, key: &[u8], hash: FilterHash) -> bool {
        if hash.rule != self.rule {
            return true;
        }
        let filter_key = &key[..hash.filter_key_bytes];
        let at = self.partitions.partition_point(|(last, _)| &**last < filter_key);
        self.partitions.get(at).is_some_and(|(_, partition)| partition.may_contain(hash.hash))
    }

    /// Anonymous memory it takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.partitions.iter().map(|entry| size_of_val(entry) + entry.0.len() + entry.1.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [FilterKind; 2] = [FilterKind::Bloom, FilterKind::BlockedBloom];

    fn filter_over(kind: FilterKind, rule: FilterKey, keys: impl Iterator<Item = Vec<u8>>) -> Filter {
        let mut builder = FilterBuilder::new(kind, rule);
        let mut blocks = Vec::new();
        let mut flush = |builder: &mut FilterBuilder| {
            if let Some(block) = builder.finish_partition() {
                builder.partition_written(BlockHandle { offset: blocks.len() as u64, stored_bytes: 1 });
                blocks.push(block);
            }
        };
        for key in keys {
            if builder.is_partition_full_for(&key) {
                flush(&mut builder);
            }
            builder.add(&key);
        }
        flush(&mut builder);
        let index = decode_index(&builder.finish_index().expect("there are keys")).expect("well-formed");
        assert_eq!(index.0, kind);
        let partitions = index.1.into_iter().zip(&blocks);
        Filter::new(
            rule,
            partitions.map(|((last, _), block)| (last, Partition::decode(kind, block).unwrap())).collect(),
        )
    }

    fn key(i: u32) -> Vec<u8> {
        format!("key{i:08}").into_bytes()
    }

    #[test]
    fn partitions_hide_no_key_and_few_misses_pass() {
        let count = 250_000;
        for kind in KINDS {
            let filter = filter_over(kind, FilterKey::WholeKey, (0..count).map(|i| key(2 * i)));
            assert_eq!(filter.partitions.len(), 3);
            let passes = |i| filter.may_contain(&key(i), FilterHash::of_key(&key(i), FilterKey::WholeKey));
            assert!((0..count).all(|i| passes(2 * i)));
            let false_alarms = (0..count).filter(|&i| passes(2 * i + 1)).count();
            assert!(false_alarms < count as usize / 75, "{false_alarms} of {kind:?}");
        }
    }

    #[test]
    fn a_prefix_is_found_through_any_key_that_has_it() {
        let rule = FilterKey::ThroughTerminator([0, 1]);
        let keys: [&[u8]; 5] = [b"a\0\x01x", b"a\0\x01y", b"b\0\0\x01", b"c", b"c\0\x01\0\x01"];
        let filter = filter_over(FilterKind::default(), rule, keys.iter().map(|key| key.to_vec()));
        for (probe, is_there) in [
            (&b"a\0\x01"[..], true),
            (b"a\0\x01zzz", true),
            (b"b\0\0\x01q", true),
            (b"c", true),
            (b"c\0\x01", true),
            (b"a", false),
            (b"aa\0\x01x", false),
            (b"d\0\x01", false),
        ] {
            assert_eq!(filter.may_contain(probe, FilterHash::of_key(probe, rule)), is_there, "{probe:?}");
        }
        assert!(filter.may_contain(b"d", FilterHash::of_key(b"d", FilterKey::WholeKey)));
    }

    #[test]
    fn forged_filters_are_refused() {
        let mut builder = FilterBuilder::new(FilterKind::Bloom, FilterKey::WholeKey);
        builder.add(b"k");
        let good = builder.finish_partition().unwrap();
        assert!(decode_bloom(&good).is_ok());
        for (at, byte) in [(0, 2), (1, 0), (8, 1), (9, 0), (12, 1), (13, 0)] {
            let mut forged = good.clone();
            forged[at] = byte;
            assert!(decode_bloom(&forged).is_err(), "{at}");
        }
        assert!(decode_bloom(&good[..good.len() - 1]).is_err());
        let mut empty = good[..45].to_vec();
        empty[1] = 0;
        assert!(decode_bloom(&empty).is_err());
    }
}
