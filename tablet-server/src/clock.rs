//! The one place where tablets and gateways learn the time.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use crate::gc::Clock;

/// The machine's clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
    })
}

/// A time of the clock's without its sign, µs: there is none before 1970.
pub(crate) fn unsigned(us: i64) -> u64 {
    u64::try_from(us).unwrap_or_default()
}
