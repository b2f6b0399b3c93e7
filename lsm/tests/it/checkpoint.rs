//! Checkpoints, and trees restored from them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm::{Background, CopyProgress, Engine, Error, KeyRange, Options, TreeFormat, TreeId, WriteBatch};
use vfs::simulated::FaultPlan;
use vfs::{FileSystem, RealFileSystem, SimulatedFileSystem};

use crate::engine::inline_options;
use crate::fork::{contents, range};
use crate::ingest::build;

const DIR: &str = "/engine";
const CHECKPOINT: &str = "/backups/one";
const TREES: [TreeId; 2] = [TreeId(1), TreeId(2)];

fn open(fs: &SimulatedFileSystem, dir: &str, epoch: u64) -> Engine {
    Engine::open(Arc::new(fs.clone()), Path::new(dir), epoch, inline_options()).expect("opens")
}

fn opened() -> (SimulatedFileSystem, Engine) {
    let fs = SimulatedFileSystem::new();
    fs.create_dir_all(Path::new("/backups")).expect("created");
    let engine = open(&fs, DIR, 1);
    for id in TREES {
        engine.create_tree(id, TreeFormat::default()).expect("created");
    }
    (fs, engine)
}

/// Writes `value` to keys of both trees.
fn write(engine: &Engine, keys: std::ops::Range<u32>, value: &str) {
    for key in keys {
        let mut batch = WriteBatch::new();
        for id in TREES {
            batch.put(id, format!("{key:03}").as_bytes(), value.as_bytes());
        }
        drop(engine.write(batch).expect("written"));
    }
    engine.barrier().wait().expect("durable");
}

fn values(engine: &Engine, id: TreeId) -> Vec<String> {
    let tree = engine.tree(id).expect("exists");
    let map = contents(&tree, &engine.snapshot());
    map.into_values().map(|value| String::from_utf8(value).expect("text")).collect()
}

#[test]
fn a_checkpoint_opens_as_an_engine_of_its_own_and_stays_as_it_was() {
    let (fs, engine) = opened();
    write(&engine, 0..30, "old");
    engine.fork_tree(TREES[0], &[(TreeId(3), range("010", "020"))]).expect("forked");
    let sequence = engine.checkpoint(None, Path::new(CHECKPOINT), |_| {}).expect("written");
    assert_eq!(sequence, engine.snapshot().sequence());
    write(&engine, 0..40, "new");
    engine.drop_tree(TreeId(3)).expect("dropped");
    for tree in engine.trees() {
        tree.compact().expect("compacted");
    }
    let copy = open(&fs, CHECKPOINT, 2);
    assert_eq!(copy.trees().len(), 3);
    for id in TREES {
        assert_eq!(values(&copy, id), ["old"; 30]);
        assert_eq!(values(&engine, id), ["new"; 40]);
    }
    assert_eq!(values(&copy, TreeId(3)), ["old"; 10]);
    // Either can be written to and compacted without hurting the other.
    write(&copy, 0..30, "copy");
    for tree in copy.trees() {
        tree.compact().expect("compacted");
    }
    assert!(copy.snapshot().sequence() > sequence);
    drop((engine, copy));
    let (engine, copy) = (open(&fs, DIR, 3), open(&fs, CHECKPOINT, 3));
    assert_eq!(values(&engine, TREES[1]), ["new"; 40]);
    assert_eq!(values(&copy, TREES[1]), ["copy"; 30]);
}

#[test]
fn some_trees_are_taken_and_progress_is_told() {
    let (fs, engine) = opened();
    write(&engine, 0..100, "some value that is long enough for a few tables in the tree");
    let mut seen = Vec::new();
    engine.checkpoint(Some(&TREES[1..]), Path::new(CHECKPOINT), |at| seen.push(at)).expect("written");
    let last = *seen.last().expect("told");
    assert_eq!((last.table_count, last.copied_bytes), (last.table_count_total, 0));
    assert!(last.bytes_total > 0 && seen.is_sorted_by_key(|at| at.table_count));
    let copy = open(&fs, CHECKPOINT, 2);
    assert_eq!(copy.trees().len(), 1);
    assert_eq!(values(&copy, TREES[1]).len(), 100);
    let missing = engine.checkpoint(Some(&[TreeId(9)]), Path::new("/backups/two"), |_| {});
    assert!(matches!(missing, Err(Error::NoSuchTree(TreeId(9)))));
    let there = engine.checkpoint(None, Path::new(CHECKPOINT), |_| {});
    assert!(matches!(there, Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::AlreadyExists));
    assert_eq!(fs.list(Path::new("/backups")).expect("listed").len(), 1);
}

#[test]
fn what_cannot_be_linked_is_copied_and_what_fails_is_cleared_away() {
    let (fs, engine) = opened();
    write(&engine, 0..20, "value");
    for tree in engine.trees() {
        tree.flush().expect("flushed");
    }
    let mut copied = None;
    for offset in 0.. {
        let at = fs.operation_count() + offset;
        fs.set_faults(FaultPlan { fail_at: Some(at), ..FaultPlan::default() });
        let dir = format!("/backups/{offset}");
        let mut last = CopyProgress::default();
        let written = engine.checkpoint(None, Path::new(&dir), |at| last = at);
        let reached = fs.operation_count() > at;
        fs.set_faults(FaultPlan::default());
        assert!(!fs.exists(Path::new(&format!("{dir}-unfinished"))).expect("looked for"), "{offset}");
        if written.is_ok() {
            copied = copied.or(Some(last).filter(|last| last.copied_bytes > 0));
            assert_eq!(values(&open(&fs, &dir, 2), TREES[0]), ["value"; 20]);
        }
        if !reached {
            break;
        }
    }
    assert!(copied.is_some_and(|last| last.copied_bytes < last.bytes_total));
    write(&engine, 0..20, "still takes writes");
}

#[test]
fn trees_are_restored_into_the_same_engine_and_into_others() {
    let (fs, engine) = opened();
    write(&engine, 0..50, "old");
    let path = build(&fs, "table", |builder| builder.put(b"010", b"ingested").expect("put"));
    engine.ingest(TREES[0], &[path]).expect("taken in");
    engine.fork_tree(TREES[0], &[(TreeId(3), range("005", "015"))]).expect("forked");
    let dir = Path::new(CHECKPOINT);
    let sequence = engine.checkpoint(None, dir, |_| {}).expect("written");
    write(&engine, 0..50, "new");
    let restored = engine.restore_tree(dir, TreeId(3), TreeId(4), |_| {}).expect("restored");
    let mut expected = vec!["old"; 10];
    expected[5] = "ingested";
    assert_eq!(values(&engine, restored.id()), expected);
    assert_eq!(values(&engine, TREES[0]), ["new"; 50]);

    // An engine whose sequence numbers are far below.
    let other = open(&fs, "/other", 1);
    let before = other.snapshot();
    assert!(before.sequence() < sequence);
    other.create_tree(TREES[0], TreeFormat::default()).expect("created");
    for (from, to) in [(TreeId(3), TREES[1]), (TREES[0], TreeId(7))] {
        other.restore_tree(dir, from, to, |_| {}).expect("restored");
        assert!(other.snapshot().sequence() > sequence);
    }
    assert_eq!(values(&other, TREES[1]), expected);
    assert_eq!(contents(&other.tree(TREES[1]).expect("exists"), &before).len(), 0);
    write(&other, 5..8, "other");
    expected[..3].fill("other");
    drop(other);
    let other = open(&fs, "/other", 2);
    assert_eq!(values(&other, TREES[1]), expected);
    assert_eq!(values(&other, TreeId(7)).len(), 50);
    for tree in other.trees() {
        tree.compact().expect("compacted");
    }
    assert_eq!(values(&other, TREES[1]), expected);
}

#[test]
fn what_is_not_there_taken_or_opened_since_is_not_restored() {
    let (fs, engine) = opened();
    write(&engine, 0..5, "value");
    let dir = Path::new(CHECKPOINT);
    engine.checkpoint(None, dir, |_| {}).expect("written");
    let files = || fs.list(&Path::new(DIR).join("tables")).expect("listed");
    let before = files();
    let restore = |from, to| engine.restore_tree(dir, TreeId(from), TreeId(to), |_| {});
    assert!(matches!(restore(9, 3), Err(Error::NoSuchTree(TreeId(9)))));
    assert!(matches!(restore(1, 2), Err(Error::TreeExists(TreeId(2)))));
    assert!(engine.restore_tree(Path::new("/nothing"), TreeId(1), TreeId(3), |_| {}).is_err());
    let table = &fs.list(&dir.join("tables")).expect("listed")[0];
    let whole = fs.open(&dir.join("tables").join(table), vfs::Access::Read).expect("opened");
    let bytes = whole.map().expect("mapped");
    fs.remove(&dir.join("tables").join(table)).expect("removed");
    assert!(matches!(restore(1, 3), Err(Error::Io(_))) || matches!(restore(2, 3), Err(Error::Io(_))));
    let cut = fs.create(&dir.join("tables").join(table)).expect("created");
    cut.write_all_at(&[std::io::IoSlice::new(&bytes[1..])], 0).expect("written");
    let refused = [restore(1, 3), restore(2, 3)];
    let is_refused = |result: &lsm::Result<_>| {
        matches!(result, Err(Error::UnfitCheckpoint { .. } | Error::Damaged { .. }))
    };
    assert_eq!(refused.iter().filter(|result| is_refused(result)).count(), 1, "{refused:?}");
    drop(refused);
    engine.checkpoint(None, Path::new("/backups/two"), |_| {}).expect("written");
    drop(open(&fs, "/backups/two", 2));
    let refused = engine.restore_tree(Path::new("/backups/two"), TreeId(1), TreeId(8), |_| {});
    assert!(matches!(refused, Err(Error::UnfitCheckpoint { .. })));
    assert!(before.iter().all(|file| files().contains(file)));
}

#[test]
fn a_checkpoint_beside_writers_holds_batches_whole() {
    let dir = tempfile::tempdir().expect("made");
    let fs = Arc::new(RealFileSystem);
    let options = Options { background: Background::Threads, ..inline_options() };
    let engine =
        Engine::open(Arc::clone(&fs) as Arc<dyn FileSystem>, &dir.path().join("db"), 1, options.clone())
            .expect("opens");
    for id in TREES {
        engine.create_tree(id, TreeFormat::default()).expect("created");
    }
    let stopping = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0_u64;
            while !stopping.load(Ordering::Relaxed) {
                number += 1;
                let mut batch = WriteBatch::new();
                for id in TREES {
                    batch.put(id, b"last", &number.to_be_bytes());
                    batch.put(id, format!("{:03}", number % 500).as_bytes(), &number.to_be_bytes());
                }
                drop(engine.write(batch).expect("written"));
            }
        });
        for round in 0..8 {
            let at = dir.path().join(format!("checkpoint-{round}"));
            let sequence = engine.checkpoint(None, &at, |_| {}).expect("written");
            let copy =
                Engine::open(Arc::clone(&fs) as Arc<dyn FileSystem>, &at, 2, options.clone()).expect("opens");
            let maps = TREES.map(|id| contents(&copy.tree(id).expect("exists"), &copy.snapshot()));
            assert!(maps[0] == maps[1], "some batch is there in one tree and not in the other");
            assert!(copy.snapshot().sequence() >= sequence);
            copy.close().expect("closed");
        }
        stopping.store(true, Ordering::Relaxed);
    });
    let mut iter = engine.tree(TREES[0]).expect("exists").iter(&engine.snapshot(), KeyRange::default());
    assert!(iter.next().expect("readable"));
    engine.close().expect("closed");
}
