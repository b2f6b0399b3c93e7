//! Tables that were built outside become part of a tree.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lsm::{
    Background, Engine, Error, FilterKey, KeyRange, Options, TableBuilder, Tree, TreeFormat, TreeId,
    WriteBatch,
};
use vfs::simulated::FaultPlan;
use vfs::{FileSystem, RealFileSystem, SimulatedFileSystem};

use crate::engine::{DIR, TREE, inline_options, open, opened, write};
use crate::fork::{contents, range};

/// A table at `/NAME` of what `fill` puts into it.
pub fn build(fs: &dyn FileSystem, name: &str, fill: impl FnOnce(&mut TableBuilder)) -> PathBuf {
    let path = Path::new("/").join(name);
    let mut builder =
        TableBuilder::create(fs, &path, &TreeFormat::default(), &inline_options()).expect("created");
    fill(&mut builder);
    builder.finish(fs).expect("finished");
    path
}

fn numbered(builder: &mut TableBuilder, keys: std::ops::Range<u32>, value: &str) {
    for key in keys {
        builder.put(format!("{key:03}").as_bytes(), value.as_bytes()).expect("put");
    }
}

/// One line a key, `KEY=VALUE`.
fn text(engine: &Engine, tree: &Tree) -> String {
    let map = contents(tree, &engine.snapshot());
    let pairs = map.iter().map(|(key, value)| format!("{}={}", key.escape_ascii(), value.escape_ascii()));
    pairs.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_table_takes_its_place_between_the_writes_before_and_after() {
    let (fs, engine, tree) = opened();
    write(&engine, |batch| {
        for key in ["001", "002", "003", "009"] {
            batch.put(TREE, key.as_bytes(), b"old");
        }
    });
    let before = engine.snapshot();
    let path = build(&fs, "a", |builder| {
        builder.delete(b"001").expect("deleted");
        builder.put(b"002", b"table").expect("put");
        builder.put(b"004", b"table").expect("put");
    });
    let sequence = engine.ingest(TREE, &[&path]).expect("taken in");
    assert_eq!(engine.snapshot().sequence(), sequence);
    let expected = "002=table 003=old 004=table 009=old";
    assert_eq!(text(&engine, &tree), expected);
    assert_eq!(contents(&tree, &before).len(), 4, "a snapshot from before does not see it");
    assert!(contents(&tree, &before).values().all(|value| value == b"old"));
    write(&engine, |batch| batch.put(TREE, b"004", b"new"));
    let expected = "002=table 003=old 004=new 009=old";
    assert_eq!(text(&engine, &tree), expected);
    drop(before);
    tree.compact().expect("compacted");
    assert_eq!(text(&engine, &tree), expected);
    drop((tree, engine));
    let engine = open(&fs, 2);
    assert_eq!(text(&engine, &engine.tree(TREE).expect("exists")), expected);
    assert!(fs.exists(&path).expect("looked for"), "the caller's file stays");
}

#[test]
fn cursors_and_snapshots_see_the_assigned_sequence() {
    let (fs, engine, tree) = opened();
    let mut snapshots = vec![(engine.snapshot(), String::new())];
    for round in 0..6_u32 {
        let value = format!("v{round}");
        if round % 2 == 0 {
            let first = round * 3;
            let path = build(&fs, &value, |builder| numbered(builder, first..first + 20, &value));
            engine.ingest(TREE, &[path]).expect("taken in");
        } else {
            write(&engine, |batch| {
                for key in (0..30).step_by(3) {
                    batch.put(TREE, format!("{key:03}").as_bytes(), value.as_bytes());
                }
                batch.delete_range(TREE, b"005", b"007");
            });
        }
        let snapshot = engine.snapshot();
        let mut iter = tree.iter(&snapshot, range("008", "015"));
        let mut pairs = Vec::new();
        while iter.next().expect("readable") {
            pairs.push((iter.key().to_vec(), iter.value().to_vec()));
        }
        let all = contents(&tree, &snapshot);
        let within = all.range(b"008".to_vec()..b"015".to_vec());
        assert!(pairs.iter().map(|(key, value)| (key, value)).eq(within));
        let mut iter = tree.iter(&snapshot, KeyRange::default());
        for key in 0..40 {
            let key = format!("{key:03}").into_bytes();
            let found = iter.seek(&key).expect("sought").then(|| iter.key().to_vec());
            assert_eq!(found.as_ref(), all.range(key.clone()..).next().map(|(key, _)| key));
            let found = iter.seek_before(&key).expect("sought").then(|| iter.key().to_vec());
            assert_eq!(found.as_ref(), all.range(..key).next_back().map(|(key, _)| key));
        }
        snapshots.push((snapshot, text(&engine, &tree)));
        for (snapshot, expected) in &snapshots {
            let map = contents(&tree, snapshot);
            let pairs =
                map.iter().map(|(key, value)| format!("{}={}", key.escape_ascii(), value.escape_ascii()));
            assert_eq!(&pairs.collect::<Vec<_>>().join(" "), expected);
        }
        if round == 3 {
            tree.compact().expect("compacted");
        }
    }
}

#[test]
fn range_deletes_of_a_table_spare_its_own_puts() {
    let (fs, engine, tree) = opened();
    write(&engine, |batch| {
        for key in 0..10_u8 {
            batch.put(TREE, &[b'0' + key], b"old");
        }
    });
    let path = build(&fs, "replace", |builder| {
        builder.delete_range(b"2", b"8");
        builder.put(b"3", b"new").expect("put");
    });
    engine.ingest(TREE, &[path]).expect("taken in");
    let expected = "0=old 1=old 3=new 8=old 9=old";
    assert_eq!(text(&engine, &tree), expected);
    tree.compact().expect("compacted");
    assert_eq!(text(&engine, &tree), expected);
}

#[test]
fn tables_stand_as_deep_as_nothing_overlaps_them_and_are_forked_as_others_are() {
    let (fs, engine, tree) = opened();
    let paths: Vec<_> = [("low", 0..40), ("high", 60..99)]
        .into_iter()
        .map(|(name, keys)| build(&fs, name, |builder| numbered(builder, keys, name)))
        .collect();
    engine.ingest(TREE, &paths).expect("taken in");
    assert_eq!(tree.stats().level_table_counts, [0, 0, 0, 0, 0, 0, 2]);
    let over = build(&fs, "over", |builder| numbered(builder, 20..70, "over"));
    engine.ingest(TREE, &[over]).expect("taken in");
    assert_eq!(tree.stats().level_table_counts, [0, 0, 0, 0, 0, 1, 2]);
    let children = engine.fork_tree(TREE, &[(TreeId(2), range("030", "065"))]).expect("forked");
    assert_eq!(contents(&children[0], &engine.snapshot()).len(), 35);
    engine.drop_tree(TREE).expect("dropped");
    children[0].compact().expect("compacted");
    assert!(contents(&children[0], &engine.snapshot()).values().all(|value| value == b"over"));
}

#[test]
fn what_is_unfit_or_damaged_is_refused_and_changes_nothing() {
    let (fs, engine, tree) = opened();
    write(&engine, |batch| batch.put(TREE, b"005", b"old"));
    let good = build(&fs, "good", |builder| numbered(builder, 0..30, "new"));
    let overlapping = build(&fs, "overlapping", |builder| numbered(builder, 29..31, "new"));
    let empty = build(&fs, "empty", |_| {});
    let other = Path::new("/other");
    let format = TreeFormat { filter_key: FilterKey::ThroughTerminator([0, 1]), ..TreeFormat::default() };
    let mut builder = TableBuilder::create(&fs, other, &format, &Options::default()).expect("created");
    builder.put(b"900", b"").expect("put");
    builder.finish(&fs).expect("finished");
    tree.flush().expect("flushed");
    let flushed = fs.list(&Path::new(DIR).join("tables")).expect("listed");
    let flushed = Path::new(DIR).join("tables").join(&flushed[0]);
    let damaged = build(&fs, "damaged", |builder| numbered(builder, 100..130, "new"));
    fs.flip_bit(&damaged, 40, 3);
    let files = || fs.list(&Path::new(DIR).join("tables")).expect("listed");
    let before = files();
    for unfit in [&overlapping, &empty, other, &flushed] {
        let refused = engine.ingest(TREE, &[&good, unfit]);
        assert!(matches!(&refused, Err(Error::UnfitTable { file, .. }) if file == unfit), "{refused:?}");
    }
    let refused = engine.ingest(TREE, &[&good, &damaged]);
    assert!(matches!(&refused, Err(Error::Damaged { file, .. }) if *file == damaged), "{refused:?}");
    assert!(matches!(engine.ingest(TREE, &[Path::new("/missing")]), Err(Error::Io(_))));
    assert!(matches!(engine.ingest(TreeId(9), &[&good]), Err(Error::NoSuchTree(TreeId(9)))));
    assert_eq!(files(), before);
    assert_eq!(text(&engine, &tree), "005=old");
    engine.ingest(TREE, &[&good]).expect("taken in");
    assert_eq!(contents(&tree, &engine.snapshot()).len(), 30);
}

#[test]
fn a_builder_takes_keys_in_order_only() {
    let fs = SimulatedFileSystem::new();
    build(&fs, "a", |builder| {
        builder.put(b"b", b"1").expect("put");
        for key in [&b"b"[..], b"a"] {
            assert!(matches!(builder.put(key, b""), Err(Error::OutOfOrder { .. })));
            assert!(matches!(builder.delete(key), Err(Error::OutOfOrder { .. })));
        }
        builder.delete(b"c").expect("deleted");
    });
}

#[test]
fn a_failing_disk_leaves_the_tree_as_it_was_or_poisons_the_engine() {
    let (fs, engine, _tree) = opened();
    write(&engine, |batch| batch.put(TREE, b"001", b"old"));
    let path = build(&fs, "good", |builder| numbered(builder, 0..30, "new"));
    drop((_tree, engine));
    for offset in 0.. {
        let fs = fs.power_cut(0);
        let engine = open(&fs, 2);
        fs.set_faults(FaultPlan { fail_at: Some(fs.operation_count() + offset), ..FaultPlan::default() });
        let ingested = engine.ingest(TREE, &[&path]);
        let failed = ingested.is_err();
        fs.set_faults(FaultPlan::default());
        let tree = engine.tree(TREE).expect("exists");
        let count = contents(&tree, &engine.applied_snapshot()).len();
        assert!(count == 30 || (failed && count == 1), "{count} keys after {ingested:?}");
        drop((tree, engine));
        let engine = open(&fs.power_cut(offset), 3);
        let count = contents(&engine.tree(TREE).expect("exists"), &engine.snapshot()).len();
        assert!(count == 30 || (failed && count == 1));
        if !failed && offset > 20 {
            break;
        }
    }
}

#[test]
fn tables_are_taken_in_beside_writers_of_the_same_keys() {
    let dir = tempfile::tempdir().expect("made");
    let options = Options { background: Background::Threads, ..inline_options() };
    let engine = Engine::open(Arc::new(RealFileSystem), &dir.path().join("db"), 1, options).expect("opens");
    let tree = engine.create_tree(TREE, TreeFormat::default()).expect("created");
    let stopping = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0_u64;
            while !stopping.load(Ordering::Relaxed) {
                number += 1;
                let mut batch = WriteBatch::new();
                batch.put(TREE, format!("{:03}", number % 30).as_bytes(), &number.to_be_bytes());
                batch.put(TREE, b"last", &number.to_be_bytes());
                drop(engine.write(batch).expect("written"));
            }
        });
        for round in 0..10 {
            let path = dir.path().join(format!("{round}.sst"));
            let mut builder =
                TableBuilder::create(&RealFileSystem, &path, tree.format(), &Options::default())
                    .expect("created");
            let value = format!("round {round}");
            numbered(&mut builder, 0..30, &value);
            builder.put(b"round", value.as_bytes()).expect("put");
            builder.finish(&RealFileSystem).expect("finished");
            let sequence = engine.ingest(TREE, &[&path]).expect("taken in");
            let snapshot = engine.snapshot();
            assert!(snapshot.sequence() >= sequence);
            assert_eq!(tree.get(&snapshot, b"round").expect("read").as_deref(), Some(value.as_bytes()));
            let map = contents(&tree, &snapshot);
            assert_eq!(contents(&tree, &snapshot), map, "a snapshot shows the same at any time");
        }
        stopping.store(true, Ordering::Relaxed);
    });
    engine.close().expect("closed");
}
