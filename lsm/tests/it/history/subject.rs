//! A history done to an engine.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use lsm::{
    Candidate, Commit, Decision, Engine, FilterKey, Iter, KeepDecision, KeyRange, Options, Snapshot,
    TableBuilder, Tree, TreeFormat, TreeId, WriteBatch,
};
use vfs::{FileSystem, SimulatedFileSystem};

use super::appending;
use super::model::{Entry, Moment, Outcome, PlacedTree, Transcript, done, free};
use super::patience::{Patience, evict_tables};
use super::settings::Settings;
use super::step::{
    Acknowledge, BuiltTable, Change, Child, EXPIRED, Ending, ITERATORS, Move, NEW, OLD, Role, SNAPSHOTS,
    Span, Step, TREES, TreeKind, View, Write,
};
use crate::slot_log::{Bucket, SlotLog};

pub const DIR: &str = "/db";

/// A tree beside those of the history: each write says there how many there were.
pub const LEDGER: TreeId = TreeId(1 << 40);
const WRITES: &[u8] = b"writes";

/// Where the checkpoint stands that a tree is restored from.
pub fn checkpoint_dir(id: u64) -> PathBuf {
    PathBuf::from(format!("/checkpoint-{id}"))
}

/// Why a history did not go on.
#[derive(Debug)]
pub enum Failure {
    /// The engine said no.
    Engine(lsm::Error),
    /// It showed something that it should not.
    Wrong(String),
}

pub type Checked<T> = Result<T, Failure>;

impl From<lsm::Error> for Failure {
    fn from(error: lsm::Error) -> Self {
        Self::Engine(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => write!(f, "{error:?}"),
            Self::Wrong(what) => f.write_str(what),
        }
    }
}

pub fn wrong<T>(what: String) -> Checked<T> {
    Err(Failure::Wrong(what))
}

/// How far a run is, for who looks at it from within its file system.
#[derive(Debug, Default)]
pub struct Progress {
    /// Steps that are done; the one behind them may be half done.
    pub steps: AtomicUsize,
    /// Writes given to the engine.
    pub written: AtomicUsize,
    /// Writes known to be durable.
    pub acknowledged: AtomicUsize,
}

type Watch = Arc<dyn Fn(&SimulatedFileSystem, u64) + Send + Sync>;

pub struct Subject {
    settings: Settings,
    /// How reads go since the last opening.
    patience: Patience,
    /// Where the commit log is, if not in the file system.
    log: Option<Bucket>,
    pub fs: SimulatedFileSystem,
    watch: Option<Watch>,
    epoch: u64,
    /// None only while it is reopened, or after that failed.
    pub engine: Option<Engine>,
    trees: [Option<(PlacedTree, Tree)>; TREES],
    snapshots: [Option<Snapshot>; SNAPSHOTS],
    iterators: [Option<(PlacedTree, Iter)>; ITERATORS],
    pub progress: Arc<Progress>,
    /// Commits that nobody waits for.
    held: Vec<Commit>,
    callbacks_wanted: usize,
    callbacks: Arc<AtomicUsize>,
}

impl Subject {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            patience: Patience::Waits,
            fs: SimulatedFileSystem::new(),
            log: None,
            watch: None,
            epoch: 0,
            engine: None,
            trees: Default::default(),
            snapshots: Default::default(),
            iterators: Default::default(),
            progress: Arc::default(),
            held: Vec::new(),
            callbacks_wanted: 0,
            callbacks: Arc::default(),
        }
    }

    /// One whose commit log is not in its file system.
    pub fn with_log_in_slots(settings: Settings) -> Self {
        Self { log: Some(Bucket::default()), ..Self::new(settings) }
    }

    /// One whose file system tells `watch` of each operation, after a power cut, too.
    pub fn watched(
        settings: Settings,
        watch: impl Fn(&SimulatedFileSystem, u64) + Send + Sync + 'static,
    ) -> Self {
        let mut subject = Self::new(settings);
        subject.watch = Some(Arc::new(watch));
        subject.be_watched();
        subject
    }

    fn be_watched(&self) {
        if let Some(watch) = self.watch.clone() {
            self.fs.watch(move |fs, number| watch(fs, number));
        }
    }

    /// Opens the engine, goes through `steps` and compares what they show. Says which differs and how.
    pub fn run(&mut self, steps: &[Step], expected: &Transcript) -> Checked<()> {
        self.open()?;
        for (number, (step, outcome)) in steps.iter().zip(&expected.outcomes).enumerate() {
            let found = self.step(step, &expected.moments).map_err(|failure| match failure {
                Failure::Wrong(what) => Failure::Wrong(format!("step {number}, {step:?}: {what}")),
                failure @ Failure::Engine(_) => failure,
            })?;
            if found != *outcome {
                return wrong(format!("step {number}, {step:?}: expected {outcome:?}, found {found:?}"));
            }
            self.progress.steps.store(number + 1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn open(&mut self) -> Checked<()> {
        self.epoch += 1;
        let options = self.settings.draw();
        self.patience = self.settings.draw_patience();
        let engine = match &self.log {
            None => open(&self.fs, self.epoch, &options)?,
            Some(bucket) => {
                let (fs, log) = (Arc::new(self.fs.clone()), Arc::new(SlotLog::new(bucket)));
                Engine::open_with_log(fs, Path::new(DIR), self.epoch, with_operators(&options), log)?
            }
        };
        for (place, tree) in self.trees.iter_mut().flatten() {
            let Some(found) = engine.tree(TreeId(place.id)) else {
                return wrong("a tree is gone".to_owned());
            };
            *tree = found;
            prepare(*place, tree);
        }
        if engine.tree(LEDGER).is_none() {
            engine.create_tree(LEDGER, TreeFormat::default())?;
        }
        if engine.trees().len() != 1 + self.trees.iter().flatten().count() {
            return wrong("a dropped tree came back".to_owned());
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
                let made = self.engine().create_tree(TreeId(*id), format_of(*kind))?;
                self.place(*tree, PlacedTree { id: *id, kind: *kind }, made);
            }
            Step::Fork { parent, children } => return self.fork(*parent, children),
            Step::Restore { from, child } => return self.restore(*from, child),
            Step::Ingest { tree, table } => return self.ingest(*tree, table),
            Step::DropTree(tree) => {
                let Some((place, _)) = self.trees[*tree].take() else { return Ok(Outcome::Nothing) };
                self.engine().drop_tree(TreeId(place.id))?;
            }
            Step::Write { writes, acknowledge } => self.write(writes, *acknowledge)?,
            Step::Get { tree, view, key } => {
                let snapshot = self.view(*view)?;
                let Some((place, tree)) = &self.trees[*tree] else { return Ok(Outcome::Nothing) };
                self.make_cold();
                let found = self.patience.get(tree, &snapshot, key)?;
                return Ok(Outcome::Value(found.and_then(|value| place.shown(&value))));
            }
            Step::Keep { at, view } => self.snapshots[*at] = Some(self.view(*view)?),
            Step::Release(at) => return Ok(done(self.snapshots[*at].take().is_some())),
            Step::Open { at, tree, view, span } => {
                let snapshot = self.view(*view)?;
                let Some((place, tree)) = &self.trees[*tree] else { return Ok(Outcome::Nothing) };
                self.iterators[*at] = Some((*place, iterate(*place, tree, &snapshot, span)));
            }
            Step::Move { at, moves } => {
                self.make_cold();
                let patience = self.patience;
                let Some((place, iter)) = &mut self.iterators[*at] else { return Ok(Outcome::Nothing) };
                let moved = moves.iter().map(|to| advance(*place, iter, to, patience));
                return Ok(Outcome::Moves(moved.collect::<Checked<_>>()?));
            }
            Step::Leave(at) => return Ok(done(self.iterators[*at].take().is_some())),
            Step::Scan { tree, view, backward } => {
                let snapshot = self.view(*view)?;
                let Some((place, tree)) = &self.trees[*tree] else { return Ok(Outcome::Nothing) };
                self.make_cold();
                return Ok(Outcome::Entries(scan(*place, tree, &snapshot, *backward, self.patience)?));
            }
            Step::Peek => self.peek(moments)?,
            Step::Flush(tree) => {
                let Some((_, tree)) = &self.trees[*tree] else { return Ok(Outcome::Nothing) };
                tree.flush()?;
            }
            Step::Compact(tree) => {
                let Some((_, tree)) = &self.trees[*tree] else { return Ok(Outcome::Nothing) };
                tree.compact()?;
            }
            Step::Reopen(ending) => self.reopen(*ending)?,
        }
        Ok(Outcome::Done)
    }

    /// Lets reads that do not wait find as little in memory as can be.
    fn make_cold(&self) {
        if self.patience == Patience::Tries {
            evict_tables(&self.fs, Path::new(DIR));
        }
    }

    fn place(&mut self, at: usize, place: PlacedTree, tree: Tree) {
        prepare(place, &tree);
        self.trees[at] = Some((place, tree));
    }

    fn fork(&mut self, parent: usize, children: &[Child]) -> Checked<Outcome> {
        let Some((parent, _)) = self.trees[parent] else { return Ok(Outcome::Nothing) };
        let children = free(children, |tree| self.trees[tree].is_none());
        let ranges = children.iter().map(|child| (TreeId(child.id), range(&child.start, &child.end)));
        let forked = self.engine().fork_tree(TreeId(parent.id), &ranges.collect::<Vec<_>>())?;
        for (child, tree) in children.into_iter().zip(forked) {
            self.place(child.tree, PlacedTree { id: child.id, kind: parent.kind }, tree);
        }
        Ok(Outcome::Done)
    }

    fn restore(&mut self, from: usize, child: &Child) -> Checked<Outcome> {
        self.snapshots = Default::default();
        let Some((from, _)) = self.trees[from] else { return Ok(Outcome::Nothing) };
        if self.trees[child.tree].is_none() {
            let (engine, dir) = (self.engine(), checkpoint_dir(child.id));
            engine.checkpoint(Some(&[TreeId(from.id)]), &dir, |_| {})?;
            let restored = engine.restore_tree(&dir, TreeId(from.id), TreeId(child.id), |_| {})?;
            self.place(child.tree, PlacedTree { id: child.id, kind: from.kind }, restored);
        }
        Ok(Outcome::Done)
    }

    fn ingest(&mut self, tree: usize, table: &BuiltTable) -> Checked<Outcome> {
        let Some((place, _)) = self.trees[tree] else { return Ok(Outcome::Nothing) };
        let path = Path::new("/built");
        if self.fs.exists(path).map_err(lsm::Error::from)? {
            self.fs.remove(path).map_err(lsm::Error::from)?;
        }
        let format = format_of(place.kind);
        let mut builder = TableBuilder::create(&self.fs, path, &format, &Options::default())?;
        builder.delete_range(&table.range.0, &table.range.1);
        for (key, value) in &table.entries {
            match value {
                Some(value) => builder.put(key, value)?,
                None => builder.delete(key)?,
            }
        }
        builder.finish(&self.fs)?;
        self.engine().ingest(TreeId(place.id), &[path])?;
        // The ledger counts it, too.
        self.write(&[], Acknowledge::Wait)?;
        Ok(Outcome::Done)
    }

    fn write(&mut self, writes: &[Write], acknowledge: Acknowledge) -> Checked<()> {
        let mut batch = WriteBatch::new();
        for Write { tree, key, change } in writes {
            let Some((place, _)) = &self.trees[*tree] else { continue };
            let tree = TreeId(place.id);
            match change {
                Change::Append(value) if place.appends() => batch.merge(tree, key, value),
                Change::Put(value) | Change::Append(value) => batch.put(tree, key, value),
                Change::Delete => batch.delete(tree, key),
                Change::DeleteRange(end) => batch.delete_range(tree, key, end),
            }
        }
        let number = self.progress.written.fetch_add(1, Ordering::Relaxed) + 1;
        batch.put(LEDGER, WRITES, &(number as u64).to_be_bytes());
        let commit = self.engine().write(batch)?;
        match acknowledge {
            Acknowledge::Wait => {
                commit.wait()?;
                self.held.clear();
                self.progress.acknowledged.fetch_max(number, Ordering::Relaxed);
            }
            Acknowledge::Callback => {
                self.callbacks_wanted += 1;
                let (callbacks, progress) = (Arc::clone(&self.callbacks), Arc::clone(&self.progress));
                commit.on_durable(move |outcome| {
                    callbacks.fetch_add(1, Ordering::Relaxed);
                    if outcome.is_ok() {
                        progress.acknowledged.fetch_max(number, Ordering::Relaxed);
                    }
                });
            }
            Acknowledge::Never => drop(commit),
            Acknowledge::Hold => self.held.push(commit),
        }
        Ok(())
    }

    fn wait_for_all(&mut self) -> Checked<()> {
        let written = self.progress.written.load(Ordering::Relaxed);
        self.engine().barrier().wait()?;
        self.progress.acknowledged.fetch_max(written, Ordering::Relaxed);
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
        let acknowledged = self.progress.acknowledged.load(Ordering::Relaxed);
        let snapshot = self.engine().snapshot();
        let durable = writes_in(self.engine(), &snapshot)?;
        if durable < acknowledged {
            return wrong(format!("{durable} writes are durable, {acknowledged} acknowledged"));
        }
        for (place, tree) in self.trees.iter().flatten() {
            compare(*place, tree, &snapshot, &moments[durable])?;
        }
        Ok(())
    }

    fn reopen(&mut self, ending: Ending) -> Checked<()> {
        self.snapshots = Default::default();
        match ending {
            Ending::Close => self.engine().close()?,
            Ending::Drop => {}
            Ending::PowerCut(seed) => {
                self.wait_for_all()?;
                self.iterators = Default::default();
                self.fs = self.fs.power_cut(seed);
                self.be_watched();
            }
        }
        self.engine = None;
        self.held.clear();
        let called = self.callbacks.load(Ordering::Relaxed);
        if called != self.callbacks_wanted {
            return wrong(format!("{called} of {} callbacks were called", self.callbacks_wanted));
        }
        self.open()?;
        let written = self.progress.written.load(Ordering::Relaxed);
        if writes_in(self.engine(), &self.engine().snapshot())? < written {
            // What failed when the last handle went, nobody was told.
            return Err(Failure::Engine(lsm::Error::Poisoned));
        }
        self.progress.acknowledged.fetch_max(written, Ordering::Relaxed);
        Ok(())
    }
}

/// Drops what is expired, and renews what is old.
struct Renew;

impl KeepDecision for Renew {
    fn decide(&mut self, candidate: &Candidate<'_>) -> Decision {
        match candidate.value {
            [EXPIRED, ..] => Decision::Drop,
            [OLD, rest @ ..] => Decision::Rewrite([&[NEW], rest].concat().into()),
            _ => Decision::Keep,
        }
    }
}

pub fn open(fs: &SimulatedFileSystem, epoch: u64, options: &Options) -> lsm::Result<Engine> {
    open_in(fs, Path::new(DIR), epoch, options)
}

/// Opens an engine in a directory.
pub fn open_in(fs: &SimulatedFileSystem, dir: &Path, epoch: u64, options: &Options) -> lsm::Result<Engine> {
    Engine::open(Arc::new(fs.clone()), dir, epoch, with_operators(options))
}

fn with_operators(options: &Options) -> Options {
    Options { merge_operators: appending::operators(), ..options.clone() }
}

/// How many writes a snapshot shows.
pub fn writes_in(engine: &Engine, snapshot: &Snapshot) -> Checked<usize> {
    let Some(ledger) = engine.tree(LEDGER) else { return wrong("the ledger is gone".to_owned()) };
    let number = ledger.get(snapshot, WRITES)?;
    Ok(number.map_or(0, |number| usize::from_be_bytes(number[..].try_into().expect("eight bytes"))))
}

/// Verifies that a tree is at a snapshot as it was at a moment.
pub fn compare(place: PlacedTree, tree: &Tree, snapshot: &Snapshot, moment: &Moment) -> Checked<()> {
    let (found, expected) = (scan(place, tree, snapshot, false, Patience::Waits)?, moment.entries(place));
    if found == expected {
        return Ok(());
    }
    let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
    let at = differs.unwrap_or(found.len().min(expected.len()));
    wrong(format!("{place:?}: expected {:?} at {at}, found {:?}", expected.get(at), found.get(at)))
}

fn format_of(kind: TreeKind) -> TreeFormat {
    let filter_key = if kind.by_prefix { FilterKey::ThroughTerminator([0, 1]) } else { FilterKey::WholeKey };
    let merge_operator = match kind.role {
        Role::Appending { combining } => Some(appending::name(combining).to_owned()),
        Role::Plain | Role::Expiring => None,
    };
    TreeFormat { filter_key, merge_operator }
}

fn prepare(place: PlacedTree, tree: &Tree) {
    if place.kind.role == Role::Expiring {
        tree.set_keep_decision(Arc::new(|| Box::new(Renew)));
    }
}

fn range(start: &[u8], end: &[u8]) -> KeyRange {
    KeyRange { start: Bytes::copy_from_slice(start), end: Bytes::copy_from_slice(end) }
}

fn iterate(place: PlacedTree, tree: &Tree, snapshot: &Snapshot, span: &Span) -> Iter {
    match span {
        Span::All => tree.iter(snapshot, KeyRange::default()),
        Span::From(start) => tree.iter(snapshot, range(start, b"")),
        Span::Between(start, end) => tree.iter(snapshot, range(start, end)),
        Span::Prefix(prefix) if place.kind.by_prefix => tree.iter_prefix(snapshot, prefix),
        Span::Prefix(prefix) => tree.iter(snapshot, KeyRange::of_prefix(prefix)),
    }
}

/// Moves, and on in the same direction over what a reader does not see.
fn advance(place: PlacedTree, iter: &mut Iter, to: &Move, patience: Patience) -> Checked<Option<Entry>> {
    let on = if matches!(to, Move::Next | Move::Seek(_)) { Move::Next } else { Move::Prev };
    let mut moved = patience.go(iter, to);
    while moved? {
        if iter.value_bytes() != iter.value() {
            return wrong(format!("two values at {:?}", iter.key()));
        }
        if let Some(value) = place.shown(iter.value()) {
            return Ok(Some((iter.key().to_vec(), value)));
        }
        moved = patience.go(iter, &on);
    }
    Ok(None)
}

fn scan(
    place: PlacedTree,
    tree: &Tree,
    snapshot: &Snapshot,
    backward: bool,
    patience: Patience,
) -> Checked<Vec<Entry>> {
    let mut iter = tree.iter(snapshot, KeyRange::default());
    let to = if backward { Move::Prev } else { Move::Next };
    let mut entries = Vec::new();
    while let Some(entry) = advance(place, &mut iter, &to, patience)? {
        entries.push(entry);
    }
    Ok(entries)
}
