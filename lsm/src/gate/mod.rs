//! The gate that writers pass: closed while too much waits to be flushed,
//! compacted or synced, and before that open at a [`pace`].
//!
//! A writer passes the engine's [`Lane`] and that of each tree it writes to: a
//! tree whose compactions lag behind does not hold up who writes to others.

pub(crate) mod pace;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use smallvec::SmallVec;

use crate::gate::pace::{Lane, UNLIMITED};
use crate::stats::StallStats;

/// Why writers wait: a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stalls(u8);

impl Stalls {
    /// Memtables take all the memory they may.
    pub(crate) const MEMTABLES: Self = Self(1);
    /// Compactions of some tree are too far behind.
    pub(crate) const COMPACTIONS: Self = Self(2);
    /// Too many bytes wait for the next sync.
    pub(crate) const LOG: Self = Self(4);
    /// A table waits for a moment without writes to be taken in.
    pub(crate) const INGEST: Self = Self(8);

    const EACH: [Self; 4] = [Self::MEMTABLES, Self::COMPACTIONS, Self::LOG, Self::INGEST];
    /// Those that stop the writers of all trees.
    const OF_ENGINE: Self = Self(1 | 4 | 8);

    /// These, and `other` if `holds`.
    pub(crate) fn and(self, other: Self, holds: bool) -> Self {
        if holds { Self(self.0 | other.0) } else { self }
    }

    /// Whether there is one that is in both.
    fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// How things are for writers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pressure {
    pub(crate) stalls: Stalls,
    /// The pace of the engine's lane.
    pub(crate) bytes_per_s: u64,
    /// Whether some tree's lane is not free.
    pub(crate) trees_lag: bool,
}

/// The lanes of the trees that a batch writes to.
pub(crate) type Lanes = SmallVec<[Arc<Lane>; 4]>;

type Ready = Box<dyn FnOnce() + Send>;

/// Lets writers through, or not.
#[derive(Debug)]
pub(crate) struct WriteGate {
    /// Nothing stops or slows anybody.
    is_calm: AtomicBool,
    /// Nobody is kept waiting any more: writes find out by themselves what is wrong.
    is_abandoned: AtomicBool,
    /// What every writer passes.
    engine: Lane,
    waiting: Mutex<Waiting>,
    /// Signalled when a lane is stopped no more.
    opened: Condvar,
    /// Signalled when somebody waits for a turn to come.
    turns: Condvar,
    started: Instant,
    paced_count: AtomicU64,
    paced_us: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    ready: Vec<(Lanes, Ready)>,
    /// For each of [`Stalls::EACH`].
    reasons: [Reason; 4],
}

/// How often and how long there was one reason to stall.
#[derive(Clone, Copy, Debug, Default)]
struct Reason {
    since: Option<Instant>,
    count: u64,
    us: u64,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("reasons", &self.reasons).finish_non_exhaustive()
    }
}

impl Default for WriteGate {
    fn default() -> Self {
        Self {
            is_calm: AtomicBool::new(true),
            is_abandoned: AtomicBool::new(false),
            engine: Lane::default(),
            waiting: Mutex::default(),
            opened: Condvar::new(),
            turns: Condvar::new(),
            started: Instant::now(),
            paced_count: AtomicU64::new(0),
            paced_us: AtomicU64::new(0),
        }
    }
}

impl WriteGate {
    /// Whether writers need not ask the gate.
    pub(crate) fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Acquire)
    }

    /// Sets the engine's lane as `find` finds, which may set those of trees.
    /// It is asked under the gate's lock: whoever changes what it looks at
    /// calls this afterwards, and the last call sees the last change.
    pub(crate) fn update(&self, find: impl FnOnce() -> Pressure) {
        let mut waiting = self.waiting.lock();
        let Pressure { stalls, bytes_per_s, trees_lag } = find();
        // A tree that stalls stops its own writers.
        self.engine.set(stalls.meets(Stalls::OF_ENGINE), bytes_per_s);
        let is_calm = stalls == Stalls::default() && bytes_per_s == UNLIMITED && !trees_lag;
        self.is_calm.store(is_calm || self.is_abandoned(), Ordering::Release);
        let mut has_ended = false;
        for (reason, stall) in waiting.reasons.iter_mut().zip(Stalls::EACH) {
            has_ended |= reason.set(stalls.meets(stall));
        }
        if has_ended {
            self.opened.notify_all();
        }
        self.call_ready(waiting);
    }

    /// Opens the gate for good.
    pub(crate) fn abandon(&self) {
        let waiting = self.waiting.lock();
        self.is_abandoned.store(true, Ordering::Release);
        self.is_calm.store(true, Ordering::Release);
        self.opened.notify_all();
        self.turns.notify_all();
        self.call_ready(waiting);
    }

    fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn is_stopped(&self, trees: &Lanes) -> bool {
        !self.is_abandoned() && (self.engine.is_stopped() || trees.iter().any(|lane| lane.is_stopped()))
    }

    /// How long until it is somebody's turn; none while a lane is stopped.
    fn wait_us(&self, trees: &Lanes, now_us: u64) -> Option<u64> {
        if self.is_abandoned() {
            return Some(0);
        }
        if self.is_stopped(trees) {
            return None;
        }
        let lanes = trees.iter().map(|lane| lane.wait_us(now_us));
        Some(lanes.fold(self.engine.wait_us(now_us), u64::max))
    }

    /// Takes a turn on all lanes and returns how long it is off.
    fn take_turn(&self, trees: &Lanes, bytes: u64, now_us: u64) -> u64 {
        let lanes = trees.iter().map(|lane| lane.take_turn(bytes, now_us));
        lanes.fold(self.engine.take_turn(bytes, now_us), u64::max)
    }

    /// Waits until a batch of `bytes` may be written to trees with these lanes.
    pub(crate) fn pass(&self, trees: &Lanes, bytes: u64) {
        if self.is_stopped(trees) {
            let mut waiting = self.waiting.lock();
            while self.is_stopped(trees) {
                self.opened.wait(&mut waiting);
            }
        }
        if self.is_abandoned() {
            return;
        }
        let wait_us = self.take_turn(trees, bytes, self.now_us());
        if wait_us > 0 {
            self.paced_count.fetch_add(1, Ordering::Relaxed);
            self.paced_us.fetch_add(wait_us, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(wait_us));
        }
    }

    /// Whether [`WriteGate::pass`] would let it through at once; then it has passed.
    pub(crate) fn try_pass(&self, trees: &Lanes, bytes: u64) -> bool {
        let now_us = self.now_us();
        let passes = self.wait_us(trees, now_us) == Some(0);
        if passes {
            self.take_turn(trees, bytes, now_us);
        }
        passes
    }

    /// Calls `ready` once writers to trees with these lanes pass, at once if they do now.
    pub(crate) fn on_open(&self, trees: Lanes, ready: Ready) {
        let mut waiting = self.waiting.lock();
        match self.wait_us(&trees, self.now_us()) {
            Some(0) => {
                drop(waiting);
                return ready();
            }
            Some(us) => {
                self.paced_count.fetch_add(1, Ordering::Relaxed);
                self.paced_us.fetch_add(us, Ordering::Relaxed);
                self.turns.notify_one();
            }
            None => {}
        }
        waiting.ready.push((trees, ready));
    }

    /// Calls those who can pass now. True if there were any.
    fn call_ready(&self, mut waiting: MutexGuard<'_, Waiting>) -> bool {
        let now_us = self.now_us();
        let passing = waiting.ready.extract_if(.., |(trees, _)| self.wait_us(trees, now_us) == Some(0));
        let passing: Vec<_> = passing.collect();
        drop(waiting);
        let some = !passing.is_empty();
        passing.into_iter().for_each(|(_, ready)| ready());
        some
    }

    /// Calls who waits for a turn when it comes, until the gate is abandoned.
    pub(crate) fn call_at_turns(&self) {
        while !self.is_abandoned() {
            if self.call_ready(self.waiting.lock()) {
                continue;
            }
            let mut waiting = self.waiting.lock();
            let now_us = self.now_us();
            let next = waiting.ready.iter().filter_map(|(trees, _)| self.wait_us(trees, now_us)).min();
            match next {
                Some(us) => _ = self.turns.wait_for(&mut waiting, Duration::from_micros(us)),
                None if self.is_abandoned() => {}
                None => self.turns.wait(&mut waiting),
            }
        }
    }

    /// Fills in what writers waited for and how long.
    pub(crate) fn stats(&self) -> StallStats {
        let waiting = self.waiting.lock();
        let [memtables, compactions, log, ingest] =
            waiting.reasons.map(|reason| (reason.count, reason.total_us()));
        StallStats {
            is_stalled: waiting.reasons.iter().any(|reason| reason.since.is_some()),
            memtable_stall_count: memtables.0,
            memtable_stall_us: memtables.1,
            compaction_stall_count: compactions.0,
            compaction_stall_us: compactions.1,
            log_stall_count: log.0,
            log_stall_us: log.1,
            ingest_stall_count: ingest.0,
            ingest_stall_us: ingest.1,
            paced_count: self.paced_count.load(Ordering::Relaxed),
            paced_us: self.paced_us.load(Ordering::Relaxed),
        }
    }
}

impl Reason {
    /// Sets whether it holds; true if it has ended.
    fn set(&mut self, holds: bool) -> bool {
        match (self.since, holds) {
            (None, true) => {
                self.since = Some(Instant::now());
                self.count += 1;
                false
            }
            (Some(_), false) => {
                self.us = self.total_us();
                self.since = None;
                true
            }
            _ => false,
        }
    }

    fn total_us(&self) -> u64 {
        let now = self.since.map_or(0, |since| since.elapsed().as_micros());
        self.us.saturating_add(u64::try_from(now).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn pressure(stalls: Stalls) -> Pressure {
        Pressure { stalls, bytes_per_s: UNLIMITED, trees_lag: false }
    }

    fn counted(called: &Arc<AtomicUsize>) -> Ready {
        let called = Arc::clone(called);
        Box::new(move || {
            called.fetch_add(1, Ordering::Relaxed);
        })
    }

    #[test]
    fn it_opens_when_the_last_stall_is_over_and_calls_back_once() {
        let (gate, called) = (WriteGate::default(), Arc::new(AtomicUsize::new(0)));
        gate.on_open(Lanes::new(), counted(&called));
        assert_eq!(called.load(Ordering::Relaxed), 1);
        gate.update(|| pressure(Stalls::MEMTABLES.and(Stalls::LOG, true)));
        gate.on_open(Lanes::new(), counted(&called));
        gate.update(|| pressure(Stalls::LOG));
        assert!(!gate.try_pass(&Lanes::new(), 1));
        assert_eq!(called.load(Ordering::Relaxed), 1);
        gate.update(|| pressure(Stalls::default()));
        assert!(gate.is_calm());
        assert_eq!(called.load(Ordering::Relaxed), 2);
        gate.pass(&Lanes::new(), 1);
        let stats = gate.stats();
        assert_eq!((stats.memtable_stall_count, stats.log_stall_count), (1, 1));
    }

    #[test]
    fn a_tree_that_stalls_stops_its_own_writers_alone() {
        let (gate, called) = (WriteGate::default(), Arc::new(AtomicUsize::new(0)));
        let lanes = [Arc::new(Lane::default()), Arc::new(Lane::default())];
        let of = |tree: usize| Lanes::from_elem(Arc::clone(&lanes[tree]), 1);
        gate.update(|| {
            lanes[0].set(true, UNLIMITED);
            Pressure { trees_lag: true, ..pressure(Stalls::COMPACTIONS) }
        });
        assert!(!gate.is_calm());
        assert!(!gate.try_pass(&of(0), 1));
        assert!(!gate.try_pass(&lanes.iter().cloned().collect(), 1), "a batch for both waits too");
        assert!(gate.try_pass(&of(1), 1));
        gate.pass(&of(1), 1);
        gate.on_open(of(0), counted(&called));
        gate.on_open(of(1), counted(&called));
        assert_eq!(called.load(Ordering::Relaxed), 1);
        gate.update(|| {
            lanes[0].set(false, UNLIMITED);
            pressure(Stalls::default())
        });
        assert_eq!(called.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn who_is_paced_is_called_at_a_turn() {
        let (gate, called) = (WriteGate::default(), Arc::new(AtomicUsize::new(0)));
        gate.update(|| Pressure { bytes_per_s: 1_000_000, ..pressure(Stalls::default()) });
        assert!(gate.try_pass(&Lanes::new(), 20_000));
        assert!(!gate.try_pass(&Lanes::new(), 1), "the turn is 20 ms off");
        std::thread::scope(|scope| {
            scope.spawn(|| gate.call_at_turns());
            let (sender, receiver) = std::sync::mpsc::channel();
            gate.on_open(Lanes::new(), Box::new(move || sender.send(()).expect("somebody waits")));
            receiver.recv().expect("called");
            gate.on_open(Lanes::new(), counted(&called));
            gate.abandon();
        });
        assert_eq!(called.load(Ordering::Relaxed), 1);
        assert_eq!(gate.stats().memtable_stall_count, 0);
    }

    #[test]
    fn an_abandoned_gate_stays_open() {
        let gate = WriteGate::default();
        gate.update(|| pressure(Stalls::MEMTABLES));
        gate.abandon();
        gate.update(|| pressure(Stalls::MEMTABLES));
        assert!(gate.is_calm());
        gate.pass(&Lanes::new(), 1);
    }
}
