//! What must be there after a crash: all that was acknowledged, and of the rest
//! each batch and each tree whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use lsm::{Engine, Options, TreeId, WriteBatch};
use vfs::{FileSystem, SimulatedFileSystem};

use super::model::{Moment, PlacedTree, Places, Transcript};
use super::step::Step;
use super::subject::{
    Checked, DIR, LEDGER, Progress, checkpoint_dir, compare, open, open_in, writes_in, wrong,
};

/// How far a run was when it crashed.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    steps: usize,
    written: usize,
    acknowledged: usize,
}

impl Reached {
    pub fn by(progress: &Progress) -> Self {
        // In the order in which they grow: what is acknowledged was written.
        let acknowledged = progress.acknowledged.load(Ordering::Relaxed);
        let written = progress.written.load(Ordering::Relaxed);
        Self { steps: progress.steps.load(Ordering::Relaxed), written, acknowledged }
    }

    /// The same after a close, which makes all durable.
    pub fn with_all_acknowledged(self) -> Self {
        Self { acknowledged: self.written, ..self }
    }

    /// The same where what was synced last may be lost: the workload syncs at least every third write.
    pub fn but_for_the_last_group(self) -> Self {
        Self { acknowledged: self.acknowledged.saturating_sub(3), ..self }
    }

    /// The moment with what the step that may be half done ingests into this tree: before the write
    /// that follows it, it may be there or not.
    fn ingested(self, place: PlacedTree, expected: &Transcript, moment: &Moment) -> Option<Moment> {
        let Some(Step::Ingest { tree, table }) = expected.steps.get(self.steps) else { return None };
        let tree = expected.places[self.steps][*tree]?;
        let mut with = moment.clone();
        with.ingest(tree.id, table);
        (tree.id == place.id).then_some(with)
    }

    /// The checkpoint that was written last, if it must be there, and the tree in it.
    fn checkpoint(self, expected: &Transcript) -> Option<(bool, PathBuf, PlacedTree, usize)> {
        let known = expected.steps.iter().enumerate().take(self.steps + 1).rev();
        let mut restores = known.filter_map(|(number, step)| match step {
            Step::Restore { from, child } => Some((number, expected.places[number][*from]?, child)),
            _ => None,
        });
        let (number, tree, child) =
            restores.find(|(number, _, child)| expected.places[*number][child.tree].is_none())?;
        let is_write = |step: &&Step| matches!(step, Step::Write { .. });
        let ingests = (0..number).filter(|before| {
            matches!(&expected.steps[*before], Step::Ingest { tree, .. } if expected.places[*before][*tree].is_some())
        });
        let writes = expected.steps[..number].iter().filter(is_write).count() + ingests.count();
        Some((number < self.steps, checkpoint_dir(child.id), tree, writes))
    }

    /// The trees that must be there, and those that may.
    pub fn trees(self, expected: &Transcript) -> (Vec<PlacedTree>, Vec<PlacedTree>) {
        let before = &expected.places[self.steps];
        let after = expected.places.get(self.steps + 1).unwrap_or(before);
        let is_in =
            |places: &Places, tree: &PlacedTree| places.iter().flatten().any(|other| other.id == tree.id);
        let both = before.iter().chain(after).flatten().copied();
        both.partition(|tree| is_in(before, tree) && is_in(after, tree))
    }
}

/// Past that of every opening of a history.
const CHECKPOINT_EPOCH: u64 = 1 << 20;

/// Opens what a crash left and verifies it.
pub fn verify(
    fs: &SimulatedFileSystem,
    epoch: u64,
    options: &Options,
    expected: &Transcript,
    reached: Reached,
) -> Checked<Engine> {
    let engine = open(fs, epoch, options)?;
    if engine.tree(LEDGER).is_none() && reached.steps == 0 {
        return Ok(engine);
    }
    verify_contents(&engine, expected, reached)?;
    let (certain, possible) = reached.trees(expected);
    let known = |id| id == LEDGER || certain.iter().chain(&possible).any(|tree| TreeId(tree.id) == id);
    if let Some(tree) = engine.trees().iter().find(|tree| !known(tree.id())) {
        return wrong(format!("{tree:?} should not be there"));
    }
    verify_files(fs, &engine)?;
    verify_checkpoint(fs, CHECKPOINT_EPOCH + epoch, options, expected, reached)?;
    Ok(engine)
}

/// A checkpoint is there whole or not at all.
fn verify_checkpoint(
    fs: &SimulatedFileSystem,
    epoch: u64,
    options: &Options,
    expected: &Transcript,
    reached: Reached,
) -> Checked<()> {
    let Some((is_certain, dir, place, writes)) = reached.checkpoint(expected) else { return Ok(()) };
    if !fs.exists(&dir).map_err(lsm::Error::from)? {
        return if is_certain { wrong(format!("{} is gone", dir.display())) } else { Ok(()) };
    }
    let engine = open_in(fs, &dir, epoch, options)?;
    let Some(tree) = engine.tree(TreeId(place.id)) else { return wrong("a checkpoint is empty".to_owned()) };
    compare(place, &tree, &engine.snapshot(), &expected.moments[writes])
}

/// Verifies what an engine shows now, opened anew or after something failed.
pub fn verify_contents(engine: &Engine, expected: &Transcript, reached: Reached) -> Checked<()> {
    let snapshot = engine.snapshot();
    let writes = writes_in(engine, &snapshot)?;
    if !(reached.acknowledged..=reached.written).contains(&writes) {
        return wrong(format!("{writes} writes are there: {reached:?}"));
    }
    let (certain, possible) = reached.trees(expected);
    for place in &certain {
        let Some(tree) = engine.tree(TreeId(place.id)) else { return wrong(format!("{place:?} is gone")) };
        let moment = &expected.moments[writes];
        let with_ingested = reached.ingested(*place, expected, moment);
        compare(*place, &tree, &snapshot, moment).or_else(|failure| match with_ingested {
            Some(moment) => compare(*place, &tree, &snapshot, &moment),
            None => Err(failure),
        })?;
    }
    for place in &possible {
        if let Some(tree) = engine.tree(TreeId(place.id)) {
            compare(*place, &tree, &snapshot, &expected.moments[writes])?;
        }
    }
    Ok(())
}

/// Nothing is left of what was never finished.
fn verify_files(fs: &SimulatedFileSystem, engine: &Engine) -> Checked<()> {
    let files = |dir: &str| fs.list(&Path::new(DIR).join(dir)).map_err(lsm::Error::from);
    let named: usize =
        engine.trees().iter().map(|tree| tree.stats().level_table_counts.iter().sum::<usize>()).sum();
    let tables = files("tables")?;
    if tables.len() > named {
        return wrong(format!("{} tables, {named} of them named: {tables:?}", tables.len()));
    }
    let manifests = files("manifests")?;
    match manifests.iter().find(|name| name.extension().is_none_or(|extension| extension != "manifest")) {
        Some(name) => wrong(format!("{} is left behind", name.display())),
        None => Ok(()),
    }
}

/// Goes on with a recovered engine, and recovers that.
pub fn go_on(fs: &SimulatedFileSystem, engine: Engine, epoch: u64, options: &Options) -> Checked<()> {
    const MORE: &[u8] = b"more";
    let mut batch = WriteBatch::new();
    for tree in engine.trees() {
        batch.put(tree.id(), MORE, &epoch.to_be_bytes());
    }
    engine.write(batch)?.wait()?;
    if epoch.is_multiple_of(2) {
        engine.trees().iter().try_for_each(|tree| tree.compact())?;
    }
    let fs = fs.power_cut(epoch);
    drop(engine);
    let engine = open(&fs, epoch + 1, options)?;
    for tree in engine.trees() {
        let found = tree.get(&engine.snapshot(), MORE)?;
        if found.as_deref() != Some(&epoch.to_be_bytes()[..]) {
            return wrong(format!("{tree:?} lost what was written after the recovery"));
        }
    }
    Ok(())
}
