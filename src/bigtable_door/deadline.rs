//! A call's deadline, which its client sends as `grpc-timeout`.
//!
//! When it has passed, the call is dropped wherever it waits, with what it held,
//! and answered DEADLINE_EXCEEDED. So
//!
//! - a write that is not in the commit log by then never gets there: the clock is
//!   looked at before the call goes on, not after;
//! - a write that is in the log stays what it is, though its client is told
//!   DEADLINE_EXCEEDED: it may have been applied;
//! - a scan ends at its next step, its status in the trailers.
//!
//! A call that is answered without a wait costs one look at the clock and no timer.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Digits of a timeout (gRPC over HTTP/2, `TimeoutValue`).
const DIGITS_MAX: usize = 8;

/// When the call with these headers has to be answered, if its client says.
///
/// # Errors
///
/// INTERNAL where the header is no timeout, as gRPC has it for malformed headers.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Instant>, Status> {
    let Some(timeout) = headers.get(GRPC_TIMEOUT) else { return Ok(None) };
    let malformed = || Status::internal(format!("grpc-timeout: {timeout:?} is no timeout"));
    let timeout = parse(timeout.as_bytes()).ok_or_else(malformed)?;
    // One that lies beyond what the clock can tell is none.
    Ok(Instant::now().checked_add(timeout))
}

fn parse(timeout: &[u8]) -> Option<Duration> {
    let (unit, digits) = timeout.split_last()?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(value * 3600),
        b'M' => Duration::from_secs(value * 60),
        b'S' => Duration::from_secs(value),
        b'm' => Duration::from_millis(value),
        b'u' => Duration::from_micros(value),
        b'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

/// What a client is told whose deadline has passed.
pub(super) fn exceeded() -> Status {
    metrics::counter!("hayloft_bigtable_deadlines_exceeded_total").increment(1);
    Status::deadline_exceeded("the request's deadline passed before its answer was there")
}

/// What `call` gives; none where `deadline` passes before, and the call is dropped.
pub(super) async fn within<T>(deadline: Option<Instant>, call: impl Future<Output = T>) -> Option<T> {
    let Some(deadline) = deadline else { return Some(call.await) };
    let (mut call, mut alarm) = (pin!(call), Alarm::default());
    poll_fn(|context| {
        if Instant::now() >= deadline {
            return Poll::Ready(None);
        }
        match call.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => alarm.poll(deadline, context).map(|()| None),
        }
    })
    .await
}

/// A timer that is made when somebody first waits for it.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready from `at` on, which may change from one call to the next.
    pub(super) fn poll(&mut self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use http::HeaderValue;
    use tonic::Code;

    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        for (text, expect) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("20S", Some(Duration::from_secs(20))),
            ("19999m", Some(Duration::from_millis(19_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("00000000n", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("999999999n", None),
            ("m", None),
            ("", None),
            ("5", None),
            ("-5m", None),
            ("+5m", None),
            ("5 m", None),
            ("5s", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expect, "{text:?}");
        }
    }

    #[test]
    fn a_malformed_timeout_is_refused_and_none_is_no_deadline() {
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers).unwrap(), None);
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static("soon"));
        let status = of(&headers).unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::Internal, "grpc-timeout: \"soon\" is no timeout")
        );
    }

    #[tokio::test]
    async fn a_call_is_dropped_when_its_deadline_passes() {
        let (held, mut dropped) = tokio::sync::oneshot::channel::<()>();
        let deadline = Instant::now() + Duration::from_millis(5);
        let call = async move {
            let _held = held;
            pending::<()>().await;
        };
        assert_eq!(within(Some(deadline), call).await, None);
        assert!(Instant::now() >= deadline);
        assert!(dropped.try_recv().is_err(), "what it held is gone");
        assert_eq!(within(None, ready(1)).await, Some(1));
        assert_eq!(within(Some(Instant::now() + Duration::from_secs(60)), ready(1)).await, Some(1));
    }

    #[tokio::test]
    async fn a_call_that_could_go_on_does_not_once_its_deadline_has_passed() {
        let deadline = Instant::now() + Duration::from_millis(5);
        let mut poll_count = 0;
        let call = poll_fn(|context| {
            poll_count += 1;
            while Instant::now() < deadline {}
            context.waker().wake_by_ref();
            if poll_count == 1 { Poll::Pending } else { Poll::Ready(()) }
        });
        assert_eq!(within(Some(deadline), call).await, None);
        assert_eq!(poll_count, 1);
        assert_eq!(within(Some(deadline), ready(1)).await, None, "nor does one begin");
    }
}
