//! Power cuts at every operation of a workload that forks, unites and drops trees,
//! takes tables in, writes checkpoints and restores trees from them.
//!
//! Everything runs in one thread, so that an operation has the same number in
//! every run. Each step of the workload names the states that it may leave
//! behind when it is cut; what is found after a cut is one of those between
//! the last step that was done and the one that was under way, all trees of it
//! at the same one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm::{Engine, KeyRange, Options, Result, TreeFormat, TreeId, WriteBatch};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use vfs::simulated::FaultPlan;
use vfs::{FileSystem, SimulatedFileSystem};

use crate::engine::inline_options;
use crate::fork::{contents, range};
use crate::ingest::build;

const DIR: &str = "/engine";
const BACKUPS: &str = "/backups";
const ROUNDS: u64 = 3;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// All trees, and the checkpoints there are, with the trees in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    trees: BTreeMap<TreeId, Map>,
    checkpoints: BTreeMap<String, BTreeMap<TreeId, Map>>,
}

/// What a step does.
#[derive(Clone, Debug)]
enum Step {
    Create(TreeId),
    /// To all trees, in one batch.
    Write,
    Fork(TreeId, Vec<(TreeId, KeyRange)>),
    Unite(TreeId, Vec<(TreeId, KeyRange)>),
    Drop(TreeId),
    Ingest(TreeId),
    Compact(TreeId),
    Checkpoint(String),
    Restore(String, TreeId, TreeId),
}

/// The steps, the same in each run.
fn steps() -> Vec<Step> {
    let tree = |number: u64| TreeId(number);
    let mut steps = vec![Step::Create(tree(1)), Step::Write, Step::Write];
    for round in 1..=ROUNDS {
        let (parent, base) = (if round == 1 { 1 } else { (round - 1) * 10 + 2 }, round * 10);
        let children = vec![(tree(base + 1), range("", "20")), (tree(base + 2), range("20", ""))];
        let name = format!("checkpoint-{round}");
        steps.extend([
            Step::Write,
            Step::Fork(tree(parent), children),
            Step::Write,
            Step::Drop(tree(parent)),
            Step::Ingest(tree(base + 1)),
            Step::Compact(tree(base + 1)),
            Step::Checkpoint(name.clone()),
            Step::Write,
            Step::Drop(tree(base + 1)),
            Step::Restore(name, tree(base + 1), tree(base + 3)),
            Step::Write,
            Step::Fork(tree(base + 3), vec![(tree(base + 4), range("10", "15"))]),
            Step::Unite(
                tree(base + 5),
                vec![(tree(base + 3), range("", "12")), (tree(base + 4), range("12", "20"))],
            ),
            Step::Write,
            Step::Drop(tree(base + 5)),
            Step::Drop(tree(base + 3)),
            Step::Compact(tree(base + 4)),
        ]);
    }
    steps
}

/// The batch that step `number` writes, and what it does to the maps.
fn batch(number: u64, trees: &mut BTreeMap<TreeId, Map>) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for (id, map) in trees {
        let mut random = SmallRng::seed_from_u64(number * 1000 + id.0);
        for _ in 0..6 {
            let key = format!("{:02}", random.random_range(0..40)).into_bytes();
            let value = vec![number.to_le_bytes()[0]; 60];
            batch.put(*id, &key, &value);
            map.insert(key, value);
        }
        let start = format!("{:02}", random.random_range(0..40)).into_bytes();
        let end = [&start[..], b"~"].concat();
        batch.delete_range(*id, &start, &end);
        map.retain(|key, _| *key < start || *key >= end);
    }
    batch
}

/// The states that step `number` passes through, from `before` on; the last one is that of the step done.
fn passed(before: &State, number: u64, step: &Step) -> Vec<State> {
    let mut states = Vec::new();
    let mut state = before.clone();
    match step {
        Step::Create(id) => drop(state.trees.insert(*id, Map::new())),
        Step::Write => drop(batch(number, &mut state.trees)),
        Step::Fork(parent, children) => {
            for (id, range) in children {
                let clipped = state.trees[parent].iter().filter(|(key, _)| range.contains(key));
                let clipped = clipped.map(|(key, value)| (key.clone(), value.clone())).collect();
                state.trees.insert(*id, clipped);
                states.push(state.clone());
            }
        }
        Step::Unite(id, parts) => {
            let part = |(part, range): &(TreeId, KeyRange)| {
                let within = state.trees[part].iter().filter(|(key, _)| range.contains(key));
                within.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
            };
            let united = parts.iter().flat_map(part).collect();
            state.trees.insert(*id, united);
        }
        Step::Drop(id) => drop(state.trees.remove(id)),
        Step::Ingest(id) => {
            let map = state.trees.get_mut(id).expect("exists");
            for key in 5..15 {
                map.insert(format!("{key:02}").into_bytes(), number.to_string().into());
            }
        }
        Step::Compact(_) => {}
        Step::Checkpoint(name) => drop(state.checkpoints.insert(name.clone(), state.trees.clone())),
        Step::Restore(name, from, to) => {
            let map = state.checkpoints[name][from].clone();
            state.trees.insert(*to, map);
        }
    }
    states.push(state);
    states
}

fn options() -> Options {
    Options { log_bytes_max: 12 << 10, l0_compaction_trigger: 2, ..inline_options() }
}

fn open(fs: &SimulatedFileSystem, dir: &Path, epoch: u64) -> Result<Engine> {
    Engine::open(Arc::new(fs.clone()), dir, epoch, options())
}

fn checkpoint_dir(name: &str) -> PathBuf {
    Path::new(BACKUPS).join(name)
}

/// Does the steps from the one behind `done` on; `done` counts those that are done.
fn work(fs: &SimulatedFileSystem, done: &mut u64) -> Result<()> {
    fs.create_dir_all(Path::new(BACKUPS))?;
    let engine = open(fs, Path::new(DIR), 1)?;
    let mut trees = BTreeMap::new();
    for (number, step) in (0_u64..).zip(steps()) {
        match &step {
            Step::Create(id) => drop(engine.create_tree(*id, TreeFormat::default())?),
            Step::Write => engine.write(batch(number, &mut trees))?.wait()?,
            Step::Fork(parent, children) => drop(engine.fork_tree(*parent, children)?),
            Step::Unite(id, parts) => drop(engine.unite_trees(*id, parts)?),
            Step::Drop(id) => engine.drop_tree(*id)?,
            Step::Ingest(id) => {
                let value = number.to_string();
                // The file is built on a disk of its own, so that its operations do not count.
                let elsewhere = SimulatedFileSystem::new();
                let path = build(&elsewhere, &format!("{number}.sst"), |builder| {
                    for key in 5..15 {
                        builder.put(format!("{key:02}").as_bytes(), value.as_bytes()).expect("put");
                    }
                });
                let bytes = elsewhere.open(&path, vfs::Access::Read)?.map()?;
                fs.create(&path)?.write_all_at(&[std::io::IoSlice::new(&bytes)], 0)?;
                engine.ingest(*id, &[path])?;
            }
            Step::Compact(id) => engine.tree(*id).expect("exists").compact()?,
            Step::Checkpoint(name) => drop(engine.checkpoint(None, &checkpoint_dir(name), |_| {})?),
            Step::Restore(name, from, to) => {
                drop(engine.restore_tree(&checkpoint_dir(name), *from, *to, |_| {})?);
            }
        }
        trees = engine.trees().iter().map(|tree| (tree.id(), Map::new())).collect();
        *done += 1;
    }
    engine.close()
}

/// What is in the engine in `dir`.
fn trees(fs: &SimulatedFileSystem, dir: &Path, epoch: u64) -> Result<BTreeMap<TreeId, Map>> {
    let engine = open(fs, dir, epoch)?;
    let snapshot = engine.snapshot();
    Ok(engine.trees().iter().map(|tree| (tree.id(), contents(tree, &snapshot))).collect())
}

fn found(fs: &SimulatedFileSystem, what: &str) -> State {
    let failed = |error: lsm::Error| -> ! { panic!("{what}: {error}") };
    let mut state = State {
        trees: trees(fs, Path::new(DIR), 3).unwrap_or_else(|error| failed(error)),
        ..State::default()
    };
    let names = fs.list(Path::new(BACKUPS)).unwrap_or_default();
    for name in names.iter().filter_map(|name| name.to_str()).filter(|name| !name.ends_with("-unfinished")) {
        let trees = trees(fs, &checkpoint_dir(name), 3).unwrap_or_else(|error| failed(error));
        state.checkpoints.insert(name.to_owned(), trees);
    }
    state
}

/// The states that each step passes through.
fn history() -> Vec<Vec<State>> {
    let mut state = State::default();
    let mut history = Vec::new();
    for (number, step) in (0..).zip(steps()) {
        history.push(passed(&state, number, &step));
        state = history.last().and_then(|states| states.last()).expect("a step leaves a state").clone();
    }
    history
}

/// Compares what a run that did `done` steps left with the states it may have left.
fn verify(fs: &SimulatedFileSystem, done: u64, history: &[Vec<State>], what: &str) {
    let found = found(fs, what);
    let done = usize::try_from(done).expect("small");
    let before =
        done.checked_sub(1).map_or(State::default(), |last| history[last].last().expect("not empty").clone());
    let under_way = history.get(done).into_iter().flatten();
    assert!(
        found == before || under_way.clone().any(|state| found == *state),
        "{what}: what is there is as neither after {done} steps nor after one more: {:?}",
        steps().get(done)
    );
}

#[test]
fn no_cut_halves_a_fork_a_union_an_ingest_a_checkpoint_or_a_restore() {
    let history = history();
    let whole = SimulatedFileSystem::new();
    let mut done = 0;
    work(&whole, &mut done).expect("nothing fails");
    verify(&whole.power_cut(0), done, &history, "no cut");
    let operations = whole.operation_count();
    for cut_at in 0..operations {
        let fs = SimulatedFileSystem::new();
        fs.set_faults(FaultPlan { cut_at: Some(cut_at), ..FaultPlan::default() });
        let mut done = 0;
        // What fails last may be the close.
        let _cut = work(&fs, &mut done);
        let what = format!("cut at {cut_at}");
        let fs = fs.power_cut(cut_at);
        // Again, while recovering: what was there stays there.
        let recovering = fs.power_cut(0);
        drop(open(&recovering, Path::new(DIR), 2).unwrap_or_else(|error| panic!("{what}: {error}")));
        let second_cut = (cut_at * 7) % recovering.operation_count().max(1);
        let fs = fs.power_cut(0);
        fs.set_faults(FaultPlan { cut_at: Some(second_cut), ..FaultPlan::default() });
        drop(open(&fs, Path::new(DIR), 2));
        verify(
            &fs.power_cut(cut_at + 1),
            done,
            &history,
            &format!("{what}, then at {second_cut} of the recovery"),
        );
    }
    println!("{} cuts over {operations} operations", 2 * operations);
}

#[test]
fn no_failing_operation_halves_a_fork_a_union_an_ingest_a_checkpoint_or_a_restore() {
    let history = history();
    let whole = SimulatedFileSystem::new();
    work(&whole, &mut 0).expect("nothing fails");
    for fail_at in 0..whole.operation_count() {
        let fs = SimulatedFileSystem::new();
        fs.set_faults(FaultPlan { fail_at: Some(fail_at), ..FaultPlan::default() });
        let mut done = 0;
        let _failed = work(&fs, &mut done);
        fs.set_faults(FaultPlan::default());
        verify(&fs.power_cut(fail_at), done, &history, &format!("failure at {fail_at}"));
    }
}
