//! What an engine does, case by case.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use lsm::{
    Background, Candidate, Decision, Engine, Error, FilterKey, KeepDecision, KeyRange, Options, Snapshot,
    Tree, TreeFormat, TreeId, WriteBatch,
};
use parking_lot::Mutex;
use vfs::simulated::{FaultPlan, Operation};
use vfs::{Access, FileSystem, SimulatedFileSystem};

pub const DIR: &str = "/engine";
pub const TREE: TreeId = TreeId(1);

pub fn inline_options() -> Options {
    Options {
        memtable_bytes_max: 64 << 10,
        memory_bytes_max: 24 << 20,
        log_segment_bytes: 4 << 10,
        log_bytes_max: 16 << 10,
        level_bytes_base: 16 << 10,
        level_ratio: 3,
        table_bytes: 4 << 10,
        block_bytes: 512,
        background: Background::Inline,
        ..Options::default()
    }
}

pub fn open(fs: &SimulatedFileSystem, epoch: u64) -> Engine {
    Engine::open(Arc::new(fs.clone()), Path::new(DIR), epoch, inline_options()).expect("opens")
}

/// A new engine on a new file system, with one tree.
pub fn opened() -> (SimulatedFileSystem, Engine, Tree) {
    let fs = SimulatedFileSystem::new();
    let engine = open(&fs, 1);
    let tree = engine.create_tree(TREE, TreeFormat::default()).expect("created");
    (fs, engine, tree)
}

fn put(engine: &Engine, key: &str, value: &str) {
    let mut batch = WriteBatch::new();
    batch.put(TREE, key.as_bytes(), value.as_bytes());
    engine.write(batch).expect("written").wait().expect("durable");
}

/// Writes what `fill` fills in, and waits until it is durable.
pub fn write(engine: &Engine, fill: impl FnOnce(&mut WriteBatch)) {
    let mut batch = WriteBatch::new();
    fill(&mut batch);
    engine.write(batch).expect("written").wait().expect("durable");
}

fn keys(engine: &Engine, tree: &Tree) -> Vec<String> {
    let mut iter = tree.iter(&engine.snapshot(), KeyRange::default());
    let mut keys = Vec::new();
    while iter.next().expect("readable") {
        keys.push(String::from_utf8(iter.key().to_vec()).expect("text"));
    }
    keys
}

fn files(fs: &SimulatedFileSystem, dir: &str) -> Vec<std::path::PathBuf> {
    fs.list(&Path::new(DIR).join(dir)).expect("listed")
}

#[test]
fn a_snapshot_sees_durable_writes_and_an_applied_one_all() {
    let (_fs, engine, tree) = opened();
    let mut batch = WriteBatch::new();
    batch.put(TREE, b"k", b"v");
    let commit = engine.write(batch).expect("written");
    assert_eq!(tree.get(&engine.snapshot(), b"k").expect("read"), None);
    assert_eq!(tree.get(&engine.applied_snapshot(), b"k").expect("read").as_deref(), Some(&b"v"[..]));
    engine.barrier().wait().expect("durable");
    assert_eq!(tree.get(&engine.snapshot(), b"k").expect("read").as_deref(), Some(&b"v"[..]));
    commit.wait().expect("durable already");
}

#[test]
fn callbacks_fire_once_a_batch_is_durable() {
    let (_fs, engine, _tree) = opened();
    let fired = Arc::new(AtomicUsize::new(0));
    for _ in 0..3 {
        let mut batch = WriteBatch::new();
        batch.put(TREE, b"k", b"v");
        let fired = Arc::clone(&fired);
        engine.write(batch).expect("written").on_durable(move |result| {
            result.expect("durable");
            fired.fetch_add(1, Ordering::Relaxed);
        });
    }
    assert_eq!(fired.load(Ordering::Relaxed), 3);
    let fired_now = Arc::clone(&fired);
    let mut batch = WriteBatch::new();
    batch.put(TREE, b"k", b"v");
    engine.on_writable(&batch, move || {
        fired_now.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(fired.load(Ordering::Relaxed), 4);
}

#[test]
fn writes_survive_a_drop_without_close_and_unsynced_ones_too() {
    let (fs, engine, tree) = opened();
    put(&engine, "a", "1");
    let mut batch = WriteBatch::new();
    batch.put(TREE, b"b", b"2");
    let _commit = engine.write(batch).expect("written");
    drop((engine, tree, _commit));
    let engine = open(&fs, 2);
    assert_eq!(keys(&engine, &engine.tree(TREE).expect("exists")), ["a", "b"]);
}

#[test]
fn an_epoch_must_grow_and_a_directory_has_one_owner() {
    let (fs, engine, _tree) = opened();
    let again = |epoch| Engine::open(Arc::new(fs.clone()), Path::new(DIR), epoch, inline_options());
    assert!(matches!(again(2), Err(Error::Locked { .. })));
    engine.close().expect("closed");
    assert!(matches!(again(1), Err(Error::StaleEpoch { given: 1, found: 1 })));
    again(2).expect("opens");
}

#[test]
fn a_closed_engine_takes_no_writes_and_still_reads() {
    let (_fs, engine, tree) = opened();
    put(&engine, "a", "1");
    engine.close().expect("closed");
    engine.close().expect("closing again changes nothing");
    let mut batch = WriteBatch::new();
    batch.put(TREE, b"b", b"2");
    assert!(matches!(engine.write(batch), Err(Error::Closed)));
    assert!(matches!(tree.flush(), Err(Error::Closed)));
    assert_eq!(keys(&engine, &tree), ["a"]);
}

#[test]
fn writes_to_unknown_trees_and_huge_entries_write_nothing() {
    let (_fs, engine, tree) = opened();
    let mut batch = WriteBatch::new();
    batch.put(TREE, b"a", b"1");
    batch.put(TreeId(9), b"a", b"1");
    assert!(matches!(engine.write(batch), Err(Error::NoSuchTree(TreeId(9)))));
    let mut batch = WriteBatch::new();
    batch.put(TREE, b"a", &vec![0; 600 << 20]);
    assert!(matches!(engine.write(batch), Err(Error::BatchTooLarge { .. })));
    assert!(keys(&engine, &tree).is_empty());
    assert!(engine.write(WriteBatch::new()).expect("nothing to write").wait().is_ok());
}

#[test]
fn trees_come_and_go_with_their_files() {
    let (fs, engine, tree) = opened();
    assert!(matches!(engine.create_tree(TREE, TreeFormat::default()), Err(Error::TreeExists(TREE))));
    put(&engine, "a", "1");
    tree.flush().expect("flushed");
    assert_eq!(files(&fs, "tables").len(), 1);
    let mut iter = tree.iter(&engine.snapshot(), KeyRange::default());
    engine.drop_tree(TREE).expect("dropped");
    engine.drop_tree(TREE).expect("dropping again is no error");
    assert!(engine.tree(TREE).is_none());
    assert!(matches!(engine.create_tree(TREE, TreeFormat::default()), Err(Error::TreeExists(TREE))));
    assert_eq!(files(&fs, "tables").len(), 1, "a reader holds the table");
    assert!(iter.next().expect("readable"));
    drop(iter);
    engine.close().expect("closed");
    drop((engine, tree));
    let engine = open(&fs, 2);
    assert!(engine.trees().is_empty());
    assert!(files(&fs, "tables").is_empty());
}

#[test]
fn prefixes_are_found_through_filters_and_tombstones_of_filtered_tables_count() {
    let fs = SimulatedFileSystem::new();
    let engine = open(&fs, 1);
    let format = TreeFormat { filter_key: FilterKey::ThroughTerminator([0, 1]), ..TreeFormat::default() };
    let tree = engine.create_tree(TREE, format.clone()).expect("created");
    for row in ["a", "b", "c"] {
        write(&engine, |batch| {
            for cell in 0..3 {
                batch.put(TREE, format!("{row}\0\u{1}{cell}").as_bytes(), b"v");
            }
        });
        tree.flush().expect("flushed");
    }
    write(&engine, |batch| batch.delete_range(TREE, b"b\0\x011", b"b\0\x012"));
    tree.flush().expect("flushed");
    let count = |row: &str| {
        let mut iter = tree.iter_prefix(&engine.snapshot(), format!("{row}\0\u{1}").as_bytes());
        let mut count = 0;
        while iter.next().expect("readable") {
            count += 1;
        }
        count
    };
    assert_eq!(["a", "b", "c", "d"].map(count), [3, 2, 3, 0]);
    drop((engine, tree));
    let engine = open(&fs, 2);
    assert_eq!(engine.tree(TREE).expect("exists").format(), &format);
}

#[test]
fn compactions_keep_what_snapshots_see_and_drop_the_rest() {
    let (_fs, engine, tree) = opened();
    put(&engine, "a", "old");
    put(&engine, "b", "old");
    let before = engine.snapshot();
    put(&engine, "a", "new");
    write(&engine, |batch| batch.delete(TREE, b"b"));
    tree.compact().expect("compacted");
    assert_eq!(tree.stats().entry_count, 4);
    assert_eq!(tree.get(&before, b"a").expect("read").as_deref(), Some(&b"old"[..]));
    assert_eq!(tree.get(&before, b"b").expect("read").as_deref(), Some(&b"old"[..]));
    drop(before);
    tree.compact().expect("compacted");
    assert_eq!((tree.stats().entry_count, tree.stats().tombstone_count), (1, 0));
    assert_eq!(keys(&engine, &tree), ["a"]);
}

struct DropValue(&'static [u8]);

impl KeepDecision for DropValue {
    fn decide(&mut self, candidate: &Candidate<'_>) -> Decision {
        if candidate.value == self.0 { Decision::Drop } else { Decision::Keep }
    }
}

#[test]
fn a_keep_decision_drops_as_a_delete_would_and_spares_what_a_snapshot_holds() {
    let (_fs, engine, tree) = opened();
    put(&engine, "a", "deep");
    tree.compact().expect("compacted");
    put(&engine, "a", "expired");
    put(&engine, "b", "expired");
    put(&engine, "c", "fresh");
    tree.set_keep_decision(Arc::new(|| Box::new(DropValue(b"expired"))));
    let held = engine.snapshot();
    tree.compact().expect("compacted");
    assert_eq!(keys(&engine, &tree), ["a", "b", "c"], "the snapshot holds them");
    drop(held);
    tree.compact().expect("compacted");
    assert_eq!(keys(&engine, &tree), ["c"], "what was beneath does not come back");
}

/// Marks what it rewrites, and remembers what it was asked.
struct Mark(Arc<Mutex<Vec<(String, u64, bool)>>>);

impl KeepDecision for Mark {
    fn decide(&mut self, candidate: &Candidate<'_>) -> Decision {
        let key = String::from_utf8(candidate.key.to_vec()).expect("text");
        self.0.lock().push((key, candidate.sequence, candidate.is_newest));
        if candidate.value.ends_with(b"!") {
            return Decision::Keep;
        }
        Decision::Rewrite([candidate.value, b"!"].concat().into())
    }
}

#[test]
fn a_keep_decision_rewrites_the_newest_value_under_its_sequence_number() {
    let (_fs, engine, tree) = opened();
    let asked = Arc::new(Mutex::default());
    for (key, value) in [("a", "old"), ("a", "new"), ("b", "held"), ("c", "gone")] {
        put(&engine, key, value);
    }
    let held = engine.snapshot();
    put(&engine, "b", "newer");
    write(&engine, |batch| batch.delete(TREE, b"c"));
    let mark = Arc::clone(&asked);
    tree.set_keep_decision(Arc::new(move || Box::new(Mark(Arc::clone(&mark)))));
    tree.compact().expect("compacted");
    let value = |snapshot: &Snapshot, key: &[u8]| tree.get(snapshot, key).expect("readable");
    assert_eq!(*asked.lock(), [("b".to_owned(), 5, true)], "all else is held, or a delete");
    assert_eq!(value(&engine.snapshot(), b"b").as_deref(), Some(&b"newer!"[..]));
    assert_eq!(value(&held, b"b").as_deref(), Some(&b"held"[..]));
    drop(held);
    tree.compact().expect("compacted");
    assert_eq!(asked.lock()[1..], [("a".to_owned(), 2, true), ("b".to_owned(), 5, true)]);
    assert_eq!(value(&engine.snapshot(), b"a").as_deref(), Some(&b"new!"[..]));
    assert_eq!(tree.stats().entry_count, 2);
}

#[test]
fn log_segments_go_once_flushed_and_an_idle_tree_does_not_pin_them() {
    let (fs, engine, _tree) = opened();
    engine.create_tree(TreeId(2), TreeFormat::default()).expect("created");
    write(&engine, |batch| batch.put(TreeId(2), b"idle", b"tree"));
    for i in 0..2000 {
        put(&engine, &format!("{:04}", i % 500), "some value that fills the log");
    }
    let stats = engine.stats();
    assert!(
        stats.log_bytes <= inline_options().log_bytes_max + 2 * inline_options().log_segment_bytes,
        "{stats:?}"
    );
    let prepared = files(&fs, "log").len() - stats.log_segment_count;
    assert!(prepared <= 1, "{prepared} segments were prepared and not written");
    assert!(stats.flush_count > 1 && stats.compaction_count + stats.move_count > 0, "{stats:?}");
    drop(engine);
    let engine = open(&fs, 2);
    let idle = engine.tree(TreeId(2)).expect("exists");
    assert_eq!(keys(&engine, &idle), ["idle"]);
}

#[test]
fn a_failed_sync_poisons_the_engine_and_reads_go_on() {
    let (fs, engine, tree) = opened();
    put(&engine, "a", "1");
    let mut batch = WriteBatch::new();
    batch.put(TREE, b"b", b"2");
    let commit = engine.write(batch.clone()).expect("written");
    fs.set_faults(FaultPlan { fail_at: Some(fs.operation_count() + 1), ..FaultPlan::default() });
    assert!(matches!(commit.wait(), Err(Error::Poisoned)));
    assert!(matches!(engine.write(batch), Err(Error::Poisoned)));
    assert!(matches!(engine.barrier().wait(), Err(Error::Poisoned)));
    assert_eq!(keys(&engine, &tree), ["a"]);
    assert!(matches!(engine.close(), Err(Error::Poisoned)));
}

#[test]
fn an_engine_opened_with_more_tables_than_its_options_allow_takes_writes() {
    let fs = SimulatedFileSystem::new();
    let with = |epoch, (l0_compaction_trigger, l0_slowdown, l0_stop)| {
        let options = Options { l0_compaction_trigger, l0_slowdown, l0_stop, ..inline_options() };
        Engine::open(Arc::new(fs.clone()), Path::new(DIR), epoch, options).expect("opens")
    };
    let engine = with(1, (100, 100, 101));
    let tree = engine.create_tree(TREE, TreeFormat::default()).expect("created");
    for key in ["a", "b", "c"] {
        put(&engine, key, "v");
        tree.flush().expect("flushed");
    }
    drop((engine, tree));
    let engine = with(2, (1, 1, 2));
    put(&engine, "d", "v");
    assert_eq!(keys(&engine, &engine.tree(TREE).expect("exists")), ["a", "b", "c", "d"]);
}

#[test]
fn a_flush_that_failed_is_done_before_the_next_one() {
    let (fs, engine, tree) = opened();
    put(&engine, "a", "1");
    fs.set_faults(FaultPlan { failing: vec![Operation::Create], ..FaultPlan::default() });
    assert!(matches!(tree.flush(), Err(Error::Io(_))));
    fs.set_faults(FaultPlan::default());
    put(&engine, "b", "2");
    tree.flush().expect("flushed");
    assert_eq!(tree.stats().frozen_memtable_count, 0);
    assert_eq!(keys(&engine, &tree), ["a", "b"]);
}

#[test]
fn damage_in_the_middle_of_the_log_is_reported_with_its_place() {
    let (fs, engine, _tree) = opened();
    for i in 0..20 {
        put(&engine, &format!("{i:02}"), "value");
    }
    engine.close().expect("closed");
    let log = Path::new(DIR).join("log").join(&files(&fs, "log")[0]);
    let bytes = fs.open(&log, Access::Read).expect("opened").map().expect("mapped");
    // Behind the frames there are zeros, where nothing can be damaged.
    let length = bytes.iter().rposition(|byte| *byte != 0).expect("there are frames") as u64;
    fs.flip_bit(&log, length / 2, 3);
    match Engine::open(Arc::new(fs.clone()), Path::new(DIR), 2, inline_options()) {
        Err(Error::Damaged { file, offset, .. }) => assert!(file == log && offset < length / 2),
        other => panic!("{other:?}"),
    }
    fs.flip_bit(&log, length / 2, 3);
    let engine = open(&fs, 3);
    assert_eq!(keys(&engine, &engine.tree(TREE).expect("exists")).len(), 20);
}

#[test]
fn a_lost_segment_or_manifest_is_reported() {
    let (fs, engine, _tree) = opened();
    let options = Options { log_bytes_max: 1 << 20, memtable_bytes_max: 1 << 20, ..inline_options() };
    engine.close().expect("closed");
    drop(engine);
    let engine = Engine::open(Arc::new(fs.clone()), Path::new(DIR), 2, options).expect("opens");
    for i in 0..200 {
        put(&engine, &format!("{i:03}"), "a value of some length, so that there are several segments");
    }
    engine.close().expect("closed");
    let names = files(&fs, "log");
    assert!(names.len() > 3);
    let refused = |fs: &SimulatedFileSystem| {
        let opened = Engine::open(Arc::new(fs.clone()), Path::new(DIR), 9, inline_options());
        assert!(matches!(opened, Err(Error::Damaged { .. })), "{opened:?}");
    };
    let middle = Path::new(DIR).join("log").join(&names[names.len() / 2]);
    fs.rename(&middle, Path::new("/aside")).expect("renamed");
    refused(&fs);
    fs.rename(Path::new("/aside"), &middle).expect("renamed");
    let manifest = Path::new(DIR).join("manifests").join(&files(&fs, "manifests")[0]);
    fs.rename(&manifest, Path::new("/aside")).expect("renamed");
    refused(&fs);
}

#[test]
fn iterators_turn_anywhere() {
    let (_fs, engine, tree) = opened();
    for key in ["a", "c", "e"] {
        put(&engine, key, "table");
        tree.flush().expect("flushed");
    }
    put(&engine, "b", "memtable");
    put(&engine, "d", "memtable");
    write(&engine, |batch| batch.delete(TREE, b"c"));
    let range = KeyRange { start: Bytes::from_static(b"a"), end: Bytes::from_static(b"e") };
    let mut iter = tree.iter(&engine.snapshot(), range);
    let key = |moved: lsm::Result<bool>, iter: &lsm::Iter| {
        moved.expect("readable").then(|| String::from_utf8(iter.key().to_vec()).expect("text"))
    };
    macro_rules! at {
        ($($step:ident($($arg:expr)?) => $expected:expr),* $(,)?) => {$(
            let moved = iter.$step($($arg)?);
            assert_eq!(key(moved, &iter).as_deref(), $expected, stringify!($step($($arg)?)));
        )*};
    }
    at!(
        prev() => Some("d"), prev() => Some("b"), next() => Some("d"), next() => None, next() => None,
        prev() => Some("d"), seek(b"b") => Some("b"), prev() => Some("a"), prev() => None, prev() => None,
        next() => Some("a"), next() => Some("b"), seek(b"c") => Some("d"), seek(b"e") => None,
        prev() => Some("d"), seek_before(b"d") => Some("b"), seek_before(b"a") => None,
        seek_before(b"z") => Some("d"), seek(b"") => Some("a"),
    );
    assert_eq!((iter.value(), &iter.value_bytes()[..]), (&b"table"[..], &b"table"[..]));
}
