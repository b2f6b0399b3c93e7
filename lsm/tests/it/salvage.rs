//! Damaged logs: what verifying and opening say, and what a salvage keeps.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm::inspect::directory::verify;
use lsm::salvage::{Salvage, salvage};
use lsm::{Engine, Error, KeyRange, Options, TreeFormat, TreeId, WriteBatch};
use vfs::simulated::FaultPlan;
use vfs::{Access, FileSystem, SimulatedFileSystem};

use crate::engine::inline_options;

const DIR: &str = "/engine";
const TREES: [TreeId; 2] = [TreeId(1), TreeId(2)];
const BATCHES: u64 = 50;
/// Each batch writes so often.
const WRITES: u64 = 2;

fn open(fs: &SimulatedFileSystem, epoch: u64) -> lsm::Result<Engine> {
    let options = Options { log_bytes_max: 1 << 20, memtable_bytes_max: 1 << 20, ..inline_options() };
    Engine::open(Arc::new(fs.clone()), Path::new(DIR), epoch, options)
}

/// An engine, closed, that flushed nothing: batch `n` puts key `n` in two trees, under sequence numbers 2n and 2n + 1.
fn written() -> SimulatedFileSystem {
    let fs = SimulatedFileSystem::new();
    let engine = open(&fs, 1).expect("opens");
    for id in TREES {
        engine.create_tree(id, TreeFormat::default()).expect("created");
    }
    for number in 0..BATCHES {
        let mut batch = WriteBatch::new();
        TREES.into_iter().for_each(|id| batch.put(id, &number.to_be_bytes(), &[7; 100]));
        let commit = engine.write(batch).expect("written");
        assert_eq!(commit.sequence(), (number + 1) * WRITES);
        commit.wait().expect("durable");
    }
    engine.close().expect("closed");
    fs
}

/// The batches that are there, whole.
fn numbers(engine: &Engine) -> Vec<u64> {
    let read = |id| {
        let mut iter = engine.tree(id).expect("exists").iter(&engine.snapshot(), KeyRange::default());
        let mut numbers = Vec::new();
        while iter.next().expect("readable") {
            numbers.push(u64::from_be_bytes(iter.key().try_into().expect("eight bytes")));
        }
        numbers
    };
    let [left, right] = TREES.map(read);
    assert_eq!(left, right, "no batch is halved");
    left
}

/// The batches that a salvage says are lost.
fn lost(report: &Salvage) -> Vec<u64> {
    let is_lost = |number: &u64| {
        let (first, last) = (number * WRITES + 1, (number + 1) * WRITES);
        let covers = |(loss, _): &(lsm::salvage::Loss, usize)| {
            loss.first_sequence <= first && loss.last_sequence.is_none_or(|end| end >= last)
        };
        report.losses.iter().any(covers)
    };
    (0..BATCHES).filter(is_lost).collect()
}

fn segments(fs: &SimulatedFileSystem) -> Vec<PathBuf> {
    let dir = Path::new(DIR).join("log");
    let names = fs.list(&dir).expect("listed").into_iter();
    names.filter(|name| name.extension().is_some_and(|it| it == "log")).map(|name| dir.join(name)).collect()
}

fn bytes(fs: &SimulatedFileSystem, path: &Path) -> Vec<u8> {
    fs.open(path, Access::Read).expect("opened").map().expect("mapped").to_vec()
}

fn damages(fs: &SimulatedFileSystem) -> Vec<Error> {
    verify(fs, Path::new(DIR), |_| {}).expect("readable").damages
}

fn salvaged(fs: &SimulatedFileSystem) -> Salvage {
    let names = fs.list(&Path::new(DIR).join("log")).expect("listed");
    let trial = salvage(fs, Path::new(DIR), false).expect("readable");
    assert_eq!(fs.list(&Path::new(DIR).join("log")).expect("listed"), names, "a trial changes nothing");
    let done = salvage(fs, Path::new(DIR), true).expect("writable");
    assert_eq!(done, trial);
    done
}

#[test]
fn a_sound_log_loses_nothing() {
    let fs = written();
    assert!(segments(&fs).len() > 3);
    assert!(damages(&fs).is_empty());
    let report = salvaged(&fs);
    assert!(report.losses.is_empty() && report.set_aside.is_empty());
    assert_eq!((report.batch_count, report.last_sequence), (BATCHES, BATCHES * WRITES));
    assert_eq!(numbers(&open(&fs, 2).expect("opens")), (0..BATCHES).collect::<Vec<_>>());
}

#[test]
fn whatever_bit_flips_all_that_is_not_named_as_lost_is_kept() {
    let (whole, mut refused, mut torn) = (written(), 0, 0);
    let contents = segments(&whole).into_iter().map(|path| (bytes(&whole, &path), path));
    for (content, path) in contents.collect::<Vec<_>>() {
        let Some(end) = content.iter().rposition(|byte| *byte != 0) else { continue };
        for offset in (0..=end as u64).step_by(37) {
            let fs = whole.power_cut(0);
            fs.flip_bit(&path, offset, 4);
            let what = format!("a flip at {offset} of {}", path.display());
            let found = damages(&fs);
            match open(&fs.power_cut(0), 2) {
                Ok(engine) => {
                    // The last group looks torn.
                    assert!(found.is_empty(), "{what}: {found:?}");
                    assert_eq!(numbers(&engine), (0..BATCHES - 1).collect::<Vec<_>>(), "{what}");
                    torn += 1;
                    continue;
                }
                Err(Error::Damaged { file, offset: at, .. }) => {
                    assert!(file == path && at <= offset, "{what}: {at} of {}", file.display());
                    let named = |error: &Error| matches!(error, Error::Damaged { file, offset, .. } if (file, offset) == (&path, &at));
                    assert!(found.iter().any(named), "{what}: {found:?}");
                    refused += 1;
                }
                Err(error) => panic!("{what}: {error}"),
            }
            let fs = fs.power_cut(0);
            let report = salvaged(&fs);
            let lost = lost(&report);
            let kept: Vec<_> = (0..BATCHES).filter(|number| !lost.contains(number)).collect();
            assert!(lost.len() <= 1, "{what}: {report:?}");
            let engine = open(&fs, 2).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(numbers(&engine), kept, "{what}: {report:?}");
            assert!(damages(&fs).is_empty(), "{what}");
            assert!(!report.set_aside.is_empty(), "{what}");
        }
    }
    assert!(refused > 100 && torn > 0, "{refused} refused, {torn} torn");
}

#[test]
fn a_missing_segment_is_named_with_its_sequence_numbers() {
    let whole = written();
    let paths = segments(&whole);
    for path in &paths[1..paths.len() - 2] {
        let fs = whole.power_cut(0);
        fs.rename(path, Path::new("/aside")).expect("renamed");
        assert!(matches!(open(&fs, 2), Err(Error::Damaged { .. })));
        let fs = fs.power_cut(0);
        let report = salvaged(&fs);
        let lost = lost(&report);
        assert_eq!((report.losses.len(), &report.losses[0].0.file), (1, path));
        assert!(lost.len() > 5, "{report:?}");
        let kept: Vec<_> = (0..BATCHES).filter(|number| !lost.contains(number)).collect();
        assert_eq!(numbers(&open(&fs, 2).expect("opens")), kept);
    }
}

#[test]
fn what_had_reached_tables_is_told_apart() {
    let fs = written();
    let engine = open(&fs, 2).expect("opens");
    engine.tree(TREES[0]).expect("exists").flush().expect("flushed");
    drop(engine);
    let path = &segments(&fs)[0];
    fs.flip_bit(path, 500, 0);
    let report = salvage(&fs, Path::new(DIR), false).expect("readable");
    assert_eq!((report.tree_count, report.losses.len(), report.losses[0].1), (2, 1, 1), "{report:?}");
}

#[test]
fn an_interrupted_salvage_is_done_again_and_never_looks_sound() {
    let damaged = written();
    damaged.flip_bit(&segments(&damaged)[1], 600, 0);
    let damaged = damaged.power_cut(0);
    let finished = damaged.power_cut(0);
    let before = finished.operation_count();
    let lost = lost(&salvaged(&finished));
    let operations = finished.operation_count() - before;
    let kept: Vec<_> = (0..BATCHES).filter(|number| !lost.contains(number)).collect();
    for cut_at in 0..operations {
        for seed in 0..4 {
            let fs = damaged.power_cut(0);
            fs.set_faults(FaultPlan { cut_at: Some(cut_at), ..FaultPlan::default() });
            let _cut = salvage(&fs, Path::new(DIR), true);
            let fs = fs.power_cut(seed);
            if let Ok(engine) = open(&fs.power_cut(seed), 2) {
                assert_eq!(numbers(&engine), kept, "cut at {cut_at}, seed {seed}");
                continue;
            }
            let fs = fs.power_cut(seed);
            salvage(&fs, Path::new(DIR), true).expect("writable");
            let engine = open(&fs, 2).unwrap_or_else(|error| panic!("cut at {cut_at}: {error}"));
            assert_eq!(numbers(&engine), kept, "cut at {cut_at}, seed {seed}");
        }
    }
}
