//! Folding the merge operands of a key while it is rewritten.
//!
//! Within a stripe (see [`super::rewrite`]) nobody sees the operands one by one:
//!
//! - on a put, a delete or a range delete they become a put, as they do where
//!   nothing older exists anywhere;
//! - on what is not at hand, the versions of an older stripe or of deeper
//!   levels, they become one operand if the operator can combine them;
//! - if it cannot, they stay; once there are many, the value below them is looked
//!   up and they become a put on that, so that no read of a table's key takes
//!   more than [`OPERANDS_MAX`].
//!
//! Whatever is written has the sequence number of the newest operand in it, and
//! so stays in the stripe, above what stays below.

use bytes::Bytes;

use crate::Result;
use crate::internal_key::{self, Kind};
use crate::iter::merge::MergingCursor;
use crate::merge_operator::{MergeOperator, Operands};
use crate::sstable::fits_entry;

/// As many operands of a key stay beside each other in a stripe; with more, the value below is looked up.
pub(super) const OPERANDS_MAX: usize = 32;

/// Gives the value of a key at a sequence number, wherever in the tree it stands.
pub(crate) type ValueAt<'a> = dyn Fn(&[u8], u64) -> Result<Option<Bytes>> + 'a;

/// What operands stand on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ground {
    /// This value, put at this sequence number.
    Value(u64, Bytes),
    /// A delete of this sequence number.
    Delete(u64),
    /// A range delete, or the absence of anything older.
    Nothing,
    /// An older stripe's versions.
    OlderStripe,
    /// What deeper levels hold.
    Beyond,
}

/// The operands of one key and stripe.
#[derive(Debug)]
pub(super) struct Run {
    /// Newest first, with their sequence numbers; at least one.
    operands: Vec<(u64, Bytes)>,
    pub(super) ground: Ground,
}

/// What a run comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Folded {
    /// A value, as if it had been put at the newest operand's sequence number.
    Value(Bytes),
    /// These writes, newest first.
    Writes(Vec<(u64, Kind, Bytes)>),
}

impl Run {
    /// Takes the operands of `key` that are newer than `deleted_at`, where a range
    /// delete cuts them off, and than `stripe_start`, and what they stand on if
    /// that is newer, too.
    ///
    /// REQUIRES: the merge is on the newest one.
    pub(super) fn take(
        merged: &mut MergingCursor,
        key: &[u8],
        stripe_start: u64,
        deleted_at: u64,
    ) -> Result<Self> {
        let mut operands = Vec::new();
        let mut sequence = internal_key::trailer(merged.key()).sequence();
        let ground = loop {
            operands.push((sequence, merged.value_bytes()));
            if !merged.next()? {
                break Ground::Beyond;
            }
            let (next_key, trailer) = internal_key::decode(merged.key()).expect("an internal key");
            if next_key != key {
                break Ground::Beyond;
            }
            sequence = trailer.sequence();
            if sequence < deleted_at {
                break Ground::Nothing;
            }
            if sequence <= stripe_start {
                break Ground::OlderStripe;
            }
            match trailer.kind() {
                Some(Kind::Merge) => {}
                Some(Kind::Put) => break Ground::Value(sequence, merged.value_bytes()),
                _ => break Ground::Delete(sequence),
            }
        };
        // What stands deeper is older than a range delete that is met here.
        let is_cut_off = deleted_at > 0 && ground == Ground::Beyond;
        Ok(Self { operands, ground: if is_cut_off { Ground::Nothing } else { ground } })
    }

    /// The sequence number of what the run is folded to.
    pub(super) fn newest_sequence(&self) -> u64 {
        self.operands[0].0
    }

    /// Folds the run as far as it goes.
    pub(super) fn fold(
        self,
        operator: &dyn MergeOperator,
        key: &[u8],
        value_at: &ValueAt<'_>,
    ) -> Result<Folded> {
        let fits = |value: &Bytes| fits_entry(key, value);
        let on = |base: Option<&[u8]>| Some(self.operands().fold(operator, key, base)).filter(fits);
        let folded = match &self.ground {
            Ground::Value(_, value) => on(Some(value)),
            Ground::Delete(_) | Ground::Nothing => on(None),
            Ground::OlderStripe | Ground::Beyond => {
                let combined = self.operands().combine(operator, key).filter(fits);
                if let Some(operand) = combined {
                    return Ok(Folded::Writes(vec![(self.newest_sequence(), Kind::Merge, operand)]));
                }
                if self.operands.len() <= OPERANDS_MAX {
                    None
                } else {
                    let (oldest, _) = self.operands.last().expect("there is one");
                    on(value_at(key, oldest.saturating_sub(1))?.as_deref())
                }
            }
        };
        Ok(folded.map_or_else(|| Folded::Writes(self.into_writes()), Folded::Value))
    }

    fn operands(&self) -> Operands {
        self.operands.iter().map(|(_, operand)| operand.clone()).collect()
    }

    /// The run as it was met.
    fn into_writes(self) -> Vec<(u64, Kind, Bytes)> {
        let ground = match self.ground {
            Ground::Value(sequence, value) => Some((sequence, Kind::Put, value)),
            Ground::Delete(sequence) => Some((sequence, Kind::Delete, Bytes::new())),
            Ground::Nothing | Ground::OlderStripe | Ground::Beyond => None,
        };
        let operands = self.operands.into_iter().map(|(sequence, operand)| (sequence, Kind::Merge, operand));
        operands.chain(ground).collect()
    }
}
