//! Ordered reading of one tree.
//!
//! A cursor over user keys stands on a merge of memtables, tables and levels.
//! Going forward it stands on the entry it shows. Going backward a key's newest
//! version comes last: where the merge knows that it stands on that already, as
//! it does for most keys, the cursor shows it in place; else the merge goes on
//! before the key, and key and value are held aside. So are they going forward
//! where the value had to be folded from merge operands: the merge is past
//! those then.
//!
//! A move without permission to block may be cut short in the middle. What it
//! keeps is the gap between two keys that it has come to, and the next move
//! seeks there.

mod backward;
mod forward;
pub(crate) mod merge;
pub(crate) mod part_cursor;
pub(crate) mod source;

use std::fmt;

use bytes::Bytes;

use self::merge::MergingCursor;
use self::source::{Source, SourceTombstones};
use crate::internal_key::{self, SEQUENCE_MAX, Trailer};
use crate::memtable::folded_values::FoldedValue;
use crate::merge_operator::TreeOperator;
use crate::sstable::Blocking;
use crate::{Error, KeyRange, Result};

/// A cursor over the keys of one tree within its range, newest visible value
/// each, at one snapshot. Owns what it reads from: `Send + 'static`.
///
/// Fresh, it stands before the first key. `next` and `prev` may be mixed:
/// after `next` has returned false, `prev` moves to the last key, and after
/// `prev` has, `next` moves to the first. After an error it has to be sought
/// anew: until then it shows no key.
///
/// Each move has a twin, `try_next` for `next`, that waits for no disk: where
/// something is not in memory it ends with [`Error::WouldBlock`], and the cursor
/// shows no key, but stays on its way: the same move, permitted to block or
/// after [`crate::Miss::fetch`], goes on from there; one in the opposite
/// direction turns back to the key it came from.
pub struct Iter {
    merged: MergingCursor,
    /// Range tombstones, with the index of the source they are from, newest first.
    tombstones: Vec<(usize, SourceTombstones)>,
    range: KeyRange,
    sequence: u64,
    operator: TreeOperator,
    /// Whether the current move may wait for the disk.
    blocking: Blocking,
    position: Position,
    /// On a key held aside: that. Else the gap that a move has come to is before or behind it.
    key: Vec<u8>,
    /// Whether the gap is behind `key`: going forward, it is done with.
    is_behind: bool,
    /// On a key held aside: its value.
    value: Bytes,
    /// An internal key to seek to.
    target: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Fresh,
    /// On the merge's current entry.
    Forward,
    /// On the merge's current entry, which is all that there is of its key.
    Backward,
    /// On `key` and `value`, the merge being past the operands of that.
    Folded,
    /// On `key` and `value`, the merge being before all versions.
    Passed,
    /// In the gap, on no key, wherever the merge is.
    Between,
    BeforeFirst,
    AfterLast,
    Failed,
}

impl Iter {
    /// A cursor over what `sources`, newest first, hold in `range` at `sequence`.
    pub(crate) fn new(
        sources: Vec<Source>,
        tombstones: Vec<(usize, SourceTombstones)>,
        range: KeyRange,
        sequence: u64,
        operator: TreeOperator,
    ) -> Self {
        Self {
            merged: MergingCursor::new(sources),
            tombstones,
            range,
            sequence,
            operator,
            blocking: Blocking::Allowed,
            position: Position::Fresh,
            key: Vec::new(),
            is_behind: false,
            value: Bytes::new(),
            target: Vec::new(),
        }
    }

    /// Moves to the next key; false at the end.
    #[expect(
        clippy::should_implement_trait,
        reason = "it lends the key and value, which no std iterator can"
    )]
    pub fn next(&mut self) -> Result<bool> {
        self.permit(Blocking::Allowed);
        let moved = self.move_forward();
        moved.map_err(|error| self.stopped(error))
    }

    /// As [`Iter::next`], unless that would block.
    pub fn try_next(&mut self) -> Result<bool> {
        self.forbid_blocking(true);
        let moved = self.move_forward();
        moved.map_err(|error| self.stopped(error))
    }

    /// Moves to the key before; false at the start. On a fresh iterator: the last key.
    pub fn prev(&mut self) -> Result<bool> {
        self.permit(Blocking::Allowed);
        let moved = self.move_backward();
        moved.map_err(|error| self.stopped(error))
    }

    /// As [`Iter::prev`], unless that would block.
    pub fn try_prev(&mut self) -> Result<bool> {
        self.forbid_blocking(false);
        let moved = self.move_backward();
        moved.map_err(|error| self.stopped(error))
    }

    /// Moves to the first key at or after `key`; false if there is none in range.
    pub fn seek(&mut self, key: &[u8]) -> Result<bool> {
        self.permit(Blocking::Allowed);
        let moved = self.seek_forward(Some(key));
        moved.map_err(|error| self.stopped(error))
    }

    /// As [`Iter::seek`], unless that would block; [`Iter::try_next`] goes on then.
    pub fn try_seek(&mut self, key: &[u8]) -> Result<bool> {
        self.permit(Blocking::Forbidden);
        let moved = self.seek_forward(Some(key));
        moved.map_err(|error| self.stopped(error))
    }

    /// Moves to the last key before `key`; false if there is none in range.
    pub fn seek_before(&mut self, key: &[u8]) -> Result<bool> {
        self.permit(Blocking::Allowed);
        let moved = self.seek_backward(Some(key));
        moved.map_err(|error| self.stopped(error))
    }

    /// As [`Iter::seek_before`], unless that would block; [`Iter::try_prev`] goes on then.
    pub fn try_seek_before(&mut self, key: &[u8]) -> Result<bool> {
        self.permit(Blocking::Forbidden);
        let moved = self.seek_backward(Some(key));
        moved.map_err(|error| self.stopped(error))
    }

    /// The current key. Panics unless the last move returned true.
    pub fn key(&self) -> &[u8] {
        match self.position {
            Position::Forward | Position::Backward => internal_key::user_key(self.merged.key()),
            Position::Folded | Position::Passed => &self.key,
            _ => panic!("the iterator stands on no key"),
        }
    }

    /// The current value, in place.
    pub fn value(&self) -> &[u8] {
        match self.position {
            Position::Forward | Position::Backward => self.merged.value(),
            Position::Folded | Position::Passed => &self.value,
            _ => panic!("the iterator stands on no key"),
        }
    }

    /// The current value, shared without a copy where the source allows it.
    pub fn value_bytes(&self) -> Bytes {
        match self.position {
            Position::Forward | Position::Backward => self.merged.value_bytes(),
            Position::Folded | Position::Passed => self.value.clone(),
            _ => panic!("the iterator stands on no key"),
        }
    }

    #[inline]
    fn permit(&mut self, blocking: Blocking) {
        if self.blocking != blocking {
            self.blocking = blocking;
            self.merged.set_blocking(blocking);
        }
    }

    /// Prepares a step that must not block: what the merge stands on may be a
    /// map that was read with permission to, and is left.
    fn forbid_blocking(&mut self, is_forward: bool) {
        if self.blocking == Blocking::Forbidden {
            return;
        }
        self.permit(Blocking::Forbidden);
        if self.is_on_key() {
            self.hold_key();
            self.is_behind = is_forward;
            self.position = Position::Between;
        }
    }

    fn is_on_key(&self) -> bool {
        use Position::{Backward, Folded, Forward, Passed};
        matches!(self.position, Forward | Backward | Folded | Passed)
    }

    /// Holds the key that is shown aside, to leave it for a gap beside it.
    fn hold_key(&mut self) {
        if let Position::Forward | Position::Backward = self.position {
            set(&mut self.key, internal_key::user_key(self.merged.key()));
        }
    }

    /// Notes that a move has failed: for good, or in a gap to go on from.
    #[cold]
    fn stopped(&mut self, error: Error) -> Error {
        self.position = match (&error, self.position) {
            (Error::WouldBlock(_), Position::AfterLast) => Position::AfterLast,
            (Error::WouldBlock(_), _) => Position::Between,
            _ => Position::Failed,
        };
        error
    }

    /// Makes `target` the gap.
    fn aim(&mut self) {
        seek_version(&mut self.target, &self.key, if self.is_behind { 0 } else { SEQUENCE_MAX });
    }

    /// Leaves `self.value` to later readers: what `operands` came to as of the
    /// write of a source with a sequence number, if that is a memtable's.
    fn keep_folded(&self, (source, sequence): (usize, u64), operands: usize) {
        if let Some(values) = self.merged.folded(source) {
            values.keep(&self.key, FoldedValue { sequence, value: self.value.clone() }, operands);
        }
    }
}

/// The newest visible range delete of `key`: whose, and its sequence number.
fn newest_cover(tombstones: &mut [(usize, SourceTombstones)], key: &[u8]) -> Option<(usize, u64)> {
    // Of any one key, a newer source's deletes are newer.
    tombstones.iter_mut().enumerate().find_map(|(at, (_, of))| Some((at, of.covering_sequence(key)?)))
}

fn set(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(bytes);
}

/// Makes `target` the place before all versions of `key`.
fn seek_to(target: &mut Vec<u8>, key: &[u8]) {
    seek_version(target, key, SEQUENCE_MAX);
}

/// Makes `target` the place before the newest version of `key` at or below `sequence`.
fn seek_version(target: &mut Vec<u8>, key: &[u8], sequence: u64) {
    target.clear();
    internal_key::encode(target, key, Trailer::seek(sequence));
}

impl fmt::Debug for Iter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = (&self.range, self.sequence, self.position);
        f.debug_struct("Iter").field("at", &fields).finish_non_exhaustive()
    }
}
