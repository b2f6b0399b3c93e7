//! An immutable set of fragmented range tombstones, its form in an SSTable,
//! and a cursor that remembers where it was.
//!
//! The range tombstone block of an SSTable:
//!
//! ```text
//! SIZE    FIELD
//! varint  number of fragments, at least one
//!         each fragment, ascending, none overlapping:
//! varint  length of the start
//! ...     start, a user key
//! varint  length of the end
//! ...     end, after the start
//! varint  number of sequences, at least one
//! varint  the greatest sequence
//!         each further one:
//! varint  how much less it is than the one before, at least one
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{RangeTombstone, newest_at};
use crate::KeyRange;
use crate::error::Damage;
use crate::internal_key::SEQUENCE_MAX;
use crate::varint;

/// A part of the key space and the range deletes that all cover the whole of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment<'a> {
    /// The first user key.
    pub(crate) start: &'a [u8],
    /// The first user key past it.
    pub(crate) end: &'a [u8],
    /// Sequence numbers of the deletes, descending, at least one.
    pub(crate) sequences: &'a [u64],
}

/// Range tombstones cut at each other's ends: sorted fragments that do not overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct FragmentedTombstones {
    /// Starts and ends, one behind the other.
    keys: Vec<u8>,
    fragments: Vec<Place>,
    sequences: Vec<u64>,
}

/// Where a fragment's parts are: its start, behind it its end, and its sequences.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    end: usize,
    end_stop: usize,
    sequences: usize,
    sequences_stop: usize,
}

impl FragmentedTombstones {
    /// Fragments `tombstones`, in any order; those with `start >= end` delete nothing and are left out.
    pub(crate) fn new(tombstones: &[RangeTombstone]) -> Self {
        Self::cut(tombstones.iter().map(|tombstone| (&*tombstone.start, &*tombstone.end, tombstone.sequence)))
    }

    /// All of `sets` in one. Neighbours that are deleted by the same sequences become one fragment.
    pub(crate) fn merge<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        let fragments = sets.into_iter().flat_map(Self::iter);
        Self::cut(fragments.flat_map(|fragment| {
            fragment.sequences.iter().map(move |&sequence| (fragment.start, fragment.end, sequence))
        }))
    }

    /// Sweeps over all starts and ends, and closes a fragment where the sequences in force change.
    fn cut<'a>(tombstones: impl Iterator<Item = (&'a [u8], &'a [u8], u64)>) -> Self {
        let mut edges = Vec::new();
        for (start, end, sequence) in tombstones {
            if start < end {
                edges.push((start, true, sequence));
                edges.push((end, false, sequence));
            }
        }
        // Starts before ends of the same key: a sequence that goes on is never out of force.
        edges.sort_unstable_by_key(|&(key, is_start, _)| (key, !is_start));
        let mut fragments = Self::default();
        let mut in_force = BTreeMap::<u64, usize>::new();
        let mut since: &[u8] = &[];
        for (key, is_start, sequence) in edges {
            if key != since {
                fragments.push(since, key, in_force.keys().rev().copied());
                since = key;
            }
            let count = in_force.entry(sequence).or_default();
            if is_start {
                *count += 1;
            } else {
                *count -= 1;
                if *count == 0 {
                    in_force.remove(&sequence);
                }
            }
        }
        fragments
    }

    /// Adds a fragment behind the others, or lengthens the last one where that
    /// comes to the same; nothing if it has no sequence.
    ///
    /// REQUIRES: the fragment starts at or after the end of the one before; `sequences` descend.
    pub(super) fn push(&mut self, start: &[u8], end: &[u8], sequences: impl IntoIterator<Item = u64>) {
        let sequences_start = self.sequences.len();
        self.sequences.extend(sequences);
        if self.sequences.len() == sequences_start {
            return;
        }
        if let Some(last) = self.fragments.last_mut()
            && self.keys[last.end..last.end_stop] == *start
            && self.sequences[last.sequences..last.sequences_stop] == self.sequences[sequences_start..]
        {
            self.sequences.truncate(sequences_start);
            self.keys.truncate(last.end);
            self.keys.extend_from_slice(end);
            last.end_stop = self.keys.len();
            return;
        }
        let start_at = self.keys.len();
        self.keys.extend_from_slice(start);
        let end_at = self.keys.len();
        self.keys.extend_from_slice(end);
        self.fragments.push(Place {
            start: start_at,
            end: end_at,
            end_stop: self.keys.len(),
            sequences: sequences_start,
            sequences_stop: self.sequences.len(),
        });
    }

    /// Whether there is no fragment.
    pub(crate) fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// How many fragments there are.
    pub(crate) fn len(&self) -> usize {
        self.fragments.len()
    }

    /// The fragments in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Fragment<'_>> {
        self.fragments.iter().map(|place| self.fragment_at(place))
    }

    fn fragment_at(&self, place: &Place) -> Fragment<'_> {
        Fragment {
            start: &self.keys[place.start..place.end],
            end: &self.keys[place.end..place.end_stop],
            sequences: &self.sequences[place.sequences..place.sequences_stop],
        }
    }

    fn start_of(&self, fragment: usize) -> &[u8] {
        let place = self.fragments[fragment];
        &self.keys[place.start..place.end]
    }

    /// How many fragments start at or before `user_key`.
    fn starts_until(&self, user_key: &[u8]) -> usize {
        self.fragments.partition_point(|place| self.keys[place.start..place.end] <= *user_key)
    }

    /// The fragment around `user_key`, the last of the `starts_until` first ones.
    fn around(&self, user_key: &[u8], starts_until: usize) -> Option<Fragment<'_>> {
        let fragment = self.fragment_at(self.fragments.get(starts_until.checked_sub(1)?)?);
        (user_key < fragment.end).then_some(fragment)
    }

    /// The fragment around `user_key`.
    pub(crate) fn fragment(&self, user_key: &[u8]) -> Option<Fragment<'_>> {
        self.around(user_key, self.starts_until(user_key))
    }

    /// The sequence of the newest range delete of `user_key` at or below `at_sequence`.
    pub(crate) fn covering_sequence(&self, user_key: &[u8], at_sequence: u64) -> Option<u64> {
        if self.is_empty() {
            return None;
        }
        newest_at(self.fragment(user_key)?.sequences, at_sequence)
    }

    /// Whether each key of `range` is deleted by a tombstone newer than
    /// `newer_than` and not newer than `at_sequence`.
    pub(crate) fn cover(&self, range: &KeyRange, newer_than: u64, at_sequence: u64) -> bool {
        let mut from: &[u8] = &range.start;
        while range.end.is_empty() || *from < *range.end {
            let Some(fragment) = self.fragment(from) else { return false };
            let newest = fragment.sequences.iter().copied().find(|sequence| *sequence <= at_sequence);
            if newest.is_none_or(|newest| newest <= newer_than) {
                return false;
            }
            from = fragment.end;
        }
        true
    }

    /// What of the fragments lies in `range` (an empty end is past every key).
    pub(crate) fn clipped(&self, range: &KeyRange) -> Self {
        let mut clipped = Self::default();
        let first = self.starts_until(&range.start).saturating_sub(1);
        for place in &self.fragments[first.min(self.len())..] {
            let fragment = self.fragment_at(place);
            if !range.end.is_empty() && fragment.start >= &*range.end {
                break;
            }
            let start = fragment.start.max(&*range.start);
            let end = if range.end.is_empty() { fragment.end } else { fragment.end.min(&*range.end) };
            if start < end {
                clipped.push(start, end, fragment.sequences.iter().copied());
            }
        }
        clipped
    }

    /// The fragments under one sequence number instead of their own.
    pub(crate) fn under(&self, sequence: u64) -> Self {
        let mut all = Self::default();
        self.iter().for_each(|fragment| all.push(fragment.start, fragment.end, [sequence]));
        all
    }

    /// First start to last end; `None` if there is no fragment.
    pub(crate) fn key_range(&self) -> Option<KeyRange> {
        let start = Bytes::copy_from_slice(self.iter().next()?.start);
        let end = Bytes::copy_from_slice(self.iter().next_back()?.end);
        Some(KeyRange { start, end })
    }

    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.keys.capacity() + self.fragments.capacity() * size_of::<Place>() + self.sequences.capacity() * 8
    }

    /// Appends the fragments as they stand in an SSTable.
    ///
    /// REQUIRES: there are some.
    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        varint::encode(buffer, self.len() as u64);
        for fragment in self.iter() {
            varint::encode_slice(buffer, fragment.start);
            varint::encode_slice(buffer, fragment.end);
            varint::encode(buffer, fragment.sequences.len() as u64);
            varint::encode(buffer, fragment.sequences[0]);
            for pair in fragment.sequences.windows(2) {
                varint::encode(buffer, pair[0] - pair[1]);
            }
        }
    }

    /// The fragments in `bytes`, an SSTable's range tombstone block.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, Damage> {
        const CUT: Damage = Damage("the range tombstone block is cut off");
        let bytes = &mut bytes;
        let mut decoded = Self::default();
        let count = varint::take_usize(bytes).ok_or(CUT)?;
        let mut previous_end: &[u8] = &[];
        for _ in 0..count {
            let start = varint::take_slice(bytes).ok_or(CUT)?;
            let end = varint::take_slice(bytes).ok_or(CUT)?;
            if start < previous_end || end <= start {
                return Err(Damage("range tombstones are out of order"));
            }
            previous_end = end;
            let sequences = decoded.sequences.len();
            decoded.decode_sequences(bytes)?;
            let start_at = decoded.keys.len();
            decoded.keys.extend_from_slice(start);
            let end_at = decoded.keys.len();
            decoded.keys.extend_from_slice(end);
            decoded.fragments.push(Place {
                start: start_at,
                end: end_at,
                end_stop: decoded.keys.len(),
                sequences,
                sequences_stop: decoded.sequences.len(),
            });
        }
        if decoded.is_empty() || !bytes.is_empty() {
            return Err(Damage("the range tombstone block is empty or has bytes to spare"));
        }
        decoded.keys.shrink_to_fit();
        decoded.fragments.shrink_to_fit();
        decoded.sequences.shrink_to_fit();
        Ok(decoded)
    }

    fn decode_sequences(&mut self, bytes: &mut &[u8]) -> Result<(), Damage> {
        const CUT: Damage = Damage("the range tombstone block is cut off");
        let count = varint::take(bytes).ok_or(CUT)?;
        let mut sequence = varint::take(bytes).ok_or(CUT)?;
        if count == 0 || sequence > SEQUENCE_MAX {
            return Err(Damage("a range tombstone has no sequence or one that is too great"));
        }
        self.sequences.push(sequence);
        for _ in 1..count {
            let less = varint::take(bytes).filter(|&less| less > 0).ok_or(CUT)?;
            sequence =
                sequence.checked_sub(less).ok_or(Damage("a range tombstone's sequence is below zero"))?;
            self.sequences.push(sequence);
        }
        Ok(())
    }
}

/// Asks an `Arc<FragmentedTombstones>` for one key after the other, in either
/// direction; neighbouring keys cost a comparison or two. `Send + 'static`.
#[derive(Clone, Debug)]
pub(crate) struct TombstoneCursor {
    tombstones: Arc<FragmentedTombstones>,
    at_sequence: u64,
    /// How many fragments start at or before the key asked for last.
    starts_until: usize,
}

impl TombstoneCursor {
    /// A cursor over `tombstones` that reads at `at_sequence`.
    pub(crate) fn new(tombstones: Arc<FragmentedTombstones>, at_sequence: u64) -> Self {
        Self { tombstones, at_sequence, starts_until: 0 }
    }

    /// The sequence of the newest visible range delete of `user_key`.
    pub(crate) fn covering_sequence(&mut self, user_key: &[u8]) -> Option<u64> {
        if self.tombstones.is_empty() {
            return None;
        }
        let at_sequence = self.at_sequence;
        newest_at(self.fragment(user_key)?.sequences, at_sequence)
    }

    /// The fragment around `user_key`, visible or not: where to jump past it.
    pub(crate) fn fragment(&mut self, user_key: &[u8]) -> Option<Fragment<'_>> {
        let at = self.starts_until;
        let near = [at, at + 1, at.saturating_sub(1)].into_iter().find(|&at| self.is_place_of(user_key, at));
        self.starts_until = near.unwrap_or_else(|| self.tombstones.starts_until(user_key));
        self.tombstones.around(user_key, self.starts_until)
    }

    /// Whether `starts_until` fragments, no more and no less, start at or before `user_key`.
    fn is_place_of(&self, user_key: &[u8], starts_until: usize) -> bool {
        let tombstones = &self.tombstones;
        starts_until <= tombstones.len()
            && (starts_until == 0 || tombstones.start_of(starts_until - 1) <= user_key)
            && (starts_until == tombstones.len() || user_key < tombstones.start_of(starts_until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tombstone(start: &str, end: &str, sequence: u64) -> RangeTombstone {
        RangeTombstone {
            start: Bytes::copy_from_slice(start.as_bytes()),
            end: Bytes::copy_from_slice(end.as_bytes()),
            sequence,
        }
    }

    /// One line a fragment: `start..end: sequences`.
    fn text(fragments: &FragmentedTombstones) -> String {
        let line = |fragment: Fragment<'_>| {
            let (start, end) = (fragment.start.escape_ascii(), fragment.end.escape_ascii());
            format!("{start}..{end}:{:?}", fragment.sequences)
        };
        fragments.iter().map(line).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tombstones_are_cut_where_others_begin_and_end() {
        let check = |tombstones: &[RangeTombstone], expected: &str| {
            assert_eq!(text(&FragmentedTombstones::new(tombstones)), expected);
        };
        check(&[], "");
        check(&[tombstone("b", "b", 1), tombstone("c", "a", 1)], "");
        check(&[tombstone("a", "m", 3), tombstone("c", "z", 7)], "a..c:[3] c..m:[7, 3] m..z:[7]");
        check(&[tombstone("", "z", 1), tombstone("b", "c", 1)], "..z:[1]");
        check(&[tombstone("m", "z", 4), tombstone("a", "m", 4)], "a..z:[4]");
        check(
            &[tombstone("a", "b", 4), tombstone("b", "c", 5), tombstone("d", "e", 5)],
            "a..b:[4] b..c:[5] d..e:[5]",
        );
    }

    #[test]
    fn clipping_and_merging_keep_what_they_say() {
        let whole = FragmentedTombstones::new(&[tombstone("b", "m", 3), tombstone("d", "z", 7)]);
        let clip = |start: &'static str, end: &'static str| {
            whole.clipped(&KeyRange { start: Bytes::from(start), end: Bytes::from(end) })
        };
        assert_eq!(text(&clip("", "")), text(&whole));
        assert_eq!(text(&clip("c", "e")), "c..d:[3] d..e:[7, 3]");
        assert_eq!(text(&clip("z", "")), "");
        assert_eq!(text(&clip("", "b")), "");
        assert_eq!(text(&FragmentedTombstones::merge([&clip("", "e"), &clip("e", "")])), text(&whole));
        assert_eq!(whole.key_range().map(|range| range.end), Some(Bytes::from("z")));
        assert_eq!(text(&whole.under(9)), "b..z:[9]");
        assert!(FragmentedTombstones::default().clipped(&KeyRange::default()).is_empty());
    }

    #[test]
    fn golden_bytes_of_the_block() {
        let fragments = FragmentedTombstones::new(&[tombstone("a", "m", 3), tombstone("c", "z", 300)]);
        let mut block = Vec::new();
        fragments.encode(&mut block);
        assert_eq!(block, b"\x03\x01a\x01c\x01\x03\x01c\x01m\x02\xac\x02\xa9\x02\x01m\x01z\x01\xac\x02");
        assert_eq!(text(&FragmentedTombstones::decode(&block).unwrap()), text(&fragments));
        for end in 0..block.len() {
            assert!(FragmentedTombstones::decode(&block[..end]).is_err());
        }
    }

    #[test]
    fn random_bytes_are_refused_or_decode_to_ordered_fragments() {
        let mut random = crate::sstable::testing::Random::new(11);
        let fragments = FragmentedTombstones::new(&[tombstone("a", "m", 3), tombstone("c", "z", 300)]);
        let mut good = Vec::new();
        fragments.encode(&mut good);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = random.byte();
            }
            if let Ok(decoded) = FragmentedTombstones::decode(&bytes) {
                assert!(decoded.iter().all(|fragment| fragment.start < fragment.end));
                assert!(decoded.iter().is_sorted_by(|a, b| a.end <= b.start));
            }
        }
    }

    #[test]
    fn a_cursor_that_jumps_about_agrees_with_the_set() {
        let mut random = crate::sstable::testing::Random::new(7);
        let tombstones: Vec<_> = (0..300)
            .map(|sequence| {
                let start = random.below(10_000);
                tombstone(&format!("{start:05}"), &format!("{:05}", start + random.below(60)), sequence)
            })
            .collect();
        let set = Arc::new(FragmentedTombstones::new(&tombstones));
        let mut cursor = TombstoneCursor::new(Arc::clone(&set), 200);
        let mut at = 5_000;
        for step in 0..20_000 {
            at = match step % 50 {
                0 => random.below(10_100),
                _ => (at + random.below(9)).saturating_sub(4),
            };
            let key = format!("{at:05}");
            let expected = tombstones
                .iter()
                .filter(|tombstone| {
                    tombstone.sequence <= 200
                        && (&*tombstone.start..&*tombstone.end).contains(&key.as_bytes())
                })
                .map(|tombstone| tombstone.sequence)
                .max();
            assert_eq!(set.covering_sequence(key.as_bytes(), 200), expected);
            assert_eq!(cursor.covering_sequence(key.as_bytes()), expected);
        }
    }
}
