//! Merging sources into one order.
//!
//! A binary heap of the sources that stand on an entry, the least on top, or
//! the greatest when going backward. Stepping replaces the top in place: where
//! one source has a run of neighbours, that is a comparison or two a step.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::Result;
use crate::internal_key::{self, compare};
use crate::iter::source::Source;
use crate::memtable::folded_values::FoldedValues;
use crate::sstable::Blocking;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// A cursor over the entries of several sources by internal key. Sources are
/// given newest first. Fresh, and after an error, it stands nowhere.
///
/// It turns by seeking only: `next` follows a forward seek, `prev` a backward one.
#[derive(Debug)]
pub(crate) struct MergingCursor {
    sources: Vec<Source>,
    /// Indexes of the sources that stand on an entry.
    heap: Vec<usize>,
    direction: Direction,
}

impl MergingCursor {
    pub(crate) fn new(sources: Vec<Source>) -> Self {
        let heap = Vec::with_capacity(sources.len());
        Self { sources, heap, direction: Direction::Forward }
    }

    /// Whether moves from now on may wait for the disk. Once they may not, it has to be sought first.
    pub(crate) fn set_blocking(&mut self, blocking: Blocking) {
        self.sources.iter_mut().for_each(|source| source.set_blocking(blocking));
    }

    pub(crate) fn is_valid(&self) -> bool {
        !self.heap.is_empty()
    }

    pub(crate) fn seek_to_first(&mut self) -> Result<bool> {
        self.rebuild(Direction::Forward, Source::seek_to_first)
    }

    pub(crate) fn seek_to_last(&mut self) -> Result<bool> {
        self.rebuild(Direction::Backward, Source::seek_to_last)
    }

    /// Moves to the first entry at or after the encoded internal key.
    pub(crate) fn seek(&mut self, internal_key: &[u8]) -> Result<bool> {
        self.rebuild(Direction::Forward, |source| source.seek(internal_key))
    }

    /// Moves to the last entry before the encoded internal key.
    pub(crate) fn seek_before(&mut self, internal_key: &[u8]) -> Result<bool> {
        self.rebuild(Direction::Backward, |source| source.seek_before(internal_key))
    }

    /// Moves to the next entry. REQUIRES: it stands on one and goes forward.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<bool> {
        debug_assert_eq!(self.direction, Direction::Forward);
        self.step(Source::next)
    }

    /// Moves to the entry before. REQUIRES: it stands on one and goes backward.
    #[inline]
    pub(crate) fn prev(&mut self) -> Result<bool> {
        debug_assert_eq!(self.direction, Direction::Backward);
        self.step(Source::prev)
    }

    /// Moves on within the current source only, to its first entry at or after
    /// the encoded internal key: what it holds before is known not to matter.
    ///
    /// REQUIRES: it stands on an entry before `internal_key` and goes forward.
    pub(crate) fn skip_in_source(&mut self, internal_key: &[u8]) -> Result<bool> {
        debug_assert_eq!(self.direction, Direction::Forward);
        self.step(|source| source.seek(internal_key))
    }

    /// Moves back within the current source only, to its last entry before the encoded internal key.
    ///
    /// REQUIRES: it stands on an entry at or after `internal_key` and goes backward.
    pub(crate) fn skip_back_in_source(&mut self, internal_key: &[u8]) -> Result<bool> {
        debug_assert_eq!(self.direction, Direction::Backward);
        self.step(|source| source.seek_before(internal_key))
    }

    /// Whether the current entry is known to be the newest of its user key; cheap, and may not know.
    ///
    /// REQUIRES: it stands on an entry and goes backward.
    #[inline]
    pub(crate) fn is_newest_of_key(&self) -> bool {
        debug_assert_eq!(self.direction, Direction::Backward);
        let user_key = internal_key::user_key(self.key());
        // A newer version in another source would be what comes next of all others, which are behind the top's children.
        let of_others = self.heap.iter().skip(1).take(2);
        let mut others = of_others.map(|at| internal_key::user_key(self.sources[*at].key()));
        others.all(|other| other != user_key) && self.sources[self.heap[0]].is_newest_of_key()
    }

    /// The index of the source that the current entry is from.
    pub(crate) fn source(&self) -> usize {
        self.heap[0]
    }

    /// What readers have folded, of a source that is a memtable.
    pub(crate) fn folded(&self, source: usize) -> Option<&FoldedValues> {
        self.sources[source].folded()
    }

    /// The current encoded internal key.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        self.sources[self.heap[0]].key()
    }

    pub(crate) fn value(&self) -> &[u8] {
        self.sources[self.heap[0]].value()
    }

    pub(crate) fn value_bytes(&self) -> Bytes {
        self.sources[self.heap[0]].value_bytes()
    }

    fn rebuild(
        &mut self,
        direction: Direction,
        mut seek: impl FnMut(&mut Source) -> Result<bool>,
    ) -> Result<bool> {
        self.direction = direction;
        self.heap.clear();
        let mut standing = std::mem::take(&mut self.heap);
        for (at, source) in self.sources.iter_mut().enumerate() {
            if seek(source)? {
                standing.push(at);
            }
        }
        self.heap = standing;
        for at in (0..self.heap.len() / 2).rev() {
            self.sift_down(at);
        }
        Ok(self.is_valid())
    }

    #[inline]
    fn step(&mut self, step: impl FnOnce(&mut Source) -> Result<bool>) -> Result<bool> {
        match step(&mut self.sources[self.heap[0]]) {
            Ok(true) => {}
            Ok(false) => {
                self.heap.swap_remove(0);
            }
            Err(error) => {
                self.heap.clear();
                return Err(error);
            }
        }
        self.sift_down(0);
        Ok(self.is_valid())
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let mut child = 2 * at + 1;
            if child >= self.heap.len() {
                return;
            }
            if child + 1 < self.heap.len() && self.is_before(child + 1, child) {
                child += 1;
            }
            if !self.is_before(child, at) {
                return;
            }
            self.heap.swap(at, child);
            at = child;
        }
    }

    /// Whether the entry of one place of the heap comes before that of another in the direction of travel.
    fn is_before(&self, a: usize, b: usize) -> bool {
        let order = compare(self.sources[self.heap[a]].key(), self.sources[self.heap[b]].key());
        order == if self.direction == Direction::Forward { Ordering::Less } else { Ordering::Greater }
    }
}
