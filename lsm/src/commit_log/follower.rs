//! A thread that waits for its turn, or for another one's to be over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, Thread};

const NOTHING: u8 = 0;
/// It has the turn.
pub(super) const LEAD: u8 = 1;
/// What it waits for is durable.
pub(super) const DURABLE: u8 = 2;
/// It never will be.
pub(super) const FAILED: u8 = 3;
/// It is not for now: the disk is full.
pub(super) const FULL: u8 = 4;

/// A thread that waits, told one thing once.
pub(super) struct Follower {
    thread: Thread,
    told: AtomicU8,
}

impl Follower {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { thread: thread::current(), told: AtomicU8::new(NOTHING) })
    }

    pub(super) fn tell(&self, what: u8) {
        self.told.store(what, Ordering::Release);
        self.thread.unpark();
    }

    /// Sleeps until it is told something.
    pub(super) fn listen(&self) -> u8 {
        loop {
            match self.told.load(Ordering::Acquire) {
                NOTHING => thread::park(),
                told => return told,
            }
        }
    }
}
