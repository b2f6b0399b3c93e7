//! Ordered reading of one tree.
//!
//! A cursor over user keys stands on a merge of memtables, tables and levels.
//! Going forward it stands on the entry it shows; going backward the merge is
//! already before that key, since the newest version comes last, and key and
//! value are held aside. So are they going forward where the value had to be
//! folded from merge operands: the merge is past those then.

use std::fmt;

use bytes::Bytes;

use crate::internal_key::{self, Kind, SEQUENCE_MAX, Trailer};
use crate::merge::MergingCursor;
use crate::merge_operator::{Operands, TreeOperator};
use crate::source::{Source, SourceTombstones};
use crate::{KeyRange, Result};

/// A cursor over the keys of one tree within its range, newest visible value
/// each, at one snapshot. Owns what it reads from: `Send + 'static`.
///
/// Fresh, it stands before the first key. `next` and `prev` may be mixed:
/// after `next` has returned false, `prev` moves to the last key, and after
/// `prev` has, `next` moves to the first. After an error it has to be sought
/// anew: until then it shows no key.
pub struct Iter {
    merged: MergingCursor,
    /// Range tombstones, with the index of the source they are from, newest first.
    tombstones: Vec<(usize, SourceTombstones)>,
    range: KeyRange,
    sequence: u64,
    operator: TreeOperator,
    position: Position,
    /// On a key held aside: that. Else going forward: the last one that is done with.
    key: Vec<u8>,
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
    /// On `key` and `value`, the merge being past the operands of that.
    Folded,
    /// On `key` and `value`, the merge being before them.
    Backward,
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
            position: Position::Fresh,
            key: Vec::new(),
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
        match std::mem::replace(&mut self.position, Position::Failed) {
            Position::Fresh | Position::BeforeFirst => self.seek_forward(None),
            Position::Forward => {
                set(&mut self.key, internal_key::user_key(self.merged.key()));
                self.merged.next()?;
                self.settle_forward(true)
            }
            Position::Folded => self.settle_forward(true),
            Position::Backward => {
                seek_past(&mut self.target, &self.key);
                self.merged.seek(&self.target)?;
                self.settle_forward(true)
            }
            end @ (Position::AfterLast | Position::Failed) => {
                self.position = end;
                Ok(false)
            }
        }
    }

    /// Moves to the key before; false at the start. On a fresh iterator: the last key.
    pub fn prev(&mut self) -> Result<bool> {
        match std::mem::replace(&mut self.position, Position::Failed) {
            Position::Fresh | Position::AfterLast => self.seek_backward(None),
            Position::Forward => {
                seek_to(&mut self.target, internal_key::user_key(self.merged.key()));
                self.merged.seek_before(&self.target)?;
                self.settle_backward()
            }
            Position::Folded => {
                seek_to(&mut self.target, &self.key);
                self.merged.seek_before(&self.target)?;
                self.settle_backward()
            }
            Position::Backward => self.settle_backward(),
            end @ (Position::BeforeFirst | Position::Failed) => {
                self.position = end;
                Ok(false)
            }
        }
    }

    /// Moves to the first key at or after `key`; false if there is none in range.
    pub fn seek(&mut self, key: &[u8]) -> Result<bool> {
        self.position = Position::Failed;
        self.seek_forward(Some(key))
    }

    /// Moves to the last key before `key`; false if there is none in range.
    pub fn seek_before(&mut self, key: &[u8]) -> Result<bool> {
        self.position = Position::Failed;
        self.seek_backward(Some(key))
    }

    /// The current key. Panics unless the last move returned true.
    pub fn key(&self) -> &[u8] {
        match self.position {
            Position::Forward => internal_key::user_key(self.merged.key()),
            Position::Folded | Position::Backward => &self.key,
            _ => panic!("the iterator stands on no key"),
        }
    }

    /// The current value, in place.
    pub fn value(&self) -> &[u8] {
        match self.position {
            Position::Forward => self.merged.value(),
            Position::Folded | Position::Backward => &self.value,
            _ => panic!("the iterator stands on no key"),
        }
    }

    /// The current value, shared without a copy where the source allows it.
    pub fn value_bytes(&self) -> Bytes {
        match self.position {
            Position::Forward => self.merged.value_bytes(),
            Position::Folded | Position::Backward => self.value.clone(),
            _ => panic!("the iterator stands on no key"),
        }
    }

    fn seek_forward(&mut self, key: Option<&[u8]>) -> Result<bool> {
        let start = key.map_or(&self.range.start[..], |key| key.max(&self.range.start));
        seek_to(&mut self.target, start);
        self.merged.seek(&self.target)?;
        self.settle_forward(false)
    }

    fn seek_backward(&mut self, key: Option<&[u8]>) -> Result<bool> {
        let end = match key {
            Some(key) if self.range.end.is_empty() => Some(key),
            Some(key) => Some(key.min(&self.range.end)),
            None => Some(&self.range.end[..]).filter(|end| !end.is_empty()),
        };
        match end {
            Some(end) => {
                seek_to(&mut self.target, end);
                self.merged.seek_before(&self.target)?;
            }
            None => {
                self.merged.seek_to_last()?;
            }
        }
        self.settle_backward()
    }

    /// Moves on to the newest visible version of a key, passing over the
    /// versions of `self.key` where `passed` says it is done with.
    fn settle_forward(&mut self, mut passed: bool) -> Result<bool> {
        let mut steps = 0;
        while self.merged.is_valid() {
            let (key, trailer) = internal_key::decode(self.merged.key()).expect("an internal key");
            if !self.range.end.is_empty() && *key >= *self.range.end {
                break;
            }
            let is_done_with = passed && key == self.key;
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
            passed = true;
            self.merged.next()?;
        }
        self.position = Position::AfterLast;
        Ok(false)
    }

    /// Moves back to the newest visible version of a key, and past its other versions.
    fn settle_backward(&mut self) -> Result<bool> {
        while self.merged.is_valid() {
            let (key, _) = internal_key::decode(self.merged.key()).expect("an internal key");
            if *key < *self.range.start {
                break;
            }
            set(&mut self.key, key);
            let cover = newest_cover(&mut self.tombstones, &self.key);
            if self.pass_versions_backward(cover)? {
                self.position = Position::Backward;
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
        let mut operands = Operands::default();
        let mut base = None;
        loop {
            operands.push_older(self.merged.value_bytes());
            if !self.merged.next()? {
                break;
            }
            let (key, trailer) = internal_key::decode(self.merged.key()).expect("an internal key");
            if key != self.key || trailer.sequence() < deleted_at {
                break;
            }
            match trailer.kind() {
                Some(Kind::Merge) => {}
                Some(Kind::Put) => {
                    base = Some(self.merged.value_bytes());
                    break;
                }
                _ => break,
            }
        }
        self.value = operands.fold(self.operator.required()?, &self.key, base.as_deref());
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

/// Makes `target` the place behind all versions of `key`.
fn seek_past(target: &mut Vec<u8>, key: &[u8]) {
    seek_version(target, key, 0);
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
