//! One partition's stream of changes, read from token to token.
//!
//! Invariant: the token that is known stands behind changes all of which have
//! been evicted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use row_api::data::read_change_stream_request::StartFrom;
use row_api::data::read_change_stream_response::{CloseStream, DataChange, StreamRecord};
use row_api::data::{
    ReadChangeStreamRequest, StreamContinuationToken, StreamContinuationTokens, StreamPartition,
};
use tonic::{Code, Status};

use super::change::ChangeReader;
use super::handover::{Part, Rows};
use super::positions::StreamPosition;
use super::table_state::TableState;
use crate::origins::Origins;

/// Time between two messages where nothing changes.
const HEARTBEAT: Duration = Duration::from_millis(200);

/// A stream that says nothing for so long is broken.
const SILENCE_MAX: Duration = Duration::from_secs(3);

const RETRY_DELAY_MIN: Duration = Duration::from_millis(20);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(1);

/// How a stream ended that did not break.
pub(super) enum Ending {
    /// Other partitions go on.
    Closed(Vec<Part>),
    /// Where it was cannot be gone on from.
    Lost(Status),
}

/// One partition's stream.
pub(super) struct Stream {
    pub(super) origins: Arc<Origins>,
    pub(super) table: Arc<TableState>,
    /// Its number among the streams of the table.
    pub(super) number: u64,
    pub(super) rows: Rows,
    /// Where it goes on; none before it has told anything.
    tokens: Mutex<Vec<StreamContinuationToken>>,
    is_open: AtomicBool,
}

impl Stream {
    /// A stream that goes on from `position`, or now if that has no tokens.
    pub(super) fn new(
        origins: &Arc<Origins>,
        table: &Arc<TableState>,
        number: u64,
        position: StreamPosition,
    ) -> Self {
        Self {
            origins: Arc::clone(origins),
            table: Arc::clone(table),
            number,
            rows: Rows { start: position.start, end: position.end },
            tokens: Mutex::new(position.tokens),
            is_open: AtomicBool::new(false),
        }
    }

    /// Whether it has told anything yet.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Where it goes on, if that is known.
    pub(super) fn position(&self) -> Option<StreamPosition> {
        let Rows { start, end } = self.rows.clone();
        let tokens = self.tokens.lock().clone();
        (!tokens.is_empty()).then_some(StreamPosition { start, end, tokens })
    }

    /// Follows the partition to its end, however often the stream breaks.
    pub(super) async fn follow(self: Arc<Self>) -> (Arc<Self>, Ending) {
        let mut delay = RETRY_DELAY_MIN;
        loop {
            let known = self.tokens.lock().clone();
            match self.read().await {
                Ok(parts) => return (self, Ending::Closed(parts)),
                Err(status) if is_final(&status) || self.tokens.lock().is_empty() => {
                    return (self, Ending::Lost(status));
                }
                Err(status) => tracing::debug!(table = %self.table.name, %status, "a stream broke"),
            }
            let has_advanced = *self.tokens.lock() != known;
            delay = if has_advanced { RETRY_DELAY_MIN } else { (delay * 2).min(RETRY_DELAY_MAX) };
            tokio::time::sleep(delay).await;
        }
    }

    async fn read(&self) -> Result<Vec<Part>, Status> {
        let tokens = self.tokens.lock().clone();
        let start_from = (!tokens.is_empty())
            .then_some(StartFrom::ContinuationTokens(StreamContinuationTokens { tokens }));
        let heartbeat = prost_types::Duration::try_from(HEARTBEAT).expect("it is short");
        let request = ReadChangeStreamRequest {
            table_name: self.table.name.to_string(),
            partition: Some(self.rows.to_partition()),
            heartbeat_duration: Some(heartbeat),
            start_from,
            ..ReadChangeStreamRequest::default()
        };
        let silent = |_| Status::deadline_exceeded("the stream says nothing");
        let mut client = self.origins.client.data();
        let opening = tokio::time::timeout(SILENCE_MAX, client.read_change_stream(request));
        let mut stream = opening.await.map_err(silent)??.into_inner();
        let mut open_change: Option<(Vec<u8>, ChangeReader)> = None;
        loop {
            let message = tokio::time::timeout(SILENCE_MAX, stream.message()).await.map_err(silent)??;
            let message = message.ok_or_else(|| Status::unavailable("the stream ended"))?;
            match message.stream_record {
                Some(StreamRecord::DataChange(change)) => self.take_change(&mut open_change, change)?,
                Some(StreamRecord::Heartbeat(heartbeat)) => {
                    if let Some(token) = heartbeat.continuation_token {
                        self.advance(token, heartbeat.estimated_low_watermark);
                    }
                }
                Some(StreamRecord::CloseStream(close)) => return self.parts(close),
                None => {}
            }
        }
    }

    /// Takes a message of a change, and evicts what it touches with the last one.
    fn take_change(
        &self,
        open: &mut Option<(Vec<u8>, ChangeReader)>,
        change: DataChange,
    ) -> Result<(), Status> {
        let mut taken = match open.take() {
            Some(taken) if change.row_key.is_empty() => taken,
            Some(_) => return Err(Status::data_loss("a change began within another")),
            None => (change.row_key.to_vec(), ChangeReader::new(&change.row_key)),
        };
        for chunk in &change.chunks {
            taken.1.push(chunk);
        }
        if !change.done {
            *open = Some(taken);
            return Ok(());
        }
        let (row, reader) = taken;
        let (touched, number) = reader.finish();
        let is_own = self.table.take_own(number);
        if !is_own {
            self.origins.invalidate(&self.table, &row, &touched);
        }
        let origin = if is_own { "own" } else { "other" };
        metrics::counter!("hayloft_cache_changes_total", "by" => origin).increment(1);
        if let Some(commit) = change.commit_timestamp {
            let lag_us = self.origins.clock.now_us().saturating_sub(to_us(commit));
            metrics::histogram!("hayloft_cache_invalidation_seconds").record(Duration::from_micros(lag_us));
        }
        let token =
            StreamContinuationToken { partition: Some(self.rows.to_partition()), token: change.token };
        self.advance(token, change.estimated_low_watermark);
        Ok(())
    }

    fn advance(&self, token: StreamContinuationToken, watermark: Option<prost_types::Timestamp>) {
        *self.tokens.lock() = vec![token];
        if let Some(watermark) = watermark {
            self.table.set_watermark(self.number, to_us(watermark));
        }
        self.is_open.store(true, Ordering::Release);
    }

    /// What the stream says goes on in its place.
    fn parts(&self, close: CloseStream) -> Result<Vec<Part>, Status> {
        let status = close.status.unwrap_or_default();
        let parts: Vec<Part> = close
            .continuation_tokens
            .into_iter()
            .enumerate()
            .filter_map(|(place, token)| {
                // Google's service leaves the partitions out where they are those of the tokens.
                let named: Option<&StreamPartition> = close.new_partitions.get(place);
                let partition = Rows::of(named.or(token.partition.as_ref())?)?;
                Some(Part { partition, token, of_stream: self.number })
            })
            .collect();
        if parts.is_empty() {
            let message = format!("the stream was closed: {}", status.message);
            return Err(Status::new(Code::from(status.code.max(1)), message));
        }
        Ok(parts)
    }
}

/// Whether asking again with the same tokens would be in vain.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::NotFound
            | Code::OutOfRange
            | Code::FailedPrecondition
            | Code::InvalidArgument
            | Code::Unimplemented
            | Code::PermissionDenied
            | Code::Unauthenticated
    )
}

fn to_us(time: prost_types::Timestamp) -> u64 {
    let nanos = u64::try_from(time.nanos).unwrap_or(0);
    u64::try_from(time.seconds).unwrap_or(0).saturating_mul(1_000_000).saturating_add(nanos / 1_000)
}
