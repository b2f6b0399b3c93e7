//! What a history must show: every tree a `BTreeMap`, kept whole at every write.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::step::{
    BuiltTable, Change, Child, EXPIRED, Ending, ITERATORS, Move, NEW, OLD, Role, SNAPSHOTS, Span, Step,
    TREES, TreeKind, View, Write,
};

pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// What a step showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The place that the step speaks of is empty, or full.
    Nothing,
    Value(Option<Vec<u8>>),
    /// Where each move led.
    Moves(Vec<Option<Entry>>),
    Entries(Vec<Entry>),
}

/// The trees at one moment, by id. One that is not there is empty.
#[derive(Clone, Debug, Default)]
pub struct Moment(BTreeMap<u64, Arc<Map>>);

impl Moment {
    /// What a reader of the tree sees.
    pub fn entries(&self, tree: PlacedTree) -> Vec<Entry> {
        let map = self.0.get(&tree.id).into_iter().flat_map(|map| map.iter());
        map.filter_map(|(key, value)| Some((key.clone(), tree.shown(value)?))).collect()
    }

    /// Makes a table part of the tree `id`.
    pub fn ingest(&mut self, id: u64, table: &BuiltTable) {
        let map = Arc::make_mut(self.0.entry(id).or_default());
        let (start, end) = &table.range;
        map.retain(|key, _| key < start || key >= end);
        for (key, value) in &table.entries {
            match value {
                Some(value) => drop(map.insert(key.clone(), value.clone())),
                None => drop(map.remove(key)),
            }
        }
    }

    fn fork(&mut self, parent: u64, child: &Child) {
        let Some(parent) = self.0.get(&parent) else { return };
        let mut map = Map::clone(parent);
        map.retain(|key, _| *key >= child.start && (child.end.is_empty() || *key < child.end));
        self.0.insert(child.id, Arc::new(map));
    }
}

/// A tree that a place holds.
#[derive(Clone, Copy, Debug)]
pub struct PlacedTree {
    pub id: u64,
    pub kind: TreeKind,
}

impl PlacedTree {
    /// What a reader takes this value for: none if it is expired, and what is old for new.
    pub fn shown(self, value: &[u8]) -> Option<Vec<u8>> {
        match value {
            [EXPIRED, ..] if self.kind.role == Role::Expiring => None,
            [OLD, rest @ ..] if self.kind.role == Role::Expiring => Some([&[NEW], rest].concat()),
            _ => Some(value.to_vec()),
        }
    }

    pub fn appends(self) -> bool {
        matches!(self.kind.role, Role::Appending { .. })
    }
}

/// What appending makes of a value: its last bytes, so that it does not grow for ever.
pub fn appended<'a>(base: Option<&'a [u8]>, operands: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    const BYTES_MAX: usize = 500;
    let mut whole = base.unwrap_or_default().to_vec();
    operands.into_iter().for_each(|operand| whole.extend_from_slice(operand));
    whole.split_off(whole.len().saturating_sub(BYTES_MAX))
}

/// The tree in each place.
pub type Places = [Option<PlacedTree>; TREES];

/// What a whole history must show.
#[derive(Debug)]
pub struct Transcript {
    pub steps: Vec<Step>,
    pub outcomes: Vec<Outcome>,
    /// The moment before the first write, and that after each.
    pub moments: Vec<Moment>,
    /// The trees before the first step, and those after each.
    pub places: Vec<Places>,
}

impl Transcript {
    pub fn of(steps: &[Step]) -> Self {
        let mut model = Model { moments: vec![Moment::default()], ..Model::default() };
        let mut transcript = Self {
            steps: steps.to_vec(),
            outcomes: Vec::new(),
            moments: Vec::new(),
            places: vec![Places::default()],
        };
        for step in steps {
            transcript.outcomes.push(model.step(step));
            transcript.places.push(model.trees);
        }
        transcript.moments = model.moments;
        transcript
    }
}

#[derive(Default)]
struct Model {
    trees: Places,
    now: Moment,
    moments: Vec<Moment>,
    snapshots: [Option<Moment>; SNAPSHOTS],
    cursors: [Option<Cursor>; ITERATORS],
}

impl Model {
    fn step(&mut self, step: &Step) -> Outcome {
        match step {
            Step::Create { tree, .. } if self.trees[*tree].is_some() => Outcome::Nothing,
            Step::Create { tree, id, kind } => {
                self.trees[*tree] = Some(PlacedTree { id: *id, kind: *kind });
                Outcome::Done
            }
            Step::Fork { parent, children } => self.fork(*parent, children),
            Step::Restore { from, child } => {
                self.snapshots = Default::default();
                self.fork(*from, std::slice::from_ref(child))
            }
            Step::Ingest { tree, table } => {
                let Some(tree) = self.trees[*tree] else { return Outcome::Nothing };
                self.now.ingest(tree.id, table);
                self.moments.push(self.now.clone());
                Outcome::Done
            }
            Step::DropTree(tree) => done(self.trees[*tree].take().is_some()),
            Step::Write { writes, .. } => {
                writes.iter().for_each(|write| self.write(write));
                self.moments.push(self.now.clone());
                Outcome::Done
            }
            Step::Get { tree, view, key } => self.get(*tree, *view, key),
            Step::Keep { at, view } => {
                self.snapshots[*at] = Some(self.view(*view));
                Outcome::Done
            }
            Step::Release(at) => done(self.snapshots[*at].take().is_some()),
            Step::Open { at, tree, view, span } => self.open(*at, *tree, *view, span),
            Step::Move { at, moves } => match &mut self.cursors[*at] {
                Some(cursor) => Outcome::Moves(moves.iter().map(|to| cursor.step(to)).collect()),
                None => Outcome::Nothing,
            },
            Step::Leave(at) => done(self.cursors[*at].take().is_some()),
            Step::Scan { tree, view, backward } => match self.trees[*tree] {
                Some(tree) => {
                    let mut entries = self.view(*view).entries(tree);
                    if *backward {
                        entries.reverse();
                    }
                    Outcome::Entries(entries)
                }
                None => Outcome::Nothing,
            },
            Step::Flush(tree) | Step::Compact(tree) => done(self.trees[*tree].is_some()),
            Step::Reopen(ending) => {
                self.snapshots = Default::default();
                if matches!(ending, Ending::PowerCut(_)) {
                    self.cursors = Default::default();
                }
                Outcome::Done
            }
            Step::Peek => Outcome::Done,
        }
    }

    fn fork(&mut self, parent: usize, children: &[Child]) -> Outcome {
        let Some(parent) = self.trees[parent] else { return Outcome::Nothing };
        for child in free(children, |tree| self.trees[tree].is_none()) {
            self.trees[child.tree] = Some(PlacedTree { id: child.id, kind: parent.kind });
            // It is there in whatever can be read from now on.
            let kept = self.snapshots.iter_mut().flatten().chain(self.moments.last_mut());
            kept.chain([&mut self.now]).for_each(|moment| moment.fork(parent.id, child));
        }
        Outcome::Done
    }

    fn write(&mut self, Write { tree, key, change }: &Write) {
        let Some(tree) = self.trees[*tree] else { return };
        let map = Arc::make_mut(self.now.0.entry(tree.id).or_default());
        match change {
            Change::Append(value) if tree.appends() => {
                let appended = appended(map.get(key).map(Vec::as_slice), [&value[..]]);
                map.insert(key.clone(), appended);
            }
            Change::Put(value) | Change::Append(value) => drop(map.insert(key.clone(), value.clone())),
            Change::Delete => drop(map.remove(key)),
            Change::DeleteRange(end) => map.retain(|other, _| other < key || other >= end),
        }
    }

    fn view(&self, view: View) -> Moment {
        match view {
            View::Kept(at) => self.snapshots[at].as_ref().unwrap_or(&self.now).clone(),
            View::Applied | View::Durable => self.now.clone(),
        }
    }

    fn get(&self, tree: usize, view: View, key: &[u8]) -> Outcome {
        let Some(tree) = self.trees[tree] else { return Outcome::Nothing };
        let found = self.view(view).entries(tree).into_iter().find(|(other, _)| other == key);
        Outcome::Value(found.map(|(_, value)| value))
    }

    fn open(&mut self, at: usize, tree: usize, view: View, span: &Span) -> Outcome {
        let Some(tree) = self.trees[tree] else { return Outcome::Nothing };
        let mut entries = self.view(view).entries(tree);
        entries.retain(|(key, _)| match span {
            Span::All => true,
            Span::From(start) => key >= start,
            // An empty end is past every key.
            Span::Between(start, end) => key >= start && (end.is_empty() || key < end),
            Span::Prefix(prefix) => key.starts_with(prefix),
        });
        self.cursors[at] = Some(Cursor { entries, position: None });
        Outcome::Done
    }
}

/// The children whose places are free.
pub fn free(children: &[Child], is_free: impl Fn(usize) -> bool) -> Vec<&Child> {
    let mut free: Vec<&Child> = Vec::new();
    for child in children {
        if is_free(child.tree) && free.iter().all(|other| other.tree != child.tree) {
            free.push(child);
        }
    }
    free
}

pub fn done(was_there: bool) -> Outcome {
    if was_there { Outcome::Done } else { Outcome::Nothing }
}

/// What an iterator does, over what it must show.
struct Cursor {
    entries: Vec<Entry>,
    /// From 0, before the first entry, to one past the last; none before the first move.
    position: Option<usize>,
}

impl Cursor {
    fn step(&mut self, to: &Move) -> Option<Entry> {
        let end = self.entries.len() + 1;
        let first_from = |key: &Vec<u8>| self.entries.partition_point(|(other, _)| other < key);
        let position = match to {
            Move::Next => self.position.map_or(1, |at| (at + 1).min(end)),
            Move::Prev => self.position.map_or(end - 1, |at| at.saturating_sub(1)),
            Move::Seek(key) => first_from(key) + 1,
            Move::SeekBefore(key) => first_from(key),
        };
        self.position = Some(position);
        position.checked_sub(1).and_then(|at| self.entries.get(at)).cloned()
    }
}
