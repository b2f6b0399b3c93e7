//! Merge operands, from the batch to the lowest level.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use lsm::{Engine, Error, KeyRange, MergeOperator, Options, Snapshot, Tree, TreeFormat, TreeId, WriteBatch};
use vfs::SimulatedFileSystem;

use crate::engine::{DIR, TREE, inline_options, write};

/// Sums little-endian integers; what has another length counts as 0.
#[derive(Debug)]
pub struct Sum;

fn number(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_le_bytes)
}

impl MergeOperator for Sum {
    fn name(&self) -> &'static str {
        "test.sum"
    }

    fn merge(&self, _key: &[u8], base: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
        let base = base.map_or(0, number);
        let sum = operands.iter().fold(base, |sum, operand| sum.wrapping_add(number(operand)));
        Bytes::copy_from_slice(&sum.to_le_bytes())
    }

    fn combine(&self, key: &[u8], operands: &[Bytes]) -> Option<Bytes> {
        Some(self.merge(key, None, operands))
    }
}

/// Sums, and counts the operands it was given.
#[derive(Debug, Default)]
struct CountingSum(AtomicUsize);

impl MergeOperator for CountingSum {
    fn name(&self) -> &'static str {
        "test.counting"
    }

    fn merge(&self, key: &[u8], base: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
        self.0.fetch_add(operands.len(), Ordering::Relaxed);
        Sum.merge(key, base, operands)
    }
}

/// Appends, each operand behind a comma.
#[derive(Debug)]
pub struct Append {
    pub combines: bool,
}

impl MergeOperator for Append {
    fn name(&self) -> &'static str {
        if self.combines { "test.append.combining" } else { "test.append" }
    }

    fn merge(&self, _key: &[u8], base: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
        let mut value = base.unwrap_or(b"-").to_vec();
        for operand in operands {
            value.push(b',');
            value.extend_from_slice(operand);
        }
        value.into()
    }

    fn combine(&self, _key: &[u8], operands: &[Bytes]) -> Option<Bytes> {
        self.combines.then(|| operands.join(&b',').into())
    }
}

/// All operators of these tests.
pub fn operators() -> Vec<Arc<dyn MergeOperator>> {
    let appends = [true, false].map(|combines| Arc::new(Append { combines }) as Arc<dyn MergeOperator>);
    let [combining, plain] = appends;
    vec![Arc::new(Sum), combining, plain]
}

pub fn merging(name: &str) -> TreeFormat {
    TreeFormat { merge_operator: Some(name.to_owned()), ..TreeFormat::default() }
}

fn open(fs: &SimulatedFileSystem, epoch: u64) -> lsm::Result<Engine> {
    let options = Options { merge_operators: operators(), ..inline_options() };
    Engine::open(Arc::new(fs.clone()), Path::new(DIR), epoch, options)
}

fn opened(operator: &str) -> (SimulatedFileSystem, Engine, Tree) {
    let fs = SimulatedFileSystem::new();
    let engine = open(&fs, 1).expect("opens");
    let tree = engine.create_tree(TREE, merging(operator)).expect("created");
    (fs, engine, tree)
}

fn append(engine: &Engine, operand: &str) {
    write(engine, |batch| batch.merge(TREE, b"k", operand.as_bytes()));
}

fn text(value: &[u8]) -> String {
    String::from_utf8(value.to_vec()).expect("text")
}

/// What `snapshot` sees of the key `k`, whichever way it is read, between neighbours `j` and `l`.
fn seen(tree: &Tree, snapshot: &Snapshot) -> Option<String> {
    let got = tree.get(snapshot, b"k").expect("readable").map(|value| text(&value));
    let mut iter = tree.iter(snapshot, KeyRange::default());
    let mut forward = Vec::new();
    while iter.next().expect("readable") {
        forward.push((text(iter.key()), text(iter.value())));
    }
    let mut backward = Vec::new();
    while iter.prev().expect("readable") {
        backward.push((text(iter.key()), text(&iter.value_bytes())));
    }
    backward.reverse();
    assert_eq!(forward, backward);
    let found = forward.into_iter().find(|(key, _)| key == "k").map(|(_, value)| value);
    assert_eq!(got, found);
    got
}

#[test]
fn operands_change_what_is_there_and_what_is_not() {
    let (_fs, engine, tree) = opened("test.append");
    write(&engine, |batch| {
        batch.put(TREE, b"j", b"before");
        batch.merge(TREE, b"k", b"1");
        batch.merge(TREE, b"k", b"2");
        batch.put(TREE, b"l", b"after");
    });
    assert_eq!(seen(&tree, &engine.snapshot()).as_deref(), Some("-,1,2"));
    write(&engine, |batch| batch.put(TREE, b"k", b"base"));
    append(&engine, "3");
    assert_eq!(seen(&tree, &engine.snapshot()).as_deref(), Some("base,3"));
    write(&engine, |batch| batch.delete(TREE, b"k"));
    assert_eq!(seen(&tree, &engine.snapshot()), None);
    append(&engine, "4");
    assert_eq!(seen(&tree, &engine.snapshot()).as_deref(), Some("-,4"));
    write(&engine, |batch| batch.delete_range(TREE, b"k", b"l"));
    assert_eq!(seen(&tree, &engine.snapshot()), None);
    append(&engine, "5");
    assert_eq!(seen(&tree, &engine.snapshot()).as_deref(), Some("-,5"));
}

/// A step of a history of the key `k`.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put,
    Delete,
    DeleteRange,
    Merge,
    Flush,
    Compact,
    /// A snapshot is taken here, and held to the end.
    Hold,
}

/// Runs the history and checks after each step what every snapshot sees.
fn check(operator: &str, steps: &[Step]) {
    let (fs, mut engine, mut tree) = opened(operator);
    let mut held: Vec<(Snapshot, Option<String>)> = Vec::new();
    let mut expected: Option<String> = None;
    write(&engine, |batch| {
        batch.put(TREE, b"j", b"before");
        batch.put(TREE, b"l", b"after");
    });
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Put => {
                write(&engine, |batch| batch.put(TREE, b"k", format!("p{at}").as_bytes()));
                expected = Some(format!("p{at}"));
            }
            Step::Delete => {
                write(&engine, |batch| batch.delete(TREE, b"k"));
                expected = None;
            }
            Step::DeleteRange => {
                write(&engine, |batch| batch.delete_range(TREE, b"ja", b"kz"));
                expected = None;
            }
            Step::Merge => {
                append(&engine, &at.to_string());
                expected = Some(format!("{},{at}", expected.as_deref().unwrap_or("-")));
            }
            Step::Flush => tree.flush().expect("flushed"),
            Step::Compact => tree.compact().expect("compacted"),
            Step::Hold => held.push((engine.snapshot(), expected.clone())),
        }
        held.push((engine.snapshot(), expected.clone()));
        for (snapshot, expected) in &held {
            assert_eq!(&seen(&tree, snapshot), expected, "{steps:?}, after {at}");
        }
        held.pop();
    }
    drop((held, tree, engine));
    engine = open(&fs, 2).expect("reopens");
    tree = engine.tree(TREE).expect("exists");
    assert_eq!(seen(&tree, &engine.snapshot()), expected, "{steps:?}, reopened");
    tree.compact().expect("compacted");
    assert_eq!(seen(&tree, &engine.snapshot()), expected, "{steps:?}, reopened and compacted");
    let stats = tree.stats();
    let entries = 2 + u64::from(expected.is_some());
    assert_eq!((stats.entry_count, stats.merge_count), (entries, 0), "{steps:?}: all is folded");
}

#[test]
fn every_history_of_a_key_folds_to_what_was_seen() {
    use Step::{Compact, Delete, DeleteRange, Flush, Hold, Merge, Put};
    for operator in ["test.append", "test.append.combining"] {
        for below in [&[][..], &[Put], &[Put, Flush], &[Delete, Flush], &[Put, Compact], &[Merge, Flush]] {
            for between in [&[][..], &[Hold], &[Flush], &[Flush, Hold], &[Delete], &[DeleteRange], &[Put]] {
                for end in [&[Flush][..], &[Compact], &[DeleteRange, Flush], &[Delete, Flush], &[Hold, Merge]]
                {
                    let merges = [Merge, Merge];
                    let steps = [below, &merges, between, &merges, end, &[Compact]].concat();
                    check(operator, &steps);
                }
            }
        }
    }
}

#[test]
fn a_hot_counter_is_one_entry_once_it_is_flushed() {
    for operator in ["test.sum", "test.append", "test.append.combining"] {
        let (_fs, engine, tree) = opened(operator);
        for round in 1..=3 {
            // Fewer than fill a memtable, which would be flushed with the rest to come.
            for _ in 0..400 {
                write(&engine, |batch| batch.merge(TREE, b"k", &1_i64.to_le_bytes()));
            }
            tree.flush().expect("flushed");
            let stats = tree.stats();
            let tables: u64 = stats.level_table_counts.iter().map(|count| *count as u64).sum();
            assert!(stats.entry_count <= tables, "{operator}, {round}: {stats:?}");
            let value = tree.get(&engine.snapshot(), b"k").expect("readable").expect("there");
            if operator == "test.sum" {
                assert_eq!(number(&value), 400 * round);
            } else {
                assert_eq!(value.len(), usize::try_from(1 + 400 * 9 * round).expect("small"));
            }
        }
    }
}

#[test]
fn operands_need_the_operator_they_were_written_for() {
    let (fs, engine, tree) = opened("test.sum");
    engine.create_tree(TreeId(2), TreeFormat::default()).expect("created");
    let mut batch = WriteBatch::new();
    batch.put(TREE, b"k", b"v");
    batch.merge(TreeId(2), b"k", b"1");
    assert!(matches!(engine.write(batch), Err(Error::NoMergeOperator(TreeId(2)))));
    assert_eq!(tree.get(&engine.applied_snapshot(), b"k").expect("readable"), None, "nothing was written");
    let unknown = engine.create_tree(TreeId(3), merging("test.max"));
    assert!(matches!(unknown, Err(Error::UnknownMergeOperator { tree: TreeId(3), .. })));
    append(&engine, "1");
    drop((engine, tree));
    let opened = |options| Engine::open(Arc::new(fs.clone()), Path::new(DIR), 2, options);
    match opened(inline_options()) {
        Err(Error::UnknownMergeOperator { tree, name }) => assert_eq!((tree, &*name), (TREE, "test.sum")),
        other => panic!("{other:?}"),
    }
    let twice = Options { merge_operators: vec![Arc::new(Sum), Arc::new(Sum)], ..inline_options() };
    assert!(matches!(opened(twice), Err(Error::InvalidOption { name: "merge_operators", .. })));
    let engine = open(&fs, 3).expect("opens with its operator");
    let value = engine.tree(TREE).expect("exists").get(&engine.snapshot(), b"k").expect("readable");
    assert_eq!(value.as_deref().map(number), Some(0), "an operand of odd length counts as 0");
}

#[test]
fn readers_of_a_hot_counter_start_where_others_have_ended() {
    let counting = Arc::new(CountingSum::default());
    let options = Options {
        memtable_bytes_max: 64 << 20,
        memory_bytes_max: 256 << 20,
        merge_operators: vec![Arc::<CountingSum>::clone(&counting)],
        ..inline_options()
    };
    let fs = Arc::new(SimulatedFileSystem::new());
    let engine = Engine::open(fs, Path::new(DIR), 1, options).expect("opens");
    let tree = engine.create_tree(TREE, merging("test.counting")).expect("created");
    write(&engine, |batch| batch.put(TREE, b"k", &7_i64.to_le_bytes()));
    tree.flush().expect("flushed");
    let increment = |times: usize| {
        let mut batch = WriteBatch::new();
        (0..times).for_each(|_| batch.merge(TREE, b"k", &1_i64.to_le_bytes()));
        engine.write(batch).expect("written").wait().expect("durable");
    };
    type Read<'a> = &'a dyn Fn() -> Bytes;
    let by_get: Read<'_> = &|| tree.get(&engine.snapshot(), b"k").expect("readable").expect("there");
    let forward: Read<'_> = &|| {
        let mut iter = tree.iter(&engine.snapshot(), KeyRange::default());
        assert!(iter.next().expect("readable"));
        let value = iter.value_bytes();
        assert!(!iter.next().expect("readable"));
        value
    };
    let backward: Read<'_> = &|| {
        let mut iter = tree.iter(&engine.snapshot(), KeyRange::default());
        assert!(iter.prev().expect("readable"));
        let value = iter.value_bytes();
        assert!(!iter.prev().expect("readable"));
        value
    };
    let mut total = 0;
    for (round, first) in [by_get, forward, backward].into_iter().enumerate() {
        increment(10_000);
        total += 10_000;
        for (reader, read) in [first, by_get, forward, backward, by_get].into_iter().enumerate() {
            counting.0.store(0, Ordering::Relaxed);
            assert_eq!(number(&read()), 7 + total);
            let folded = counting.0.load(Ordering::Relaxed);
            if reader == 0 {
                assert!(
                    folded >= 10_000,
                    "{folded} operands were folded by reader {reader} of round {round}"
                );
            } else {
                assert!(folded < 600, "{folded} operands were folded by reader {reader} of round {round}");
            }
        }
    }
    assert_eq!(tree.stats().merge_count, 0, "all of it is in memory still");
}

#[test]
fn what_readers_have_folded_changes_nothing_that_anybody_sees() {
    for operator in ["test.append", "test.append.combining"] {
        let (_fs, engine, tree) = opened(operator);
        let mut expected: Option<String> = None;
        let mut held: Vec<(Snapshot, Option<String>)> = Vec::new();
        for round in 0..120_usize {
            match round % 12 {
                3 => {
                    write(&engine, |batch| batch.put(TREE, b"k", b"p"));
                    expected = Some("p".to_owned());
                }
                6 => {
                    write(&engine, |batch| batch.delete(TREE, b"k"));
                    expected = None;
                }
                9 => {
                    write(&engine, |batch| batch.delete_range(TREE, b"j", b"l"));
                    expected = None;
                }
                11 if round % 5 == 0 => tree.flush().expect("flushed"),
                _ => {
                    let count = 1 + round * 7 % 90;
                    write(&engine, |batch| (0..count).for_each(|_| batch.merge(TREE, b"k", b"x")));
                    let appended = ",x".repeat(count);
                    expected = Some(expected.as_deref().unwrap_or("-").to_owned() + &appended);
                }
            }
            held.push((engine.snapshot(), expected.clone()));
            for at in [held.len() - 1, round * 13 % held.len(), 0] {
                let (snapshot, expected) = &held[at];
                assert_eq!(&seen(&tree, snapshot), expected, "{operator}, round {round}, seen as of {at}");
            }
        }
        for (snapshot, expected) in &held {
            assert_eq!(&seen(&tree, snapshot), expected);
        }
        tree.compact().expect("compacted");
        for (snapshot, expected) in &held {
            assert_eq!(&seen(&tree, snapshot), expected, "compacted");
        }
    }
}
