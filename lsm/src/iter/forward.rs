//! Moves forward: the merge's current entry is what is shown, unless it has to be folded.

use super::{Iter, Position, newest_cover, seek_to, seek_version, set};
use crate::Result;
use crate::internal_key::{self, Kind};
use crate::merge_operator::Operands;

/// After so many versions that do not matter, the cursor jumps over the rest of them.
const STEPS_MAX: u32 = 16;

impl Iter {
    #[inline]
    pub(super) fn move_forward(&mut self) -> Result<bool> {
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

    pub(super) fn seek_forward(&mut self, key: Option<&[u8]>) -> Result<bool> {
        let start = key.filter(|key| self.range.begins_by(key)).unwrap_or(&self.range.start);
        set(&mut self.key, start);
        self.is_behind = false;
        self.position = Position::Between;
        self.aim();
        self.merged.seek(&self.target)?;
        self.settle_forward()
    }

    /// Moves on to the newest visible version of a key, passing over the
    /// versions of `self.key` where the gap is behind it.
    pub(super) fn settle_forward(&mut self) -> Result<bool> {
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

    /// Folds the operands that the merge is on the newest of, of the key that
    /// `cover` deletes, and moves past them; leaves key and value aside.
    #[cold]
    pub(super) fn fold_forward(&mut self, cover: Option<(usize, u64)>) -> Result<()> {
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
}
