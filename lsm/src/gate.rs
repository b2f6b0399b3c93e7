//! The gate that writers pass: closed while too much waits to be flushed,
//! compacted or synced.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// What keeps the gate closed: a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stalls(u8);

impl Stalls {
    /// Memtables take all the memory they may.
    pub(crate) const MEMTABLES: Self = Self(1);
    /// Some tree has too many tables in level 0.
    pub(crate) const L0: Self = Self(2);
    /// Too many bytes wait for the next sync.
    pub(crate) const LOG: Self = Self(4);
    /// A table waits for a moment without writes to be taken in.
    pub(crate) const INGEST: Self = Self(8);

    /// These, and `other` if `holds`.
    pub(crate) fn and(self, other: Self, holds: bool) -> Self {
        if holds { Self(self.0 | other.0) } else { self }
    }
}

/// Nobody is kept waiting any more: writes find out by themselves what is wrong.
const ABANDONED: u8 = 0x80;

type Ready = Box<dyn FnOnce() + Send>;

/// Lets writers through, or not.
#[derive(Default)]
pub(crate) struct WriteGate {
    stalls: AtomicU8,
    waiting: Mutex<Waiting>,
    opened: Condvar,
    stalled_us: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    ready: Vec<Ready>,
    closed_since: Option<Instant>,
}

impl WriteGate {
    /// Whether writers pass.
    pub(crate) fn is_open(&self) -> bool {
        let stalls = self.stalls.load(Ordering::Acquire);
        stalls == 0 || stalls & ABANDONED != 0
    }

    /// Opens or closes the gate as `stalls` finds. It is asked under the
    /// gate's lock: whoever changes what it looks at calls this afterwards, and
    /// the last call sees the last change.
    pub(crate) fn update(&self, stalls: impl FnOnce() -> Stalls) {
        let ready = {
            let mut waiting = self.waiting.lock();
            let abandoned = self.stalls.load(Ordering::Relaxed) & ABANDONED;
            self.stalls.store(stalls().0 | abandoned, Ordering::Release);
            self.settle(&mut waiting)
        };
        ready.into_iter().for_each(|ready| ready());
    }

    /// Opens the gate for good.
    pub(crate) fn abandon(&self) {
        let ready = {
            let mut waiting = self.waiting.lock();
            self.stalls.fetch_or(ABANDONED, Ordering::AcqRel);
            self.settle(&mut waiting)
        };
        ready.into_iter().for_each(|ready| ready());
    }

    /// Keeps the time the gate is closed, and takes who is to be let through.
    fn settle(&self, waiting: &mut Waiting) -> Vec<Ready> {
        if !self.is_open() {
            waiting.closed_since.get_or_insert_with(Instant::now);
            return Vec::new();
        }
        if let Some(since) = waiting.closed_since.take() {
            let us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.stalled_us.fetch_add(us, Ordering::Relaxed);
            self.opened.notify_all();
        }
        std::mem::take(&mut waiting.ready)
    }

    /// Waits until writers pass.
    pub(crate) fn wait(&self) {
        if self.is_open() {
            return;
        }
        let mut waiting = self.waiting.lock();
        while !self.is_open() {
            self.opened.wait(&mut waiting);
        }
    }

    /// Calls `ready` once writers pass, at once if they do now.
    pub(crate) fn on_open(&self, ready: Ready) {
        {
            let mut waiting = self.waiting.lock();
            if !self.is_open() {
                waiting.ready.push(ready);
                return;
            }
        }
        ready();
    }

    /// Microseconds that the gate was closed, up to the last time it opened.
    pub(crate) fn stalled_us(&self) -> u64 {
        self.stalled_us.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn it_opens_when_the_last_stall_is_over_and_calls_back_once() {
        let gate = WriteGate::default();
        let called = Arc::new(AtomicUsize::new(0));
        let count = || {
            let called = Arc::clone(&called);
            Box::new(move || {
                called.fetch_add(1, Ordering::Relaxed);
            })
        };
        gate.on_open(count());
        assert_eq!(called.load(Ordering::Relaxed), 1);
        gate.update(|| Stalls::L0.and(Stalls::LOG, true));
        gate.on_open(count());
        gate.update(|| Stalls::LOG);
        assert!(!gate.is_open());
        assert_eq!(called.load(Ordering::Relaxed), 1);
        gate.update(Stalls::default);
        assert!(gate.is_open());
        assert_eq!(called.load(Ordering::Relaxed), 2);
        gate.wait();
    }

    #[test]
    fn an_abandoned_gate_stays_open() {
        let gate = WriteGate::default();
        gate.update(|| Stalls::MEMTABLES);
        gate.abandon();
        gate.update(|| Stalls::MEMTABLES);
        assert!(gate.is_open());
    }
}
