//! Random histories over random options, against a `BTreeMap`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use lsm::{Background, Engine, FilterKey, Iter, KeyRange, Options, Snapshot, TreeFormat, TreeId, WriteBatch};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use vfs::SimulatedFileSystem;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

const TREES: [TreeId; 3] = [TreeId(1), TreeId(2), TreeId(3)];

fn random_options(random: &mut SmallRng, background: Background) -> Options {
    let l0_compaction_trigger = random.random_range(1..5);
    Options {
        memtable_bytes_max: random.random_range(64..256) << 10,
        block_cache_bytes: random.random_range(0..1 << 20),
        log_segment_bytes: random.random_range(4 << 10..64 << 10),
        log_bytes_max: random.random_range(128 << 10..512 << 10),
        log_buffer_bytes_max: random.random_range(1 << 10..1 << 20),
        l0_compaction_trigger,
        l0_slowdown: 8,
        l0_stop: 12,
        level_bytes_base: random.random_range(4 << 10..64 << 10),
        level_ratio: random.random_range(2..5),
        table_bytes: random.random_range(4 << 10..32 << 10),
        block_bytes: random.random_range(256..4 << 10),
        background,
    }
}

fn random_key(random: &mut SmallRng) -> Vec<u8> {
    // Short keys, so that they meet; some are prefixes of others.
    let mut key = format!("{:03}", random.random_range(0..400)).into_bytes();
    if random.random_bool(0.3) {
        key.extend_from_slice(b"\0\x01");
        key.extend_from_slice(&[0, 1, 0xff][..random.random_range(0..=3)]);
    }
    key
}

struct Run {
    seed: u64,
    random: SmallRng,
    fs: SimulatedFileSystem,
    background: Background,
    epoch: u64,
    engine: Engine,
    model: [Map; 3],
    /// Snapshots and what they must show.
    snapshots: Vec<(Snapshot, [Map; 3])>,
}

impl Run {
    fn new(seed: u64, background: Background) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let fs = SimulatedFileSystem::new();
        let options = random_options(&mut random, background);
        let engine = Engine::open(Arc::new(fs.clone()), Path::new("/db"), 1, options).expect("opens");
        for id in TREES {
            let filter_key =
                if random.random() { FilterKey::WholeKey } else { FilterKey::ThroughTerminator([0, 1]) };
            engine.create_tree(id, TreeFormat { filter_key }).expect("created");
        }
        Self {
            seed,
            random,
            fs,
            background,
            epoch: 1,
            engine,
            model: Default::default(),
            snapshots: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..1000) {
            0..700 => self.write(),
            700..780 => self.get(),
            780..860 => self.iterate(),
            860..900 => self.take_snapshot(),
            900..930 => drop(self.snapshots.pop()),
            930..950 => {
                let tree = *TREES.choose(&mut self.random).expect("not empty");
                self.engine.tree(tree).expect("exists").flush().expect("flushed");
            }
            950..960 => {
                let tree = *TREES.choose(&mut self.random).expect("not empty");
                self.engine.tree(tree).expect("exists").compact().expect("compacted");
            }
            960..970 => self.reopen(),
            _ => self.compare_all(),
        }
    }

    fn write(&mut self) {
        let mut batch = WriteBatch::new();
        for _ in 0..self.random.random_range(1..6) {
            let at = self.random.random_range(0..3_usize);
            let (tree, map) = (TREES[at], &mut self.model[at]);
            let key = random_key(&mut self.random);
            match self.random.random_range(0..20) {
                0..14 => {
                    let mut value = vec![0; self.random.random_range(0..300)];
                    self.random.fill(&mut value[..]);
                    batch.put(tree, &key, &value);
                    map.insert(key, value);
                }
                14..18 => {
                    batch.delete(tree, &key);
                    map.remove(&key);
                }
                _ => {
                    let mut end = key.clone();
                    end[2] = end[2].saturating_add(self.random.random_range(0..8));
                    if self.random.random_bool(0.3) {
                        end[1] = end[1].saturating_add(2);
                    }
                    batch.delete_range(tree, &key, &end);
                    map.retain(|other, _| *other < key || *other >= end);
                }
            }
        }
        let commit = self.engine.write(batch).expect("written");
        if self.random.random() {
            commit.wait().expect("durable");
        }
    }

    /// Some snapshot and what it must show.
    fn view(&mut self) -> (Snapshot, [Map; 3]) {
        if !self.snapshots.is_empty() && self.random.random() {
            let at = self.random.random_range(0..self.snapshots.len());
            return self.snapshots[at].clone();
        }
        if self.random.random() {
            self.engine.barrier().wait().expect("durable");
            return (self.engine.snapshot(), self.model.clone());
        }
        (self.engine.applied_snapshot(), self.model.clone())
    }

    fn take_snapshot(&mut self) {
        if self.snapshots.len() < 8 {
            let view = self.view();
            self.snapshots.push(view);
        }
    }

    fn get(&mut self) {
        let (snapshot, model) = self.view();
        for _ in 0..10 {
            let at = self.random.random_range(0..3_usize);
            let key = random_key(&mut self.random);
            let tree = self.engine.tree(TREES[at]).expect("exists");
            let found = tree.get(&snapshot, &key).expect("readable");
            assert_eq!(
                found.as_deref(),
                model[at].get(&key).map(Vec::as_slice),
                "seed {} {key:?}",
                self.seed
            );
        }
    }

    fn iterate(&mut self) {
        let (snapshot, model) = self.view();
        let at = self.random.random_range(0..3_usize);
        let tree = self.engine.tree(TREES[at]).expect("exists");
        let filter_key = tree.format().filter_key;
        let (range, mut iter) = if filter_key != FilterKey::WholeKey && self.random.random() {
            let mut prefix = random_key(&mut self.random)[..3].to_vec();
            prefix.extend_from_slice(b"\0\x01");
            (KeyRange::of_prefix(&prefix), tree.iter_prefix(&snapshot, &prefix))
        } else {
            let mut bounds = [random_key(&mut self.random), random_key(&mut self.random)];
            bounds.sort();
            let [start, end] = bounds.map(Bytes::from);
            let end = if self.random.random_bool(0.2) { Bytes::new() } else { end };
            let range = KeyRange { start, end };
            (range.clone(), tree.iter(&snapshot, range))
        };
        drop(snapshot);
        let expected: Vec<_> = model[at].iter().filter(|(key, _)| range.contains(key)).collect();
        // Index of the expected key, from one before the first to one past the last; none before the first move.
        let mut position: Option<usize> = None;
        let end = expected.len() + 1;
        for _ in 0..self.random.random_range(1..60) {
            let (moved, next) = match self.random.random_range(0..10) {
                0..5 => (iter.next(), position.map_or(1, |at| (at + 1).min(end))),
                5..8 => (iter.prev(), position.map_or(end - 1, |at| at.saturating_sub(1))),
                8 => {
                    let key = random_key(&mut self.random);
                    let found = expected.partition_point(|(other, _)| **other < key);
                    (iter.seek(&key), found + 1)
                }
                _ => {
                    let key = random_key(&mut self.random);
                    let found = expected.partition_point(|(other, _)| **other < key);
                    (iter.seek_before(&key), found)
                }
            };
            position = Some(next);
            self.check_position(&iter, moved.expect("readable"), next, &expected);
        }
    }

    fn check_position(&self, iter: &Iter, moved: bool, position: usize, expected: &[(&Vec<u8>, &Vec<u8>)]) {
        let expected = position.checked_sub(1).and_then(|at| expected.get(at));
        let found = moved.then(|| (iter.key(), iter.value()));
        let expected = expected.map(|(key, value)| (key.as_slice(), value.as_slice()));
        assert_eq!(found, expected, "seed {}", self.seed);
        if let Some((_, value)) = expected {
            assert_eq!(iter.value_bytes(), value, "seed {}", self.seed);
        }
    }

    fn compare_all(&mut self) {
        let (snapshot, model) = self.view();
        for (id, map) in TREES.iter().zip(&model) {
            let mut iter = self.engine.tree(*id).expect("exists").iter(&snapshot, KeyRange::default());
            for (key, value) in map {
                assert!(iter.next().expect("readable"), "seed {}: {key:?} is missing", self.seed);
                assert_eq!(
                    (iter.key(), iter.value()),
                    (key.as_slice(), value.as_slice()),
                    "seed {}",
                    self.seed
                );
            }
            assert!(!iter.next().expect("readable"), "seed {}", self.seed);
        }
    }

    fn reopen(&mut self) {
        self.snapshots.clear();
        if self.random.random() {
            self.engine.close().expect("closed");
        }
        self.epoch += 1;
        let options = random_options(&mut self.random, self.background);
        // An engine that is dropped syncs what was written, acknowledged or not.
        let placeholder = SimulatedFileSystem::new();
        let empty =
            Engine::open(Arc::new(placeholder), Path::new("/"), 1, Options::default()).expect("opens");
        drop(std::mem::replace(&mut self.engine, empty));
        let fs = Arc::new(self.fs.clone());
        self.engine = Engine::open(fs, Path::new("/db"), self.epoch, options).expect("reopens");
        self.compare_all();
    }
}

fn run(seed: u64, background: Background, steps: usize) {
    println!("seed {seed}");
    let mut run = Run::new(seed, background);
    for _ in 0..steps {
        run.step();
    }
    run.snapshots.clear();
    for id in TREES {
        run.engine.tree(id).expect("exists").compact().expect("compacted");
    }
    run.compare_all();
}

#[test]
fn random_histories_agree_with_a_map_inline() {
    for seed in 0..12 {
        run(seed, Background::Inline, 2500);
    }
}

#[test]
fn random_histories_agree_with_a_map_under_threads() {
    for seed in 100..108 {
        run(seed, Background::Threads, 2500);
    }
}
