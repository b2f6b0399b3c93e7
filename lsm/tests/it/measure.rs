//! Costs of the engine's operations, printed:
//! `cargo test --release -p lsm --test it -- --ignored --nocapture measure`.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use lsm::{Engine, KeyRange, Options, TreeFormat, TreeId, WriteBatch};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use vfs::RealFileSystem;

const TREE: TreeId = TreeId(1);
const ENTRIES: u32 = 1_000_000;

fn timed(what: &str, operations: u32, run: impl FnOnce()) {
    let start = Instant::now();
    run();
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{what:28} {:8.2} us/op {:10.0} op/s",
        seconds * 1e6 / f64::from(operations),
        f64::from(operations) / seconds
    );
}

fn key(i: u32) -> [u8; 16] {
    let mut key = *b"user000000000000";
    key[8..12].copy_from_slice(&i.to_be_bytes());
    key
}

fn fill(engine: &Engine, keys: impl Iterator<Item = u32>) {
    let mut random = SmallRng::seed_from_u64(1);
    let mut value = [0; 100];
    for i in keys {
        random.fill(&mut value[..50]);
        let mut batch = WriteBatch::new();
        batch.put(TREE, &key(i), &value);
        let _not_waited_for = engine.write(batch).expect("written");
    }
    engine.barrier().wait().expect("durable");
}

#[test]
#[ignore = "prints figures, checks nothing"]
fn measure_one_thread() {
    for (what, is_random) in [("fillseq", false), ("fillrandom", true)] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let engine =
            Engine::open(Arc::new(RealFileSystem), dir.path(), 1, Options::default()).expect("opens");
        let tree = engine.create_tree(TREE, TreeFormat::default()).expect("created");
        let mut random = SmallRng::seed_from_u64(2);
        timed(what, ENTRIES, || {
            fill(&engine, (0..ENTRIES).map(|i| if is_random { random.random_range(0..ENTRIES) } else { i }));
        });
        println!("{:?}", engine.stats());
        timed("flush and compact", 1, || tree.compact().expect("compacted"));
        println!("{:?}", tree.stats());
        let snapshot = engine.snapshot();
        for pass in ["readrandom, cold", "readrandom"] {
            timed(pass, ENTRIES, || {
                for _ in 0..ENTRIES {
                    tree.get(&snapshot, &key(random.random_range(0..ENTRIES))).expect("readable");
                }
            });
        }
        timed("readseq", ENTRIES, || {
            let mut iter = tree.iter(&snapshot, KeyRange::default());
            while iter.next().expect("readable") {}
        });
        timed("seekrandom", ENTRIES / 4, || {
            for _ in 0..ENTRIES / 4 {
                let start = key(random.random_range(0..ENTRIES)).to_vec().into();
                let mut iter = tree.iter(&snapshot, KeyRange { start, ..KeyRange::default() });
                iter.next().expect("readable");
            }
        });
        engine.close().expect("closed");
    }
}

#[test]
#[ignore = "prints figures, checks nothing"]
fn measure_synced_writes() {
    for threads in [1, 16, 64] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let engine =
            Engine::open(Arc::new(RealFileSystem), dir.path(), 1, Options::default()).expect("opens");
        engine.create_tree(TREE, TreeFormat::default()).expect("created");
        let each = 500 * threads.min(16) / threads;
        timed(&format!("fillsync, {threads} threads"), threads * each, || {
            thread::scope(|scope| {
                for thread in 0..threads {
                    let engine = &engine;
                    scope.spawn(move || {
                        for i in 0..each {
                            let mut batch = WriteBatch::new();
                            batch.put(TREE, &key(thread << 16 | i), &[7; 100]);
                            engine.write(batch).expect("written").wait().expect("durable");
                        }
                    });
                }
            });
        });
        println!("{} syncs", engine.stats().sync_count);
    }
}

#[test]
#[ignore = "prints figures, checks nothing"]
fn measure_a_hot_counter() {
    use crate::merges::{merging, operators};
    let dir = tempfile::tempdir().expect("temporary directory");
    let options = Options { merge_operators: operators(), ..Options::default() };
    let engine = Engine::open(Arc::new(RealFileSystem), dir.path(), 1, options).expect("opens");
    let tree = engine.create_tree(TREE, merging("test.sum")).expect("created");
    let increment = |count: u32| {
        for _ in 0..count {
            let mut batch = WriteBatch::new();
            batch.merge(TREE, &key(1), &1_i64.to_le_bytes());
            let _not_waited_for = engine.write(batch).expect("written");
        }
    };
    let get = || assert!(tree.get(&engine.applied_snapshot(), &key(1)).expect("readable").is_some());
    timed("100k increments, unread", 100_000, || increment(100_000));
    timed("the first get", 1, get);
    timed("another get", 100_000, || (0..100_000).for_each(|_| get()));
    timed("increment and get", 100_000, || {
        (0..100_000).for_each(|_| {
            increment(1);
            get();
        });
    });
    timed("1M increments", ENTRIES, || increment(ENTRIES));
    timed("get", 1, get);
    timed("flush", 1, || tree.flush().expect("flushed"));
    println!("{:?}", tree.stats());
    timed("get, flushed", 100_000, || (0..100_000).for_each(|_| get()));
    timed("compact", 1, || tree.compact().expect("compacted"));
    timed("get, compacted", 100_000, || (0..100_000).for_each(|_| get()));
}
