//! Costs of a table's operations, printed: `cargo test --release -p lsm -- --ignored --nocapture costs`.
//! They are the thread's time on a processor, so that a busy machine tells nearly the same.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vfs::{Access, FileSystem, RealFileSystem};

use super::testing::{Random, key};
use super::{Blocking, Compression, ReadMode, Table, TableOptions, TableWriter};
use crate::FilterKey;
use crate::block_cache::BlockCache;
use crate::internal_key::{Kind, LookupKey, SEQUENCE_MAX};
use crate::range_tombstone::MemtableTombstones;

const ENTRIES: u64 = 500_000;
const READS: u32 = 500_000;

fn user_key(i: u64) -> Vec<u8> {
    format!("user{:020}", i * 2).into_bytes()
}

/// Runs `run` and prints what each of its `operations` took.
pub(crate) fn measure(what: &str, operations: u32, run: impl FnOnce()) {
    let start = processor_time();
    run();
    let took = processor_time() - start;
    println!("{what:28} {:8.0} ns", took.as_secs_f64() * 1e9 / f64::from(operations));
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it begins at zero")
}

#[test]
#[ignore = "prints figures, checks nothing"]
fn costs_of_a_table() {
    let dir = std::env::temp_dir().join(format!("hayloft-sstable-costs-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    for compression in [Compression::Raw, Compression::Lz4] {
        println!("{compression:?}, {ENTRIES} entries of 24 + 100 bytes, half of a value compressible");
        measure_table(&dir.join(format!("{compression:?}")), compression);
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

fn measure_table(path: &Path, compression: Compression) {
    let mut random = Random::new(1);
    let fs = RealFileSystem;
    let entries: Vec<_> = (0..ENTRIES)
        .map(|i| {
            let mut value = vec![b'v'; 100];
            value[..50].fill_with(|| random.byte());
            (key(&user_key(i), 7, Kind::Put), value)
        })
        .collect();
    let count = u32::try_from(ENTRIES).unwrap();
    measure("write", count, || {
        let mut writer =
            TableWriter::create(&fs, path, TableOptions { compression, ..TableOptions::default() }).unwrap();
        for (key, value) in &entries {
            writer.add(key, value).unwrap();
        }
        writer.finish().unwrap();
    });
    let open = |cache_bytes| {
        let file = fs.open(path, Access::Read).unwrap();
        Table::open(file, path, Arc::new(BlockCache::new(cache_bytes, 0, 0))).unwrap()
    };
    let (table, uncached) = (open(1 << 30), open(1 << 20));
    for (what, table) in
        [("get, first time", &table), ("get, cached", &table), ("get, not cached", &uncached)]
    {
        let mut random = Random::new(2);
        let keys: Vec<_> = (0..READS).map(|_| user_key(random.number() % ENTRIES)).collect();
        measure(what, READS, || {
            for user_key in &keys {
                let lookup = LookupKey::new(user_key, SEQUENCE_MAX, FilterKey::WholeKey);
                assert!(table.get(&lookup, Blocking::Allowed).unwrap().is_some());
            }
        });
    }
    let mut missing: Vec<_> = (0..READS).map(|_| user_key(random.number() % ENTRIES)).collect();
    missing.iter_mut().for_each(|key| *key.last_mut().unwrap() += 1);
    measure("get, missing", READS, || {
        for user_key in &missing {
            let lookup = LookupKey::new(user_key, SEQUENCE_MAX, FilterKey::WholeKey);
            assert!(table.get(&lookup, Blocking::Allowed).unwrap().is_none());
        }
    });
    for mode in [ReadMode::Hot, ReadMode::Scan, ReadMode::Compaction] {
        measure(&format!("next, {mode:?}"), count, || {
            let mut cursor = table.cursor(mode);
            let mut on = cursor.seek_to_first().unwrap();
            while on {
                on = cursor.next().unwrap();
            }
        });
    }
    measure("prev, Hot", count, || {
        let mut cursor = table.cursor(ReadMode::Hot);
        let mut on = cursor.seek_to_last().unwrap();
        while on {
            on = cursor.prev().unwrap();
        }
    });
    measure("seek, Hot", READS, || {
        let mut cursor = table.cursor(ReadMode::Hot);
        for _ in 0..READS {
            let index = usize::try_from(random.number() % ENTRIES).unwrap();
            assert!(cursor.seek(&entries[index].0).unwrap());
        }
    });
}

#[test]
#[ignore = "prints figures, checks nothing"]
fn costs_of_range_tombstones() {
    let set = MemtableTombstones::new();
    let mut random = Random::new(1);
    let rows: Vec<_> = (0..1_000_000).map(|_| user_key(random.number() >> 8)).collect();
    let count = u32::try_from(rows.len()).unwrap();
    measure("insert of 1 M disjoint", count, || {
        for (sequence, row) in (0..).zip(&rows) {
            set.insert(row, &[row, &b"\x01"[..]].concat(), sequence);
        }
    });
    measure("covered, among 1 M", count, || {
        for row in &rows {
            assert!(set.covering_sequence(row, SEQUENCE_MAX).is_some());
        }
    });
    measure("flush of 1 M", count, || assert!(!set.to_fragmented().is_empty()));
    println!("{} bytes", set.memory_bytes());
}
