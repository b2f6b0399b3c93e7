//! Partitions that take over from others.
//!
//! A stream that ends because its tablet was split or merged names the new
//! partitions, and for each a token of that part of its rows. A partition that
//! two old ones become has its tokens from both streams, so it can begin only
//! after both have ended.

use row_api::data::row_range::{EndKey, StartKey};
use row_api::data::{RowRange, StreamContinuationToken, StreamPartition};

use super::positions::StreamPosition;

/// Rows from `start` up to `end`; an empty end is behind all rows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rows {
    pub(super) start: Vec<u8>,
    pub(super) end: Vec<u8>,
}

impl Rows {
    /// The rows of a partition, if it is one.
    pub(super) fn of(partition: &StreamPartition) -> Option<Self> {
        let range = partition.row_range.as_ref()?;
        let start = match &range.start_key {
            Some(StartKey::StartKeyClosed(key)) => key.to_vec(),
            Some(StartKey::StartKeyOpen(_)) => return None,
            None => Vec::new(),
        };
        let end = match &range.end_key {
            Some(EndKey::EndKeyOpen(key)) => key.to_vec(),
            Some(EndKey::EndKeyClosed(_)) => return None,
            None => Vec::new(),
        };
        Some(Self { start, end })
    }

    /// These rows as a partition.
    pub(super) fn to_partition(&self) -> StreamPartition {
        StreamPartition {
            row_range: Some(RowRange {
                start_key: Some(StartKey::StartKeyClosed(self.start.clone().into())),
                end_key: Some(EndKey::EndKeyOpen(self.end.clone().into())),
            }),
        }
    }
}

/// A part of an ended stream: the partition that goes on, and the token of the
/// part's rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) partition: Rows,
    pub(super) token: StreamContinuationToken,
    /// The number of the stream that it is of.
    pub(super) of_stream: u64,
}

/// Parts whose partitions cannot begin yet.
#[derive(Debug, Default)]
pub(super) struct Handover {
    waiting: Vec<Part>,
}

/// A partition that can begin.
#[derive(Debug, PartialEq)]
pub(super) struct Successor {
    pub(super) position: StreamPosition,
    /// The streams that it goes on from.
    pub(super) of_streams: Vec<u64>,
}

impl Handover {
    /// Takes the parts of a stream that has ended; the partitions that have all
    /// their tokens now.
    pub(super) fn take(&mut self, parts: Vec<Part>) -> Vec<Successor> {
        self.waiting.extend(parts);
        let mut partitions: Vec<Rows> = self.waiting.iter().map(|part| part.partition.clone()).collect();
        partitions.sort();
        partitions.dedup();
        partitions.into_iter().filter_map(|partition| self.complete(&partition)).collect()
    }

    /// Whether a stream still has parts here.
    pub(super) fn awaits(&self, stream: u64) -> bool {
        self.waiting.iter().any(|part| part.of_stream == stream)
    }

    /// Where the partitions that wait go on, as far as is known.
    pub(super) fn positions(&self) -> Vec<StreamPosition> {
        let position = |part: &Part| {
            let rows = part.token.partition.as_ref().and_then(Rows::of)?;
            Some(StreamPosition { start: rows.start, end: rows.end, tokens: vec![part.token.clone()] })
        };
        self.waiting.iter().filter_map(position).collect()
    }

    fn complete(&mut self, partition: &Rows) -> Option<Successor> {
        let mut parts: Vec<(Rows, &Part)> = self
            .waiting
            .iter()
            .filter(|part| part.partition == *partition)
            .filter_map(|part| Some((Rows::of(part.token.partition.as_ref()?)?, part)))
            .collect();
        parts.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut reached = Some(&partition.start);
        for (rows, _) in &parts {
            if reached != Some(&rows.start) {
                return None;
            }
            reached = (!rows.end.is_empty()).then_some(&rows.end);
        }
        let end = (!partition.end.is_empty()).then_some(&partition.end);
        if parts.is_empty() || reached != end {
            return None;
        }
        let tokens = parts.iter().map(|(_, part)| part.token.clone()).collect();
        let of_streams = parts.iter().map(|(_, part)| part.of_stream).collect();
        let Rows { start, end } = partition.clone();
        let successor = Successor { position: StreamPosition { start, end, tokens }, of_streams };
        self.waiting.retain(|part| part.partition != *partition);
        Some(successor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(start: &str, end: &str) -> Rows {
        Rows { start: start.into(), end: end.into() }
    }

    fn part(of_stream: u64, partition: (&str, &str), own: (&str, &str)) -> Part {
        let token = StreamContinuationToken {
            partition: Some(rows(own.0, own.1).to_partition()),
            token: format!("{}-{}", own.0, own.1),
        };
        Part { partition: rows(partition.0, partition.1), token, of_stream }
    }

    fn tokens(successor: &Successor) -> Vec<&str> {
        successor.position.tokens.iter().map(|token| token.token.as_str()).collect()
    }

    #[test]
    fn the_children_of_a_split_begin_at_once() {
        let mut handover = Handover::default();
        let began = handover.take(vec![part(1, ("", "m"), ("", "m")), part(1, ("m", ""), ("m", ""))]);
        assert_eq!(began.iter().map(tokens).collect::<Vec<_>>(), [["-m"], ["m-"]]);
        assert!(!handover.awaits(1));
    }

    #[test]
    fn a_merged_partition_begins_with_the_tokens_of_all_it_is_made_of() {
        let mut handover = Handover::default();
        assert!(handover.take(vec![part(2, ("a", "z"), ("m", "z"))]).is_empty());
        assert!(handover.awaits(2));
        assert_eq!(handover.positions().len(), 1);
        let began = handover.take(vec![part(1, ("a", "z"), ("a", "m"))]);
        assert_eq!(tokens(&began[0]), ["a-m", "m-z"]);
        assert_eq!(began[0].of_streams, [1, 2]);
        assert!(handover.positions().is_empty());
    }
}
