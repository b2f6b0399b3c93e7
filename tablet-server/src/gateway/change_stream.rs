//! Reads the changes of one partition, wherever its tablet is.
//!
//! A partition is the rows of a tablet. While these are a tablet's, the stream
//! follows it from server to server; once they are not, because it was split or
//! merged, the stream closes and names the new partitions, with tokens that go
//! on where it has stopped. It waits by being told of new changes, and reads no
//! further ahead than its client takes them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use metrics::{Gauge, Histogram};
use row_api::data;
use tokio::time::Instant;
use tonic::Status;

use super::change_request::StreamRequest;
use super::locator::{Location, Place};
use super::router::{Attempts, Router};
use super::{change_messages, change_token};
use crate::catalog::Table;
use crate::changes::{ChangeBatch, TabletChanges};
use crate::clock::{self, Clock};
use crate::error::{Error, Result};
use crate::row_set::RowRange;
use crate::server::INLINE_STEP_BYTES;

/// Bytes of changes that are read at a time where there are many.
const STEP_BYTES: usize = 256 << 10;

/// One message, or what went wrong.
type Answer = std::result::Result<data::ReadChangeStreamResponse, Status>;

/// A stream, as the messages of its answer.
pub(super) struct ChangeStream {
    router: Arc<Router>,
    table: Arc<Table>,
    clock: Clock,
    request: StreamRequest,
    heartbeat_at: Instant,
    tablet: Option<(Arc<Location>, Box<dyn TabletChanges>)>,
    attempts: Attempts,
    /// The last step found nothing more.
    is_caught_up: bool,
    step_bytes: usize,
    ready: VecDeque<data::ReadChangeStreamResponse>,
    /// Nothing comes after what is ready.
    is_over: bool,
    meters: StreamMeters,
}

impl ChangeStream {
    /// A stream that has read as much as there is to be read at once: what is
    /// wrong from the start is the call's status, not its stream's.
    pub(super) async fn begin(
        router: Arc<Router>,
        table: Arc<Table>,
        clock: Clock,
        request: StreamRequest,
    ) -> Result<Self> {
        let mut stream = Self {
            router,
            table,
            clock,
            heartbeat_at: Instant::now() + request.heartbeat,
            request,
            tablet: None,
            attempts: Attempts::new(),
            is_caught_up: false,
            step_bytes: INLINE_STEP_BYTES,
            ready: VecDeque::new(),
            is_over: false,
            meters: StreamMeters::new(),
        };
        while !stream.try_step().await? {}
        Ok(stream)
    }

    /// The messages; dropping the stream ends it.
    pub(super) fn into_stream(self) -> impl Stream<Item = Answer> {
        stream::try_unfold(self, |mut stream| async move {
            while stream.ready.is_empty() && !stream.is_over {
                stream.try_step().await?;
            }
            Ok(stream.ready.pop_front().map(|message| (message, stream)))
        })
    }

    /// Takes a step; false where it is to be taken again.
    async fn try_step(&mut self) -> Result<bool> {
        let Err(error) = self.step().await else {
            self.attempts = Attempts::new();
            return Ok(true);
        };
        if let (Error::NotServed { .. }, Some((location, _))) = (&error, self.tablet.take()) {
            self.router.locator().forget(&location);
        }
        self.is_caught_up = false;
        self.attempts.pause(&self.router, &self.table, error).await?;
        Ok(false)
    }

    /// Waits until there may be something to tell, and reads on.
    async fn step(&mut self) -> Result<()> {
        if self.router.is_ending() {
            return Err(Error::Busy { what: "the server is stopping" });
        }
        let wake_at = self.wake_at();
        let (location, changes) = match &mut self.tablet {
            Some(tablet) => tablet,
            None => match self.open().await? {
                Some(opened) => self.tablet.insert(opened),
                None => return Ok(()),
            },
        };
        debug_assert_eq!(location.range, self.request.progress.rows());
        if self.is_caught_up {
            tokio::select! {
                () = changes.changed() => {}
                () = tokio::time::sleep_until(wake_at) => {}
                () = self.router.ending() => return Err(Error::Busy { what: "the server is stopping" }),
            }
        }
        let batch = changes.next_changes(&self.request.progress, self.step_bytes).await?;
        self.take(batch);
        Ok(())
    }

    /// When to look again though nothing was told: a heartbeat is due, or the end is over.
    fn wake_at(&self) -> Instant {
        let left_us =
            self.request.end_us.map(|end_us| end_us.saturating_add(1).saturating_sub(self.now_us()));
        match left_us {
            Some(left_us) if left_us > 0 => self
                .heartbeat_at
                .min(Instant::now() + Duration::from_micros(left_us).min(self.request.heartbeat)),
            _ => self.heartbeat_at,
        }
    }

    /// Opens the tablet that the partition is; none, and the stream is over, where it is one no more.
    async fn open(&mut self) -> Result<Option<(Arc<Location>, Box<dyn TabletChanges>)>> {
        let rows = self.request.progress.rows();
        let mut location = self.locate(&rows).await?;
        if location.range != rows {
            // What was remembered may be old.
            self.router.locator().forget(&location);
            location = self.locate(&rows).await?;
        }
        if location.range != rows {
            self.move_on(&rows).await?;
            return Ok(None);
        }
        match location.server.read_changes(location.tablet, &rows).await {
            Ok(changes) => Ok(Some((location, changes))),
            Err(error) => {
                if matches!(error, Error::NotServed { .. }) {
                    self.router.locator().forget(&location);
                }
                Err(error)
            }
        }
    }

    async fn locate(&self, rows: &RowRange) -> Result<Arc<Location>> {
        self.router.locator().locate(self.table.id, Place::At(&rows.start)).await
    }

    /// Ends the stream with the tablets that its rows are of now.
    async fn move_on(&mut self, rows: &RowRange) -> Result<()> {
        let progress = &self.request.progress;
        let mut parts = Vec::new();
        for partition in partitions(&self.router, &self.table, rows).await? {
            let Some(part) = progress.within(&partition) else { continue };
            parts.push((partition, part.rows(), change_token::encode(self.table.id, &part)));
        }
        self.close_with(change_messages::moved_on(parts));
        Ok(())
    }

    /// Makes messages of what was read.
    fn take(&mut self, batch: ChangeBatch) {
        let now_us = self.now_us();
        let end_us = self.request.end_us.unwrap_or(u64::MAX);
        self.step_bytes = if batch.is_all { INLINE_STEP_BYTES } else { STEP_BYTES };
        self.is_caught_up = batch.is_all;
        for change in batch.changes {
            let position = change.position;
            if position.commit_us > end_us {
                return self.close_with(change_messages::end());
            }
            self.meters.lag_seconds.record(Duration::from_micros(now_us.saturating_sub(position.commit_us)));
            self.request.progress.advance(position.next(), position.commit_us);
            self.ready.extend(change_messages::change_messages(change, self.token()));
        }
        self.request.progress.advance(batch.reached, batch.as_of_us);
        let as_of_us = self.request.progress.as_of_us();
        if as_of_us > end_us {
            self.close_with(change_messages::end());
        } else if Instant::now() >= self.heartbeat_at {
            self.heartbeat_at = Instant::now() + self.request.heartbeat;
            let rows = self.request.progress.rows();
            self.ready.push_back(change_messages::heartbeat(&rows, self.token(), as_of_us));
        }
    }

    fn close_with(&mut self, message: data::ReadChangeStreamResponse) {
        self.ready.push_back(message);
        self.is_over = true;
        self.tablet = None;
    }

    fn token(&self) -> String {
        change_token::encode(self.table.id, &self.request.progress)
    }

    fn now_us(&self) -> u64 {
        clock::unsigned((self.clock)())
    }
}

/// The partitions that hold `rows`, in order: the tablets of `table`, without a gap.
pub(super) async fn partitions(router: &Router, table: &Table, rows: &RowRange) -> Result<Vec<RowRange>> {
    let mut partitions = Vec::new();
    let mut next = rows.start.clone();
    loop {
        let place = Place::At(&next);
        let look = |location: Arc<Location>| async move { Ok(location.range.clone()) };
        let range = router.at_tablet(table, place, look).await?;
        next = range.end.clone();
        partitions.push(range);
        if next.is_empty() || (!rows.end.is_empty() && next >= rows.end) {
            return Ok(partitions);
        }
    }
}

/// Counts a stream while it is open.
struct StreamMeters {
    open: Gauge,
    /// From a change's commit to its reading.
    lag_seconds: Histogram,
}

impl StreamMeters {
    fn new() -> Self {
        let open = metrics::gauge!("hayloft_change_streams");
        open.increment(1.0);
        Self { open, lag_seconds: metrics::histogram!("hayloft_change_stream_lag_seconds") }
    }
}

impl Drop for StreamMeters {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}
