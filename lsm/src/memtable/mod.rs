//! Memtables: the newest writes of a tree, in memory, in order.
//!
//! A memtable is a skip list by internal key, with the range tombstones beside
//! it. Keys and values are copied into the list's arena. Who writes holds the
//! commit log's lock: one writer at a time, readers at any.
//!
//! # Invariants
//!
//! - Nothing leaves a memtable; it goes whole, once its SSTable is in a manifest.
//! - What is inserted while a reader looks is newer than the reader's snapshot,
//!   since snapshots see only what was applied before them.

pub(crate) mod folded_values;
#[cfg(test)]
mod measure;
pub(crate) mod retired;
mod size_samples;
mod skip_list;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;

use crate::KeyRange;
use crate::internal_key::{self, Kind, LookupKey, Trailer};
use crate::memtable::folded_values::FoldedValues;
use crate::memtable::size_samples::{SAMPLE_BYTES, SizeSamples};
use crate::memtable::skip_list::{ENTRY_OVERHEAD_BYTES, Entry, Place, SkipList};
use crate::range_tombstone::MemtableTombstones;
use crate::sstable::Found;

/// The newest writes of a tree.
#[derive(Debug)]
pub(crate) struct Memtable {
    entries: Arc<SkipList>,
    tombstones: Arc<MemtableTombstones>,
    folded: FoldedValues,
    /// Bytes of samples.
    sample_bytes: AtomicUsize,
    /// Sequence number of the first write, [`u64::MAX`] before there is one.
    first_sequence: AtomicU64,
    samples: SizeSamples,
}

impl Memtable {
    pub(crate) fn new() -> Self {
        Self {
            entries: Arc::new(SkipList::new()),
            tombstones: Arc::new(MemtableTombstones::new()),
            folded: FoldedValues::default(),
            sample_bytes: AtomicUsize::new(0),
            first_sequence: AtomicU64::new(u64::MAX),
            samples: SizeSamples::new(),
        }
    }

    /// Sets, changes or removes `key`; `value` is empty for a delete.
    ///
    /// REQUIRES: one writer at a time, sequences ascending.
    pub(crate) fn insert(&self, key: &[u8], sequence: u64, kind: Kind, value: &[u8]) {
        if kind == Kind::RangeDelete {
            self.tombstones.insert(key, value, sequence);
        } else {
            self.entries.insert(key, Trailer::new(sequence, kind), value);
            if self.samples.count(key, key.len() + value.len() + ENTRY_OVERHEAD_BYTES) {
                self.sample_bytes.fetch_add(SAMPLE_BYTES + key.len(), Ordering::Relaxed);
            }
        }
        self.first_sequence.fetch_min(sequence, Ordering::Release);
    }

    /// Whether nothing was written to it.
    pub(crate) fn is_empty(&self) -> bool {
        self.first_sequence() == u64::MAX
    }

    /// The first write's sequence number; [`u64::MAX`] if there is none.
    pub(crate) fn first_sequence(&self) -> u64 {
        self.first_sequence.load(Ordering::Acquire)
    }

    /// Bytes of memory taken.
    pub(crate) fn bytes(&self) -> usize {
        let tombstones = if self.tombstones.is_empty() { 0 } else { self.tombstones.memory_bytes() };
        let samples = self.sample_bytes.load(Ordering::Relaxed);
        self.entries.memory_bytes() + samples + tombstones + self.folded.bytes()
    }

    /// Of them, bytes that entries lie in.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.entries.bytes()
    }

    /// Puts and deletes in it.
    pub(crate) fn entry_count(&self) -> usize {
        self.entries.count()
    }

    /// Which keys take how many of its bytes.
    pub(crate) fn samples(&self) -> &SizeSamples {
        &self.samples
    }

    /// The keys of the entries in `range` and the bytes that each takes, unless there are more than `count_max`.
    pub(crate) fn entries_within(&self, range: &KeyRange, count_max: usize) -> Option<Vec<(Bytes, u64)>> {
        let first = self.entries.seek(&place_before(&range.start));
        let mut within = Vec::new();
        for entry in onward(first).take_while(|entry| range.contains(entry.user_key())) {
            if within.len() == count_max {
                return None;
            }
            let user_key = Bytes::copy_from_slice(entry.user_key());
            let bytes = user_key.len() + entry.value().len() + ENTRY_OVERHEAD_BYTES;
            within.push((user_key, bytes as u64));
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
        let first = self.entries.seek(&place_before(&range.start));
        let has_entry = first.is_some_and(|first| range.contains(first.user_key()));
        has_entry || self.tombstones.overlaps(range)
    }

    /// The newest put, delete or merge of the key at or below its sequence. Range deletes are not looked at.
    pub(crate) fn get(&self, key: &LookupKey) -> Option<Found> {
        let entry = self.entries.seek(key.encoded())?;
        (entry.user_key() == key.user_key()).then(|| self.found(entry))
    }

    /// Shows `take` the puts, deletes and merges of the key at or below its
    /// sequence, newest first, until it breaks.
    pub(crate) fn visit(
        &self,
        key: &LookupKey,
        take: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let first = self.entries.seek(key.encoded());
        for entry in onward(first).take_while(|entry| entry.user_key() == key.user_key()) {
            take(self.found(entry))?;
        }
        ControlFlow::Continue(())
    }

    fn found(&self, entry: Entry<'_>) -> Found {
        let trailer = internal_key::trailer(entry.key());
        let kind = trailer.kind().expect("memtables hold known kinds");
        Found { sequence: trailer.sequence(), kind, value: Bytes::copy_from_slice(entry.value()) }
    }

    /// A cursor over the puts, deletes and merges.
    pub(crate) fn cursor(self: &Arc<Self>) -> MemtableCursor {
        let place = Place::nowhere(Arc::clone(&self.entries));
        MemtableCursor { place, memtable: Arc::clone(self) }
    }
}

/// The entries from `first` on.
fn onward(first: Option<Entry<'_>>) -> impl Iterator<Item = Entry<'_>> {
    std::iter::successors(first, |entry| entry.next())
}

/// The internal key before all versions of `user_key`.
fn place_before(user_key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(user_key.len() + internal_key::TRAILER_BYTES);
    internal_key::encode(&mut place, user_key, Trailer::seek(internal_key::SEQUENCE_MAX));
    place
}

/// A cursor over a memtable's puts, deletes and merges by internal key. Owns what it
/// reads from. Fresh, it stands nowhere.
#[derive(Debug)]
pub(crate) struct MemtableCursor {
    /// Goes first: who lets go of a memtable last frees its list.
    place: Place,
    memtable: Arc<Memtable>,
}

impl MemtableCursor {
    pub(crate) fn seek_to_first(&mut self) -> bool {
        self.place.stand_on(SkipList::first)
    }

    pub(crate) fn seek_to_last(&mut self) -> bool {
        self.place.stand_on(SkipList::last)
    }

    /// Moves to the first entry at or after the encoded internal key.
    pub(crate) fn seek(&mut self, internal_key: &[u8]) -> bool {
        self.place.stand_on(|entries| entries.seek(internal_key))
    }

    /// Moves to the last entry before the encoded internal key.
    pub(crate) fn seek_before(&mut self, internal_key: &[u8]) -> bool {
        self.place.stand_on(|entries| entries.seek_before(internal_key))
    }

    /// REQUIRES: it stands on an entry.
    pub(crate) fn next(&mut self) -> bool {
        self.place.next()
    }

    /// REQUIRES: it stands on an entry.
    pub(crate) fn prev(&mut self) -> bool {
        self.place.previous()
    }

    /// Whether the entry before the current one is of another user key.
    pub(crate) fn is_newest_of_key(&self) -> bool {
        let entry = self.entry();
        entry.previous().is_none_or(|previous| previous.user_key() != entry.user_key())
    }

    /// The current encoded internal key.
    pub(crate) fn key(&self) -> &[u8] {
        self.entry().key()
    }

    pub(crate) fn value(&self) -> &[u8] {
        self.entry().value()
    }

    /// The current value, copied: shared with the list, it would keep all of that.
    pub(crate) fn value_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.value())
    }

    /// What readers of its memtable have folded.
    pub(crate) fn folded(&self) -> &FoldedValues {
        self.memtable.folded()
    }

    fn entry(&self) -> Entry<'_> {
        self.place.entry().expect("the cursor stands on an entry")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FilterKey;

    fn filled(writes: &[(&'static str, u64, Kind)]) -> Arc<Memtable> {
        let memtable = Memtable::new();
        for (key, sequence, kind) in writes {
            memtable.insert(key.as_bytes(), *sequence, *kind, format!("{key}@{sequence}").as_bytes());
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
    fn a_cursor_goes_both_ways() {
        let memtable = Arc::new(Memtable::new());
        for i in 0..1000_u64 {
            memtable.insert(format!("{i:04}").as_bytes(), i + 1, Kind::Put, b"");
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
    fn bytes_grow_with_entries_and_tombstones() {
        let memtable = filled(&[]);
        assert!(memtable.is_empty());
        memtable.insert(b"k", 1, Kind::Put, &[7; 100]);
        let before = memtable.bytes();
        assert!((101..300).contains(&before), "{before}");
        memtable.insert(b"a", 2, Kind::RangeDelete, b"b");
        assert!(memtable.bytes() > before);
    }
}
