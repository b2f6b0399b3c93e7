//! Continuation tokens: how far a partition of a change stream has been read.
//!
//! ```text
//! OFFSET  SIZE  FIELD
//! 0       1     version: 1
//! 1       n     a protobuf message, see `TokenMessage`
//! n + 1   8     XXH3-64 of all before, little-endian
//! ```
//!
//! in hexadecimal digits. A token is good wherever its rows go: it names them
//! and the place up to which their changes have been read, and no tablet.
//!
//! Invariants: decoding takes only what encoding gives, and never panics.

use bytes::Bytes;
use prost::Message;
use twox_hash::XxHash3_64;

use crate::changes::{ChangePosition, ChangeProgress, Segment};
use crate::row_set::RowRange;
use crate::schema::TableId;

/// Digits of a token at most.
pub(super) const TOKEN_DIGITS_MAX: usize = 1 << 20;

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = size_of::<u64>();

#[derive(Clone, PartialEq, Eq, Message)]
struct TokenMessage {
    /// The table's number: a later table of the same name is another one.
    #[prost(uint64, tag = "1")]
    table: u64,
    #[prost(message, repeated, tag = "2")]
    segments: Vec<SegmentMessage>,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct SegmentMessage {
    #[prost(bytes = "bytes", tag = "1")]
    start: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    end: Bytes,
    #[prost(uint64, tag = "3")]
    commit_us: u64,
    #[prost(uint32, tag = "4")]
    number: u32,
    #[prost(uint64, tag = "5")]
    tablet: u64,
    #[prost(uint64, tag = "6")]
    as_of_us: u64,
}

/// The token of `progress` through changes of `table`.
pub(super) fn encode(table: TableId, progress: &ChangeProgress) -> String {
    let message =
        TokenMessage { table: table.0, segments: progress.segments().iter().map(segment_message).collect() };
    let mut bytes = Vec::with_capacity(1 + message.encoded_len() + CHECKSUM_BYTES);
    bytes.push(VERSION);
    message.encode_raw(&mut bytes);
    bytes.extend_from_slice(&XxHash3_64::oneshot(&bytes).to_le_bytes());
    to_digits(&bytes)
}

/// The progress through changes of `table` that `token` stands for, if it is one.
pub(super) fn decode(table: TableId, token: &str) -> Option<ChangeProgress> {
    if token.len() > TOKEN_DIGITS_MAX {
        return None;
    }
    let bytes = from_digits(token)?;
    let (message, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if XxHash3_64::oneshot(message) != u64::from_le_bytes(*checksum) {
        return None;
    }
    let message = TokenMessage::decode(message.strip_prefix(&[VERSION])?).ok()?;
    if message.table != table.0 {
        return None;
    }
    ChangeProgress::new(message.segments.into_iter().map(segment).collect())
}

fn segment_message(segment: &Segment) -> SegmentMessage {
    let Segment { rows, from, as_of_us } = segment;
    SegmentMessage {
        start: rows.start.clone(),
        end: rows.end.clone(),
        commit_us: from.commit_us,
        number: from.number,
        tablet: from.tablet,
        as_of_us: *as_of_us,
    }
}

fn segment(message: SegmentMessage) -> Segment {
    let SegmentMessage { start, end, commit_us, number, tablet, as_of_us } = message;
    Segment {
        rows: RowRange { start, end },
        from: ChangePosition { commit_us, number, tablet },
        as_of_us: as_of_us.max(commit_us),
    }
}

fn to_digits(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn from_digits(digits: &str) -> Option<Vec<u8>> {
    let digits =
        digits.bytes().map(|digit| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok()));
    let digits = digits.collect::<Option<Vec<u8>>>()?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn progress() -> ChangeProgress {
        let rows = |start: &'static str, end: &'static str| RowRange { start: start.into(), end: end.into() };
        let from = ChangePosition { commit_us: 1_700_000_000_000_000, number: 3, tablet: 9 };
        let read = Segment { rows: rows("a", "m"), from, as_of_us: 1_700_000_000_000_500 };
        ChangeProgress::new(vec![read, Segment::starting(rows("m", ""), 5)]).unwrap()
    }

    #[test]
    fn a_token_comes_back_and_only_for_its_table() {
        let token = encode(TableId(7), &progress());
        assert_eq!(decode(TableId(7), &token), Some(progress()));
        assert_eq!(decode(TableId(8), &token), None);
    }

    #[test]
    fn bytes_are_those_of_the_golden_file() {
        let token = encode(TableId(7), &progress());
        assert_eq!(token, include_str!("../../tests/golden/change_token.txt").trim_end());
    }

    #[test]
    fn a_token_with_any_digit_changed_or_cut_is_refused() {
        let token = encode(TableId(7), &progress());
        for place in 0..token.len() {
            let mut digits = token.clone().into_bytes();
            digits[place] = if digits[place] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(digits).unwrap();
            assert_eq!(decode(TableId(7), &changed), None, "{place}");
            assert_eq!(decode(TableId(7), &token[..place]), None, "{place}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_refused(text in ".{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _whatever = decode(TableId(7), &text);
            let mut bytes = [&[VERSION], &bytes[..]].concat();
            bytes.extend_from_slice(&XxHash3_64::oneshot(&bytes).to_le_bytes());
            let _whatever = decode(TableId(7), &to_digits(&bytes));
        }
    }
}
