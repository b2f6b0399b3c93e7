//! The time that expiry is measured in: whole seconds.
//!
//! Everything below the server takes `now` as an argument; the server asks a
//! [`Clock`] once a batch of commands.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Whole seconds since the Unix epoch that never go back.
pub trait Clock: Send + Sync + std::fmt::Debug + 'static {
    /// The current second. A `u32` lasts until 2106.
    fn now_s(&self) -> u32;

    /// The same moment in microseconds, as exactly as the clock knows it.
    fn now_us(&self) -> u64 {
        u64::from(self.now_s()) * 1_000_000
    }
}

/// The wall clock as it was when this was made, carried on by the monotonic
/// clock: a correction of the wall clock neither expires nor revives an item.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
    started_unix_us: u64,
}

impl SystemClock {
    /// Starts from the wall clock.
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_unix_us = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
        Self { started: Instant::now(), started_unix_us }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_s(&self) -> u32 {
        u32::try_from(self.now_us() / 1_000_000).unwrap_or(u32::MAX)
    }

    fn now_us(&self) -> u64 {
        let elapsed_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.started_unix_us.saturating_add(elapsed_us)
    }
}
