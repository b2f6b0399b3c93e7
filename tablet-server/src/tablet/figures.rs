//! How much a tablet holds, and where it can be parted.

use lsm::{KeyRange, SplitPoint, Tree};

use super::{PART_ROW_BYTES_MAX, Tablet};
use crate::cell_key;
use crate::control::{SplitProposal, TabletStats};
use crate::error::Result;
use crate::group_trees::GroupTrees;
use crate::row_server::RowSample;
use crate::row_set::RowRange;

/// Samples of one tablet at most, the one at its end aside.
const SAMPLES_MAX: u64 = 32;

impl Tablet {
    /// Figures of the tablet now; whether it can be merged is known to the server.
    pub(crate) fn stats(&self, can_merge: bool) -> TabletStats {
        let (mut memtable_bytes, mut sstable_bytes) = (0, 0);
        for (_, tree) in self.groups.trees().iter() {
            let stats = tree.stats();
            memtable_bytes += stats.memtable_bytes;
            sstable_bytes += stats.sstable_bytes;
        }
        let (assignment, row_count) = (self.assignment.clone(), self.row_count());
        TabletStats { assignment, memtable_bytes, sstable_bytes, row_count, can_merge }
    }

    /// Places that part `rows` into pieces of similar size, and the end of `rows`.
    /// May wait for the disk.
    pub(crate) fn sample(&self, rows: &RowRange) -> Result<Vec<RowSample>> {
        self.check_range(rows)?;
        let (trees, keys) = (self.groups.trees(), rows.cell_keys());
        let bytes = approximate_bytes(&trees, &keys);
        let count = (bytes / self.around.sample_bytes).min(SAMPLES_MAX);
        let mut samples = parts(&trees, &keys, usize::try_from(count).unwrap_or(0))?;
        samples.iter_mut().for_each(|sample| sample.bytes_before = bytes.min(sample.bytes_before));
        samples.push(RowSample { row: rows.end.clone(), bytes_before: bytes });
        self.check_open()?;
        Ok(samples)
    }

    /// The row to split the tablet at if it has grown beyond `bytes_max`. May wait for the disk.
    pub(crate) fn split_due(&self, bytes_max: u64) -> Option<SplitProposal> {
        let stats = self.stats(false);
        if self.check_open().is_err() || stats.memtable_bytes + stats.sstable_bytes <= bytes_max {
            return None;
        }
        match parts(&self.groups.trees(), &self.assignment.range.cell_keys(), 1) {
            Ok(parts) => {
                parts.into_iter().next().map(|part| SplitProposal { tablet: self.id(), row: part.row })
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(tablet = self.id().0, error, "cannot tell where to split a tablet");
                None
            }
        }
    }
}

/// At most `count` rows that part what lies in `keys` into pieces of similar
/// size: the parts of the tree that has most of it.
fn parts(trees: &GroupTrees, keys: &KeyRange, count: usize) -> Result<Vec<RowSample>> {
    let boundary = |key: &[u8]| {
        let mut row = cell_key::row_near(key);
        row.truncate(PART_ROW_BYTES_MAX);
        Some(cell_key::row_prefix(&row).into())
    };
    let all: Vec<&Tree> = trees.iter().map(|(_, tree)| tree).collect();
    let Some(largest) = all.iter().copied().max_by_key(|tree| tree.approximate_bytes(keys)) else {
        return Ok(Vec::new());
    };
    let sample = |point: SplitPoint| {
        let before = KeyRange { start: keys.start.clone(), end: point.key.clone() };
        let others = all.iter().filter(|tree| tree.id() != largest.id());
        let others_bytes: u64 = others.map(|tree| tree.approximate_bytes(&before)).sum();
        RowSample {
            row: cell_key::row_near(&point.key).into(),
            bytes_before: point.bytes_before + others_bytes,
        }
    };
    Ok(largest.split_points(keys, count, boundary)?.into_iter().map(sample).collect())
}

/// Bytes of what lies in `keys`, in memory and on disk, roughly.
fn approximate_bytes(trees: &GroupTrees, keys: &KeyRange) -> u64 {
    trees.iter().map(|(_, tree)| tree.approximate_bytes(keys)).sum()
}
