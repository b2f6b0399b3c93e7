//! Every interleaving of small histories of one key: readers, writers through
//! this proxy, writers through other doors, and the stream that tells of them.
//!
//! The origin is a number that each commit counts up. Two properties hold in
//! every state that can be reached:
//!
//! - a read that begins after a write through this proxy was acknowledged, or
//!   after the stream told of any write, sees nothing older;
//! - when all is over and the stream has told everything, what is stored is what
//!   the origin has.
//!
//! Steps are what happens under the key's lock, and what the origin does; the
//! gate is the real one.

use std::collections::HashSet;

use super::gate::Gate;

type Version = u8;

/// A reader, and which step comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reader {
    Idle,
    /// It leads: the origin is to be read.
    Leads {
        floor: Version,
    },
    /// It has read the origin, and is to land.
    Lands {
        floor: Version,
        read: Version,
    },
    /// It waits for the flight of this reader.
    Waits {
        floor: Version,
        on: usize,
    },
    Done,
}

/// A writer through this proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Writer {
    Idle,
    /// It has its turn, and is to commit.
    Began,
    Committed {
        version: Version,
    },
    /// It has given up, and its write may still come to pass.
    GaveUp,
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    origin: Version,
    /// Commits that the stream is to tell of: a write through this proxy that is
    /// known to have happened, or not.
    stream: Vec<(Version, bool)>,
    told: usize,
    stored: Option<Version>,
    gate: Gate<usize>,
    /// No read that begins now may see less.
    floor: Version,
    readers: Vec<Reader>,
    writers: Vec<Writer>,
    may_give_up: bool,
    others_left: u8,
}

impl World {
    fn new(readers: usize, writers: usize, others: u8, may_give_up: bool) -> Self {
        Self {
            origin: 0,
            stream: Vec::new(),
            told: 0,
            stored: None,
            gate: Gate::default(),
            floor: 0,
            readers: vec![Reader::Idle; readers],
            writers: vec![Writer::Idle; writers],
            may_give_up,
            others_left: others,
        }
    }

    fn commit(&mut self, is_known_own: bool) -> Version {
        self.origin += 1;
        self.stream.push((self.origin, is_known_own));
        self.origin
    }

    fn returns(&mut self, reader: usize, floor: Version, value: Version) {
        assert!(value >= floor, "a read saw {value} after {floor}: {self:?}");
        self.readers[reader] = Reader::Done;
    }

    /// The worlds that one step of `reader` leads to.
    fn step_reader(&self, reader: usize) -> Option<Self> {
        let mut next = self.clone();
        match self.readers[reader] {
            Reader::Idle => match (self.stored, self.gate.flight()) {
                (Some(stored), _) => next.returns(reader, self.floor, stored),
                (None, Some(on)) => next.readers[reader] = Reader::Waits { floor: self.floor, on: *on },
                (None, None) => {
                    next.gate.depart(reader);
                    next.readers[reader] = Reader::Leads { floor: self.floor };
                }
            },
            Reader::Leads { floor } => next.readers[reader] = Reader::Lands { floor, read: self.origin },
            Reader::Lands { floor, read } => {
                if next.gate.land(&reader) {
                    next.stored = Some(read);
                }
                next.returns(reader, floor, read);
                for waiter in 0..self.readers.len() {
                    if let Reader::Waits { floor, on } = self.readers[waiter]
                        && on == reader
                    {
                        next.returns(waiter, floor, read);
                    }
                }
            }
            Reader::Waits { .. } | Reader::Done => return None,
        }
        Some(next)
    }

    fn step_writer(&self, writer: usize) -> Vec<Self> {
        let mut next = self.clone();
        match self.writers[writer] {
            Writer::Idle => {
                let has_turn = |other: &Writer| matches!(other, Writer::Began | Writer::Committed { .. });
                if self.writers.iter().any(has_turn) {
                    return Vec::new();
                }
                next.gate.begin_write();
                next.writers[writer] = Writer::Began;
            }
            Writer::Began => {
                let mut worlds = Vec::new();
                if self.may_give_up {
                    let mut gave_up = self.clone();
                    gave_up.gate.end_write();
                    gave_up.stored = None;
                    gave_up.writers[writer] = Writer::GaveUp;
                    worlds.push(gave_up);
                }
                let version = next.commit(true);
                next.writers[writer] = Writer::Committed { version };
                worlds.push(next);
                return worlds;
            }
            Writer::Committed { version } => {
                next.stored = next.gate.end_write().then_some(version);
                next.floor = next.floor.max(version);
                next.writers[writer] = Writer::Done;
            }
            Writer::GaveUp => {
                // Nobody here knows: the stream tells of it as of somebody else's.
                next.commit(false);
                next.writers[writer] = Writer::Done;
            }
            Writer::Done => return Vec::new(),
        }
        vec![next]
    }

    fn step_stream(&self) -> Option<Self> {
        let (version, is_own) = *self.stream.get(self.told)?;
        let mut next = self.clone();
        next.told += 1;
        if !is_own {
            next.gate.disturb();
            next.stored = None;
        }
        // A write of our own that the stream tells of early is not acknowledged yet.
        if !is_own {
            next.floor = next.floor.max(version);
        }
        Some(next)
    }

    fn steps(&self) -> Vec<Self> {
        let mut worlds: Vec<Self> =
            (0..self.readers.len()).filter_map(|reader| self.step_reader(reader)).collect();
        worlds.extend((0..self.writers.len()).flat_map(|writer| self.step_writer(writer)));
        worlds.extend(self.step_stream());
        if self.others_left > 0 {
            let mut next = self.clone();
            next.others_left -= 1;
            next.commit(false);
            worlds.push(next);
        }
        worlds
    }
}

/// Visits every state; how many there are.
fn explore(start: World) -> usize {
    let mut seen = HashSet::from([start.clone()]);
    let mut left = vec![start];
    while let Some(world) = left.pop() {
        let steps = world.steps();
        if steps.is_empty() {
            let stored = world.stored.unwrap_or(world.origin);
            assert_eq!(stored, world.origin, "stale for good: {world:?}");
            assert!(world.gate.is_idle());
        }
        for next in steps {
            if seen.insert(next.clone()) {
                left.push(next);
            }
        }
    }
    seen.len()
}

#[test]
fn no_interleaving_serves_or_keeps_an_old_value() {
    for (readers, writers, others, may_give_up) in [
        (3, 0, 2, false),
        (2, 2, 0, false),
        (3, 2, 1, false),
        (2, 2, 2, false),
        (2, 2, 1, true),
        (3, 1, 2, true),
    ] {
        let states = explore(World::new(readers, writers, others, may_give_up));
        assert!(states > 100, "{states} states");
    }
}
