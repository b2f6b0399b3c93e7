//! What compactions keep of the values that nobody would miss: the hook for
//! garbage collection, expiry and changes of encoding.
//!
//! A decision is a pure answer about one value at a time. It goes into the
//! table that the compaction writes and nowhere near the write path, so that it
//! cannot wait for what waits for the compaction (tikv/tikv#9627).

use std::sync::Arc;

use bytes::Bytes;

/// A value that a compaction meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// The value, merge operands folded in.
    pub value: &'a [u8],
    /// The sequence number of the write that made it so.
    pub sequence: u64,
    /// Whether no SSTable of the tree held anything newer of the key when the
    /// compaction began. A memtable may.
    pub is_newest: bool,
}

/// What a compaction does with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Keeps it.
    Keep,
    /// Drops it, as a delete would.
    Drop,
    /// Puts this in its place, under its sequence number; what is too long for
    /// an entry is not taken, and the value kept.
    Rewrite(Bytes),
}

/// Decides, key by key in order, what a compaction keeps; one instance a compaction.
///
/// Readers see a value before or after the decision, so one that they may still
/// want must be kept; so must one that merge operands may yet be applied to,
/// unless they may as well be applied to nothing.
pub trait KeepDecision: Send {
    /// Called for the newest value of each key among what is compacted, unless a
    /// snapshot holds it. Deletes have no value; operands whose ground is
    /// elsewhere have none yet.
    fn decide(&mut self, candidate: &Candidate<'_>) -> Decision;
}

/// Makes a [`KeepDecision`] for a compaction.
pub(crate) type KeepDecisionFactory = Arc<dyn Fn() -> Box<dyn KeepDecision> + Send + Sync>;
