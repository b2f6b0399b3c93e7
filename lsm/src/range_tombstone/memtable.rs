//! The range tombstones of a memtable: a set that grows and stays fragmented.
//!
//! An ordered map from each fragment's start to its end and sequences, behind
//! one lock. A range delete that overlaps no other, as the delete of a row
//! does, costs one insertion; one that overlaps n fragments touches n.
//!
//! A set without tombstones, the usual one, costs its readers an atomic load.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use smallvec::{SmallVec, smallvec};

use super::{FragmentedTombstones, newest_at};
use crate::KeyRange;

/// What a map entry takes beside its keys' bytes: the entry in a node that is two thirds full, and the
/// keys' shared headers.
const FRAGMENT_BYTES: usize = (size_of::<Bytes>() + size_of::<Piece>()) * 3 / 2 + 2 * 32;

/// A fragment, by its start.
#[derive(Clone, Debug)]
struct Piece {
    end: Bytes,
    /// Descending, at least one.
    sequences: SmallVec<[u64; 2]>,
}

/// The range tombstones of a memtable.
#[derive(Debug, Default)]
pub(crate) struct MemtableTombstones {
    pieces: RwLock<BTreeMap<Bytes, Piece>>,
    /// Zero as long as there is no tombstone.
    bytes: AtomicUsize,
}

impl MemtableTombstones {
    /// A set without tombstones.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds the range delete of `start..end` at `sequence`; nothing if `start >= end`.
    pub(crate) fn insert(&self, start: &[u8], end: &[u8], sequence: u64) {
        if start >= end {
            return;
        }
        let (start, end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
        let mut pieces = self.pieces.write();
        let mut grown = 0;
        grown += split_at(&mut pieces, &start);
        grown += split_at(&mut pieces, &end);
        // All pieces that overlap are now inside; what is between them becomes new ones.
        let mut gaps = Vec::new();
        let mut at = start;
        for (piece_start, piece) in
            pieces.range_mut::<[u8], _>((Bound::Included(&at[..]), Bound::Excluded(&end[..])))
        {
            if at < *piece_start {
                gaps.push((at, piece_start.clone()));
            }
            let newer = piece.sequences.partition_point(|&other| other > sequence);
            if piece.sequences.get(newer) != Some(&sequence) {
                piece.sequences.insert(newer, sequence);
                grown += size_of::<u64>();
            }
            at = piece.end.clone();
        }
        if at < end {
            gaps.push((at, end));
        }
        for (start, end) in gaps {
            grown += FRAGMENT_BYTES + start.len() + end.len();
            pieces.insert(start, Piece { end, sequences: smallvec![sequence] });
        }
        // Behind the insertion: who sees the count finds the tombstone.
        self.bytes.fetch_add(grown, Ordering::Release);
    }

    /// Whether there is none: one atomic load.
    pub(crate) fn is_empty(&self) -> bool {
        self.memory_bytes() == 0
    }

    /// The sequence of the newest range delete of `user_key` at or below `at_sequence`.
    pub(crate) fn covering_sequence(&self, user_key: &[u8], at_sequence: u64) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        let pieces = self.pieces.read();
        let (_, piece) = last_at_or_before(&pieces, user_key)?;
        if *user_key < *piece.end { newest_at(&piece.sequences, at_sequence) } else { None }
    }

    /// Whether a range delete covers a key of `range`.
    pub(crate) fn overlaps(&self, range: &KeyRange) -> bool {
        if self.is_empty() {
            return false;
        }
        let pieces = self.pieces.read();
        let until = if range.end.is_empty() { Bound::Unbounded } else { Bound::Excluded(&range.end[..]) };
        let last = pieces.range::<[u8], _>((Bound::Unbounded, until)).next_back();
        last.is_some_and(|(_, piece)| piece.end > range.start)
    }

    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// The set as it is now, for a flush.
    pub(crate) fn to_fragmented(&self) -> FragmentedTombstones {
        let mut fragmented = FragmentedTombstones::default();
        for (start, piece) in &*self.pieces.read() {
            fragmented.push(start, &piece.end, piece.sequences.iter().copied());
        }
        fragmented
    }

    /// The fragment or gap around `user_key` and its sequence in force at `at_sequence`.
    fn stretch(&self, user_key: &[u8], at_sequence: u64) -> Stretch {
        let pieces = self.pieces.read();
        let before = last_at_or_before(&pieces, user_key);
        if let Some((start, piece)) = before
            && *user_key < *piece.end
        {
            let covering = newest_at(&piece.sequences, at_sequence);
            return Stretch {
                start: start.clone(),
                end: Some(piece.end.clone()),
                is_fragment: true,
                covering,
            };
        }
        let start = before.map_or_else(Bytes::new, |(_, piece)| piece.end.clone());
        let after = pieces.range::<[u8], _>((Bound::Excluded(user_key), Bound::Unbounded)).next();
        let end = after.map(|(start, _)| start.clone());
        Stretch { start, end, is_fragment: false, covering: None }
    }
}

fn last_at_or_before<'a>(
    pieces: &'a BTreeMap<Bytes, Piece>,
    user_key: &[u8],
) -> Option<(&'a Bytes, &'a Piece)> {
    pieces.range::<[u8], _>((Bound::Unbounded, Bound::Included(user_key))).next_back()
}

/// Makes a piece that has `key` inside two; returns the bytes they take more.
fn split_at(pieces: &mut BTreeMap<Bytes, Piece>, key: &Bytes) -> usize {
    let before = (Bound::Unbounded, Bound::Excluded(&key[..]));
    let Some((_, piece)) = pieces.range_mut::<[u8], _>(before).next_back() else { return 0 };
    if piece.end <= *key {
        return 0;
    }
    let rest =
        Piece { end: std::mem::replace(&mut piece.end, key.clone()), sequences: piece.sequences.clone() };
    let grown = FRAGMENT_BYTES + key.len() + rest.sequences.len() * size_of::<u64>();
    pieces.insert(key.clone(), rest);
    grown
}

/// A part of the key space with one answer for all of it.
#[derive(Clone, Debug)]
struct Stretch {
    start: Bytes,
    /// None: it goes on past every key.
    end: Option<Bytes>,
    is_fragment: bool,
    covering: Option<u64>,
}

impl Stretch {
    fn contains(&self, user_key: &[u8]) -> bool {
        *self.start <= *user_key && self.end.as_ref().is_none_or(|end| *user_key < **end)
    }
}

/// Asks an `Arc<MemtableTombstones>` for one key after the other; remembers
/// the last fragment or gap, which later inserts cannot change at its sequence.
#[derive(Clone, Debug)]
pub(crate) struct MemtableTombstoneCursor {
    tombstones: Arc<MemtableTombstones>,
    at_sequence: u64,
    last: Option<Stretch>,
}

impl MemtableTombstoneCursor {
    /// A cursor over `tombstones` that reads at `at_sequence`.
    ///
    /// REQUIRES: every write at or below `at_sequence` is applied already.
    pub(crate) fn new(tombstones: Arc<MemtableTombstones>, at_sequence: u64) -> Self {
        Self { tombstones, at_sequence, last: None }
    }

    /// The sequence of the newest visible range delete of `user_key`.
    pub(crate) fn covering_sequence(&mut self, user_key: &[u8]) -> Option<u64> {
        self.stretch(user_key)?.covering
    }

    /// Start and end of the fragment around `user_key`, visible or not: where to jump past it.
    pub(crate) fn fragment(&mut self, user_key: &[u8]) -> Option<(&[u8], &[u8])> {
        let stretch = self.stretch(user_key)?;
        match &stretch.end {
            Some(end) if stretch.is_fragment => Some((&stretch.start, end)),
            _ => None,
        }
    }

    fn stretch(&mut self, user_key: &[u8]) -> Option<&Stretch> {
        let is_known = self.last.as_ref().is_some_and(|last| last.contains(user_key));
        if !is_known {
            if self.tombstones.is_empty() {
                return None;
            }
            self.last = Some(self.tombstones.stretch(user_key, self.at_sequence));
        }
        self.last.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::RangeTombstone;
    use super::*;
    use crate::sstable::testing::Random;

    #[test]
    fn a_growing_set_agrees_with_fragmenting_all_at_once() {
        let mut random = Random::new(3);
        for width in [1, 5, 400] {
            let set = Arc::new(MemtableTombstones::new());
            assert!(set.is_empty());
            let mut tombstones = Vec::new();
            for sequence in 1..=200 {
                let start = random.below(1_000);
                let end = start + random.below(width + 1);
                let (start, end) = (format!("{start:04}"), format!("{end:04}"));
                set.insert(start.as_bytes(), end.as_bytes(), sequence);
                tombstones.push(RangeTombstone { start: start.into(), end: end.into(), sequence });
            }
            let expected = FragmentedTombstones::new(&tombstones);
            assert_eq!(set.to_fragmented().iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
            let mut cursor = MemtableTombstoneCursor::new(Arc::clone(&set), 150);
            for key in 0..1_500 {
                let key = format!("{key:04}");
                let covering = expected.covering_sequence(key.as_bytes(), 150);
                assert_eq!(set.covering_sequence(key.as_bytes(), 150), covering);
                assert_eq!(cursor.covering_sequence(key.as_bytes()), covering);
                let around = cursor.fragment(key.as_bytes());
                assert_eq!(around.is_some(), expected.fragment(key.as_bytes()).is_some());
            }
        }
    }

    #[test]
    fn sequences_may_come_out_of_order_and_twice() {
        let set = MemtableTombstones::new();
        for sequence in [5, 9, 5, 7] {
            set.insert(b"a", b"c", sequence);
        }
        set.insert(b"b", b"b", 11);
        let fragments = set.to_fragmented();
        assert_eq!(fragments.len(), 1);
        assert_eq!(fragments.fragment(b"b").unwrap().sequences, [9, 7, 5]);
        assert_eq!(set.covering_sequence(b"b", 8), Some(7));
        assert_eq!(set.covering_sequence(b"b", 4), None);
        assert_eq!(set.covering_sequence(b"c", 9), None);
    }

    #[test]
    fn a_cursor_is_not_misled_by_later_inserts() {
        let set = Arc::new(MemtableTombstones::new());
        set.insert(b"d", b"f", 1);
        let mut cursor = MemtableTombstoneCursor::new(Arc::clone(&set), 1);
        assert_eq!(cursor.covering_sequence(b"b"), None);
        set.insert(b"a", b"z", 2);
        assert_eq!(cursor.covering_sequence(b"c"), None);
        assert_eq!(cursor.covering_sequence(b"e"), Some(1));
        assert_eq!(cursor.covering_sequence(b"f"), None);
    }
}
