//! Turns: who writes and syncs the next group, and who waits for it.
//!
//! One thread at a time has the turn. It takes what has gathered, makes it
//! durable, publishes that, and passes the turn on.
//!
//! - A thread that waits for its batch and finds the turn free takes it: its batch is synced by itself, without
//!   a hand-over to another thread and back, which would cost as much as a third of the sync. (LevelDB's and
//!   RocksDB's writers lead groups in the same way.)
//! - One that finds the turn taken follows. It is woken once its batch is durable, or to take the next turn,
//!   for which the first follower that is not durable yet is chosen.
//! - The sync thread takes turns for those who do not wait in a thread: who registered a callback, who dropped
//!   a commit, and who is held back because the buffer is full. It is woken only while nobody has the turn; if
//!   a thread leads, its group holds their batches, too. It alone calls callbacks, so that they cannot meet
//!   locks that a waiting thread holds.
//!
//! # Invariants
//!
//! - Who registers looks at `durable` under the lock of the state, and who publishes takes that lock
//!   afterwards: nobody is forgotten.
//! - While the turn is free there are no followers.
//! - `is_wanted` is cleared before the group is taken, and set after a batch was appended: who finds it set is
//!   in a group to come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::follower::{DURABLE, FAILED, FULL, Follower, LEAD};
use crate::{Error, Result};

/// Called once with the outcome of a commit.
pub(crate) type Callback = Box<dyn FnOnce(Result<()>) + Send>;

/// The turn to sync, and who waits.
pub(crate) struct Turns {
    state: Mutex<State>,
    /// The sync thread sleeps here.
    changed: Condvar,
    /// Somebody who does not wait in a thread wants a sync.
    is_wanted: AtomicBool,
    /// The last sequence number that is durable.
    durable: AtomicU64,
}

#[derive(Default)]
struct State {
    is_taken: bool,
    is_stopping: bool,
    failure: Option<Failure>,
    followers: Vec<(u64, Arc<Follower>)>,
    callbacks: Vec<(u64, Callback)>,
    /// Those to be told that the disk is full.
    turned_away: Vec<Callback>,
}

/// Why the log takes nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Poisoned,
    /// The epoch that sealed the log.
    Fenced(u64),
}

impl Failure {
    /// What an error of the log's store, or of a manifest, makes of the log.
    pub(crate) fn of(cause: &Error) -> Self {
        match cause {
            Error::Fenced { by } => Self::Fenced(*by),
            _ => Self::Poisoned,
        }
    }

    /// What those are told who wait or write.
    pub(crate) fn error(self) -> Error {
        match self {
            Self::Poisoned => Error::Poisoned,
            Self::Fenced(by) => Error::Fenced { by },
        }
    }
}

/// What a waiting thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Return: it is durable.
    Durable,
    /// Sync, and pass the turn on; then wait again.
    Lead,
}

/// What the sync thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Sync, and pass the turn on.
    Lead,
    /// Call those back whose outcome is known.
    CallBack,
}

impl Turns {
    /// Nothing after `durable` is synced yet.
    pub(crate) fn new(durable: u64) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            is_wanted: AtomicBool::new(false),
            durable: AtomicU64::new(durable),
        }
    }

    /// The last sequence number that is durable.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Waits until `sequence` is durable, or it is the caller's turn.
    ///
    /// # Errors
    ///
    /// - [`Error::Poisoned`], [`Error::Fenced`]: it will never be known to be durable.
    /// - [`Error::DiskFull`]: it is not durable for now.
    pub(crate) fn wait(&self, sequence: u64) -> Result<Waited> {
        if self.durable() >= sequence {
            return Ok(Waited::Durable);
        }
        let follower = {
            let mut state = self.state.lock();
            if self.durable() >= sequence {
                return Ok(Waited::Durable);
            }
            if let Some(failure) = state.failure {
                return Err(failure.error());
            }
            if !state.is_taken {
                state.is_taken = true;
                return Ok(Waited::Lead);
            }
            let follower = Follower::new();
            state.followers.push((sequence, Arc::clone(&follower)));
            follower
        };
        match follower.listen() {
            LEAD => Ok(Waited::Lead),
            DURABLE => Ok(Waited::Durable),
            FULL => Err(Error::DiskFull),
            _ => Err(self.state.lock().failure.unwrap_or(Failure::Poisoned).error()),
        }
    }

    /// Calls `done` from the sync thread once `sequence` is durable or never
    /// will be; at once and from here if that is known.
    pub(crate) fn on_durable(&self, sequence: u64, done: Callback) {
        let outcome = {
            let mut state = self.state.lock();
            if self.durable() >= sequence {
                Ok(())
            } else if let Some(failure) = state.failure {
                Err(failure.error())
            } else {
                state.callbacks.push((sequence, done));
                self.want_locked(&state);
                return;
            }
        };
        done(outcome);
    }

    /// Asks for a sync without waiting for it.
    pub(crate) fn want(&self) {
        // Most often somebody has asked before, and nobody has answered yet.
        if !self.is_wanted.load(Ordering::Acquire) {
            self.want_locked(&self.state.lock());
        }
    }

    fn want_locked(&self, state: &MutexGuard<'_, State>) {
        self.is_wanted.store(true, Ordering::Release);
        if !state.is_taken {
            self.changed.notify_all();
        }
    }

    /// Begins a turn, which comes before the group is taken.
    pub(crate) fn begin(&self) {
        self.is_wanted.store(false, Ordering::Release);
    }

    /// Says that everything through `sequence` is durable. Who waits for it hears when the turn is passed on.
    pub(crate) fn publish(&self, sequence: u64) {
        self.durable.store(sequence, Ordering::Release);
    }

    /// Ends a turn: wakes those who are done, then who leads next, so that what the former write meanwhile
    /// is in that group.
    pub(crate) fn pass_on(&self) {
        let mut state = self.state.lock();
        let durable = self.durable();
        let done: Vec<_> = state.followers.extract_if(.., |(sequence, _)| *sequence <= durable).collect();
        let next = (!state.followers.is_empty()).then(|| state.followers.remove(0).1);
        state.is_taken = next.is_some();
        let sync_thread_is_due = state.is_stopping
            || state.callbacks.iter().any(|(sequence, _)| *sequence <= durable)
            || (next.is_none() && self.is_wanted.load(Ordering::Acquire));
        drop(state);
        for (_, follower) in done {
            follower.tell(DURABLE);
        }
        if let Some(next) = next {
            next.tell(LEAD);
        }
        if sync_thread_is_due {
            self.changed.notify_all();
        }
    }

    /// Waits for something that the sync thread has to do. None once it may
    /// end: after [`Turns::fail`], or after [`Turns::stop`] with nothing left to sync.
    pub(crate) fn next_duty(&self, is_left: impl Fn() -> bool) -> Option<Duty> {
        let mut state = self.state.lock();
        loop {
            let durable = self.durable();
            if !state.turned_away.is_empty()
                || state.callbacks.iter().any(|(sequence, _)| *sequence <= durable || state.failure.is_some())
            {
                return Some(Duty::CallBack);
            }
            if state.failure.is_some() {
                return None;
            }
            if !state.is_taken {
                if self.is_wanted.load(Ordering::Acquire) || state.is_stopping && is_left() {
                    state.is_taken = true;
                    return Some(Duty::Lead);
                }
                if state.is_stopping {
                    return None;
                }
            }
            self.changed.wait(&mut state);
        }
    }

    /// Calls back those whose outcome is known.
    pub(crate) fn call_back(&self) {
        let (done, turned_away, failed) = {
            let mut state = self.state.lock();
            let durable = self.durable();
            let done: Vec<_> = state.callbacks.extract_if(.., |(sequence, _)| *sequence <= durable).collect();
            let turned_away = std::mem::take(&mut state.turned_away);
            let failed = state.failure.map(|failure| (failure, std::mem::take(&mut state.callbacks)));
            (done, turned_away, failed)
        };
        done.into_iter().for_each(|(_, done)| done(Ok(())));
        turned_away.into_iter().for_each(|done| done(Err(Error::DiskFull)));
        if let Some((failure, failed)) = failed {
            failed.into_iter().for_each(|(_, done)| done(Err(failure.error())));
        }
    }

    /// Ends a turn that found the disk full: tells whoever waits for what is not durable that it is not for now.
    pub(crate) fn turn_away(&self) {
        let durable = self.durable();
        let followers = {
            let mut state = self.state.lock();
            let waiting = state.callbacks.extract_if(.., |(sequence, _)| *sequence > durable);
            let waiting: Vec<_> = waiting.map(|(_, done)| done).collect();
            state.turned_away.extend(waiting);
            state.is_taken = false;
            self.changed.notify_all();
            std::mem::take(&mut state.followers)
        };
        for (sequence, follower) in followers {
            follower.tell(if sequence <= durable { DURABLE } else { FULL });
        }
    }

    /// Fails whoever waits, now or later, for what is not durable.
    pub(crate) fn fail(&self, failure: Failure) {
        let durable = self.durable();
        let followers = {
            let mut state = self.state.lock();
            state.failure.get_or_insert(failure);
            state.is_taken = false;
            self.changed.notify_all();
            std::mem::take(&mut state.followers)
        };
        for (sequence, follower) in followers {
            follower.tell(if sequence <= durable { DURABLE } else { FAILED });
        }
    }

    /// Ends the sync thread once everything is synced.
    pub(crate) fn stop(&self) {
        self.state.lock().is_stopping = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::sstable::testing::Random;

    /// As much of a log as turns need: a group is a range of numbers, and syncing it is nothing.
    struct Log {
        turns: Turns,
        appended: Mutex<u64>,
        synced: AtomicU64,
    }

    impl Log {
        fn new() -> Arc<Self> {
            Arc::new(Self { turns: Turns::new(0), appended: Mutex::new(0), synced: AtomicU64::new(0) })
        }

        fn start() -> (Arc<Self>, thread::JoinHandle<()>) {
            let log = Self::new();
            let of_thread = Arc::clone(&log);
            let sync_thread = thread::spawn(move || {
                let log = of_thread;
                while let Some(duty) = log.turns.next_duty(|| log.turns.durable() < *log.appended.lock()) {
                    match duty {
                        Duty::Lead => log.take_turn(),
                        Duty::CallBack => log.turns.call_back(),
                    }
                }
            });
            (log, sync_thread)
        }

        fn append(&self) -> u64 {
            let mut appended = self.appended.lock();
            *appended += 1;
            *appended
        }

        fn take_turn(&self) {
            self.turns.begin();
            let last = *self.appended.lock();
            let before = self.synced.fetch_max(last, Ordering::AcqRel);
            assert_eq!(before, self.turns.durable(), "one at a time has the turn");
            self.turns.publish(last);
            self.turns.pass_on();
        }

        fn wait(&self, sequence: u64) -> Result<()> {
            while self.turns.wait(sequence)? == Waited::Lead {
                self.take_turn();
            }
            Ok(())
        }
    }

    /// Waits for `count` messages; a wake-up that was lost makes it fail instead of hang.
    fn receive<T>(receiver: &mpsc::Receiver<T>, count: usize) -> Vec<T> {
        let within = Duration::from_secs(60);
        (0..count).map(|_| receiver.recv_timeout(within).expect("nobody is forgotten")).collect()
    }

    #[test]
    fn nobody_is_forgotten_whoever_leads() {
        const THREADS: u64 = 8;
        const ROUNDS: usize = 4_000;
        let (log, sync_thread) = Log::start();
        let (sender, receiver) = mpsc::channel();
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (log, sender) = (Arc::clone(&log), sender.clone());
                thread::spawn(move || {
                    let mut random = Random::new(thread);
                    for _ in 0..ROUNDS {
                        let sequence = log.append();
                        let durable = Arc::clone(&log);
                        match random.below(4) {
                            0 | 1 => {
                                log.wait(sequence).expect("nothing fails");
                                assert!(log.turns.durable() >= sequence);
                                sender.send(()).expect("received");
                            }
                            2 => {
                                let sender = sender.clone();
                                let done = move |outcome: Result<()>| {
                                    outcome.expect("nothing fails");
                                    assert!(durable.turns.durable() >= sequence);
                                    sender.send(()).expect("received");
                                };
                                log.turns.on_durable(sequence, Box::new(done));
                            }
                            _ => {
                                log.turns.want();
                                sender.send(()).expect("received");
                            }
                        }
                    }
                })
            })
            .collect();
        receive(&receiver, usize::try_from(THREADS).expect("few") * ROUNDS);
        threads.into_iter().for_each(|thread| thread.join().expect("no assertion failed"));
        log.turns.stop();
        sync_thread.join().expect("no assertion failed");
        assert_eq!(log.turns.durable(), *log.appended.lock(), "what nobody waited for is synced, too");
    }

    #[test]
    fn a_wanted_sync_comes_without_anybody_waiting() {
        let (log, sync_thread) = Log::start();
        for _ in 0..500 {
            let sequence = log.append();
            log.turns.want();
            let (sender, receiver) = mpsc::channel();
            log.turns.on_durable(sequence, Box::new(move |outcome| sender.send(outcome).expect("received")));
            receive(&receiver, 1);
        }
        log.turns.stop();
        sync_thread.join().expect("no assertion failed");
    }

    #[test]
    fn a_full_disk_ends_every_wait_and_no_later_one() {
        let log = Log::new();
        let (sender, receiver) = mpsc::channel();
        for sequence in 1..=3 {
            assert_eq!(log.append(), sequence);
        }
        assert_eq!(log.turns.wait(1).expect("the turn is free"), Waited::Lead);
        let told = sender.clone();
        log.turns.on_durable(2, Box::new(move |outcome| told.send(outcome).expect("received")));
        let follower = thread::spawn({
            let log = Arc::clone(&log);
            move || log.wait(3)
        });
        while log.turns.state.lock().followers.is_empty() {
            thread::yield_now();
        }
        log.turns.turn_away();
        assert!(matches!(follower.join().expect("no panic"), Err(Error::DiskFull)));
        assert_eq!(log.turns.next_duty(|| true), Some(Duty::CallBack));
        log.turns.call_back();
        assert!(matches!(receive(&receiver, 1)[..], [Err(Error::DiskFull)]));
        log.wait(3).expect("the next turn goes on");
        assert_eq!(log.turns.durable(), 3);
    }

    #[test]
    fn a_failure_ends_every_wait() {
        let (log, sync_thread) = Log::start();
        let (sender, receiver) = mpsc::channel();
        assert_eq!(log.turns.wait(1).expect("the turn is free"), Waited::Lead);
        for sequence in 1..=3 {
            let (log, told, called) = (Arc::clone(&log), sender.clone(), sender.clone());
            thread::spawn(move || {
                log.turns.on_durable(sequence, Box::new(move |outcome| drop(called.send(outcome))));
                drop(told.send(log.wait(sequence)));
            });
        }
        log.turns.fail(Failure::Poisoned);
        assert!(receive(&receiver, 6).iter().all(|outcome| matches!(outcome, Err(Error::Poisoned))));
        log.turns.pass_on();
        assert!(log.wait(9).is_err());
        sync_thread.join().expect("no assertion failed");
    }
}
