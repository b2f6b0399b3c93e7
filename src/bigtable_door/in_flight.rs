//! Bounds the bytes of request bodies that the Bigtable door holds, over all its connections.
//!
//! A request may be 257 MiB long and thousands may arrive at once, so each frame
//! of a body is charged before anybody keeps it, and a call's charge stands until
//! its answer has been sent or given up. A frame past the bound ends its call,
//! which has changed nothing by then:
//!
//! - with UNAVAILABLE where other calls hold the room. They end, so trying again
//!   helps, and the status says when ([`retry`]).
//! - with RESOURCE_EXHAUSTED where the call alone is larger than the bound, for
//!   trying again never helps.
//!
//! Not counted is what HTTP/2's windows let a peer send before it is read, which
//! the door bounds for each connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytesize::ByteSize;
use row_api::retry;
use tonic::{Code, Status};

/// The bytes of all bodies in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    bytes: AtomicU64,
    bytes_max: u64,
}

impl InFlight {
    /// Room for `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes: AtomicU64::new(0), bytes_max }
    }

    /// Begins a call, which holds nothing yet.
    pub(super) fn begin(self: &Arc<Self>) -> Charge {
        Charge { in_flight: Arc::clone(self), bytes: AtomicU64::new(0) }
    }

    /// Bytes held now.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

/// What one call holds; given back with its drop.
#[derive(Debug)]
pub(super) struct Charge {
    in_flight: Arc<InFlight>,
    bytes: AtomicU64,
}

impl Charge {
    /// Charges `bytes` more.
    ///
    /// # Errors
    ///
    /// UNAVAILABLE, RESOURCE_EXHAUSTED: they are not held.
    pub(super) fn add(&self, bytes: u64) -> Result<(), Status> {
        let bytes_max = self.in_flight.bytes_max;
        let fits = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        if self.in_flight.bytes.fetch_update(Relaxed, Relaxed, fits).is_ok() {
            self.bytes.fetch_add(bytes, Relaxed);
            return Ok(());
        }
        let limit = format!("bigtable.in_flight_max ({})", ByteSize(bytes_max).display().iec());
        let status = if fits(self.bytes.load(Relaxed)).is_none() {
            Status::resource_exhausted(format!("the request is larger than {limit}"))
        } else {
            retry::unavailable(format!("the requests under way have reached {limit}, try again"))
        };
        let code = if status.code() == Code::Unavailable { "Unavailable" } else { "ResourceExhausted" };
        metrics::counter!("hayloft_bigtable_requests_refused_total", "code" => code).increment(1);
        Err(status)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.in_flight.bytes.fetch_sub(*self.bytes.get_mut(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_hold_is_worth_another_try_and_what_never_fits_is_not() {
        let in_flight = Arc::new(InFlight::new(2 << 20));
        let (large, small) = (in_flight.begin(), in_flight.begin());
        large.add(2 << 20).unwrap();
        let status = small.add(1).unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(
            status.message(),
            "the requests under way have reached bigtable.in_flight_max (2.0 MiB), try again"
        );
        assert_eq!(retry::delay_of(&status), Some(retry::SOON));
        let status = large.add(1).unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(retry::delay_of(&status), None);
        assert_eq!(status.message(), "the request is larger than bigtable.in_flight_max (2.0 MiB)");
        assert_eq!(small.add(u64::MAX).unwrap_err().code(), Code::ResourceExhausted);
        // What was refused is not held.
        drop(large);
        assert_eq!(in_flight.bytes(), 0);
        small.add(2 << 20).unwrap();
    }
}
