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

use std::fmt;

use bytes::Bytes;

use crate::folded_values::FoldedValue;
use crate::internal_key::{self, Kind, SEQUENCE_MAX, Trailer};
use crate::merge::MergingCursor;
use crate::merge_operator::{Operands, TreeOperator};
use crate::source::{Source, SourceTombstones};
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

    #[inline]
    fn move_forward(&mut self) -> Result<bool> {
        match self.position {
            Position::Fresh | Position::BeforeFirst => return self.seek_forward(None),
            Position::Forward => {
                set(&mut self.key, internal_key::user_key(self.merged.key()));
                self.is_behind = true;
                self.merged.next()?;
            }
            Position::Folded => self.is_behind = true,
            Position::Backward | Position::Passed => {
                self.hold_key();
                self.is_behind = true;
                self.aim();
                self.merged.seek(&self.target)?;
            }
            Position::Between => {
                self.aim();
                self.merged.seek(&self.target)?;
            }
            Position::AfterLast | Position::Failed => return Ok(false),
        }
        self.settle_forward()
    }

    #[inline]
    fn move_backward(&mut self) -> Result<bool> {
        match self.position {
            Position::Fresh | Position::AfterLast => return self.seek_backward(None),
            Position::Backward => {
                if self.blocking == Blocking::Forbidden {
                    // To go on from, where this is cut short.
                    self.hold_key();
                    self.is_behind = false;
                }
                self.merged.prev()?;
            }
            Position::Passed => {}
            Position::Forward | Position::Folded => {
                self.hold_key();
                self.is_behind = false;
                self.aim();
                self.merged.seek_before(&self.target)?;
            }
            Position::Between => {
                self.aim();
                self.merged.seek_before(&self.target)?;
            }
            Position::BeforeFirst | Position::Failed => return Ok(false),
        }
        self.settle_backward()
    }

    /// Makes `target` the gap.
    fn aim(&mut self) {
        seek_version(&mut self.target, &self.key, if self.is_behind { 0 } else { SEQUENCE_MAX });
    }

    fn seek_forward(&mut self, key: Option<&[u8]>) -> Result<bool> {
        let start = key.filter(|key| self.range.begins_by(key)).unwrap_or(&self.range.start);
        set(&mut self.key, start);
        self.is_behind = false;
        self.position = Position::Between;
        self.aim();
        self.merged.seek(&self.target)?;
        self.settle_forward()
    }

    fn seek_backward(&mut self, key: Option<&[u8]>) -> Result<bool> {
        let end = match key {
            Some(key) if self.range.end.is_empty() => Some(key),
            Some(key) => Some(key.min(&self.range.end)),
            None => Some(&self.range.end[..]).filter(|end| !end.is_empty()),
        };
        if let Some(end) = end {
            set(&mut self.key, end);
            self.is_behind = false;
            self.position = Position::Between;
            self.aim();
            self.merged.seek_before(&self.target)?;
        } else {
            self.position = Position::AfterLast;
            self.merged.seek_to_last()?;
        }
        self.settle_backward()
    }

    /// Moves on to the newest visible version of a key, passing over the
    /// versions of `self.key` where the gap is behind it.
    fn settle_forward(&mut self) -> Result<bool> {
        let mut steps = 0;
        while self.merged.is_valid() {
            let (key, trailer) = internal_key::decode(self.merged.key()).expect("an internal key");
            if !self.range.end.is_empty() && *key >= *self.range.end {
                break;
            }
            let is_done_with = self.is_behind && key == self.key;
            if is_done_with || trailer.sequence() > self.sequence {
                steps += 1;
                if steps < STEPS_MAX {
                    self.merged.next()?;
                } else {
                    let sequence = if is_done_with { 0 } else { self.sequence };
                    seek_version(&mut self.target, key, sequence);
                    self.merged.skip_in_source(&self.target)?;
                }
                continue;
            }
            steps = 0;
            let cover = newest_cover(&mut self.tombstones, key);
            if let Some(at) = cover.filter(|(_, sequence)| *sequence > trailer.sequence()).map(|(at, _)| at) {
                if self.tombstones[at].0 < self.merged.source() {
                    // All that this source, which is older than the tombstone's, holds of the fragment is gone.
                    let (_, end) = self.tombstones[at].1.fragment(key).expect("it covers the key");
                    seek_to(&mut self.target, end);
                    self.merged.skip_in_source(&self.target)?;
                    continue;
                }
            } else if trailer.kind() == Some(Kind::Put) {
                self.position = Position::Forward;
                return Ok(true);
            } else if trailer.kind() == Some(Kind::Merge) {
                self.fold_forward(cover)?;
                self.position = Position::Folded;
                return Ok(true);
            }
            set(&mut self.key, key);
            self.is_behind = true;
            self.merged.next()?;
        }
        self.position = Position::AfterLast;
        Ok(false)
    }

    /// Moves back to the newest visible version of a key, and past its other versions where there may be some.
    fn settle_backward(&mut self) -> Result<bool> {
        while self.merged.is_valid() {
            let (key, trailer) = internal_key::decode(self.merged.key()).expect("an internal key");
            if !self.range.begins_by(key) {
                break;
            }
            let cover = newest_cover(&mut self.tombstones, key);
            let is_shown = trailer.kind() == Some(Kind::Put)
                && trailer.sequence() <= self.sequence
                && cover.is_none_or(|(_, sequence)| sequence <= trailer.sequence());
            if is_shown && self.merged.is_newest_of_key() {
                self.position = Position::Backward;
                return Ok(true);
            }
            set(&mut self.key, key);
            self.is_behind = true;
            if self.pass_versions_backward(cover)? {
                self.position = Position::Passed;
                return Ok(true);
            }
        }
        self.position = Position::BeforeFirst;
        Ok(false)
    }

    /// Folds the operands that the merge is on the newest of, of the key that
    /// `cover` deletes, and moves past them; leaves key and value aside.
    #[cold]
    fn fold_forward(&mut self, cover: Option<(usize, u64)>) -> Result<()> {
        let deleted_at = cover.map_or(0, |(_, sequence)| sequence);
        set(&mut self.key, internal_key::user_key(self.merged.key()));
        self.is_behind = false;
        let mut operands = Operands::default();
        let mut base = None;
        let newest = (self.merged.source(), internal_key::trailer(self.merged.key()).sequence());
        let mut folded = self.merged.folded(newest.0).and_then(|values| values.get(&self.key));
        if let Some(folded) = folded.take_if(|folded| folded.sequence == newest.1) {
            self.value = folded.value;
            return Ok(());
        }
        loop {
            operands.push_older(self.merged.value_bytes());
            if !self.merged.next()? {
                break;
            }
            let (key, trailer) = internal_key::decode(self.merged.key()).expect("an internal key");
            if key != self.key || trailer.sequence() < deleted_at {
                break;
            }
            match (trailer.kind(), &folded) {
                (_, Some(folded)) if folded.sequence == trailer.sequence() => {
                    base = Some(folded.value.clone());
                    break;
                }
                (Some(Kind::Merge), _) => {}
                (Some(Kind::Put), _) => {
                    base = Some(self.merged.value_bytes());
                    break;
                }
                _ => break,
            }
        }
        let operand_count = operands.len();
        self.value = operands.fold(self.operator.required()?, &self.key, base.as_deref());
        self.keep_folded(newest, operand_count);
        Ok(())
    }

    /// Moves before all versions of `self.key`, the merge being on the oldest
    /// one. Whether there is a value; that is left in `self.value`.
    fn pass_versions_backward(&mut self, cover: Option<(usize, u64)>) -> Result<bool> {
        let deleted_at = cover.map_or(0, |(_, sequence)| sequence);
        let mut exists = false;
        // Oldest first, on top of `self.value` if that exists.
        let mut operands = Vec::new();
        while self.merged.is_valid() {
            let (key, trailer) = internal_key::decode(self.merged.key()).expect("an internal key");
            if key != self.key {
                break;
            }
            if let Some((at, covering)) = cover
                && covering > trailer.sequence()
                && self.tombstones[at].0 < self.merged.source()
            {
                let (start, _) = self.tombstones[at].1.fragment(&self.key).expect("it covers the key");
                seek_to(&mut self.target, start);
                self.merged.skip_back_in_source(&self.target)?;
                continue;
            }
            let sequence = trailer.sequence();
            if sequence >= deleted_at && sequence <= self.sequence {
                let kind = trailer.kind().expect("sources hold known kinds");
                if kind == Kind::Merge {
                    operands.push(self.merged.value_bytes());
                    if operands.len() == OPERANDS_MAX {
                        exists = self.fold_backward(&mut operands, exists)?;
                        if self.jump_to_folded(sequence)? {
                            continue;
                        }
                    }
                } else {
                    operands.clear();
                    exists = kind == Kind::Put;
                    self.value = if exists { self.merged.value_bytes() } else { Bytes::new() };
                }
            }
            self.merged.prev()?;
        }
        if operands.is_empty() { Ok(exists) } else { self.fold_backward(&mut operands, exists) }
    }

    /// Going backward over the operands of a memtable, the one with `sequence`
    /// being folded into `self.value`: moves past one that an earlier reader has
    /// come to, and takes its value; or leaves `self.value` to later readers.
    fn jump_to_folded(&mut self, sequence: u64) -> Result<bool> {
        let source = self.merged.source();
        let folded = self.merged.folded(source).and_then(|values| values.get(&self.key));
        match folded.filter(|folded| folded.sequence > sequence && folded.sequence <= self.sequence) {
            Some(folded) => {
                seek_version(&mut self.target, &self.key, folded.sequence);
                self.merged.skip_back_in_source(&self.target)?;
                self.value = folded.value;
                Ok(true)
            }
            None => {
                self.keep_folded((source, sequence), OPERANDS_MAX);
                Ok(false)
            }
        }
    }

    /// Leaves `self.value` to later readers: what `operands` came to as of the
    /// write of a source with a sequence number, if that is a memtable's.
    fn keep_folded(&self, (source, sequence): (usize, u64), operands: usize) {
        if let Some(values) = self.merged.folded(source) {
            values.keep(&self.key, FoldedValue { sequence, value: self.value.clone() }, operands);
        }
    }

    /// Folds `operands`, oldest first, onto `self.value`, which `exists` or not. It does then.
    #[cold]
    fn fold_backward(&mut self, operands: &mut Vec<Bytes>, exists: bool) -> Result<bool> {
        let base = exists.then_some(&self.value[..]);
        self.value = self.operator.required()?.merge(&self.key, base, operands);
        operands.clear();
        Ok(true)
    }
}

/// After so many versions that do not matter, the cursor jumps over the rest of them.
const STEPS_MAX: u32 = 16;

/// Going backward, what stands below operands is known: so many are folded at once.
const OPERANDS_MAX: usize = 256;

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
