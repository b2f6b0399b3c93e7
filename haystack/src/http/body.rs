//! The bytes of an upload, within bounds of time and size.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::Refusal;
use crate::options::HaystackOptions;
use http::StatusCode;

/// Bytes of a refused upload that are read and thrown away, at most.
const LINGER_BYTES_MAX: u64 = 256 << 20;
/// Time for that.
const LINGER_TIME_MAX: Duration = Duration::from_secs(20);

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Nothing came for too long.
    #[error("the body came too slowly")]
    Slow,
    /// The connection broke, or its framing did.
    #[error("the body broke off")]
    Broken,
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Slow => Self::new(StatusCode::REQUEST_TIMEOUT, "too_slow", error.to_string()),
            BodyError::Broken => Self::bad_request("broken_body", error.to_string()),
        }
    }
}

/// A request's body. If it is dropped before its end, what still comes is read
/// and thrown away for a while: a client that is still sending could not read
/// the answer if the connection were reset under it.
#[derive(Debug)]
pub struct UploadBody {
    /// None once the end, or an error, was seen.
    incoming: Option<Incoming>,
    content_length: Option<u64>,
    pace: Pace,
}

/// How fast a body has to come: a piece within `piece_timeout`, and all of them
/// at `rate_min` bytes a second after a start of `piece_timeout`. Time in which
/// nobody asked for the body does not count.
#[derive(Clone, Copy, Debug)]
struct Pace {
    piece_timeout: Duration,
    rate_min: u64,
    received_bytes: u64,
    waited: Duration,
}

impl Pace {
    /// Time left for the next piece.
    fn patience(&self) -> Duration {
        let earned = Duration::from_millis(self.received_bytes.saturating_mul(1000) / self.rate_min);
        (self.piece_timeout + earned).saturating_sub(self.waited).min(self.piece_timeout)
    }

    fn count(&mut self, bytes: usize, waited: Duration) {
        self.received_bytes += bytes as u64;
        self.waited += waited;
    }
}

impl UploadBody {
    /// `incoming`, timed as `options` say.
    pub fn new(incoming: Incoming, options: &HaystackOptions) -> Self {
        let pace = Pace {
            piece_timeout: options.body_timeout,
            rate_min: options.body_rate_min,
            received_bytes: 0,
            waited: Duration::ZERO,
        };
        Self { content_length: incoming.size_hint().exact(), incoming: Some(incoming), pace }
    }

    /// The body's whole length, if the client said it.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    ///
    /// See [`BodyError`]; the body has ended with it.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        let started = Instant::now();
        let deadline = started + self.pace.patience();
        while let Some(incoming) = &mut self.incoming {
            match timeout_at(deadline, incoming.frame()).await {
                Ok(Some(Ok(frame))) => {
                    // Trailers say nothing to us.
                    if let Ok(data) = frame.into_data() {
                        self.pace.count(data.len(), started.elapsed());
                        return Ok(Some(data));
                    }
                }
                Ok(None) => self.incoming = None,
                Ok(Some(Err(_))) => {
                    self.incoming = None;
                    return Err(BodyError::Broken);
                }
                Err(_) => {
                    self.incoming = None;
                    return Err(BodyError::Slow);
                }
            }
        }
        Ok(None)
    }
}

impl Drop for UploadBody {
    fn drop(&mut self) {
        let Some(mut incoming) = self.incoming.take() else { return };
        if incoming.is_end_stream() {
            return;
        }
        tokio::spawn(timeout(LINGER_TIME_MAX, async move {
            let mut left = LINGER_BYTES_MAX;
            while left > 0
                && let Some(Ok(frame)) = incoming.frame().await
            {
                left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_trickles_runs_out_of_patience_and_a_steady_one_does_not() {
        let fresh = Pace {
            piece_timeout: Duration::from_secs(30),
            rate_min: 4096,
            received_bytes: 0,
            waited: Duration::ZERO,
        };
        let mut trickle = fresh;
        for _ in 0..3 {
            assert!(trickle.patience() > Duration::from_secs(9));
            trickle.count(1, Duration::from_secs(10));
        }
        assert!(trickle.patience() < Duration::from_secs(1));
        let mut steady = fresh;
        for _ in 0..1000 {
            assert_eq!(steady.patience(), Duration::from_secs(30));
            steady.count(50_000, Duration::from_secs(10));
        }
    }
}
