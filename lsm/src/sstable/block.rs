//! Blocks of internal keys and values. `block_cursor.rs` goes through one.
//!
//! Keys share prefixes with their predecessors, except at restarts, where they
//! stand whole, so that a binary search over the restarts finds the stretch to
//! decode (LevelDB, `table/block_builder.cc`). Built by `block_builder.rs`.
//!
//! ```text
//! SIZE    FIELD
//! ...     entries
//! 4 * n   restarts: offset of each entry whose key stands whole, ascending, the first one 0
//! e       tags, of data blocks since version 2 of the table's format: a byte an entry
//! 1       with tags: entries from one restart to the next; only the last stretch may have fewer
//! 4       with tags: e, the number of entries
//! 4       n; zero only where there are no entries. The highest bit is set where there are tags
//!
//! entry:
//! varint  bytes shared with the key before; zero at a restart
//! varint  bytes of the key that follow
//! varint  bytes of the value
//! ...     rest of the key
//! ...     value
//! ```
//!
//! A key is an internal key, thus 8 bytes at least. From one restart to the next
//! there are at most 128 entries, which bounds what going backward decodes ahead.
//!
//! A tag is a byte of the hash of the entry's user key ([`tag_of`]). Who looks
//! for one key goes through the tags, a cache line or two, and decodes only
//! stretches that may hold it; a wrong one is met once in 256 entries. (RocksDB
//! and fjall keep a hash table of restarts in a block; tags are as small and
//! know no collisions that would bring the binary search back.)
//!
//! What is decoded passed its checksum, so damage here means a writer's bug or
//! a forged file; it is an error all the same, found when the entry is touched.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::{Buf, Bytes};
use smallvec::SmallVec;

use crate::error::Damage;
use crate::internal_key::{self, TRAILER_BYTES};
use crate::varint;

const RESTART_BYTES: usize = 4;
/// The most entries from one restart to the next.
pub(crate) const RESTART_INTERVAL_MAX: usize = 128;

/// The bit of the restart count that tells of tags.
pub(super) const TAGGED: u32 = 1 << 31;
/// What stands between the tags and the restart count.
pub(super) const TAGS_TRAILER_BYTES: usize = 1 + 4;

/// The tag of a key with this hash.
pub(super) fn tag_of(key_hash: u64) -> u8 {
    key_hash.to_le_bytes()[3]
}

/// A key as it is put together; the usual ones take no allocation.
pub(super) type KeyBuffer = SmallVec<[u8; 64]>;

pub(super) type Result<T> = std::result::Result<T, Damage>;

/// A decoded block. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(super) data: Bytes,
    /// Where the entries end.
    pub(super) entries_end: usize,
    restart_count: usize,
    /// Zero where there are no tags.
    tag_count: usize,
    /// Entries from one restart to the next, where there are tags.
    tagged_interval: usize,
}

/// The lengths of an entry, and where its key's rest and its value are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) shared: usize,
    pub(super) key: usize,
    pub(super) value: usize,
    pub(super) end: usize,
}

/// The trailer of an entry, and where its value is.
type Place = (internal_key::Trailer, Range<usize>);

impl Block {
    /// The same block in memory of its own.
    pub(super) fn detached(&self) -> Self {
        Self { data: Bytes::copy_from_slice(&self.data), ..self.clone() }
    }

    /// The block in `data`, which holds nothing else.
    pub(crate) fn new(data: Bytes) -> Result<Self> {
        let Some((rest, restart_count)) = data.split_last_chunk::<RESTART_BYTES>() else {
            return Err(Damage("a block is too short for its restart count"));
        };
        let restart_count = u32::from_le_bytes(*restart_count);
        let (rest, tag_count, tagged_interval) = match restart_count & TAGGED {
            0 => (rest, 0, 0),
            _ => split_tags(rest).ok_or(Damage("a block has more tags than bytes"))?,
        };
        let restart_count = (restart_count & !TAGGED) as usize;
        let entries_end = restart_count
            .checked_mul(RESTART_BYTES)
            .and_then(|bytes| rest.len().checked_sub(bytes))
            .ok_or(Damage("a block has more restarts than bytes"))?;
        if (restart_count == 0) != (entries_end == 0) {
            return Err(Damage("a block has entries without restarts or restarts without entries"));
        }
        if tagged_interval != 0 && tag_count.div_ceil(tagged_interval) != restart_count {
            return Err(Damage("a block's tags are not those of its restarts"));
        }
        Ok(Self { data, entries_end, restart_count, tag_count, tagged_interval })
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }

    /// How many entries have whole keys.
    pub(crate) fn restart_count(&self) -> usize {
        self.restart_count
    }

    /// The bytes of the `restart`th whole key and of its value. REQUIRES: there is such a restart.
    pub(crate) fn whole_entry(&self, restart: usize) -> Result<(&[u8], &[u8])> {
        let entry = self.entry(self.restart(restart))?;
        if entry.shared != 0 {
            return Err(Damage("a restart's key is not whole"));
        }
        Ok((&self.data[entry.key..entry.value], &self.data[entry.value..entry.end]))
    }

    /// Whether each entry is a restart, from the first byte to the last.
    pub(crate) fn is_all_whole(&self) -> Result<bool> {
        let mut at = 0;
        for restart in 0..self.restart_count {
            if self.restart(restart) != at {
                return Ok(false);
            }
            let entry = self.entry(at)?;
            if entry.shared != 0 || entry.value - entry.key < TRAILER_BYTES {
                return Ok(false);
            }
            at = entry.end;
        }
        Ok(at == self.entries_end)
    }

    /// The tags of its entries; none where the block has no tags.
    pub(crate) fn tags(&self) -> &[u8] {
        let start = self.entries_end + self.restart_count * RESTART_BYTES;
        &self.data[start..start + self.tag_count]
    }

    /// The first entry at or after `target`, whose user key has the hash
    /// `key_hash`, if it has the same user key: its trailer and its value.
    /// Allocates for long keys only.
    pub(crate) fn find(self, target: &[u8], key_hash: u64) -> Result<Option<(internal_key::Trailer, Bytes)>> {
        let found = if self.tag_count == 0 {
            let start = self.seek_restart(target)?;
            self.find_between(target, start..self.entries_end)?.flatten()
        } else {
            self.find_tagged(target, key_hash)?
        };
        Ok(found.map(|(trailer, value)| {
            let mut bytes = self.data;
            bytes.truncate(value.end);
            bytes.advance(value.start);
            (trailer, bytes)
        }))
    }

    /// As [`Block::find`], by the tags.
    fn find_tagged(&self, target: &[u8], key_hash: u64) -> Result<Option<Place>> {
        let (tags, tag) = (self.tags(), tag_of(key_hash));
        let mut from = 0;
        while let Some(at) = position_of(tag, tags, from) {
            let restart = at / self.tagged_interval;
            let start = self.restart(restart);
            let is_last = restart + 1 == self.restart_count;
            let end = if is_last { self.entries_end } else { self.restart(restart + 1) };
            self.warm(start..end);
            // What is found first at or after the target settles it: stretches before hold no such tag.
            if let Some(found) = self.find_between(target, start..end)? {
                return Ok(found);
            }
            from = (restart + 1) * self.tagged_interval;
        }
        Ok(None)
    }

    /// The first entry at or after `target` in `entries`, which begin with a
    /// restart: its trailer and where its value is if it has the same user key.
    fn find_between(&self, target: &[u8], entries: Range<usize>) -> Result<Option<Option<Place>>> {
        let mut key = KeyBuffer::new();
        let mut at = entries.start;
        while at < entries.end {
            let entry = self.entry(at)?;
            self.extend_key(&mut key, entry)?;
            if internal_key::compare(&key, target) != Ordering::Less {
                let (user_key, trailer) = internal_key::decode(&key).ok_or(SHORT_KEY)?;
                let is_same = user_key == internal_key::user_key(target);
                return Ok(Some(is_same.then_some((trailer, entry.value..entry.end))));
            }
            at = entry.end;
        }
        Ok(None)
    }

    /// The offset of the last restart whose key is before `target`, or of the first one.
    pub(super) fn seek_restart(&self, target: &[u8]) -> Result<usize> {
        let (mut low, mut high) = (0, self.restart_count);
        while low < high {
            let middle = low + (high - low) / 2;
            if internal_key::compare(self.whole_entry(middle)?.0, target) == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let start = if low == 0 { 0 } else { self.restart(low - 1) };
        let end = if low < self.restart_count { self.restart(low) } else { self.entries_end };
        self.warm(start..end);
        Ok(start)
    }

    /// Brings entries that are about to be decoded into the processor's cache,
    /// as many lines at once as it can fetch: decoding waits for each entry's
    /// lengths before it knows where the next one is.
    pub(super) fn warm(&self, entries: Range<usize>) {
        /// Long entries are not all looked at: their lines would be fetched in vain.
        const WARMED_BYTES_MAX: usize = 2 << 10;
        const LINE_BYTES: usize = 64;
        let end = entries.end.min(entries.start.saturating_add(WARMED_BYTES_MAX));
        let lines = self.data.get(entries.start..end).unwrap_or_default().iter().step_by(LINE_BYTES);
        std::hint::black_box(lines.fold(0, |all, byte| all | byte));
    }

    /// The offset of the last restart before `offset`.
    pub(super) fn last_restart_before(&self, offset: usize) -> Option<usize> {
        let (mut low, mut high) = (0, self.restart_count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.restart(middle) < offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(self.restart(low.checked_sub(1)?))
    }

    /// The offset of a restart, unchecked against the entries.
    pub(super) fn restart(&self, restart: usize) -> usize {
        let at = self.entries_end + restart * RESTART_BYTES;
        let mut bytes = [0; RESTART_BYTES];
        bytes.copy_from_slice(&self.data[at..at + RESTART_BYTES]);
        u32::from_le_bytes(bytes) as usize
    }

    #[inline]
    pub(super) fn entry(&self, at: usize) -> Result<Entry> {
        let entries =
            self.data.get(at..self.entries_end).ok_or(Damage("a restart points past the entries"))?;
        let mut rest = entries;
        let (shared, unshared, value_bytes) =
            read_lengths(&mut rest).ok_or(Damage("an entry's lengths are cut off"))?;
        let key = at + (entries.len() - rest.len());
        let value = key.checked_add(unshared);
        let end = value.and_then(|value| value.checked_add(value_bytes));
        match (value, end) {
            (Some(value), Some(end)) if end <= self.entries_end => Ok(Entry { shared, key, value, end }),
            _ => Err(Damage("an entry is longer than its block")),
        }
    }

    /// Makes `key`, the key of the entry before, the key of `entry`.
    #[inline]
    pub(super) fn extend_key(&self, key: &mut KeyBuffer, entry: Entry) -> Result<()> {
        if entry.shared > key.len() {
            return Err(SHARES_TOO_MUCH);
        }
        key.truncate(entry.shared);
        key.extend_from_slice(&self.data[entry.key..entry.value]);
        if key.len() < TRAILER_BYTES { Err(SHORT_KEY) } else { Ok(()) }
    }

    /// Appends the key of `entry` to `keys`, of which `before` is the key of the entry before. Where it is.
    #[inline]
    pub(super) fn append_key(
        &self,
        keys: &mut Vec<u8>,
        before: Range<usize>,
        entry: Entry,
    ) -> Result<Range<usize>> {
        if entry.shared > before.len() {
            return Err(SHARES_TOO_MUCH);
        }
        let start = keys.len();
        keys.extend_from_within(before.start..before.start + entry.shared);
        keys.extend_from_slice(&self.data[entry.key..entry.value]);
        let key = start..keys.len();
        if key.len() < TRAILER_BYTES { Err(SHORT_KEY) } else { Ok(key) }
    }
}

/// What is before the tags' trailer and the tags of `bytes`, how many tags there are, and the interval.
fn split_tags(bytes: &[u8]) -> Option<(&[u8], usize, usize)> {
    let (rest, tag_count) = bytes.split_last_chunk::<4>()?;
    let (&interval, rest) = rest.split_last()?;
    let tag_count = u32::from_le_bytes(*tag_count) as usize;
    let is_sound = tag_count > 0 && (1..=RESTART_INTERVAL_MAX).contains(&usize::from(interval));
    let rest = rest.get(..rest.len().checked_sub(tag_count)?)?;
    is_sound.then_some((rest, tag_count, interval.into()))
}

/// The first place of `tag` in `tags` at or after `from`.
fn position_of(tag: u8, tags: &[u8], from: usize) -> Option<usize> {
    /// A byte of each eight: the lowest bits, the highest bits.
    const LOWEST: u64 = 0x0101_0101_0101_0101;
    const HIGHEST: u64 = LOWEST << 7;
    let (words, rest) = tags.get(from..)?.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let differs = u64::from_le_bytes(*word) ^ (LOWEST * u64::from(tag));
        // The lowest byte that is zero borrows, and is marked; above it there may be false marks.
        let zeros = differs.wrapping_sub(LOWEST) & !differs & HIGHEST;
        if zeros != 0 {
            return Some(from + at * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|other| *other == tag)?;
    Some(from + words.len() * 8 + at)
}

const SHARES_TOO_MUCH: Damage = Damage("an entry shares more than the key before it has");
const SHORT_KEY: Damage = Damage("a key is too short for its trailer");

#[inline]
fn read_lengths(bytes: &mut &[u8]) -> Option<(usize, usize, usize)> {
    // Nearly every entry has three one-byte lengths.
    if let Some((&[shared, unshared, value], rest)) = bytes.split_first_chunk::<3>()
        && (shared | unshared | value) < 0x80
    {
        *bytes = rest;
        return Some((shared.into(), unshared.into(), value.into()));
    }
    Some((varint::take_usize(bytes)?, varint::take_usize(bytes)?, varint::take_usize(bytes)?))
}
