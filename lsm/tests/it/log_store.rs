//! The commit log in a store that is not a directory: numbered objects, where
//! one opening takes over from another that does not know it yet.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use lsm::{Background, Engine, Error, KeyRange, Options, Result, TreeFormat, TreeId, WriteBatch};
use parking_lot::Mutex;
use vfs::SimulatedFileSystem;

use crate::engine::inline_options;
use crate::slot_log::{Bucket, SlotLog};

const DIR: &str = "/engine";
const TREE: TreeId = TreeId(1);

fn open(fs: &SimulatedFileSystem, bucket: &Bucket, epoch: u64, options: Options) -> Result<Engine> {
    let log = Arc::new(SlotLog::new(bucket));
    Engine::open_with_log(Arc::new(fs.clone()), Path::new(DIR), epoch, options, log)
}

/// An engine of epoch 1 with an empty tree.
fn first(fs: &SimulatedFileSystem, bucket: &Bucket, options: Options) -> Engine {
    let engine = open(fs, bucket, 1, options).expect("opens");
    engine.create_tree(TREE, TreeFormat::default()).expect("created");
    engine
}

/// Writes `number` as a key of its own, with a value that fills segments.
fn write(engine: &Engine, number: u64) -> Result<()> {
    let mut batch = WriteBatch::new();
    batch.put(TREE, &number.to_be_bytes(), &[7; 300]);
    engine.write(batch)?.wait()
}

fn numbers(engine: &Engine) -> Vec<u64> {
    let mut iter = engine.tree(TREE).expect("exists").iter(&engine.snapshot(), KeyRange::default());
    let mut numbers = Vec::new();
    while iter.next().expect("readable") {
        numbers.push(u64::from_be_bytes(iter.key().try_into().expect("eight bytes")));
    }
    numbers
}

#[test]
fn segments_come_and_go_and_each_opening_reads_the_ones_before() {
    let (fs, bucket) = (SimulatedFileSystem::new(), Bucket::default());
    drop(first(&fs, &bucket, inline_options()));
    for epoch in 2..6 {
        let engine = open(&fs, &bucket, epoch, inline_options()).expect("opens");
        assert_eq!(numbers(&engine), (200..epoch * 100).collect::<Vec<_>>());
        for number in epoch * 100..(epoch + 1) * 100 {
            write(&engine, number).expect("durable");
        }
        let stats = engine.stats();
        assert!(stats.log_bytes <= 3 * inline_options().log_bytes_max, "{stats:?}");
        assert!(stats.flush_count > 0, "{stats:?}");
    }
}

#[test]
fn an_epoch_is_opened_once_and_a_smaller_one_not_at_all() {
    let (fs, bucket) = (SimulatedFileSystem::new(), Bucket::default());
    drop(first(&fs, &bucket, inline_options()));
    drop(open(&fs, &bucket, 5, inline_options()).expect("opens"));
    let elsewhere = SimulatedFileSystem::new();
    for epoch in [1, 4, 5] {
        let opened = open(&elsewhere, &bucket, epoch, inline_options());
        assert!(
            matches!(opened, Err(Error::StaleEpoch { found: 5, .. } | Error::Fenced { .. })),
            "{opened:?}"
        );
    }
    open(&fs, &bucket, 6, inline_options()).expect("opens");
}

/// At every moment of the zombie's last writes somebody else takes over.
#[test]
fn a_zombie_that_is_overtaken_at_any_moment_acknowledges_nothing_more() {
    for moment in 0.. {
        let (fs, bucket) = (SimulatedFileSystem::new(), Bucket::default());
        let zombie = first(&fs, &bucket, inline_options());
        (0..5).for_each(|number| write(&zombie, number).expect("durable"));
        let successor = Arc::new(Mutex::new(None));
        let (taken_over, found) = (bucket.clone(), Arc::clone(&successor));
        bucket.interrupt(moment, move || {
            let engine = open(&fs.power_cut(moment), &taken_over, 2, inline_options()).expect("opens");
            *found.lock() = Some((numbers(&engine), engine));
        });
        let (mut acknowledged, mut refused) = ((0..5).collect::<Vec<_>>(), 0);
        for number in 5..20 {
            let was_overtaken = successor.lock().is_some();
            match write(&zombie, number) {
                Ok(()) => {
                    assert!(!was_overtaken, "moment {moment}: {number} was acknowledged after the end");
                    acknowledged.push(number);
                }
                Err(error) => {
                    assert!(matches!(error, Error::Fenced { by: 2 }), "moment {moment}: {error}");
                    refused += 1;
                }
            }
        }
        let Some((found, engine)) = successor.lock().take() else {
            assert!(moment > 30, "the writes were interrupted");
            return;
        };
        // The last one that was not acknowledged may have come through.
        assert!(found.starts_with(&acknowledged), "moment {moment}: {acknowledged:?}, found {found:?}");
        assert!(found.len() <= acknowledged.len() + 1, "moment {moment}");
        assert!(refused > 0 || found.len() == 20, "moment {moment}");
        assert!(refused == 0 || matches!(zombie.close(), Err(Error::Fenced { by: 2 })));
        write(&engine, 100).expect("the successor goes on");
    }
}

/// At every moment of the taking over the zombie writes once more.
#[test]
fn a_write_in_the_midst_of_a_takeover_is_kept_or_refused() {
    let mut kept = 0;
    for moment in 0.. {
        let (fs, bucket) = (SimulatedFileSystem::new(), Bucket::default());
        let zombie = first(&fs, &bucket, inline_options());
        (0..5).for_each(|number| write(&zombie, number).expect("durable"));
        let fs = fs.power_cut(moment);
        let acknowledged = Arc::new(AtomicBool::new(false));
        let (late, told) = (zombie.clone(), Arc::clone(&acknowledged));
        bucket.interrupt(moment, move || told.store(write(&late, 5).is_ok(), Ordering::Relaxed));
        let engine = open(&fs, &bucket, 2, inline_options()).expect("opens");
        if bucket.is_to_be_interrupted() {
            assert!(moment > 20, "the opening was interrupted");
            break;
        }
        let found = numbers(&engine);
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        assert!(found.starts_with(&[0, 1, 2, 3, 4]), "moment {moment}: {found:?}");
        assert!(!acknowledged || found == [0, 1, 2, 3, 4, 5], "moment {moment}: {found:?}");
        kept += u32::from(acknowledged);
        assert!(write(&zombie, 6).is_err(), "moment {moment}");
    }
    assert!(kept > 0, "some takeovers come too late to refuse it");
}

#[test]
fn zombies_that_write_meanwhile_lose_nothing_they_acknowledged() {
    for round in 0..8_u64 {
        let (fs, bucket) = (SimulatedFileSystem::new(), Bucket::default());
        // It never flushes, for which it would need its file system.
        let options =
            Options { background: Background::Threads, memtable_bytes_max: 4 << 20, ..inline_options() };
        let zombie = first(&fs, &bucket, options.clone());
        let acknowledged = AtomicU64::new(0);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 0.. {
                    if write(&zombie, number).is_err() {
                        return;
                    }
                    acknowledged.store(number + 1, Ordering::Release);
                }
            });
            while acknowledged.load(Ordering::Acquire) < round * 10 {
                thread::yield_now();
            }
            let engine = open(&fs.power_cut(round), &bucket, 2, options.clone()).expect("opens");
            writer.join().expect("it was fenced");
            let (found, acknowledged) = (numbers(&engine), acknowledged.load(Ordering::Acquire));
            let expected: Vec<_> = (0..found.len() as u64).collect();
            assert_eq!(found, expected, "round {round}");
            assert!((acknowledged..=acknowledged + 1).contains(&(found.len() as u64)), "round {round}");
        });
    }
}
