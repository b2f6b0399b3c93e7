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
