//! RocksDB, built from the source that the `rocksdb` crate brings, for the
//! processor at hand as its own Makefile does.
//!
//! What is chosen beyond its defaults, and why:
//!
//! - As on our side: block cache, memtables (two of half the budget), two
//!   background jobs, level 1 of 64 MiB, tables of 32 MiB, LZ4.
//! - The block cache is the newer HyperClock one, which readers do not lock.
//! - Indexes and filters are charged to the block cache, so that the budget is
//!   true; those of level 0 are pinned in it.
//! - Full bloom filters of 10 bits a key.
//! - Level 0 is not compressed, and levels are sized from the last one up.
//! - Scans of everything do not fill the cache, as ours do not.
//! - Blocks of 4 KiB, checksums verified at each read, a log without sync: the
//!   defaults, said because they matter. `rocksdb-mmap` reads mapped files.

use std::ops::Range;
use std::path::Path;

use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, CompactOptions, DB, DBCompressionType, Options,
    ReadOptions, WriteBatch, WriteOptions,
};

use super::{Direction, Store};
use crate::Outcome;
use crate::data::{Key, key};
use crate::data_set::DataSet;

pub(crate) struct RocksDbStore {
    db: DB,
    point: ReadOptions,
    unsynced: WriteOptions,
    synced: WriteOptions,
}

impl RocksDbStore {
    pub(crate) fn open(dir: &Path, set: &DataSet, mapped: bool) -> Outcome<Self> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_hyper_clock_cache(usize::try_from(set.cache_bytes)?, 0));
        blocks.set_bloom_filter(10.0, false);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_size(usize::try_from(set.memtable_bytes / 2)?);
        options.set_max_write_buffer_number(2);
        options.set_max_background_jobs(2);
        options.set_max_bytes_for_level_base(64 << 20);
        options.set_target_file_size_base(32 << 20);
        options.set_level_compaction_dynamic_level_bytes(true);
        // By level from 0 on; of dynamic levels the second is the first that has tables.
        options.set_compression_per_level(&[DBCompressionType::None, DBCompressionType::Lz4]);
        options.set_allow_mmap_reads(mapped);
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Ok(Self {
            db: DB::open(&options, dir)?,
            point: ReadOptions::default(),
            unsynced: WriteOptions::default(),
            synced,
        })
    }
}

impl Store for RocksDbStore {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        Ok(self.db.put_opt(key, value, &self.unsynced)?)
    }

    fn put_synced(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        Ok(self.db.put_opt(key, value, &self.synced)?)
    }

    fn delete_range(&self, keys: Range<u32>) -> Outcome<()> {
        let mut batch = WriteBatch::default();
        batch.delete_range(key(keys.start), key(keys.end));
        Ok(self.db.write_opt(batch, &self.unsynced)?)
    }

    fn sync(&self) -> Outcome<()> {
        Ok(self.db.flush_wal(true)?)
    }

    fn flush(&self) -> Outcome<()> {
        Ok(self.db.flush()?)
    }

    fn compact(&self) -> Outcome<()> {
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        self.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        Ok(())
    }

    fn get(&self, key: &Key) -> Outcome<Option<usize>> {
        Ok(self.db.get_pinned_opt(key, &self.point)?.map(|value| value.len()))
    }

    fn seek(&self, key: &Key) -> Outcome<Option<usize>> {
        let mut iter = self.db.raw_iterator_opt(ReadOptions::default());
        iter.seek(key);
        iter.status()?;
        Ok(iter.value().map(<[u8]>::len))
    }

    fn scan(
        &self,
        start: Option<&Key>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Outcome<()> {
        let mut options = ReadOptions::default();
        options.fill_cache(start.is_some());
        let mut iter = self.db.raw_iterator_opt(options);
        match (start, direction) {
            (Some(start), Direction::Forward) => iter.seek(start),
            (_, Direction::Forward) => iter.seek_to_first(),
            (_, Direction::Backward) => iter.seek_to_last(),
        }
        while let Some((key, value)) = iter.item() {
            if !visit(key, value) {
                break;
            }
            match direction {
                Direction::Forward => iter.next(),
                Direction::Backward => iter.prev(),
            }
        }
        Ok(iter.status()?)
    }
}
