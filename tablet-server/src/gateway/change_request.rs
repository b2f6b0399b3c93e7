//! Checks a request for a change stream.

use std::time::Duration;

use row_api::data;
use row_api::data::read_change_stream_request::StartFrom;
use tonic::Status;

use super::change_token;
use crate::changes::{ChangeProgress, Segment};
use crate::limits;
use crate::row_set::RowRange;
use crate::schema::TableId;

/// Tokens that a stream can begin with: those of partitions that have become one.
const TOKEN_COUNT_MAX: usize = 1_000;

const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
const HEARTBEAT_MAX: Duration = Duration::from_secs(3600);

/// What a stream is asked for.
#[derive(Clone, Debug)]
pub(super) struct StreamRequest {
    /// How far the partition has been read.
    pub(super) progress: ChangeProgress,
    /// The last commit time to read, µs.
    pub(super) end_us: Option<u64>,
    /// Time between two heartbeats.
    pub(super) heartbeat: Duration,
}

impl StreamRequest {
    /// Checks `request`, which is for `table`, at the time `now_us`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT.
    pub(super) fn check(
        table: TableId,
        request: data::ReadChangeStreamRequest,
        now_us: u64,
    ) -> Result<Self, Status> {
        let rows = check_partition("partition", request.partition.as_ref())?;
        let progress = match request.start_from {
            None => ChangeProgress::new(vec![Segment::starting(rows, now_us)]),
            Some(StartFrom::StartTime(start)) => {
                let start_us = check_time("start_time", &start)?;
                if start_us > now_us {
                    return Err(limits::refuse("start_time", "is later than now"));
                }
                ChangeProgress::new(vec![Segment::starting(rows, start_us)])
            }
            Some(StartFrom::ContinuationTokens(tokens)) => Some(check_tokens(table, &rows, &tokens.tokens)?),
        };
        let end_us = request.end_time.as_ref().map(|end| check_time("end_time", end)).transpose()?;
        Ok(Self {
            progress: progress.ok_or_else(|| limits::refuse("partition", "holds no row"))?,
            end_us,
            heartbeat: check_heartbeat(request.heartbeat_duration)?,
        })
    }
}

fn check_partition(field: &str, partition: Option<&data::StreamPartition>) -> Result<RowRange, Status> {
    let range = partition.and_then(|partition| partition.row_range.as_ref());
    let range = range.ok_or_else(|| limits::refuse(format_args!("{field}.row_range"), "is missing"))?;
    RowRange::check(&format!("{field}.row_range"), range)
}

/// How far `tokens` are, whose rows together are to be `rows`.
fn check_tokens(
    table: TableId,
    rows: &RowRange,
    tokens: &[data::StreamContinuationToken],
) -> Result<ChangeProgress, Status> {
    limits::check_at_most("continuation_tokens.tokens", tokens.len(), TOKEN_COUNT_MAX, "tokens")?;
    let mut segments = Vec::new();
    for (place, token) in tokens.iter().enumerate() {
        let field = format!("continuation_tokens.tokens[{place}]");
        let partition = check_partition(&format!("{field}.partition"), token.partition.as_ref())?;
        let digits = token.token.len();
        limits::check_at_most(
            format_args!("{field}.token"),
            digits,
            change_token::TOKEN_DIGITS_MAX,
            "bytes",
        )?;
        let progress = change_token::decode(table, &token.token)
            .ok_or_else(|| limits::refuse(format_args!("{field}.token"), "is none of this table's"))?;
        if progress.rows() != partition {
            return Err(limits::refuse(format_args!("{field}.partition"), "is not that of the token"));
        }
        segments.extend_from_slice(progress.segments());
    }
    let progress = ChangeProgress::new(segments).filter(|progress| progress.rows() == *rows);
    progress.ok_or_else(|| {
        limits::refuse("continuation_tokens.tokens", "their partitions together are not the partition")
    })
}

/// A time in µs since 1970, cut to that.
fn check_time(field: &str, time: &prost_types::Timestamp) -> Result<u64, Status> {
    let bad = || limits::refuse(field, "must be a time from 1970 to 9999");
    let seconds = u64::try_from(time.seconds).ok().filter(|seconds| *seconds < 253_402_300_800);
    let nanos = u64::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    Ok(seconds.ok_or_else(bad)? * 1_000_000 + nanos.ok_or_else(bad)? / 1_000)
}

fn check_heartbeat(asked: Option<prost_types::Duration>) -> Result<Duration, Status> {
    let Some(asked) = asked else { return Ok(HEARTBEAT_DEFAULT) };
    let heartbeat = Duration::try_from(asked).ok();
    heartbeat.filter(|asked| (HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(asked)).ok_or_else(|| {
        let found = format!("{}.{:09} s", asked.seconds, asked.nanos);
        limits::refuse("heartbeat_duration", format_args!("{found}, must be 0.1 s to 1 hour"))
    })
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;
    use row_api::data::row_range::{EndKey, StartKey};
    use row_api::data::{ReadChangeStreamRequest, StreamContinuationToken, StreamContinuationTokens};
    use tonic::Code;

    use super::*;

    const TABLE: TableId = TableId(7);
    const NOW_US: u64 = 1_700_000_000_000_000;

    fn partition(start: &'static str, end: &'static str) -> Option<data::StreamPartition> {
        let start_key = Some(StartKey::StartKeyClosed(start.into()));
        let row_range = data::RowRange { start_key, end_key: Some(EndKey::EndKeyOpen(end.into())) };
        Some(data::StreamPartition { row_range: Some(row_range) })
    }

    fn token(table: TableId, start: &'static str, end: &'static str) -> StreamContinuationToken {
        let rows = RowRange { start: start.into(), end: end.into() };
        let progress = ChangeProgress::new(vec![Segment::starting(rows, 5)]).unwrap();
        StreamContinuationToken {
            partition: partition(start, end),
            token: change_token::encode(table, &progress),
        }
    }

    fn from_tokens(tokens: Vec<StreamContinuationToken>) -> ReadChangeStreamRequest {
        ReadChangeStreamRequest {
            partition: partition("a", "z"),
            start_from: Some(StartFrom::ContinuationTokens(StreamContinuationTokens { tokens })),
            ..ReadChangeStreamRequest::default()
        }
    }

    fn check(request: ReadChangeStreamRequest) -> Result<StreamRequest, Status> {
        StreamRequest::check(TABLE, request, NOW_US)
    }

    #[test]
    fn tokens_that_cover_the_partition_are_taken_in_any_order() {
        for tokens in [vec![token(TABLE, "a", "z")], vec![token(TABLE, "m", "z"), token(TABLE, "a", "m")]] {
            let request = check(from_tokens(tokens)).unwrap();
            assert_eq!(request.progress.rows(), RowRange { start: "a".into(), end: "z".into() });
            assert_eq!((request.progress.as_of_us(), request.heartbeat), (5, HEARTBEAT_DEFAULT));
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_by_its_field() {
        let damaged = StreamContinuationToken { token: "0123".to_owned(), ..token(TABLE, "a", "z") };
        let moved = StreamContinuationToken { partition: partition("a", "y"), ..token(TABLE, "a", "z") };
        let whole = || ReadChangeStreamRequest {
            partition: partition("a", "z"),
            ..ReadChangeStreamRequest::default()
        };
        let at = |seconds| Timestamp { seconds, nanos: 0 };
        let beat = |seconds| prost_types::Duration { seconds, nanos: 0 };
        for (request, field) in [
            (ReadChangeStreamRequest::default(), "partition.row_range: "),
            (ReadChangeStreamRequest { partition: partition("z", "a"), ..whole() }, "partition.row_range: "),
            (
                ReadChangeStreamRequest {
                    start_from: Some(StartFrom::StartTime(at(1_700_000_001))),
                    ..whole()
                },
                "start_time: ",
            ),
            (
                ReadChangeStreamRequest { start_from: Some(StartFrom::StartTime(at(-1))), ..whole() },
                "start_time: ",
            ),
            (ReadChangeStreamRequest { end_time: Some(at(i64::MAX)), ..whole() }, "end_time: "),
            (
                ReadChangeStreamRequest { heartbeat_duration: Some(beat(0)), ..whole() },
                "heartbeat_duration: ",
            ),
            (
                ReadChangeStreamRequest { heartbeat_duration: Some(beat(-1)), ..whole() },
                "heartbeat_duration: ",
            ),
            (from_tokens(vec![]), "continuation_tokens.tokens: "),
            (from_tokens(vec![token(TABLE, "a", "m")]), "continuation_tokens.tokens: "),
            (
                from_tokens(vec![token(TABLE, "a", "m"), token(TABLE, "n", "z")]),
                "continuation_tokens.tokens: ",
            ),
            (from_tokens(vec![token(TableId(8), "a", "z")]), "continuation_tokens.tokens[0].token: "),
            (from_tokens(vec![damaged]), "continuation_tokens.tokens[0].token: "),
            (from_tokens(vec![moved]), "continuation_tokens.tokens[0].partition: "),
        ] {
            let status = check(request.clone()).expect_err(field);
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            assert!(status.message().starts_with(field), "{field}: {status}");
        }
    }
}
