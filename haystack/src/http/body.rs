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
    piece_timeout: Duration,
    deadline: Instant,
}

impl UploadBody {
    /// `incoming`, timed as `options` say, from now on.
    pub fn new(incoming: Incoming, options: &HaystackOptions) -> Self {
        Self {
            content_length: incoming.size_hint().exact(),
            incoming: Some(incoming),
            piece_timeout: options.body_timeout,
            deadline: Instant::now() + options.upload_timeout,
        }
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
        let deadline = self.deadline.min(Instant::now() + self.piece_timeout);
        while let Some(incoming) = &mut self.incoming {
            match timeout_at(deadline, incoming.frame()).await {
                Ok(Some(Ok(frame))) => {
                    // Trailers say nothing to us.
                    if let Ok(data) = frame.into_data() {
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
