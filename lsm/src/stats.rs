//! Figures of an engine.

use std::sync::atomic::{AtomicU64, Ordering};

/// What an operator wants to know of an engine. Counts and sums are since its opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Trees.
    pub tree_count: usize,
    /// Bytes of memtables that take writes.
    pub active_memtable_bytes: u64,
    /// Bytes of memtables that wait to be flushed.
    pub frozen_memtable_bytes: u64,
    /// Segments of the commit log.
    pub log_segment_count: usize,
    /// Bytes of the commit log on disk.
    pub log_bytes: u64,
    /// Groups of batches synced.
    pub sync_count: u64,
    /// Bytes of batches synced.
    pub synced_bytes: u64,
    /// Flushes.
    pub flush_count: u64,
    /// Bytes of SSTables written by flushes.
    pub flushed_bytes: u64,
    /// Compactions that wrote tables.
    pub compaction_count: u64,
    /// Compactions that moved tables to the next level as they were.
    pub move_count: u64,
    /// Bytes of SSTables read by compactions.
    pub compaction_read_bytes: u64,
    /// Bytes of SSTables written by compactions.
    pub compaction_written_bytes: u64,
    /// Bytes that compactions would have to rewrite until every level is within its bound.
    pub compaction_debt_bytes: u64,
    /// Bytes of SSTables a level, of all trees. A table that several trees share counts for each.
    pub level_bytes: Vec<u64>,
    /// Blocks that reads found decoded in memory.
    pub block_cache_hit_count: u64,
    /// Blocks that they had to decode.
    pub block_cache_miss_count: u64,
    /// Tables whose filter reads asked for a key.
    pub filter_check_count: u64,
    /// Tables that a filter spared them.
    pub filter_useful_count: u64,
    /// Bytes of decoded blocks in memory.
    pub block_cache_bytes: u64,
    /// Of `reserved_bytes`, decoded blocks that stay in memory, of trees that are kept there.
    pub kept_block_bytes: u64,
    /// Bytes that the block cache may take now.
    pub block_cache_bytes_max: u64,
    /// Bytes of memory set aside for open tables, the buffers of flushes and
    /// compactions, and memtables that are flushed but still read from.
    pub reserved_bytes: u64,
    /// What writers waited for.
    pub stalls: StallStats,
    /// Sequence numbers that snapshots hold.
    pub snapshot_count: usize,
    /// The last sequence number that is applied.
    pub applied_sequence: u64,
    /// The last one that is durable.
    pub durable_sequence: u64,
}

impl EngineStats {
    /// How many bytes went to files for each byte written: log, flushes and
    /// compactions over the batches that were synced; 0 before the first.
    pub fn write_amplification(&self) -> f64 {
        let written = self.synced_bytes + self.flushed_bytes + self.compaction_written_bytes;
        ratio(written, self.synced_bytes)
    }

    /// How many bytes of SSTables there are for each in the lowest level, which
    /// holds a key once: an upper bound of what is garbage; 0 without tables.
    pub fn space_amplification(&self) -> f64 {
        let lowest = self.level_bytes.iter().rev().copied().find(|bytes| *bytes > 0);
        ratio(self.level_bytes.iter().sum(), lowest.unwrap_or(0))
    }
}

fn ratio(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

/// What writers waited for, and how long, since the engine's opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StallStats {
    /// Whether writes to some tree stall now.
    pub is_stalled: bool,
    /// Times that memtables took all the memory they may.
    pub memtable_stall_count: u64,
    /// Microseconds of it.
    pub memtable_stall_us: u64,
    /// Times that compactions of some tree were too far behind.
    pub compaction_stall_count: u64,
    /// Microseconds of it.
    pub compaction_stall_us: u64,
    /// Times that too many bytes waited for a sync.
    pub log_stall_count: u64,
    /// Microseconds of it.
    pub log_stall_us: u64,
    /// Times that tables which were built outside were about to be taken in.
    pub ingest_stall_count: u64,
    /// Microseconds of it.
    pub ingest_stall_us: u64,
    /// Writes that were held back for a moment, so that nothing has to stall.
    pub paced_count: u64,
    /// Microseconds of it, all writers together.
    pub paced_us: u64,
}

/// What is counted as it happens; the `metrics` crate is told too.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    syncs: AtomicU64,
    synced_bytes: AtomicU64,
    flushes: AtomicU64,
    flushed_bytes: AtomicU64,
    compactions: AtomicU64,
    moves: AtomicU64,
    compaction_read_bytes: AtomicU64,
    compaction_written_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn synced(&self, bytes: usize) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.synced_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        metrics::counter!("hayloft_lsm_log_syncs_total").increment(1);
        metrics::counter!("hayloft_lsm_log_bytes_total").increment(bytes as u64);
    }

    pub(crate) fn flushed(&self, bytes: u64) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.flushed_bytes.fetch_add(bytes, Ordering::Relaxed);
        metrics::counter!("hayloft_lsm_flushes_total").increment(1);
        metrics::counter!("hayloft_lsm_flushed_bytes_total").increment(bytes);
    }

    pub(crate) fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("hayloft_lsm_table_moves_total").increment(1);
    }

    pub(crate) fn compacted(&self, read: u64, written: u64) {
        self.compactions.fetch_add(1, Ordering::Relaxed);
        self.compaction_read_bytes.fetch_add(read, Ordering::Relaxed);
        self.compaction_written_bytes.fetch_add(written, Ordering::Relaxed);
        metrics::counter!("hayloft_lsm_compactions_total").increment(1);
        metrics::counter!("hayloft_lsm_compaction_read_bytes_total").increment(read);
        metrics::counter!("hayloft_lsm_compaction_written_bytes_total").increment(written);
    }

    /// Fills in what is counted here.
    pub(crate) fn fill(&self, stats: &mut EngineStats) {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        stats.sync_count = get(&self.syncs);
        stats.synced_bytes = get(&self.synced_bytes);
        stats.flush_count = get(&self.flushes);
        stats.flushed_bytes = get(&self.flushed_bytes);
        stats.compaction_count = get(&self.compactions);
        stats.move_count = get(&self.moves);
        stats.compaction_read_bytes = get(&self.compaction_read_bytes);
        stats.compaction_written_bytes = get(&self.compaction_written_bytes);
    }
}
