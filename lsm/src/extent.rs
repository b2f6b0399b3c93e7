//! How much a tree holds in a range, and where to part it: what splits and
//! samples of a table's rows start from.
//!
//! Of tables the index blocks tell, of which none is read twice and no data
//! block at all; of memtables a short walk or, where that would be long, their
//! samples. Versions that a compaction would drop count as others do.

use bytes::Bytes;

use crate::internal_key;
use crate::memtable::Memtable;
use crate::tree::TreeState;
use crate::{KeyRange, Result, Tree};

/// Keys that are weighed for each point that is asked for.
const KEYS_PER_POINT: u64 = 32;

/// A place to part a range at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitPoint {
    /// The first key behind the place.
    pub key: Bytes,
    /// Bytes in the range before it, roughly.
    pub bytes_before: u64,
}

impl Tree {
    /// Bytes on disk and in memory that hold what the tree has in `range`:
    /// within a tenth or so for ranges of many entries, and to about a block a table for small ones.
    pub fn approximate_bytes(&self, range: &KeyRange) -> u64 {
        let state = self.state();
        let memory: u64 = state.memtables().map(|memtable| memtable.approximate_bytes(range)).sum();
        // Damage is for who reads the table to report.
        let disk: u64 = state.version.tables().map(|table| table.approximate_bytes(range).unwrap_or(0)).sum();
        memory + disk
    }

    /// At most `count` keys that part what the tree has in `range` into pieces of
    /// about as many bytes each, ascending, all of them inside the range.
    ///
    /// `boundary` is shown a key, which need not be in the tree, and returns the
    /// place near it where the range may be parted: the beginning of a row, say, where rows are not to be
    /// cut; or none. It is asked again with greater keys where what it returns is not
    /// behind the point before, so that fewer points come where much lies between two boundaries.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Damaged`]: a table's index does not hold.
    pub fn split_points(
        &self,
        range: &KeyRange,
        count: usize,
        mut boundary: impl FnMut(&[u8]) -> Option<Bytes>,
    ) -> Result<Vec<SplitPoint>> {
        let pieces = count as u64 + 1;
        let step = self.approximate_bytes(range) / pieces / KEYS_PER_POINT;
        let weights = weigh(&self.state(), range, step)?;
        let total: u64 = weights.iter().map(|(_, bytes)| bytes).sum();
        let mut points: Vec<SplitPoint> = Vec::with_capacity(count.min(weights.len()));
        let (mut before, mut next) = (0, 1);
        for (key, bytes) in weights {
            before += bytes;
            // Of the total, `next` pieces of `pieces`.
            let is_reached = u128::from(before) * u128::from(pieces) >= u128::from(total) * u128::from(next);
            if !is_reached || next == pieces || before == total {
                continue;
            }
            let start = points.last().map_or(&range.start, |last| &last.key);
            let within = |key: &Bytes| key > start && range.contains(key);
            if let Some(key) = boundary(&key).filter(within) {
                points.push(SplitPoint { key, bytes_before: before });
                let reached = u128::from(before) * u128::from(pieces) / u128::from(total);
                next = u64::try_from(reached).map_or(pieces, |reached| reached + 1);
            }
        }
        Ok(points)
    }
}

/// Keys of `range`, ascending, each with bytes that lie about there: one each `step` bytes or so of each
/// table and memtable.
fn weigh(state: &TreeState, range: &KeyRange, step: u64) -> Result<Vec<(Bytes, u64)>> {
    let mut weights = Vec::new();
    for memtable in state.memtables() {
        weights.append(&mut memtable.weigh(range));
    }
    for table in state.version.tables() {
        table.weigh(range, step, &mut |separator, bytes| {
            weights.push((Bytes::copy_from_slice(internal_key::user_key(separator)), bytes));
        })?;
    }
    weights.sort_unstable();
    Ok(weights)
}

impl Memtable {
    /// Bytes of memory that entries in `range` take, roughly.
    fn approximate_bytes(&self, range: &KeyRange) -> u64 {
        if range.start.is_empty() && range.end.is_empty() {
            return self.entry_bytes() as u64;
        }
        self.weigh(range).iter().map(|(_, bytes)| bytes).sum()
    }

    /// Keys of `range`, in no order, each with the bytes of memory it stands for.
    fn weigh(&self, range: &KeyRange) -> Vec<(Bytes, u64)> {
        /// So many entries are looked at, which takes a fraction of a millisecond.
        const WALKED_MAX: usize = 1024;
        if let Some(entries) = self.entries_within(range, WALKED_MAX) {
            return entries;
        }
        let (mut within, all) = self.samples().within(range);
        let bytes = u128::from(self.entry_bytes() as u64);
        for (_, stands_for) in &mut within {
            let share = bytes * u128::from(*stands_for) / u128::from(all.max(1));
            *stands_for = u64::try_from(share).unwrap_or(u64::MAX);
        }
        within
    }
}
