//! What a change stream tells its client: changes in messages of bounded size,
//! heartbeats, and its end.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message;
use row_api::data;
use row_api::data::mutation::{Mutation, SetCell};
use row_api::data::read_change_stream_response::mutation_chunk::ChunkInfo;
use row_api::data::read_change_stream_response::{
    CloseStream, DataChange, Heartbeat, MutationChunk, StreamRecord, data_change,
};
use row_api::data::row_range::{EndKey, StartKey};
use row_api::rpc;
use tonic::Code;

use crate::changes::Change;
use crate::row_set::RowRange;

/// Bytes of mutations in one message, about; a longer value goes on in the next.
const MESSAGE_BYTES: usize = 1 << 20;

/// Every cluster of an instance is this one.
const SOURCE_CLUSTER_ID: &str = "hayloft";

/// `change` as messages: one, or several where it is large. `token` is that of what follows it.
pub(super) fn change_messages(change: Change, token: String) -> Vec<data::ReadChangeStreamResponse> {
    let mut parts = split(change.mutations);
    let last = parts.pop().unwrap_or_default();
    let commit_timestamp = Some(timestamp(change.position.commit_us));
    let first = DataChange {
        r#type: data_change::Type::User.into(),
        source_cluster_id: SOURCE_CLUSTER_ID.to_owned(),
        row_key: change.row_key,
        commit_timestamp,
        ..DataChange::default()
    };
    let mut heads = std::iter::once(first).chain(std::iter::repeat_with(|| DataChange {
        r#type: data_change::Type::Continuation.into(),
        ..DataChange::default()
    }));
    let mut messages = Vec::with_capacity(parts.len() + 1);
    for (chunks, head) in parts.into_iter().zip(&mut heads) {
        messages.push(response(StreamRecord::DataChange(DataChange { chunks, ..head })));
    }
    let head = heads.next().unwrap_or_default();
    let last =
        DataChange { chunks: last, done: true, token, estimated_low_watermark: commit_timestamp, ..head };
    messages.push(response(StreamRecord::DataChange(last)));
    messages
}

/// Tells that nothing that was committed before `as_of_us` is to come.
pub(super) fn heartbeat(rows: &RowRange, token: String, as_of_us: u64) -> data::ReadChangeStreamResponse {
    response(StreamRecord::Heartbeat(Heartbeat {
        continuation_token: Some(continuation(rows, token)),
        estimated_low_watermark: Some(timestamp(as_of_us)),
    }))
}

/// Tells that the stream has reached the end that was asked for.
pub(super) fn end() -> data::ReadChangeStreamResponse {
    let status = Some(rpc::Status::default());
    response(StreamRecord::CloseStream(CloseStream { status, ..CloseStream::default() }))
}

/// Tells where to read on: for each new partition, the rows of the old one in it and their token.
pub(super) fn moved_on(parts: Vec<(RowRange, RowRange, String)>) -> data::ReadChangeStreamResponse {
    let message = "the partition has become others: read them on from the tokens".to_owned();
    let mut close = CloseStream {
        status: Some(rpc::Status { code: Code::OutOfRange.into(), message, details: Vec::new() }),
        ..CloseStream::default()
    };
    for (partition, rows, token) in parts {
        close.new_partitions.push(stream_partition(&partition));
        close.continuation_tokens.push(continuation(&rows, token));
    }
    response(StreamRecord::CloseStream(close))
}

/// `rows` as a partition.
pub(super) fn stream_partition(rows: &RowRange) -> data::StreamPartition {
    data::StreamPartition {
        row_range: Some(data::RowRange {
            start_key: Some(StartKey::StartKeyClosed(rows.start.clone())),
            end_key: Some(EndKey::EndKeyOpen(rows.end.clone())),
        }),
    }
}

fn continuation(rows: &RowRange, token: String) -> data::StreamContinuationToken {
    data::StreamContinuationToken { partition: Some(stream_partition(rows)), token }
}

fn timestamp(us: u64) -> prost_types::Timestamp {
    (SystemTime::UNIX_EPOCH + Duration::from_micros(us)).into()
}

fn response(record: StreamRecord) -> data::ReadChangeStreamResponse {
    data::ReadChangeStreamResponse { stream_record: Some(record) }
}

/// The mutations in order, in parts of about [`MESSAGE_BYTES`], values parted where they are longer.
fn split(mutations: Vec<data::Mutation>) -> Vec<Vec<MutationChunk>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut room = MESSAGE_BYTES;
    for mutation in mutations {
        for chunk in pieces(mutation) {
            let bytes = chunk.encoded_len();
            if bytes > room && !part.is_empty() {
                parts.push(std::mem::take(&mut part));
                room = MESSAGE_BYTES;
            }
            room = room.saturating_sub(bytes);
            part.push(chunk);
        }
    }
    parts.push(part);
    parts
}

/// The mutation, or the pieces of one whose value is long.
fn pieces(mutation: data::Mutation) -> Vec<MutationChunk> {
    let whole = match mutation.mutation {
        Some(Mutation::SetCell(set)) if set.value.len() > MESSAGE_BYTES => return value_pieces(set),
        _ => mutation,
    };
    vec![MutationChunk { chunk_info: None, mutation: Some(whole.into()) }]
}

fn value_pieces(set: SetCell) -> Vec<MutationChunk> {
    let value: Bytes = set.value.clone();
    let size = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    let mut head = Some(SetCell { value: Bytes::new(), ..set });
    let offsets = (0..value.len()).step_by(MESSAGE_BYTES);
    let piece = |offset: usize| {
        let end = value.len().min(offset + MESSAGE_BYTES);
        // The first piece has the column and the timestamp, the others only more of the value.
        let set = SetCell { value: value.slice(offset..end), ..head.take().unwrap_or_default() };
        let chunk_info = ChunkInfo {
            chunked_value_size: size(value.len()),
            chunked_value_offset: size(offset),
            last_chunk: end == value.len(),
        };
        let mutation = data::Mutation::from(Mutation::SetCell(set));
        MutationChunk { chunk_info: Some(chunk_info), mutation: Some(mutation.into()) }
    };
    offsets.map(piece).collect()
}

#[cfg(test)]
mod tests {
    use row_api::data::mutation::DeleteFromRow;

    use super::*;
    use crate::changes::ChangePosition;

    fn set(bytes: usize) -> data::Mutation {
        let value = vec![b'v'; bytes].into();
        let set =
            SetCell { family_name: "f".into(), column_qualifier: "q".into(), timestamp_micros: 7, value };
        Mutation::SetCell(set).into()
    }

    /// Puts the messages of one change together again, as clients do.
    fn assemble(messages: &[data::ReadChangeStreamResponse]) -> Vec<data::Mutation> {
        let mut mutations: Vec<data::Mutation> = Vec::new();
        for (place, message) in messages.iter().enumerate() {
            let Some(StreamRecord::DataChange(change)) = &message.stream_record else {
                panic!("{message:?}")
            };
            let is_first = place == 0;
            assert_eq!(change.r#type() == data_change::Type::User, is_first);
            assert_eq!(
                (change.row_key.is_empty(), change.commit_timestamp.is_none()),
                (!is_first, !is_first)
            );
            let is_last = place + 1 == messages.len();
            assert_eq!((change.done, change.token.is_empty()), (is_last, !is_last));
            assert!(message.encoded_len() < 2 * MESSAGE_BYTES);
            for chunk in &change.chunks {
                let piece = chunk.mutation.clone().unwrap().mutation.unwrap();
                match (
                    &chunk.chunk_info,
                    mutations.last_mut().and_then(|last| last.mutation.as_mut()),
                    &piece,
                ) {
                    (Some(info), Some(Mutation::SetCell(begun)), Mutation::SetCell(more))
                        if info.chunked_value_offset > 0 =>
                    {
                        assert_eq!(begun.value.len(), usize::try_from(info.chunked_value_offset).unwrap());
                        begun.value = [&begun.value[..], &more.value[..]].concat().into();
                        let size = usize::try_from(info.chunked_value_size).unwrap();
                        assert_eq!(info.last_chunk, begun.value.len() == size);
                    }
                    _ => mutations.push(piece.into()),
                }
            }
        }
        mutations
    }

    #[test]
    fn changes_of_any_size_come_whole_in_bounded_messages() {
        let delete = || data::Mutation::from(Mutation::DeleteFromRow(DeleteFromRow {}));
        for (mutations, message_count) in [
            (vec![delete()], 1),
            (vec![set(10), delete(), set(20)], 1),
            (vec![set(MESSAGE_BYTES)], 1),
            (vec![set(MESSAGE_BYTES + 1)], 2),
            (vec![delete(), set(3 * MESSAGE_BYTES + 5), delete()], 5),
            (vec![set(700_000), set(700_000), set(700_000)], 3),
        ] {
            let position = ChangePosition::at_time(1_700_000_000_000_000);
            let change = Change { position, row_key: "row".into(), mutations: mutations.clone() };
            let messages = change_messages(change, "token".to_owned());
            assert_eq!(messages.len(), message_count);
            assert!(assemble(&messages) == mutations, "{message_count}");
        }
    }
}
