//! What can be chosen: tunables of an engine, and what a tree's creation fixes.

use std::num::NonZero;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::merge_operator::NAME_BYTES_MAX;
use crate::{Compression, Error, MergeOperator, Result, TreeId};

/// Bytes of a data block.
const BLOCK_BYTES: RangeInclusive<usize> = 256..=4 << 20;

/// Tunables of an engine. Each opening may choose others.
#[derive(Clone, Debug)]
pub struct Options {
    /// Anonymous memory of the engine, bytes: memtables, two buffers of the
    /// commit log, what open tables keep in memory (filters, indexes, range
    /// tombstones), the buffers of flushes and compactions, and memtables that
    /// are flushed but still read from. The block cache has what is left, and
    /// never less than a sixteenth of it all: what tables take beyond that goes
    /// over the budget. At least 8/7 of `memtable_bytes_max` and
    /// twice `log_buffer_bytes_max` together.
    pub memory_bytes_max: usize,
    /// Of it, memtables of all trees together, bytes. Once half of it is filled
    /// the largest memtable is frozen and flushed; from then on writes go at
    /// the pace of the flush, and at the whole of it they stall until it is
    /// done. More makes fewer and larger SSTables. At least 64 KiB.
    pub memtable_bytes_max: usize,
    /// Of it, blocks of trees that are kept in memory ([`TreeTuning::in_memory`]), bytes; never more than three
    /// quarters of what memtables and log buffers leave. Blocks beyond it are read as those of other trees are.
    pub in_memory_bytes_max: usize,
    /// A segment of the commit log is closed once it holds this many bytes:
    /// the grain in which the log's disk space is given back. 4 KiB to 1 GiB.
    pub log_segment_bytes: u64,
    /// Commit log on disk, bytes. Beyond it the trees that pin the oldest
    /// segment are flushed, so it bounds what a recovery replays. It holds at
    /// least two segments.
    pub log_bytes_max: u64,
    /// Batches that wait for the sync before theirs, bytes. From half of it on
    /// writes go the slower the more there are; at the whole of it they stall
    /// until the disk has caught up. 1 KiB to 256 MiB.
    pub log_buffer_bytes_max: usize,
    /// As many SSTables in level 0 of a tree start a compaction. Reads look
    /// into each of them. At least 1.
    pub l0_compaction_trigger: usize,
    /// From as many SSTables in level 0 of a tree on, writes to it go the slower
    /// the more there are. At least `l0_compaction_trigger`.
    pub l0_slowdown: usize,
    /// As many SSTables in level 0 of a tree stall writes to it until a
    /// compaction is done. More than `l0_slowdown`.
    pub l0_stop: usize,
    /// From as many bytes on that compactions of a tree would have to rewrite
    /// until every level is within its bound, writes to it go the slower the
    /// more there are.
    pub compaction_debt_slowdown: u64,
    /// As many bytes of them stall writes to the tree. More than
    /// `compaction_debt_slowdown`.
    pub compaction_debt_stop: u64,
    /// Level 1 of a tree, bytes; each deeper one holds `level_ratio` times as
    /// much. At least 4 KiB.
    pub level_bytes_base: u64,
    /// How many times as large as its predecessor a level is. More makes fewer
    /// levels to read and more to rewrite. 2 to 100.
    pub level_ratio: u64,
    /// An SSTable of level 1 and below is closed once it holds this many bytes.
    /// At least 4 KiB.
    pub table_bytes: u64,
    /// A data block is closed once it holds this many bytes: small ones make
    /// point reads cheap, large ones compress better. 256 bytes to 4 MiB.
    pub block_bytes: usize,
    /// How the bloom filters of new SSTables are made; readers know each kind.
    pub filter_kind: FilterKind,
    /// What the operands in trees mean, for each operator that a tree's format
    /// names. No two have one name.
    pub merge_operators: Vec<Arc<dyn MergeOperator>>,
    /// Threads that compact, all trees together; several work on parts of a
    /// large compaction while no other tree needs one. They run at a lower
    /// priority than the others. 1 to 64. By default as many as there are
    /// processors, but no more than 2.
    pub compaction_threads: usize,
    /// Bytes a second that flushes and compactions write, 0 for no bound. Too
    /// low a bound slows writers down to it. At least 64 KiB otherwise.
    pub background_bytes_per_s: u64,
    /// Who flushes, compacts and syncs.
    pub background: Background,
}

/// How a bloom filter is made. Both take ten bits a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilterKind {
    /// In one piece, by the `bloomfilter` crate: a false alarm in about 120
    /// misses, seven cache lines an answer.
    Bloom,
    /// Of cache lines: a false alarm in about 90 misses, one cache line an answer.
    #[default]
    BlockedBloom,
}

/// Who flushes, compacts and syncs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// Threads of the engine's own.
    #[default]
    Threads,
    /// Whoever calls: a write flushes and compacts what it makes due before it
    /// returns, and waiting for a commit syncs. One thread's file operations
    /// are then the same in every run, as tests and offline tools want.
    Inline,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_bytes_max: 384 << 20,
            memtable_bytes_max: 64 << 20,
            in_memory_bytes_max: 64 << 20,
            log_segment_bytes: 64 << 20,
            log_bytes_max: 512 << 20,
            log_buffer_bytes_max: 8 << 20,
            l0_compaction_trigger: 4,
            l0_slowdown: 8,
            l0_stop: 24,
            compaction_debt_slowdown: 1 << 30,
            compaction_debt_stop: 16 << 30,
            level_bytes_base: 64 << 20,
            level_ratio: 10,
            table_bytes: 32 << 20,
            block_bytes: 8 << 10,
            filter_kind: FilterKind::default(),
            merge_operators: Vec::new(),
            compaction_threads: std::thread::available_parallelism().map_or(1, NonZero::get).min(2),
            background_bytes_per_s: 0,
            background: Background::Threads,
        }
    }
}

impl Options {
    /// Refuses what is out of range.
    pub(crate) fn check(&self) -> Result<()> {
        let log_buffer = self.log_buffer_bytes_max as u64;
        let l0 = [self.l0_compaction_trigger as u64, self.l0_slowdown as u64, self.l0_stop as u64];
        let two_segments = self.log_segment_bytes.saturating_mul(2);
        let debt_slowdown = self.compaction_debt_slowdown;
        let (memory, memory_min) = (self.memory_bytes_max as u64, self.fixed_bytes().saturating_mul(8) / 7);
        let (kib, mib) = (1 << 10, 1 << 20);
        for (name, found, min, max, range) in [
            ("memtable_bytes_max", self.memtable_bytes_max as u64, 64 * kib, u64::MAX, "at least 64 KiB"),
            (
                "memory_bytes_max",
                memory,
                memory_min,
                u64::MAX,
                "at least 8/7 of memtable_bytes_max and twice log_buffer_bytes_max",
            ),
            ("log_segment_bytes", self.log_segment_bytes, 4 * kib, 1024 * mib, "4 KiB to 1 GiB"),
            ("log_bytes_max", self.log_bytes_max, two_segments, u64::MAX, "at least twice log_segment_bytes"),
            ("log_buffer_bytes_max", log_buffer, kib, 256 * mib, "1 KiB to 256 MiB"),
            ("l0_compaction_trigger", l0[0], 1, u64::MAX, "at least 1"),
            ("l0_slowdown", l0[1], l0[0], u64::MAX, "at least l0_compaction_trigger"),
            ("l0_stop", l0[2], l0[1].saturating_add(1), u64::MAX, "more than l0_slowdown"),
            (
                "compaction_debt_stop",
                self.compaction_debt_stop,
                debt_slowdown.saturating_add(1),
                u64::MAX,
                "more than compaction_debt_slowdown",
            ),
            ("level_bytes_base", self.level_bytes_base, 4 * kib, u64::MAX, "at least 4 KiB"),
            ("level_ratio", self.level_ratio, 2, 100, "2 to 100"),
            ("table_bytes", self.table_bytes, 4 * kib, u64::MAX, "at least 4 KiB"),
            (
                "block_bytes",
                self.block_bytes as u64,
                *BLOCK_BYTES.start() as u64,
                *BLOCK_BYTES.end() as u64,
                "256 bytes to 4 MiB",
            ),
            ("compaction_threads", self.compaction_threads as u64, 1, 64, "1 to 64"),
            (
                "background_bytes_per_s",
                // No bound is above every one.
                self.background_bytes_per_s.wrapping_sub(1),
                64 * kib - 1,
                u64::MAX,
                "0, or at least 64 KiB",
            ),
        ] {
            if found < min || found > max {
                return Err(Error::InvalidOption { name, range, found });
            }
        }
        self.check_merge_operators()
    }

    fn check_merge_operators(&self) -> Result<()> {
        let mut names: Vec<_> = self.merge_operators.iter().map(|operator| operator.name()).collect();
        names.sort_unstable();
        let lengths = names.iter().all(|name| (1..=NAME_BYTES_MAX).contains(&name.len()));
        if lengths && names.is_sorted_by(|a, b| a < b) {
            return Ok(());
        }
        let range = "operators whose names differ and have 1 to 255 bytes";
        Err(Error::InvalidOption { name: "merge_operators", range, found: names.len() as u64 })
    }

    /// The operator that `format`, of `tree`, names.
    pub(crate) fn merge_operator(
        &self,
        tree: TreeId,
        format: &TreeFormat,
    ) -> Result<Option<Arc<dyn MergeOperator>>> {
        let Some(name) = &format.merge_operator else { return Ok(None) };
        match self.merge_operators.iter().find(|operator| operator.name() == name) {
            Some(operator) => Ok(Some(Arc::clone(operator))),
            None => Err(Error::UnknownMergeOperator { tree, name: name.clone() }),
        }
    }

    /// Threads that compact: without a background it is the caller's alone.
    pub(crate) fn compaction_thread_count(&self) -> usize {
        match self.background {
            Background::Threads => self.compaction_threads,
            Background::Inline => 1,
        }
    }

    /// The part of the memory budget that is set aside for memtables and the log.
    fn fixed_bytes(&self) -> u64 {
        (self.memtable_bytes_max as u64).saturating_add(2 * self.log_buffer_bytes_max as u64)
    }

    /// The part of the memory budget that tables, compactions and the block cache share.
    pub(crate) fn shared_bytes(&self) -> u64 {
        (self.memory_bytes_max as u64).saturating_sub(self.fixed_bytes())
    }

    /// Of that, what blocks of trees that are kept in memory may take.
    pub(crate) fn kept_bytes_max(&self) -> u64 {
        (self.in_memory_bytes_max as u64).min(self.shared_bytes() / 4 * 3)
    }

    /// What the block cache has of it at least.
    pub(crate) fn block_cache_bytes_min(&self) -> u64 {
        self.memory_bytes_max as u64 / 16
    }
}

/// Which part of a key the bloom filters know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilterKey {
    /// The whole key: point reads skip tables that lack it.
    #[default]
    WholeKey,
    /// The key up to and including the first occurrence of these two bytes:
    /// scans of one such prefix skip tables that lack it.
    ThroughTerminator([u8; 2]),
}

/// What a tree's creation fixes for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeFormat {
    /// What bloom filters are built over.
    pub filter_key: FilterKey,
    /// The name of the operator that gives merge operands their meaning, one of
    /// [`Options::merge_operators`]; a tree without takes none.
    pub merge_operator: Option<String>,
}

/// How the tables of a tree are written and kept from now on: nothing of it is
/// recorded, and readers take whatever there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeTuning {
    /// In place of [`Options::block_bytes`]; in the same range.
    pub block_bytes: Option<usize>,
    /// How data blocks are stored.
    pub compression: Compression,
    /// Whether blocks stay in memory, decoded, from when they are written or first
    /// read: as far as [`Options::in_memory_bytes_max`] goes.
    pub in_memory: bool,
}

impl TreeTuning {
    /// Refuses what is out of range.
    pub(crate) fn check(&self) -> Result<()> {
        match self.block_bytes {
            Some(bytes) if !BLOCK_BYTES.contains(&bytes) => {
                let range = "256 bytes to 4 MiB";
                Err(Error::InvalidOption { name: "block_bytes", range, found: bytes as u64 })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_and_values_out_of_range_are_refused_by_name() {
        assert!(Options::default().check().is_ok());
        let refused = |options: Options| match options.check() {
            Err(Error::InvalidOption { name, .. }) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(Options { l0_stop: 8, ..Options::default() }), "l0_stop");
        assert_eq!(refused(Options { block_bytes: 0, ..Options::default() }), "block_bytes");
        assert_eq!(refused(Options { memory_bytes_max: 80 << 20, ..Options::default() }), "memory_bytes_max");
        assert_eq!(refused(Options { log_bytes_max: 1, ..Options::default() }), "log_bytes_max");
    }
}
