//! A call under way, and the bounds on how long a peer may keep it waiting.
//!
//! A request's body has to keep coming, and its answer has to be taken; a peer
//! that does neither would hold permits, snapshots and memory for nothing.
//!
//! - A body that comes slower than [`Patience::body`] allows ends its call with
//!   DEADLINE_EXCEEDED. Nothing of it has been looked at by then.
//! - An answer that waits for its peer longer than [`Patience::answer`], or past
//!   the call's deadline, is dropped with the scan behind it, and its stream reset.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tonic::Status;
use tonic::codegen::StdError;

use super::deadline::{self, Alarm};
use super::in_flight::Charge;
use super::row_calls::{Answer, trailers};

/// A body that comes this fast is never cut off.
const BODY_BYTES_PER_SECOND: u64 = 64 << 10;

/// How long peers are waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the first bytes of a connection.
    pub(super) preface: Duration,
    /// For the body of a request, beside a second for each 64 KiB of it that have come.
    pub(super) body: Duration,
    /// For a peer to take the next part of an answer. Clients give up a scan that
    /// is idle for 5 minutes themselves (the Java client's idle timeout).
    pub(super) answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            preface: Duration::from_secs(10),
            body: Duration::from_secs(30),
            answer: Duration::from_secs(300),
        }
    }
}

/// What the parts of a call share.
#[derive(Debug)]
pub(super) struct Call {
    charge: Charge,
    patience: Patience,
    deadline: Option<Instant>,
    /// Frames of the answer that were handed to the connection.
    frame_count: AtomicU64,
    /// Whether the last of them still waits there until the peer has room.
    is_sending: AtomicBool,
}

impl Call {
    /// A call that nothing has come of yet.
    pub(super) fn new(charge: Charge, patience: Patience, deadline: Option<Instant>) -> Self {
        let (frame_count, is_sending) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { charge, patience, deadline, frame_count, is_sending }
    }
}

/// A request's body, charged as it arrives.
pub(super) struct RequestBody<B> {
    body: B,
    call: Arc<Call>,
    bytes: u64,
    /// Since when it is waited for.
    waiting_since: Option<Instant>,
    alarm: Alarm,
}

impl<B> RequestBody<B> {
    pub(super) fn new(body: B, call: Arc<Call>) -> Self {
        Self { body, call, bytes: 0, waiting_since: None, alarm: Alarm::default() }
    }

    /// Ready once the peer has used up its time.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<StdError> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let time = self.call.patience.body + Duration::from_secs(self.bytes / BODY_BYTES_PER_SECOND);
        ready!(self.alarm.poll(since + time, context));
        let (bytes, seconds) = (self.bytes, since.elapsed().as_secs_f32());
        let why =
            format!("the request's body: {bytes} bytes of it came in {seconds:.1} s, which is too slow");
        Poll::Ready(Status::deadline_exceeded(why).into())
    }
}

impl<B: Body<Data = Bytes, Error: Into<StdError>> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.bytes += bytes;
                let charged = self.call.charge.add(bytes);
                Poll::Ready(Some(charged.map(|()| frame).map_err(Into::into)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.poll_late(context).map(|late| Some(Err(late))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, with which the call ends.
pub(super) struct AnswerBody {
    /// Gone once the deadline has passed.
    body: Answer,
    call: Arc<Call>,
    /// The call's deadline, where the body is made as it is taken.
    deadline: Option<Instant>,
    alarm: Alarm,
}

impl AnswerBody {
    pub(super) fn new(body: Answer, call: Arc<Call>) -> Self {
        let deadline = call.deadline.filter(|_| body.is_made_meanwhile());
        Self { body, call, deadline, alarm: Alarm::default() }
    }

    /// The next frame; none for it once the deadline has passed.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<NextFrame>> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Poll::Ready(None);
        }
        match (Pin::new(&mut self.body).poll_frame(context), self.deadline) {
            (Poll::Ready(frame), _) => Poll::Ready(Some(frame)),
            (Poll::Pending, Some(deadline)) => self.alarm.poll(deadline, context).map(|()| None),
            (Poll::Pending, None) => Poll::Pending,
        }
    }
}

/// What a body gives.
type NextFrame = Option<Result<Frame<Bytes>, Status>>;

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<NextFrame> {
        // Whoever asks for a frame has sent the one before.
        self.call.is_sending.store(false, Relaxed);
        let Some(frame) = ready!(self.poll_body(context)) else {
            (self.body, self.deadline) = (Answer::End, None);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&deadline::exceeded())))));
        };
        if matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            self.call.frame_count.fetch_add(1, Relaxed);
            self.call.is_sending.store(true, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The task of a call, which ends where its peer does not take the answer.
/// Dropping what is left of it resets the stream.
pub(super) struct Watched<F> {
    task: Pin<Box<F>>,
    call: Arc<Call>,
    /// The frame that waits to be taken, by its number, and until when it may.
    stuck: Option<(u64, Instant)>,
    alarm: Alarm,
}

impl<F> Watched<F> {
    pub(super) fn new(task: Pin<Box<F>>, call: Arc<Call>) -> Self {
        Self { task, call, stuck: None, alarm: Alarm::default() }
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.task.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        if !this.call.is_sending.load(Relaxed) {
            return Poll::Pending;
        }
        let frame = this.call.frame_count.load(Relaxed);
        let until = match this.stuck {
            Some((stuck, until)) if stuck == frame => until,
            _ => {
                let until = Instant::now() + this.call.patience.answer;
                this.call.deadline.map_or(until, |deadline| deadline.min(until))
            }
        };
        this.stuck = Some((frame, until));
        ready!(this.alarm.poll(until, context));
        metrics::counter!("hayloft_bigtable_answers_given_up_total").increment(1);
        Poll::Ready(())
    }
}
