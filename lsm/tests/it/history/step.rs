//! The steps of a history and how they are drawn.
//!
//! Every step makes sense anywhere: it speaks of places for trees, snapshots
//! and iterators, and does nothing where the place is empty. So a history from
//! which steps were taken away is a history.

use std::collections::BTreeMap;

use super::choices::Choices;

/// Places for trees, snapshots and iterators.
pub const TREES: usize = 5;
pub const SNAPSHOTS: usize = 4;
pub const ITERATORS: usize = 3;

/// Values that start with this byte are expired: compactions of some trees may
/// drop them, and readers of those trees take them for absent.
pub const EXPIRED: u8 = 0xee;

/// Values of those trees that start with the first of these may be rewritten to
/// start with the second, and readers take one for the other.
pub const OLD: u8 = 0xed;
pub const NEW: u8 = 0xec;

#[derive(Clone, Debug)]
pub enum Step {
    /// Makes the tree `id`, which no other step makes, in the place `tree`.
    Create {
        tree: usize,
        id: u64,
        kind: TreeKind,
    },
    /// Makes trees of what the tree in a place holds.
    Fork {
        parent: usize,
        children: Vec<Child>,
    },
    /// Writes the tree `from` to a checkpoint and restores it as another one, in a place. No snapshot is
    /// kept, since one from before would show a part of it.
    Restore {
        from: usize,
        child: Child,
    },
    /// Builds a table and makes it part of a tree.
    Ingest {
        tree: usize,
        table: BuiltTable,
    },
    /// Drops the tree in a place.
    DropTree(usize),
    Write {
        writes: Vec<Write>,
        acknowledge: Acknowledge,
    },
    Get {
        tree: usize,
        view: View,
        key: Vec<u8>,
    },
    /// Keeps a snapshot in the place `at`.
    Keep {
        at: usize,
        view: View,
    },
    Release(usize),
    /// Opens the iterator in the place `at`.
    Open {
        at: usize,
        tree: usize,
        view: View,
        span: Span,
    },
    Move {
        at: usize,
        moves: Vec<Move>,
    },
    Leave(usize),
    Scan {
        tree: usize,
        view: View,
        backward: bool,
    },
    /// Looks at what is durable, whatever that is just now.
    Peek,
    Flush(usize),
    Compact(usize),
    Reopen(Ending),
}

/// What is chosen when a tree is made.
#[derive(Clone, Copy, Debug)]
pub struct TreeKind {
    /// Its filters know prefixes, not keys.
    pub by_prefix: bool,
    pub role: Role,
}

/// What a tree does beside keeping what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Plain,
    /// Compactions drop what is [`EXPIRED`], and renew what is [`OLD`].
    Expiring,
    /// Operands are appended to values, and to each other if `combining`.
    Appending {
        combining: bool,
    },
}

/// A tree to be forked in the place `tree`, with the keys between two of them.
#[derive(Clone, Debug)]
pub struct Child {
    pub tree: usize,
    pub id: u64,
    pub start: Vec<u8>,
    /// Empty: past every key.
    pub end: Vec<u8>,
}

/// A table built outside: a range that goes, and over it values and deletes.
#[derive(Clone, Debug)]
pub struct BuiltTable {
    pub range: (Vec<u8>, Vec<u8>),
    pub entries: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

#[derive(Clone, Debug)]
pub struct Write {
    pub tree: usize,
    pub key: Vec<u8>,
    pub change: Change,
}

#[derive(Clone, Debug)]
pub enum Change {
    Put(Vec<u8>),
    /// Appends this, or puts it where the tree appends nothing.
    Append(Vec<u8>),
    Delete,
    /// Up to this key.
    DeleteRange(Vec<u8>),
}

/// What becomes of a write's commit.
#[derive(Clone, Copy, Debug)]
pub enum Acknowledge {
    Wait,
    Callback,
    Never,
    /// It is held until another one is waited for: nobody makes the log sync it.
    Hold,
}

/// Which moment is read.
#[derive(Clone, Copy, Debug)]
pub enum View {
    /// What is applied.
    Applied,
    /// The same, once it is durable.
    Durable,
    /// The snapshot in a place; what is applied if there is none.
    Kept(usize),
}

#[derive(Clone, Debug)]
pub enum Span {
    All,
    From(Vec<u8>),
    Between(Vec<u8>, Vec<u8>),
    /// A filter prefix of a tree whose filters know prefixes.
    Prefix(Vec<u8>),
}

#[derive(Clone, Debug)]
pub enum Move {
    Next,
    Prev,
    Seek(Vec<u8>),
    SeekBefore(Vec<u8>),
}

/// How an engine ends before it is opened anew.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    Close,
    /// Its last handle goes.
    Drop,
    /// The power goes, after all was acknowledged; the number decides what is left of the rest.
    PowerCut(u64),
}

/// A history of up to about `length` steps, and a look at everything at its end.
pub fn history(choices: &mut Choices<'_>, length: usize) -> Vec<Step> {
    let mut drawn = Drawn::new(choices.one_of(&[8, 60, 400]), choices);
    let mut steps = vec![drawn.create(0), drawn.create(1)];
    while steps.len() < length && !drawn.choices.are_spent() {
        let step = drawn.step();
        steps.push(step);
    }
    steps.extend(look_at_everything());
    steps.extend((0..TREES).map(Step::Compact));
    steps.extend(look_at_everything());
    steps.push(Step::Reopen(Ending::PowerCut(length as u64)));
    steps.extend(look_at_everything());
    steps
}

fn look_at_everything() -> impl Iterator<Item = Step> {
    let views = (0..SNAPSHOTS).map(View::Kept).chain([View::Durable]);
    let places = views.flat_map(|view| (0..TREES).map(move |tree| (view, tree)));
    places.flat_map(|(view, tree)| [false, true].map(|backward| Step::Scan { tree, view, backward }))
}

/// A history as it is drawn.
pub struct Drawn<'a, 'b> {
    choices: &'a mut Choices<'b>,
    row_count: usize,
    tree_count: u64,
}

impl<'a, 'b> Drawn<'a, 'b> {
    /// One whose keys have so many different beginnings.
    pub fn new(row_count: usize, choices: &'a mut Choices<'b>) -> Self {
        Self { choices, row_count, tree_count: 0 }
    }

    fn step(&mut self) -> Step {
        match self.choices.below(100) {
            0..48 => self.write(),
            48..56 => Step::Get { tree: self.tree(), view: self.view(), key: self.key() },
            56..61 => Step::Keep { at: self.choices.below(SNAPSHOTS), view: self.view() },
            61..64 => Step::Release(self.choices.below(SNAPSHOTS)),
            64..68 => self.open(),
            68..78 => Step::Move { at: self.choices.below(ITERATORS), moves: self.moves() },
            78..79 => Step::Leave(self.choices.below(ITERATORS)),
            79..82 => Step::Scan { tree: self.tree(), view: self.view(), backward: self.choices.percent(50) },
            82..84 => Step::Peek,
            84..89 => Step::Flush(self.tree()),
            89..92 => Step::Compact(self.tree()),
            92..95 => Step::Reopen(self.ending()),
            95..98 => {
                let tree = self.tree();
                self.create(tree)
            }
            98 if self.choices.percent(50) => Step::DropTree(self.tree()),
            98 => match self.choices.below(3) {
                0 => self.fork(),
                1 => {
                    let (from, to) = (self.tree(), self.choices.below(TREES));
                    self.restore_of(from, to)
                }
                _ => {
                    let tree = self.tree();
                    self.ingest_into(tree)
                }
            },
            _ => self.bulk(),
        }
    }

    /// A tree's place: the first one most often.
    fn tree(&mut self) -> usize {
        self.choices.one_of(&[0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4])
    }

    pub fn create(&mut self, tree: usize) -> Step {
        self.tree_count += 1;
        let roles = [
            Role::Plain,
            Role::Expiring,
            Role::Appending { combining: false },
            Role::Appending { combining: true },
        ];
        let kind = TreeKind { by_prefix: self.choices.percent(50), role: self.choices.one_of(&roles) };
        Step::Create { tree, id: self.tree_count, kind }
    }

    fn fork(&mut self) -> Step {
        let (parent, first) = (self.tree(), self.choices.below(TREES));
        self.fork_of(parent, first)
    }

    /// Forks a tree into the place `first` and the next one.
    pub fn fork_of(&mut self, parent: usize, first: usize) -> Step {
        let split = self.key();
        let children = [(Vec::new(), split.clone()), (split, self.key())].into_iter().enumerate();
        let children = children.map(|(at, (start, end))| {
            self.tree_count += 1;
            Child { tree: (first + at) % TREES, id: self.tree_count, start, end }
        });
        Step::Fork { parent, children: children.collect() }
    }

    pub fn restore_of(&mut self, from: usize, to: usize) -> Step {
        self.tree_count += 1;
        let child = Child { tree: to, id: self.tree_count, start: Vec::new(), end: Vec::new() };
        Step::Restore { from, child }
    }

    pub fn ingest_into(&mut self, tree: usize) -> Step {
        let range = if self.choices.percent(30) { (self.key(), self.key()) } else { Default::default() };
        let count = 1 + self.choices.below(20);
        let entry = |drawn: &mut Self| (drawn.key(), drawn.choices.percent(80).then(|| drawn.value()));
        let entries = (0..count).map(|_| entry(self)).collect();
        Step::Ingest { tree, table: BuiltTable { range, entries } }
    }

    fn ending(&mut self) -> Ending {
        match self.choices.below(3) {
            0 => Ending::Close,
            1 => Ending::Drop,
            _ => Ending::PowerCut(self.choices.below(1 << 16) as u64),
        }
    }

    /// Short keys, so that they meet; some are prefixes of others.
    fn key(&mut self) -> Vec<u8> {
        match self.choices.below(60) {
            0 => return Vec::new(),
            1 => return vec![0xff; 1 + self.choices.below(3)],
            _ => {}
        }
        let mut key = self.row();
        if self.choices.percent(30) {
            key.extend_from_slice(b"\0\x01");
            key.extend_from_slice(&[0, 1, 0xff][..self.choices.below(4)]);
        }
        key
    }

    fn row(&mut self) -> Vec<u8> {
        format!("{:02}", self.choices.below(self.row_count)).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        let length = match self.choices.below(20) {
            0 => 0,
            1..12 => self.choices.below(32),
            12..19 => self.choices.below(400),
            _ => self.choices.below(6000),
        };
        let first = match self.choices.below(8) {
            0 => EXPIRED,
            1 => OLD,
            _ => self.byte(),
        };
        // Some compress well and some do not.
        let stride = self.choices.one_of(&[0, 1, 167]);
        let rest = (1..length).map(|at: usize| (at * stride + at / 7 * stride).to_le_bytes()[0]);
        std::iter::once(first).take(length).chain(rest).collect()
    }

    fn byte(&mut self) -> u8 {
        self.choices.below(256).to_le_bytes()[0]
    }

    fn write(&mut self) -> Step {
        let writes = (0..=self.choices.below(6)).map(|_| self.one_write()).collect();
        let acknowledge = self.choices.one_of(&[
            Acknowledge::Wait,
            Acknowledge::Callback,
            Acknowledge::Never,
            Acknowledge::Hold,
        ]);
        Step::Write { writes, acknowledge }
    }

    /// A few writes of values that are not empty.
    pub fn small_write(&mut self, acknowledge: Acknowledge) -> Step {
        let mut writes: Vec<_> = (0..3 + self.choices.below(5)).map(|_| self.one_write()).collect();
        for write in &mut writes {
            if let Change::Put(value) | Change::Append(value) = &mut write.change {
                value.resize(20 + value.len() % 200, 7);
            }
        }
        Step::Write { writes, acknowledge }
    }

    /// The same to the tree in one place only.
    pub fn small_write_to(&mut self, tree: usize, acknowledge: Acknowledge) -> Step {
        let mut step = self.small_write(acknowledge);
        if let Step::Write { writes, .. } = &mut step {
            writes.iter_mut().for_each(|write| write.tree = tree);
        }
        step
    }

    /// Enough writes to fill a memtable.
    fn bulk(&mut self) -> Step {
        let writes = (0..150).map(|_| self.one_write()).collect();
        Step::Write { writes, acknowledge: Acknowledge::Never }
    }

    fn one_write(&mut self) -> Write {
        let (tree, key) = (self.tree(), self.key());
        let change = match self.choices.below(20) {
            0..10 => Change::Put(self.value()),
            10..14 => Change::Append(self.value()),
            14..18 => Change::Delete,
            _ => Change::DeleteRange(self.key()),
        };
        Write { tree, key, change }
    }

    fn view(&mut self) -> View {
        match self.choices.below(3) {
            0 => View::Applied,
            1 => View::Durable,
            _ => View::Kept(self.choices.below(SNAPSHOTS)),
        }
    }

    fn open(&mut self) -> Step {
        let span = match self.choices.below(8) {
            0 => Span::All,
            1 => Span::From(self.key()),
            2..5 => Span::Between(self.key(), self.key()),
            _ => Span::Prefix([&self.row()[..], b"\0\x01"].concat()),
        };
        Step::Open { at: self.choices.below(ITERATORS), tree: self.tree(), view: self.view(), span }
    }

    fn moves(&mut self) -> Vec<Move> {
        let count = 1 + self.choices.below(20);
        let mut one = || match self.choices.below(10) {
            0..5 => Move::Next,
            5..8 => Move::Prev,
            8 => Move::Seek(self.key()),
            _ => Move::SeekBefore(self.key()),
        };
        (0..count).map(|_| one()).collect()
    }
}
