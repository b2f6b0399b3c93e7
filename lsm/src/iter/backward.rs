//! Moves backward: the oldest version of a key comes first, the one to show last.

use bytes::Bytes;

use super::{Iter, Position, newest_cover, seek_to, seek_version, set};
use crate::Result;
use crate::internal_key::{self, Kind};
use crate::sstable::Blocking;

/// Going backward, what stands below operands is known: so many are folded at once.
const OPERANDS_MAX: usize = 256;

impl Iter {
    #[inline]
    pub(super) fn move_backward(&mut self) -> Result<bool> {
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

    pub(super) fn seek_backward(&mut self, key: Option<&[u8]>) -> Result<bool> {
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

    /// Moves back to the newest visible version of a key, and past its other versions where there may be some.
    pub(super) fn settle_backward(&mut self) -> Result<bool> {
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

    /// Moves before all versions of `self.key`, the merge being on the oldest
    /// one. Whether there is a value; that is left in `self.value`.
    pub(super) fn pass_versions_backward(&mut self, cover: Option<(usize, u64)>) -> Result<bool> {
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
    pub(super) fn jump_to_folded(&mut self, sequence: u64) -> Result<bool> {
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

    /// Folds `operands`, oldest first, onto `self.value`, which `exists` or not. It does then.
    #[cold]
    pub(super) fn fold_backward(&mut self, operands: &mut Vec<Bytes>, exists: bool) -> Result<bool> {
        let base = exists.then_some(&self.value[..]);
        self.value = self.operator.required()?.merge(&self.key, base, operands);
        operands.clear();
        Ok(true)
    }
}
