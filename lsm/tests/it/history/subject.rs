//! A history done to an engine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use lsm::{
    Candidate, Decision, Engine, FilterKey, Iter, KeepDecision, KeyRange, Snapshot, Tree, TreeFormat, TreeId,
    WriteBatch,
};
use vfs::SimulatedFileSystem;

use super::model::{Entry, Moment, Outcome, PlacedTree, Transcript, done};
use super::settings::Settings;
use super::step::{
    Acknowledge, Change, EXPIRED, Ending, ITERATORS, Move, SNAPSHOTS, Span, Step, TREES, View, Write,
};

const TERMINATOR: [u8; 2] = [0, 1];

/// Does `steps` to an engine and compares what they show. Says which differs and how.
pub fn run(steps: &[Step], expected: &Transcript, settings: Settings) -> Result<(), String> {
    let mut subject = Subject::new(settings).map_err(|error| format!("the first opening: {error}"))?;
    for (number, (step, outcome)) in steps.iter().zip(&expected.outcomes).enumerate() {
        let failed = |what: String| format!("step {number}, {step:?}: {what}");
        let found = subject.step(step, &expected.moments).map_err(failed)?;
        if found != *outcome {
            return Err(failed(format!("expected {outcome:?}, found {found:?}")));
        }
    }
    Ok(())
}

struct DropExpired;

impl KeepDecision for DropExpired {
    fn decide(&mut self, candidate: &Candidate<'_>) -> Decision {
        if candidate.value.first() == Some(&EXPIRED) { Decision::Drop } else { Decision::Keep }
    }
}

struct Subject {
    settings: Settings,
    fs: SimulatedFileSystem,
    epoch: u64,
    /// None only while it is reopened.
    engine: Option<Engine>,
    trees: [Option<(PlacedTree, Tree)>; TREES],
    snapshots: [Option<Snapshot>; SNAPSHOTS],
    iterators: [Option<(PlacedTree, Iter)>; ITERATORS],
    /// The last sequence number of each write.
    commits: Vec<u64>,
    /// How many of the writes are known to be durable.
    acknowledged: usize,
    callbacks_wanted: usize,
    callbacks: Arc<AtomicUsize>,
}

/// What went wrong, as a sentence.
type Checked<T> = Result<T, String>;

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
fn said(error: lsm::Error) -> String {
    format!("{error:?}")
}

impl Subject {
    fn new(settings: Settings) -> Checked<Self> {
        let mut subject = Self {
            settings,
            fs: SimulatedFileSystem::new(),
            epoch: 0,
            engine: None,
            trees: Default::default(),
            snapshots: Default::default(),
            iterators: Default::default(),
            commits: Vec::new(),
            acknowledged: 0,
            callbacks_wanted: 0,
            callbacks: Arc::default(),
        };
        subject.open()?;
        Ok(subject)
    }

    fn open(&mut self) -> Checked<()> {
        self.epoch += 1;
        let options = self.settings.draw();
        let fs = Arc::new(self.fs.clone());
        let engine = Engine::open(fs, Path::new("/db"), self.epoch, options).map_err(said)?;
        for (place, tree) in self.trees.iter_mut().flatten() {
            *tree = engine.tree(TreeId(place.id)).ok_or("a tree is gone")?;
            prepare(*place, tree);
        }
        if engine.trees().len() != self.trees.iter().flatten().count() {
            return Err("a dropped tree came back".to_owned());
        }
        self.engine = Some(engine);
        Ok(())
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("it is open between steps")
    }

    fn step(&mut self, step: &Step, moments: &[Moment]) -> Checked<Outcome> {
        match step {
            Step::Create { tree, .. } if self.trees[*tree].is_some() => return Ok(Outcome::Nothing),
            Step::Create { tree, id, kind } => {
                let place = PlacedTree { id: *id, kind: *kind };
                let filter_key = if kind.by_prefix {
                    FilterKey::ThroughTerminator(TERMINATOR)
                } else {
                    FilterKey::WholeKey
                };
                let format = TreeFormat { filter_key, ..TreeFormat::default() };
                let made = self.engine().create_tree(TreeId(*id), format).map_err(said)?;
                prepare(place, &made);
                self.trees[*tree] = Some((place, made));
            }
            Step::DropTree(tree) => {
                let Some((place, _)) = self.trees[*tree].take() else { return Ok(Outcome::Nothing) };
                self.engine().drop_tree(TreeId(place.id)).map_err(said)?;
            }
            Step::Write { writes, acknowledge } => self.write(writes, *acknowledge)?,
            Step::Get { tree, view, key } => {
                let snapshot = self.view(*view)?;
                let Some((place, tree)) = &self.trees[*tree] else { return Ok(Outcome::Nothing) };
                let found = tree.get(&snapshot, key).map_err(said)?;
                return Ok(Outcome::Value(
                    found.filter(|value| !place.hides(value)).map(|value| value.to_vec()),
                ));
            }
            Step::Keep { at, view } => self.snapshots[*at] = Some(self.view(*view)?),
            Step::Release(at) => return Ok(done(self.snapshots[*at].take().is_some())),
            Step::Open { at, tree, view, span } => {
                let snapshot = self.view(*view)?;
                let Some((place, tree)) = &self.trees[*tree] else { return Ok(Outcome::Nothing) };
                self.iterators[*at] = Some((*place, iterate(*place, tree, &snapshot, span)));
            }
            Step::Move { at, moves } => {
                let Some((place, iter)) = &mut self.iterators[*at] else { return Ok(Outcome::Nothing) };
                let moved = moves.iter().map(|to| advance(*place, iter, to));
                return Ok(Outcome::Moves(moved.collect::<Checked<_>>()?));
            }
            Step::Leave(at) => return Ok(done(self.iterators[*at].take().is_some())),
            Step::Scan { tree, view, backward } => {
                let snapshot = self.view(*view)?;
                let Some((place, tree)) = &self.trees[*tree] else { return Ok(Outcome::Nothing) };
                return Ok(Outcome::Entries(scan(*place, tree, &snapshot, *backward)?));
            }
            Step::Peek => self.peek(moments)?,
            Step::Flush(tree) => {
                let Some((_, tree)) = &self.trees[*tree] else { return Ok(Outcome::Nothing) };
                tree.flush().map_err(said)?;
            }
            Step::Compact(tree) => {
                let Some((_, tree)) = &self.trees[*tree] else { return Ok(Outcome::Nothing) };
                tree.compact().map_err(said)?;
            }
            Step::Reopen(ending) => self.reopen(*ending)?,
        }
        Ok(Outcome::Done)
    }

    fn write(&mut self, writes: &[Write], acknowledge: Acknowledge) -> Checked<()> {
        let mut batch = WriteBatch::new();
        for Write { tree, key, change } in writes {
            let Some((place, _)) = &self.trees[*tree] else { continue };
            let tree = TreeId(place.id);
            match change {
                Change::Put(value) => batch.put(tree, key, value),
                Change::Delete => batch.delete(tree, key),
                Change::DeleteRange(end) => batch.delete_range(tree, key, end),
            }
        }
        let commit = self.engine().write(batch).map_err(said)?;
        self.commits.push(commit.sequence());
        match acknowledge {
            Acknowledge::Wait => {
                commit.wait().map_err(said)?;
                self.acknowledged = self.commits.len();
            }
            Acknowledge::Callback => {
                self.callbacks_wanted += 1;
                let callbacks = Arc::clone(&self.callbacks);
                commit.on_durable(move |outcome| {
                    outcome.expect("nothing fails");
                    callbacks.fetch_add(1, Ordering::Relaxed);
                });
            }
            Acknowledge::Never => drop(commit),
        }
        Ok(())
    }

    fn wait_for_all(&mut self) -> Checked<()> {
        self.engine().barrier().wait().map_err(said)?;
        self.acknowledged = self.commits.len();
        Ok(())
    }

    fn view(&mut self, view: View) -> Checked<Snapshot> {
        if let View::Kept(at) = view
            && let Some(snapshot) = &self.snapshots[at]
        {
            return Ok(snapshot.clone());
        }
        if matches!(view, View::Durable) {
            self.wait_for_all()?;
            return Ok(self.engine().snapshot());
        }
        Ok(self.engine().applied_snapshot())
    }

    /// What is durable is all of the first writes, at least those that were acknowledged.
    fn peek(&mut self, moments: &[Moment]) -> Checked<()> {
        let snapshot = self.engine().snapshot();
        let durable = self.commits.partition_point(|sequence| *sequence <= snapshot.sequence());
        if durable < self.acknowledged {
            return Err(format!("{durable} writes are durable, {} acknowledged", self.acknowledged));
        }
        for (place, tree) in self.trees.iter().flatten() {
            let (found, expected) = (scan(*place, tree, &snapshot, false)?, moments[durable].entries(*place));
            if found != expected {
                return Err(format!("expected {expected:?} of {place:?}, found {found:?}"));
            }
        }
        Ok(())
    }

    fn reopen(&mut self, ending: Ending) -> Checked<()> {
        self.snapshots = Default::default();
        match ending {
            Ending::Close => self.engine().close().map_err(said)?,
            Ending::Drop => {}
            Ending::PowerCut(seed) => {
                self.wait_for_all()?;
                self.iterators = Default::default();
                self.fs = self.fs.power_cut(seed);
            }
        }
        self.engine = None;
        self.acknowledged = self.commits.len();
        let called = self.callbacks.load(Ordering::Relaxed);
        if called != self.callbacks_wanted {
            return Err(format!("{called} of {} callbacks were called", self.callbacks_wanted));
        }
        self.open()
    }
}

fn prepare(place: PlacedTree, tree: &Tree) {
    if place.kind.expires {
        tree.set_keep_decision(Arc::new(|| Box::new(DropExpired)));
    }
}

fn iterate(place: PlacedTree, tree: &Tree, snapshot: &Snapshot, span: &Span) -> Iter {
    let bytes = |key: &[u8]| Bytes::copy_from_slice(key);
    match span {
        Span::All => tree.iter(snapshot, KeyRange::default()),
        Span::From(start) => tree.iter(snapshot, KeyRange { start: bytes(start), end: Bytes::new() }),
        Span::Between(start, end) => tree.iter(snapshot, KeyRange { start: bytes(start), end: bytes(end) }),
        Span::Prefix(prefix) if place.kind.by_prefix => tree.iter_prefix(snapshot, prefix),
        Span::Prefix(prefix) => tree.iter(snapshot, KeyRange::of_prefix(prefix)),
    }
}

/// Moves, and on in the same direction over what a reader does not see.
fn advance(place: PlacedTree, iter: &mut Iter, to: &Move) -> Checked<Option<Entry>> {
    let mut moved = match to {
        Move::Next => iter.next(),
        Move::Prev => iter.prev(),
        Move::Seek(key) => iter.seek(key),
        Move::SeekBefore(key) => iter.seek_before(key),
    };
    while moved.map_err(said)? {
        if !place.hides(iter.value()) {
            if iter.value_bytes() != iter.value() {
                return Err(format!("two values at {:?}", iter.key()));
            }
            return Ok(Some((iter.key().to_vec(), iter.value().to_vec())));
        }
        moved = match to {
            Move::Next | Move::Seek(_) => iter.next(),
            Move::Prev | Move::SeekBefore(_) => iter.prev(),
        };
    }
    Ok(None)
}

fn scan(place: PlacedTree, tree: &Tree, snapshot: &Snapshot, backward: bool) -> Checked<Vec<Entry>> {
    let mut iter = tree.iter(snapshot, KeyRange::default());
    let to = if backward { Move::Prev } else { Move::Next };
    let mut entries = Vec::new();
    while let Some(entry) = advance(place, &mut iter, &to)? {
        entries.push(entry);
    }
    Ok(entries)
}
