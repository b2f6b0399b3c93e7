//! Memtables: the newest writes of a tree, in memory, in order.
//!
//! A memtable is a lock-free skip list (`crossbeam-skiplist`) by internal key,
//! with the range tombstones beside it. Keys and values are slices of the
//! batches that wrote them, so that an entry costs its node and no copy. Who
//! writes holds the commit log's lock: one writer at a time, readers at any.
//!
//! # Invariants
//!
//! - Nothing leaves a memtable; it goes whole, once its SSTable is in a manifest.
//! - What is inserted while a reader looks is newer than the reader's snapshot,
//!   since snapshots see only what was applied before them.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering as Memory};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;

use crate::KeyRange;
use crate::folded_values::FoldedValues;
use crate::internal_key::{self, Kind, LookupKey, Trailer};
use crate::range_tombstone::MemtableTombstones;
use crate::size_samples::{SAMPLE_BYTES, SizeSamples};
use crate::sstable::Found;

/// What an entry takes beside its bytes: node with key and value handles (72),
/// header and tower (8 + 8 × 4/3), the allocator's rounding.
const ENTRY_OVERHEAD_BYTES: usize = 104;

/// What a batch takes beside its bytes: the shared buffer's header and the
/// allocator's rounding, twice.
const BATCH_OVERHEAD_BYTES: usize = 56;

/// The newest writes of a tree.
#[derive(Debug)]
pub(crate) struct Memtable {
    entries: SkipMap<Key, Bytes>,
    tombstones: Arc<MemtableTombstones>,
    folded: FoldedValues,
    /// Bytes of entries and of the buffers they are slices of.
    bytes: AtomicUsize,
    /// Sequence number of the first write, [`u64::MAX`] before there is one.
    first_sequence: AtomicU64,
    samples: SizeSamples,
}

impl Memtable {
    pub(crate) fn new() -> Self {
        Self {
            entries: SkipMap::new(),
            tombstones: Arc::new(MemtableTombstones::new()),
            folded: FoldedValues::default(),
            bytes: AtomicUsize::new(0),
            first_sequence: AtomicU64::new(u64::MAX),
            samples: SizeSamples::new(),
        }
    }

    /// Sets, changes or removes `key`; `value` is empty for a delete.
    ///
    /// REQUIRES: one writer at a time, sequences ascending.
    pub(crate) fn insert(&self, key: Bytes, sequence: u64, kind: Kind, value: Bytes) {
        if kind == Kind::RangeDelete {
            self.tombstones.insert(&key, &value, sequence);
        } else {
            let is_sample = self.samples.count(&key, key.len() + value.len() + ENTRY_OVERHEAD_BYTES);
            self.entries.insert(Key { user_key: key, trailer: ordinal(Trailer::new(sequence, kind)) }, value);
            let overhead = ENTRY_OVERHEAD_BYTES + if is_sample { SAMPLE_BYTES } else { 0 };
            self.bytes.fetch_add(overhead, Memory::Relaxed);
        }
        self.first_sequence.fetch_min(sequence, Memory::Release);
    }

    /// Charges `bytes` of a batch's buffer that entries are slices of.
    pub(crate) fn charge_buffer(&self, bytes: usize) {
        self.bytes.fetch_add(bytes + BATCH_OVERHEAD_BYTES, Memory::Relaxed);
    }

    /// Whether nothing was written to it.
    pub(crate) fn is_empty(&self) -> bool {
        self.first_sequence() == u64::MAX
    }

    /// The first write's sequence number; [`u64::MAX`] if there is none.
    pub(crate) fn first_sequence(&self) -> u64 {
        self.first_sequence.load(Memory::Acquire)
    }

    /// Bytes of memory taken.
    pub(crate) fn bytes(&self) -> usize {
        let tombstones = if self.tombstones.is_empty() { 0 } else { self.tombstones.memory_bytes() };
        self.bytes.load(Memory::Relaxed) + tombstones + self.folded.bytes()
    }

    /// Puts and deletes in it.
    pub(crate) fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// Which keys take how many of its bytes.
    pub(crate) fn samples(&self) -> &SizeSamples {
        &self.samples
    }

    /// The keys of the entries in `range` and the bytes that each takes, unless there are more than `count_max`.
    pub(crate) fn entries_within(&self, range: &KeyRange, count_max: usize) -> Option<Vec<(Bytes, u64)>> {
        let start = place_before(&range.start);
        let _guard = crossbeam_epoch::pin();
        let from = Bound::Included(&EncodedKey(&start) as &dyn OrderedKey);
        let entries = self.entries.range::<dyn OrderedKey, _>((from, Bound::Unbounded));
        let mut within = Vec::new();
        for entry in entries.take_while(|entry| range.contains(&entry.key().user_key)) {
            if within.len() == count_max {
                return None;
            }
            let user_key = &entry.key().user_key;
            let bytes = user_key.len() + entry.value().len() + ENTRY_OVERHEAD_BYTES;
            within.push((user_key.clone(), bytes as u64));
        }
        Some(within)
    }

    /// The range deletes.
    pub(crate) fn tombstones(&self) -> &Arc<MemtableTombstones> {
        &self.tombstones
    }

    /// What readers have folded.
    pub(crate) fn folded(&self) -> &FoldedValues {
        &self.folded
    }

    /// Whether there is a write to a key in `range`.
    pub(crate) fn overlaps(&self, range: &KeyRange) -> bool {
        let start = place_before(&range.start);
        let first = self.entries.lower_bound(Bound::Included(&EncodedKey(&start) as &dyn OrderedKey));
        let has_entry = first.is_some_and(|first| range.contains(&first.key().user_key));
        has_entry || self.tombstones.overlaps(range)
    }

    /// The newest put, delete or merge of the key at or below its sequence. Range deletes are not looked at.
    pub(crate) fn get(&self, key: &LookupKey) -> Option<Found> {
        let entry =
            self.entries.lower_bound(Bound::Included(&EncodedKey(key.encoded()) as &dyn OrderedKey))?;
        let found = entry.key();
        if found.user_key != key.user_key() {
            return None;
        }
        let (sequence, kind) = found.write();
        Some(Found { sequence, kind, value: entry.value().clone() })
    }

    /// Shows `take` the puts, deletes and merges of the key at or below its
    /// sequence, newest first, until it breaks.
    pub(crate) fn visit(
        &self,
        key: &LookupKey,
        take: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // One guard for all makes those that the list takes at each step cheap.
        let _guard = crossbeam_epoch::pin();
        let start = EncodedKey(key.encoded());
        let from = (Bound::Included(&start as &dyn OrderedKey), Bound::Unbounded);
        for entry in self.entries.range::<dyn OrderedKey, _>(from) {
            if entry.key().user_key != key.user_key() {
                break;
            }
            let (sequence, kind) = entry.key().write();
            take(Found { sequence, kind, value: entry.value().clone() })?;
        }
        ControlFlow::Continue(())
    }

    /// A cursor over the puts, deletes and merges.
    pub(crate) fn cursor(self: &Arc<Self>) -> MemtableCursor {
        MemtableCursor {
            memtable: Arc::clone(self),
            chunk: Vec::new(),
            position: 0,
            chunk_entries: CHUNK_ENTRIES_MIN,
            key: Vec::new(),
        }
    }
}

/// The internal key before all versions of `user_key`.
fn place_before(user_key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(user_key.len() + internal_key::TRAILER_BYTES);
    internal_key::encode(&mut place, user_key, Trailer::seek(internal_key::SEQUENCE_MAX));
    place
}

/// A trailer as a number that orders writes of one user key by age.
fn ordinal(trailer: Trailer) -> u64 {
    u64::from_le_bytes(trailer.encode())
}

/// An internal key, its user key shared with the batch that wrote it.
#[derive(Clone, Debug)]
struct Key {
    user_key: Bytes,
    trailer: u64,
}

impl Key {
    fn write(&self) -> (u64, Kind) {
        let trailer = internal_key::trailer(&self.trailer.to_le_bytes());
        (trailer.sequence(), trailer.kind().expect("memtables hold known kinds"))
    }

    fn encode(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.extend_from_slice(&self.user_key);
        buffer.extend_from_slice(&self.trailer.to_le_bytes());
    }
}

/// What can be compared with a [`Key`] without being one, so that looking up
/// allocates nothing.
trait OrderedKey {
    fn parts(&self) -> (&[u8], u64);
}

impl OrderedKey for Key {
    fn parts(&self) -> (&[u8], u64) {
        (&self.user_key, self.trailer)
    }
}

/// An encoded internal key.
struct EncodedKey<'a>(&'a [u8]);

impl OrderedKey for EncodedKey<'_> {
    fn parts(&self) -> (&[u8], u64) {
        let (user_key, trailer) = internal_key::decode(self.0).expect("an internal key ends in a trailer");
        (user_key, ordinal(trailer))
    }
}

fn compare(a: (&[u8], u64), b: (&[u8], u64)) -> Ordering {
    a.0.cmp(b.0).then(b.1.cmp(&a.1))
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.parts(), other.parts())
    }
}

impl<'a> Borrow<dyn OrderedKey + 'a> for Key {
    fn borrow(&self) -> &(dyn OrderedKey + 'a) {
        self
    }
}

impl PartialEq for dyn OrderedKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn OrderedKey + '_ {}

impl PartialOrd for dyn OrderedKey + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn OrderedKey + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.parts(), other.parts())
    }
}

/// A seek takes so few entries; each continuation twice as many as before.
const CHUNK_ENTRIES_MIN: usize = 4;
const CHUNK_ENTRIES_MAX: usize = 128;

/// A cursor over a memtable's puts, deletes and merges by internal key. Owns what it
/// reads from. Fresh, it stands nowhere.
///
/// It takes entries off the skip list in chunks: one descent serves many
/// steps, and no reference into the list has to be kept.
#[derive(Debug)]
pub(crate) struct MemtableCursor {
    memtable: Arc<Memtable>,
    /// Neighbouring entries, ascending; the cursor stands on one of them unless it is empty.
    chunk: Vec<(Key, Bytes)>,
    position: usize,
    /// How many entries the next chunk takes.
    chunk_entries: usize,
    /// The current entry's internal key.
    key: Vec<u8>,
}

impl MemtableCursor {
    /// What readers have folded of the memtable.
    pub(crate) fn folded(&self) -> &FoldedValues {
        &self.memtable.folded
    }

    pub(crate) fn seek_to_first(&mut self) -> bool {
        self.chunk_entries = CHUNK_ENTRIES_MIN;
        self.take_from(Bound::Unbounded)
    }

    pub(crate) fn seek_to_last(&mut self) -> bool {
        self.chunk_entries = CHUNK_ENTRIES_MIN;
        self.take_until(Bound::Unbounded)
    }

    /// Moves to the first entry at or after the encoded internal key.
    pub(crate) fn seek(&mut self, internal_key: &[u8]) -> bool {
        self.chunk_entries = CHUNK_ENTRIES_MIN;
        self.take_from(Bound::Included(&EncodedKey(internal_key)))
    }

    /// Moves to the last entry before the encoded internal key.
    pub(crate) fn seek_before(&mut self, internal_key: &[u8]) -> bool {
        self.chunk_entries = CHUNK_ENTRIES_MIN;
        self.take_until(Bound::Excluded(&EncodedKey(internal_key)))
    }

    /// REQUIRES: it stands on an entry.
    pub(crate) fn next(&mut self) -> bool {
        if self.position + 1 < self.chunk.len() {
            self.position += 1;
            self.chunk[self.position].0.encode(&mut self.key);
            return true;
        }
        let (last, _) = self.chunk.pop().expect("the cursor stands on an entry");
        self.take_from(Bound::Excluded(&last))
    }

    /// REQUIRES: it stands on an entry.
    pub(crate) fn prev(&mut self) -> bool {
        if self.position > 0 {
            self.position -= 1;
            self.chunk[self.position].0.encode(&mut self.key);
            return true;
        }
        let (first, _) = self.chunk.swap_remove(0);
        self.take_until(Bound::Excluded(&first))
    }

    /// The current encoded internal key.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.chunk[self.position].1
    }

    pub(crate) fn value_bytes(&self) -> Bytes {
        self.chunk[self.position].1.clone()
    }

    fn take_from(&mut self, start: Bound<&dyn OrderedKey>) -> bool {
        // One guard for the chunk makes those that the list takes at each step cheap.
        let _guard = crossbeam_epoch::pin();
        self.chunk.clear();
        let range = self.memtable.entries.range::<dyn OrderedKey, _>((start, Bound::Unbounded));
        self.chunk
            .extend(range.take(self.chunk_entries).map(|entry| (entry.key().clone(), entry.value().clone())));
        self.stand_on(0)
    }

    fn take_until(&mut self, end: Bound<&dyn OrderedKey>) -> bool {
        let _guard = crossbeam_epoch::pin();
        self.chunk.clear();
        let range = self.memtable.entries.range::<dyn OrderedKey, _>((Bound::Unbounded, end)).rev();
        self.chunk
            .extend(range.take(self.chunk_entries).map(|entry| (entry.key().clone(), entry.value().clone())));
        self.chunk.reverse();
        self.stand_on(self.chunk.len().saturating_sub(1))
    }

    fn stand_on(&mut self, position: usize) -> bool {
        self.chunk_entries = (self.chunk_entries * 2).min(CHUNK_ENTRIES_MAX);
        self.position = position;
        let Some((key, _)) = self.chunk.get(position) else { return false };
        key.encode(&mut self.key);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FilterKey;

    fn filled(writes: &[(&'static str, u64, Kind)]) -> Arc<Memtable> {
        let memtable = Memtable::new();
        for (key, sequence, kind) in writes {
            let value = Bytes::from(format!("{key}@{sequence}"));
            memtable.insert(Bytes::from_static(key.as_bytes()), *sequence, *kind, value);
        }
        Arc::new(memtable)
    }

    #[test]
    fn the_newest_write_at_or_below_the_sequence_is_found() {
        let memtable = filled(&[("k", 3, Kind::Put), ("k", 5, Kind::Delete), ("kk", 6, Kind::Put)]);
        let get = |key: &str, sequence| {
            let found = memtable.get(&LookupKey::new(key.as_bytes(), sequence, FilterKey::WholeKey));
            found.map(|found| (found.sequence, found.kind))
        };
        assert_eq!(get("k", 2), None);
        assert_eq!(get("k", 4), Some((3, Kind::Put)));
        assert_eq!(get("k", 9), Some((5, Kind::Delete)));
        assert_eq!(get("j", 9), None);
        assert_eq!(memtable.first_sequence(), 3);
    }

    #[test]
    fn a_cursor_goes_both_ways_over_more_than_a_chunk() {
        let memtable = Arc::new(Memtable::new());
        for i in 0..1000_u64 {
            memtable.insert(Bytes::from(format!("{i:04}")), i + 1, Kind::Put, Bytes::new());
        }
        let mut cursor = memtable.cursor();
        let at = |cursor: &MemtableCursor| internal_key::trailer(cursor.key()).sequence() - 1;
        assert!(cursor.seek_to_first());
        for i in 0..1000 {
            assert_eq!(at(&cursor), i);
            assert_eq!(cursor.next(), i < 999);
        }
        assert!(cursor.seek_to_last());
        for i in (0..1000).rev() {
            assert_eq!(at(&cursor), i);
            assert_eq!(cursor.prev(), i > 0);
        }
        let mut sought = Vec::new();
        internal_key::encode(&mut sought, b"0500", Trailer::seek(internal_key::SEQUENCE_MAX));
        assert!(cursor.seek(&sought));
        assert_eq!(at(&cursor), 500);
        for step in [true, false, false, true, true, true, false] {
            let before = at(&cursor);
            assert!(if step { cursor.next() } else { cursor.prev() });
            assert_eq!(at(&cursor), if step { before + 1 } else { before - 1 });
        }
        assert!(cursor.seek_before(&sought));
        assert_eq!(at(&cursor), 499);
    }

    #[test]
    fn bytes_grow_with_entries_buffers_and_tombstones() {
        let memtable = filled(&[]);
        assert!(memtable.is_empty());
        memtable.insert(Bytes::from_static(b"k"), 1, Kind::Put, Bytes::new());
        memtable.charge_buffer(100);
        let before = memtable.bytes();
        assert!(before >= 200);
        memtable.insert(Bytes::from_static(b"a"), 2, Kind::RangeDelete, Bytes::from_static(b"b"));
        assert!(memtable.bytes() > before);
    }
}
