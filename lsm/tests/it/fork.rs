//! Forks: trees that begin with what another tree holds; and unions, which undo them.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm::{Engine, Error, KeyRange, Options, Snapshot, Tree, TreeFormat, TreeId, WriteBatch};
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};
use vfs::{FileSystem, SimulatedFileSystem};

use crate::engine::{DIR, inline_options, write};

const PARENT: TreeId = TreeId(1);

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(fs: &SimulatedFileSystem, epoch: u64, options: Options) -> Engine {
    Engine::open(Arc::new(fs.clone()), Path::new(DIR), epoch, options).expect("opens")
}

pub fn range(start: &str, end: &str) -> KeyRange {
    KeyRange { start: start.to_owned().into(), end: end.to_owned().into() }
}

fn put(engine: &Engine, tree: TreeId, keys: std::ops::Range<u32>, value: &[u8]) {
    for key in keys {
        write(engine, |batch| batch.put(tree, format!("{key:03}").as_bytes(), value));
    }
}

fn tables(fs: &SimulatedFileSystem) -> Vec<PathBuf> {
    fs.list(&Path::new(DIR).join("tables")).expect("listed")
}

pub fn contents(tree: &Tree, snapshot: &Snapshot) -> Map {
    let mut iter = tree.iter(snapshot, KeyRange::default());
    let mut map = Map::new();
    while iter.next().expect("readable") {
        map.insert(iter.key().to_vec(), iter.value().to_vec());
    }
    let mut backward = tree.iter(snapshot, KeyRange::default());
    for (key, value) in map.iter().rev() {
        assert!(backward.prev().expect("readable"));
        assert_eq!((backward.key(), backward.value()), (&key[..], &value[..]));
        assert_eq!(tree.get(snapshot, key).expect("readable").as_deref(), Some(&value[..]));
    }
    assert!(!backward.prev().expect("readable"));
    map
}

fn keys(engine: &Engine, tree: &Tree) -> Vec<String> {
    let map = contents(tree, &engine.snapshot());
    map.into_keys().map(|key| String::from_utf8(key).expect("text")).collect()
}

fn opened() -> (SimulatedFileSystem, Engine) {
    let fs = SimulatedFileSystem::new();
    let engine = open(&fs, 1, inline_options());
    engine.create_tree(PARENT, TreeFormat::default()).expect("created");
    (fs, engine)
}

#[test]
fn children_hold_their_ranges_and_go_ways_of_their_own() {
    let (fs, engine) = opened();
    put(&engine, PARENT, 0..100, b"old");
    write(&engine, |batch| batch.delete_range(PARENT, b"030", b"060"));
    put(&engine, PARENT, 50..52, b"new");
    let before = tables(&fs).len();
    let children = engine
        .fork_tree(PARENT, &[(TreeId(2), range("", "051")), (TreeId(3), range("051", ""))])
        .expect("forked");
    assert!(tables(&fs).len() <= before + 1, "nothing but the memtable is written");
    let expected: Vec<_> = (0..100).filter(|key| !(30..60).contains(key) || (50..52).contains(key)).collect();
    let expected = |from, to| -> Vec<_> {
        expected.iter().filter(|key| (from..to).contains(*key)).map(|key| format!("{key:03}")).collect()
    };
    assert_eq!(keys(&engine, &children[0]), expected(0, 51));
    assert_eq!(keys(&engine, &children[1]), expected(51, 100));

    write(&engine, |batch| batch.delete_range(TreeId(2), b"000", b"050"));
    put(&engine, TreeId(3), 99..100, b"the child's");
    write(&engine, |batch| batch.delete_range(PARENT, b"050", b"100"));
    assert_eq!(keys(&engine, &children[0]), ["050"]);
    assert_eq!(keys(&engine, &children[1]), expected(51, 100));
    let parent = engine.tree(PARENT).expect("exists");
    assert_eq!(keys(&engine, &parent), expected(0, 50));
    for tree in engine.trees() {
        tree.compact().expect("compacted");
    }
    assert_eq!(keys(&engine, &children[0]), ["050"]);
    assert_eq!(keys(&engine, &children[1]), expected(51, 100));
    assert_eq!(keys(&engine, &parent), expected(0, 50));
    let value = children[1].get(&engine.snapshot(), b"099").expect("read");
    assert_eq!(value.as_deref(), Some(&b"the child's"[..]));
    // A tree is not kept to the range it was forked with.
    put(&engine, TreeId(2), 70..71, b"");
    assert_eq!(keys(&engine, &children[0]), ["050", "070"]);
}

#[test]
fn shared_files_go_with_their_last_tree_and_reader() {
    let (fs, engine) = opened();
    put(&engine, PARENT, 0..50, &[7; 100]);
    let parent = engine.tree(PARENT).expect("exists");
    parent.compact().expect("compacted");
    let shared = tables(&fs);
    let children = engine
        .fork_tree(PARENT, &[(TreeId(2), range("", "025")), (TreeId(3), range("025", ""))])
        .expect("forked");
    engine.drop_tree(PARENT).expect("dropped");
    assert_eq!(tables(&fs), shared);
    drop(parent);
    // One child compacts: what is the other's alone stays, its own is written anew.
    children[0].compact().expect("compacted");
    assert!(shared.iter().any(|table| tables(&fs).contains(table)));
    assert_eq!(keys(&engine, &children[1]).len(), 25);
    let mut reader = children[1].iter(&engine.snapshot(), KeyRange::default());
    assert!(reader.next().expect("readable"));
    children[1].compact().expect("compacted");
    assert_eq!(keys(&engine, &children[0]).len(), 25);
    let mut count = 1;
    while reader.next().expect("readable") {
        count += 1;
    }
    assert_eq!(count, 25);
    drop(reader);
    children[1].compact().expect("compacted");
    assert!(!shared.iter().any(|table| tables(&fs).contains(table)));
}

#[test]
fn sharing_survives_reopening_and_forgotten_parents() {
    let (fs, engine) = opened();
    put(&engine, PARENT, 0..60, &[7; 100]);
    engine.fork_tree(PARENT, &[(TreeId(2), range("010", "050"))]).expect("forked");
    engine.fork_tree(TreeId(2), &[(TreeId(3), range("", "030"))]).expect("forked");
    put(&engine, TreeId(3), 0..1, b"beyond");
    engine.close().expect("closed");
    drop(engine);

    let engine = open(&fs, 2, inline_options());
    let tree = |id| engine.tree(TreeId(id)).expect("exists");
    assert_eq!(keys(&engine, &tree(2)).len(), 40);
    assert_eq!(keys(&engine, &tree(3)).len(), 21);
    engine.drop_tree(PARENT).expect("dropped");
    engine.drop_tree(TreeId(2)).expect("dropped");
    drop(engine);

    let engine = open(&fs, 3, inline_options());
    assert_eq!(engine.trees().len(), 1);
    let grandchild = engine.tree(TreeId(3)).expect("exists");
    assert_eq!(keys(&engine, &grandchild).len(), 21);
    assert!(grandchild.stats().sstable_bytes < 21 * 300, "what is clipped off is not counted");
    grandchild.compact().expect("compacted");
    assert_eq!(tables(&fs).len(), grandchild.stats().level_table_counts.iter().sum());
}

#[test]
fn a_snapshot_from_before_the_fork_shows_what_the_parent_held() {
    let (_fs, engine) = opened();
    put(&engine, PARENT, 0..3, b"old");
    let snapshot = engine.snapshot();
    put(&engine, PARENT, 0..2, b"new");
    let forked = engine.fork_tree(PARENT, &[(TreeId(2), range("001", ""))]).expect("forked");
    let old = |map: Map| map.into_values().collect::<Vec<_>>();
    assert_eq!(old(contents(&forked[0], &snapshot)), [b"old", b"old"]);
    assert_eq!(old(contents(&forked[0], &engine.snapshot())), [b"new", b"old"]);
}

#[test]
fn ids_that_are_or_were_taken_are_refused_and_change_nothing() {
    let (_fs, engine) = opened();
    put(&engine, PARENT, 0..3, b"");
    engine.create_tree(TreeId(2), TreeFormat::default()).expect("created");
    let everything = KeyRange::default;
    for ids in [&[2][..], &[1], &[3, 3]] {
        let children: Vec<_> = ids.iter().map(|id| (TreeId(*id), everything())).collect();
        assert!(matches!(engine.fork_tree(PARENT, &children), Err(Error::TreeExists(_))));
    }
    let missing = engine.fork_tree(TreeId(9), &[(TreeId(3), everything())]);
    assert!(matches!(missing, Err(Error::NoSuchTree(TreeId(9)))));
    assert_eq!(engine.trees().len(), 2);
    // The log still knows writes to it.
    engine.fork_tree(PARENT, &[(TreeId(3), everything())]).expect("forked");
    put(&engine, TreeId(3), 5..6, b"");
    engine.drop_tree(TreeId(3)).expect("dropped");
    let again = engine.fork_tree(PARENT, &[(TreeId(3), everything())]);
    assert!(matches!(again, Err(Error::TreeExists(TreeId(3)))));
}

/// What `trees` hold, each in the range beside it.
fn clipped(trees: &HashMap<TreeId, Map>, parts: &[(TreeId, KeyRange)]) -> Map {
    let part = |(id, range): &(TreeId, KeyRange)| {
        let within = trees[id].iter().filter(|(key, _)| range.contains(key));
        within.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
    };
    parts.iter().flat_map(part).collect()
}

#[test]
fn a_union_of_what_was_forked_holds_it_all_again() {
    let (fs, engine) = opened();
    put(&engine, PARENT, 0..100, &[7; 40]);
    engine
        .fork_tree(PARENT, &[(TreeId(2), range("", "051")), (TreeId(3), range("051", ""))])
        .expect("forked");
    engine.drop_tree(PARENT).expect("dropped");
    put(&engine, TreeId(2), 0..1, b"the left's");
    put(&engine, TreeId(3), 99..100, b"the right's");
    // Beyond its range: not taken over.
    put(&engine, TreeId(3), 5..6, b"nobody's");
    let parts = [(TreeId(2), range("", "051")), (TreeId(3), range("051", ""))];
    let united = engine.unite_trees(TreeId(4), &parts).expect("united");
    for part in [TreeId(2), TreeId(3)] {
        engine.drop_tree(part).expect("dropped");
    }
    put(&engine, TreeId(4), 100..101, b"new");
    let check = |engine: &Engine, tree: &Tree| {
        assert_eq!(keys(engine, tree), (0..101).map(|key| format!("{key:03}")).collect::<Vec<_>>());
        for (key, value) in [("000", &b"the left's"[..]), ("005", &[7; 40]), ("099", b"the right's")] {
            let found = tree.get(&engine.snapshot(), key.as_bytes()).expect("read");
            assert_eq!(found.as_deref(), Some(value), "{key}");
        }
    };
    check(&engine, &united);
    engine.close().expect("closed");
    let engine = open(&fs, 2, inline_options());
    let united = engine.tree(TreeId(4)).expect("exists");
    check(&engine, &united);
    united.compact().expect("compacted");
    check(&engine, &united);
    assert_eq!(tables(&fs).len(), united.stats().level_table_counts.iter().sum::<usize>());
}

#[test]
fn another_engine_takes_over_most_of_a_tree_ahead() {
    let (fs, engine) = opened();
    let other = Engine::open(Arc::new(fs.clone()), Path::new("/other"), 1, inline_options()).expect("opens");
    other.create_tree(TreeId(9), TreeFormat::default()).expect("created");
    put(&engine, PARENT, 0..60, &[7; 100]);
    let mut staged = other.stage();
    staged.add(&engine.pin(&[PARENT]).expect("pinned")[0]).expect("staged");
    let ahead = staged.table_count();
    assert!(ahead > 0);
    put(&engine, PARENT, 60..61, b"late");
    let pinned = engine.pin(&[PARENT]).expect("pinned").remove(0);
    put(&engine, PARENT, 61..62, b"too late");
    // What is pinned stays, whatever becomes of the tree.
    engine.tree(PARENT).expect("exists").compact().expect("compacted");
    engine.drop_tree(PARENT).expect("dropped");
    let tree = other.take_over(&pinned, &mut staged, TreeId(2)).expect("taken over");
    assert!(matches!(other.take_over(&pinned, &mut staged, TreeId(2)), Err(Error::TreeExists(_))));
    drop((pinned, staged));
    let check = |engine: &Engine, tree: &Tree| {
        assert_eq!(keys(engine, tree), (0..61).map(|key| format!("{key:03}")).collect::<Vec<_>>());
    };
    check(&other, &tree);
    put(&other, TreeId(2), 0..1, b"newer than all that was taken over");
    let value = tree.get(&other.snapshot(), b"000").expect("read");
    assert_eq!(value.as_deref(), Some(&b"newer than all that was taken over"[..]));
    other.close().expect("closed");
    let other = Engine::open(Arc::new(fs.clone()), Path::new("/other"), 2, inline_options()).expect("opens");
    let tree = other.tree(TreeId(2)).expect("exists");
    check(&other, &tree);
    let files = || fs.list(Path::new("/other/tables")).expect("listed").len();
    assert_eq!(files(), tree.stats().level_table_counts.iter().sum::<usize>(), "what was of no use is gone");

    // What was staged for nothing goes.
    let before = files();
    let mut staged = other.stage();
    engine.create_tree(TreeId(5), TreeFormat::default()).expect("created");
    put(&engine, TreeId(5), 0..5, b"v");
    staged.add(&engine.pin(&[TreeId(5)]).expect("pinned")[0]).expect("staged");
    assert!(files() > before);
    drop(staged);
    assert_eq!(files(), before);
}

#[test]
fn parts_that_overlap_or_differ_are_refused() {
    let (_fs, engine) = opened();
    let format =
        TreeFormat { filter_key: lsm::FilterKey::ThroughTerminator([0, 1]), ..TreeFormat::default() };
    engine.create_tree(TreeId(2), format).expect("created");
    let refused = |parts: &[(TreeId, KeyRange)]| engine.unite_trees(TreeId(3), parts).expect_err("refused");
    let overlapping = [(PARENT, range("", "b")), (PARENT, range("a", ""))];
    assert!(matches!(refused(&overlapping), Error::UnfitParts { tree: TreeId(3) }));
    let different = [(PARENT, range("", "b")), (TreeId(2), range("b", ""))];
    assert!(matches!(refused(&different), Error::UnfitParts { .. }));
    assert!(matches!(refused(&[]), Error::NoSuchTree(_)));
    assert!(matches!(engine.unite_trees(TreeId(2), &different[..1]), Err(Error::TreeExists(_))));
    assert!(engine.tree(TreeId(3)).is_none());
}

/// Trees that are forked, united, written, dropped and reopened at random, and a map of each.
struct Run {
    random: SmallRng,
    fs: SimulatedFileSystem,
    epoch: u64,
    engine: Engine,
    model: HashMap<TreeId, Map>,
    next_id: u64,
}

impl Run {
    fn step(&mut self) {
        let mut ids: Vec<_> = self.model.keys().copied().collect();
        ids.sort_unstable();
        let id = *ids.iter().choose(&mut self.random).expect("there are trees");
        let tree = self.engine.tree(id).expect("exists");
        match self.random.random_range(0..100) {
            0..60 => self.write(id),
            60..70 if ids.len() < 8 => self.fork(id),
            70..75 if ids.len() < 8 => self.unite(&ids),
            75..80 if ids.len() > 1 => {
                self.engine.drop_tree(id).expect("dropped");
                self.model.remove(&id);
            }
            80..85 => tree.flush().expect("flushed"),
            85..90 => tree.compact().expect("compacted"),
            90..93 => {
                self.epoch += 1;
                self.engine.close().expect("closed");
                drop(tree);
                self.engine = open(&self.fs, self.epoch, inline_options());
            }
            _ => self.compare(),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        format!("{:03}", self.random.random_range(0..300)).into_bytes()
    }

    fn write(&mut self, id: TreeId) {
        let mut batch = WriteBatch::new();
        for _ in 0..self.random.random_range(1..12) {
            let key = self.key();
            let map = self.model.get_mut(&id).expect("modelled");
            match self.random.random_range(0..10) {
                0..7 => {
                    let value = vec![self.random.random(); self.random.random_range(0..80)];
                    batch.put(id, &key, &value);
                    map.insert(key, value);
                }
                7..9 => {
                    batch.delete(id, &key);
                    map.remove(&key);
                }
                _ => {
                    let end = self.key();
                    batch.delete_range(id, &key, &end);
                    self.model
                        .get_mut(&id)
                        .expect("modelled")
                        .retain(|other, _| *other < key || *other >= end);
                }
            }
        }
        self.engine.write(batch).expect("written").wait().expect("durable");
    }

    fn fork(&mut self, parent: TreeId) {
        let children: Vec<_> = (0..self.random.random_range(1..4))
            .map(|_| {
                let (a, b) = (self.key(), self.key());
                let end = if self.random.random_bool(0.3) { Vec::new() } else { a.clone().max(b.clone()) };
                self.next_id += 1;
                (TreeId(self.next_id), KeyRange { start: a.min(b).into(), end: end.into() })
            })
            .collect();
        self.engine.fork_tree(parent, &children).expect("forked");
        for (id, range) in children {
            let map = self.model[&parent].iter().filter(|(key, _)| range.contains(key));
            let map = map.map(|(key, value)| (key.clone(), value.clone())).collect();
            self.model.insert(id, map);
        }
    }

    /// Makes a tree of up to four others' parts, in ranges that follow each other.
    fn unite(&mut self, ids: &[TreeId]) {
        let mut bounds: Vec<_> = (0..self.random.random_range(0..4)).map(|_| self.key()).collect();
        bounds.sort_unstable();
        bounds.push(Vec::new());
        let mut start = Vec::new();
        let mut parts = Vec::new();
        for end in bounds {
            let id = *ids.iter().choose(&mut self.random).expect("there are trees");
            let range = KeyRange { start: start.into(), end: end.clone().into() };
            start = end;
            if range.end.is_empty() || range.start < range.end {
                parts.push((id, range));
            }
        }
        self.next_id += 1;
        let united = TreeId(self.next_id);
        self.engine.unite_trees(united, &parts).expect("united");
        self.model.insert(united, clipped(&self.model, &parts));
    }

    fn compare(&mut self) {
        let snapshot = self.engine.snapshot();
        assert_eq!(self.engine.trees().len(), self.model.len());
        for (id, map) in &self.model {
            let tree = self.engine.tree(*id).expect("exists");
            assert_eq!(&contents(&tree, &snapshot), map);
            let key = format!("{:03}", self.random.random_range(0..300)).into_bytes();
            assert_eq!(
                tree.get(&snapshot, &key).expect("read").as_deref(),
                map.get(&key).map(|value| &value[..])
            );
            let mut iter = tree.iter(&snapshot, KeyRange::default());
            let found = iter.seek(&key).expect("sought").then(|| iter.key().to_vec());
            assert_eq!(found.as_ref(), map.range(key.clone()..).next().map(|(key, _)| key));
            let found = iter.seek_before(&key).expect("sought").then(|| iter.key().to_vec());
            assert_eq!(found.as_ref(), map.range(..key).next_back().map(|(key, _)| key));
        }
    }
}

#[test]
fn random_forks_and_unions_agree_with_clipped_maps() {
    for seed in 0..60 {
        println!("seed {seed}");
        let (fs, engine) = opened();
        let model = HashMap::from([(PARENT, Map::new())]);
        let random = SmallRng::seed_from_u64(seed);
        let mut run = Run { random, fs, epoch: 1, engine, model, next_id: 1 };
        for _ in 0..200 {
            run.step();
        }
        run.compare();
        let ids: Vec<_> = run.model.keys().copied().collect();
        for id in &ids {
            run.engine.tree(*id).expect("exists").compact().expect("compacted");
        }
        let named: usize =
            run.engine.trees().iter().map(|tree| tree.stats().level_table_counts.iter().sum::<usize>()).sum();
        assert_eq!(tables(&run.fs).len(), named, "seed {seed}: nothing is shared or left behind any more");
    }
}
