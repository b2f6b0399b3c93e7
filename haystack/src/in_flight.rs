//! Bytes that the doors hold in memory at once, over all requests.
//!
//! A body is not read before there is room for all of it, so uploads that hold
//! room never wait for each other; they wait in the order they came, for a
//! bounded time, while the clients' bytes stay in the clients. An answer
//! holds room until its last byte has gone to the connection, however slow the
//! reader is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::{Error, Result};

/// Room is counted in units of so many bytes.
const UNIT_BYTES: u64 = 1 << 10;
/// Answers below this are not counted: connections bound them.
const COUNTED_ANSWER_BYTES: usize = 256 << 10;

/// When whoever found no room is told to come again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Room in memory. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct InFlight {
    what: &'static str,
    units: Arc<Semaphore>,
    patience: Duration,
    gauge: Gauge,
}

/// Room that is taken until this is dropped.
#[derive(Debug)]
pub struct Room {
    _permit: OwnedSemaphorePermit,
    bytes: f64,
    gauge: Gauge,
}

impl Room {
    /// `data`, which holds this room until its last clone is dropped.
    pub fn hold(self, data: Bytes) -> Bytes {
        Bytes::from_owner(Held { data, _room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.gauge.decrement(self.bytes);
    }
}

impl InFlight {
    /// Room for `bytes_max` bytes of `what`: a word for messages and metrics.
    /// Whoever needs more than is free waits for at most `patience`.
    pub fn new(what: &'static str, bytes_max: u64, patience: Duration) -> Self {
        let units = usize::try_from(bytes_max / UNIT_BYTES).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let gauge = metrics::gauge!("hayloft_haystack_bytes_in_flight", "what" => what);
        Self { what, units: Arc::new(Semaphore::new(units)), patience, gauge }
    }

    /// Waits for room for `bytes`.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has taken nothing and loses its place.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`]: there was none in time.
    pub async fn room_for(&self, bytes: u64) -> Result<Room> {
        let units = units_of(bytes);
        let permit = timeout(self.patience, Arc::clone(&self.units).acquire_many_owned(units)).await;
        match permit {
            Ok(Ok(permit)) => Ok(self.taken(permit, bytes)),
            _ => Err(self.busy()),
        }
    }

    /// `data`, which holds room until its last clone is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`]: there is none.
    pub fn hold(&self, data: Bytes) -> Result<Bytes> {
        if data.len() < COUNTED_ANSWER_BYTES {
            return Ok(data);
        }
        let bytes = data.len() as u64;
        let permit =
            Arc::clone(&self.units).try_acquire_many_owned(units_of(bytes)).map_err(|_| self.busy())?;
        Ok(self.taken(permit, bytes).hold(data))
    }

    fn taken(&self, permit: OwnedSemaphorePermit, bytes: u64) -> Room {
        // Good to 2^53.
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
        let bytes = bytes as f64;
        self.gauge.increment(bytes);
        Room { _permit: permit, bytes, gauge: self.gauge.clone() }
    }

    fn busy(&self) -> Error {
        Error::Busy { what: self.what, retry_after: RETRY_AFTER }
    }
}

fn units_of(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).max(1)
}

/// Bytes, and the room that they take.
struct Held {
    data: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_no_room_waits_and_is_then_turned_away() {
        let in_flight = InFlight::new("uploads", 1 << 20, Duration::from_millis(1));
        let all = in_flight.room_for(1 << 20).await.unwrap();
        assert!(matches!(in_flight.room_for(1).await, Err(Error::Busy { what: "uploads", .. })));
        drop(all);
        in_flight.room_for(1 << 20).await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_holds_room_until_its_last_byte_is_gone() {
        let in_flight = InFlight::new("answers", 1 << 20, Duration::ZERO);
        let held = in_flight.hold(Bytes::from(vec![7; 1 << 20])).unwrap();
        let end = held.slice(1000..);
        drop(held);
        assert!(in_flight.hold(Bytes::from(vec![7; 1 << 20])).is_err());
        assert!(in_flight.hold(Bytes::from(vec![7; 1 << 10])).is_ok());
        drop(end);
        assert!(in_flight.hold(Bytes::from(vec![7; 1 << 20])).is_ok());
    }
}
