//! A bound on the bytes a second that flushes and compactions write.
//!
//! A token bucket: tokens are bytes, and come at the rate. Compactions wait
//! until the bucket is not in debt; flushes, which writers wait for, may run up
//! a second's worth of it before they wait, too, so that they go first.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Result;
use crate::background::Signals;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    Flush,
    Compaction,
}

/// The bound, shared by all threads.
#[derive(Debug)]
pub(crate) struct RateLimit {
    bucket: Option<Mutex<Bucket>>,
    started: Instant,
}

impl RateLimit {
    /// No more than `bytes_per_s`, or no bound if that is 0.
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        let bucket = (bytes_per_s > 0).then(|| Mutex::new(Bucket::new(bytes_per_s)));
        Self { bucket, started: Instant::now() }
    }

    /// Counts `bytes` that were written and waits until more may be.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Closed`]: the engine stops.
    pub(crate) fn spend(&self, bytes: u64, urgency: Urgency, signals: &Signals) -> Result<()> {
        /// Whoever stops the engine does not wait for longer.
        const NAP: Duration = Duration::from_millis(20);
        signals.check()?;
        let Some(bucket) = &self.bucket else { return Ok(()) };
        bucket.lock().spend(bytes, self.now_us());
        loop {
            let wait = bucket.lock().wait_us(urgency, self.now_us());
            if wait == 0 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(wait).min(NAP));
            signals.check()?;
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[derive(Debug)]
struct Bucket {
    bytes_per_s: u64,
    /// When all that was spent so far will be paid for.
    paid_us: u64,
}

impl Bucket {
    /// What may be spent at once after a rest.
    const BURST_US: u64 = 100_000;
    /// How far flushes may run into debt.
    const FLUSH_DEBT_US: u64 = 1_000_000;

    fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s, paid_us: 0 }
    }

    fn spend(&mut self, bytes: u64, now_us: u64) {
        let us = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_s);
        let from = self.paid_us.max(now_us.saturating_sub(Self::BURST_US));
        self.paid_us = from.saturating_add(u64::try_from(us).unwrap_or(u64::MAX));
    }

    fn wait_us(&self, urgency: Urgency, now_us: u64) -> u64 {
        let debt_us = self.paid_us.saturating_sub(now_us);
        match urgency {
            Urgency::Compaction => debt_us,
            Urgency::Flush => debt_us.saturating_sub(Self::FLUSH_DEBT_US),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compactions_keep_to_the_rate_and_flushes_go_before() {
        let mut bucket = Bucket::new(1_000_000);
        let second = 1_000_000;
        bucket.spend(100_000, second);
        assert_eq!(bucket.wait_us(Urgency::Compaction, second), 0, "a burst after a rest");
        bucket.spend(500_000, second);
        assert_eq!(bucket.wait_us(Urgency::Compaction, second), 500_000);
        assert_eq!(bucket.wait_us(Urgency::Compaction, second + 400_000), 100_000);
        assert_eq!(bucket.wait_us(Urgency::Flush, second), 0);
        bucket.spend(1_000_000, second);
        assert_eq!(bucket.wait_us(Urgency::Flush, second), 500_000);
        bucket.spend(1, 60 * second);
        assert_eq!(bucket.wait_us(Urgency::Compaction, 60 * second), 0, "time pays");
    }

    #[test]
    fn without_a_bound_nobody_waits() {
        let signals = Signals::default();
        RateLimit::new(0).spend(u64::MAX, Urgency::Compaction, &signals).expect("nothing stops");
        signals.stop();
        assert!(RateLimit::new(0).spend(0, Urgency::Compaction, &signals).is_err());
    }
}
