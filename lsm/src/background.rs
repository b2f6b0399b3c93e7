//! The threads: one syncs the log for those who do not wait for it in a thread
//! of their own, one flushes, one compacts, one calls writers whose turn has come.
//!
//! Flushes and compactions that fail are tried again, later each time; those
//! that find the engine poisoned are not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::commit_log::Duty;
use crate::core::Core;
use crate::tree::TreeCore;
use crate::{Error, Result, compaction, flush, heap};

/// What the flush and compaction threads wait for.
#[derive(Default)]
pub(crate) struct Signals {
    work: Mutex<Work>,
    flush_wanted: Condvar,
    compaction_wanted: Condvar,
    stopping: AtomicBool,
}

/// What the flush thread does next.
enum FlushWork {
    /// Flush the tree's oldest frozen memtable.
    Flush(Arc<TreeCore>),
    /// Prepare the log's next segment.
    PrepareSegment,
    /// Give freed memory back.
    Trim,
}

#[derive(Default)]
struct Work {
    /// A tree for each memtable that is frozen and not flushed.
    flushes: VecDeque<Arc<TreeCore>>,
    /// The log's next segment is to be prepared.
    segment_wanted: bool,
    /// Much memory was freed here and there.
    trim_wanted: bool,
    compaction_due: bool,
}

impl Signals {
    pub(crate) fn queue_flush(&self, tree: Arc<TreeCore>) {
        self.work.lock().flushes.push_back(tree);
        self.flush_wanted.notify_one();
    }

    /// Lets the flush thread prepare the log's next segment.
    pub(crate) fn want_segment(&self) {
        self.work.lock().segment_wanted = true;
        self.flush_wanted.notify_one();
    }

    /// The tree whose memtable has waited longest.
    pub(crate) fn take_flush(&self) -> Option<Arc<TreeCore>> {
        self.work.lock().flushes.pop_front()
    }

    /// Puts back what [`Signals::take_flush`] gave, to be tried again.
    pub(crate) fn return_flush(&self, tree: Arc<TreeCore>) {
        self.work.lock().flushes.push_front(tree);
    }

    /// Says that much memory was freed in small pieces.
    pub(crate) fn want_trim(&self) {
        self.work.lock().trim_wanted = true;
        self.flush_wanted.notify_one();
    }

    /// Says that some tree may need a compaction.
    pub(crate) fn compaction_due(&self) {
        self.work.lock().compaction_due = true;
        self.compaction_wanted.notify_one();
    }

    /// Ends the threads, and whatever asks [`Signals::check`].
    pub(crate) fn stop(&self) {
        let _work = self.work.lock();
        self.stopping.store(true, Ordering::Release);
        self.flush_wanted.notify_all();
        self.compaction_wanted.notify_all();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Fails once the engine stops: for long work to ask now and then.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_stopping() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Waits for work to do; none once the engine stops. Calls `idle` after a
    /// while, and again while that returns true.
    fn wait_for_flush(&self, idle: impl Fn() -> bool) -> Option<FlushWork> {
        const IDLE: Duration = Duration::from_millis(20);
        let mut has_more = true;
        let mut work = self.work.lock();
        loop {
            if self.is_stopping() {
                return None;
            }
            // The shorter work by far.
            if std::mem::take(&mut work.segment_wanted) {
                return Some(FlushWork::PrepareSegment);
            }
            if std::mem::take(&mut work.trim_wanted) {
                return Some(FlushWork::Trim);
            }
            if let Some(tree) = work.flushes.pop_front() {
                return Some(FlushWork::Flush(tree));
            }
            if !has_more {
                self.flush_wanted.wait(&mut work);
            } else if self.flush_wanted.wait_for(&mut work, IDLE).timed_out() {
                has_more = MutexGuard::unlocked(&mut work, &idle);
            }
        }
    }

    /// Waits until a compaction may be due, or, if `may_idle`, nothing is for a
    /// while; none once the engine stops.
    fn wait_for_compaction(&self, may_idle: bool) -> Option<Awaited> {
        const IDLE: Duration = Duration::from_secs(1);
        let mut work = self.work.lock();
        while !work.compaction_due && !self.is_stopping() {
            if !may_idle {
                self.compaction_wanted.wait(&mut work);
            } else if self.compaction_wanted.wait_for(&mut work, IDLE).timed_out() {
                return Some(Awaited::Idle);
            }
        }
        work.compaction_due = false;
        (!self.is_stopping()).then_some(Awaited::Due)
    }

    /// Rests before another try.
    fn rest(&self, wanted: &Condvar, failures: u32) {
        let pause = Duration::from_millis(100 << failures.min(9));
        let mut work = self.work.lock();
        if !self.is_stopping() {
            wanted.wait_for(&mut work, pause);
        }
    }
}

/// What a thread that compacts has waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// Some tree may need a compaction.
    Due,
    /// None did for a while.
    Idle,
}

/// The threads of an engine.
#[derive(Default)]
pub(crate) struct Threads {
    sync: Mutex<Option<JoinHandle<()>>>,
    others: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Starts the threads of `core`.
    pub(crate) fn start(core: &Arc<Core>) -> Self {
        let weak = Arc::downgrade(core);
        core.tables.cache().set_on_churn(move || {
            if let Some(core) = weak.upgrade() {
                core.signals.want_trim();
            }
        });
        let spawn = |name: &str, run: fn(&Core)| {
            let core = Arc::clone(core);
            let thread = std::thread::Builder::new().name(name.to_owned());
            thread.spawn(move || run(&core)).expect("the system starts a thread")
        };
        let mut others =
            vec![spawn("lsm-flush", run_flushes), spawn("lsm-pace", |core| core.gate.call_at_turns())];
        let compactions = (0..core.options.compaction_threads).map(|_| spawn("lsm-compact", run_compactions));
        others.extend(compactions);
        Self { sync: Mutex::new(Some(spawn("lsm-sync", run_syncs))), others: Mutex::new(others) }
    }

    /// Ends the threads; the log must be closed. What has gathered is synced.
    pub(crate) fn stop(&self, signals: &Signals) {
        self.sync.lock().take().into_iter().for_each(join);
        signals.stop();
        std::mem::take(&mut *self.others.lock()).into_iter().for_each(join);
    }
}

/// Joins a thread, unless it is the one that runs: its last act may be to drop an engine.
fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
        tracing::error!("a background thread panicked");
    }
}

fn run_syncs(core: &Core) {
    let turns = &core.log.turns;
    while let Some(duty) = turns.next_duty(|| core.log.gathered_bytes() > 0) {
        match duty {
            // A failure is told to everybody who waits, and then there is no duty any more.
            Duty::Lead => drop(core.take_turn()),
            Duty::CallBack => turns.call_back(),
        }
    }
}

fn run_flushes(core: &Core) {
    let mut failures = 0;
    let free_retired = || {
        core.retired.free(core.tables.cache());
        core.update_gate();
        !core.retired.is_empty()
    };
    while let Some(work) = core.signals.wait_for_flush(free_retired) {
        let tree = match work {
            FlushWork::Flush(tree) => tree,
            FlushWork::PrepareSegment => {
                core.prepare_segment();
                continue;
            }
            FlushWork::Trim => {
                heap::trim();
                continue;
            }
        };
        match flush::flush_oldest(core, &tree) {
            Ok(()) => {
                failures = 0;
                core.after_change();
                core.signals.compaction_due();
            }
            Err(error) => {
                let is_final = matches!(error, Error::Poisoned | Error::Fenced { .. } | Error::Closed);
                tracing::error!(error = &error as &dyn std::error::Error, tree = tree.id.0, "cannot flush");
                tree.flush_failed(Arc::new(error));
                if !is_final {
                    core.signals.return_flush(tree);
                    core.signals.rest(&core.signals.flush_wanted, failures);
                    failures += 1;
                }
            }
        }
        core.tables.sweeper().sweep();
    }
    // Whoever still waits for a flush waits in vain.
    core.all_trees().iter().for_each(|tree| tree.end_flushes());
}

/// Has the calling thread, and those it starts, yield to others where the system knows how.
fn be_nice() {
    /// A third of the processor time of who competes with it; more, and compactions
    /// would fall behind wherever readers are many.
    const NICENESS: i32 = 5;
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(error = &error as &dyn std::error::Error, "compactions have the usual priority");
    }
}

fn run_compactions(core: &Core) {
    be_nice();
    let mut failures = 0;
    let mut may_idle = true;
    while let Some(awaited) = core.signals.wait_for_compaction(may_idle) {
        may_idle = awaited == Awaited::Due;
        loop {
            match compaction::compact_most_urgent(core, awaited == Awaited::Idle) {
                Ok(true) => {
                    failures = 0;
                    core.after_change();
                    core.signals.compaction_due();
                    core.tables.sweeper().sweep();
                }
                Ok(false) | Err(Error::Poisoned | Error::Fenced { .. } | Error::Closed) => break,
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot compact");
                    core.signals.rest(&core.signals.compaction_wanted, failures);
                    failures += 1;
                    core.signals.compaction_due();
                    break;
                }
            }
        }
    }
}
