//! How fast background work goes, and how it is told to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

/// Shorter waits are put together.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// Tells long work to stop. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    inner: Arc<(Mutex<bool>, Condvar)>,
}

impl Stop {
    /// Ends every wait, those to come too.
    pub fn begin(&self) {
        let (begun, changed) = &*self.inner;
        *begun.lock() = true;
        changed.notify_all();
    }

    /// Whether work is to stop.
    pub fn has_begun(&self) -> bool {
        *self.inner.0.lock()
    }

    /// Waits for `time`, or until work is to stop; whether it is.
    pub fn wait(&self, time: Duration) -> bool {
        let (begun, changed) = &*self.inner;
        let mut begun = begun.lock();
        let end = Instant::now() + time;
        while !*begun && !changed.wait_until(&mut begun, end).timed_out() {}
        *begun
    }
}

/// Keeps work to so many bytes a second.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    stop: Stop,
    /// When what was spent so far is paid for.
    due: Instant,
}

impl Pace {
    /// At most `bytes_per_second`, or as fast as can be if that is 0, until `stop`.
    pub fn new(bytes_per_second: u64, stop: Stop) -> Self {
        Self { bytes_per_second, stop, due: Instant::now() }
    }

    /// Waits until `bytes` more may be read or written.
    ///
    /// # Errors
    ///
    /// [`Error::Closing`]: work is to stop.
    pub fn spend(&mut self, bytes: u64) -> Result<()> {
        let now = Instant::now();
        let nanos = bytes.saturating_mul(1_000_000_000).checked_div(self.bytes_per_second).unwrap_or(0);
        self.due = self.due.max(now) + Duration::from_nanos(nanos);
        let early = self.due - now;
        let is_over = if early < WAIT_MIN { self.stop.has_begun() } else { self.stop.wait(early) };
        if is_over { Err(Error::Closing) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_and_a_stop_ends_the_wait() {
        let stop = Stop::default();
        let begun = Instant::now();
        let mut pace = Pace::new(1 << 20, stop.clone());
        assert!((0..4).all(|_| pace.spend(16 << 10).is_ok()));
        assert!(begun.elapsed() >= Duration::from_millis(50));
        let mut unlimited = Pace::new(0, stop.clone());
        assert!(unlimited.spend(u64::MAX).is_ok());
        stop.begin();
        assert!(matches!(pace.spend(1 << 40), Err(Error::Closing)));
        assert!(matches!(unlimited.spend(1), Err(Error::Closing)));
    }
}
