//! A compaction's key range cut into parts for several threads.

use std::sync::Arc;

use bytes::Bytes;

use crate::KeyRange;
use crate::tables::table_ref::TableRef;

/// At most `count` ranges, one behind the other over all keys, each with about
/// as many bytes of `tables`; cut where a table begins or ends.
pub(super) fn split(tables: &[Arc<TableRef>], count: usize) -> Vec<KeyRange> {
    let pieces: Vec<_> = tables.iter().map(|table| (table.key_range(), table.bytes())).collect();
    let cuts = cuts(&pieces, count);
    let starts = std::iter::once(Bytes::new()).chain(cuts.iter().cloned());
    let ends = cuts.iter().cloned().chain(std::iter::once(Bytes::new()));
    starts.zip(ends).map(|(start, end)| KeyRange { start, end }).collect()
}

/// Up to `count - 1` keys that cut `pieces`, ranges and their bytes, evenly.
fn cuts(pieces: &[(&KeyRange, u64)], count: usize) -> Vec<Bytes> {
    let mut bounds: Vec<_> = pieces.iter().flat_map(|(range, _)| [&range.start, &range.end]).collect();
    bounds.sort();
    bounds.dedup();
    // Bytes before a key: of a table that the key is in, half.
    let before = |key: &Bytes| -> u64 {
        let part = |(range, bytes): &(&KeyRange, u64)| {
            if range.end <= *key {
                *bytes
            } else if range.start < *key {
                bytes / 2
            } else {
                0
            }
        };
        pieces.iter().map(part).sum()
    };
    let total: u64 = pieces.iter().map(|(_, bytes)| bytes).sum();
    let mut cuts: Vec<Bytes> = Vec::new();
    for part in 1..count as u64 {
        let wanted = total / count as u64 * part;
        let Some(cut) = bounds.iter().min_by_key(|key| before(key).abs_diff(wanted)) else { break };
        let is_inner = before(cut) > 0 && before(cut) < total;
        if is_inner && cuts.last().is_none_or(|last| last < *cut) {
            cuts.push(Bytes::clone(cut));
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[(&'static str, &'static str, u64)], count: usize, expected: &[&str]) {
        let bytes = |key: &'static str| Bytes::from_static(key.as_bytes());
        let ranges: Vec<_> =
            pieces.iter().map(|(start, end, _)| KeyRange { start: bytes(start), end: bytes(end) }).collect();
        let pieces: Vec<_> =
            ranges.iter().zip(pieces).map(|(range, (_, _, bytes))| (range, *bytes)).collect();
        assert_eq!(cuts(&pieces, count), expected);
    }

    #[test]
    fn parts_are_cut_where_tables_meet_so_that_bytes_are_even() {
        check(&[("a", "z", 10)], 2, &[]);
        check(&[("a", "z", 10)], 1, &[]);
        check(&[], 2, &[]);
        check(&[("a", "m", 10), ("m", "z", 10)], 1, &[]);
        check(&[("a", "m", 10), ("m", "z", 10)], 2, &["m"]);
        check(&[("a", "f", 10), ("f", "m", 10), ("m", "t", 10), ("t", "z", 10)], 4, &["f", "m", "t"]);
        check(&[("a", "z", 8), ("a", "b", 10), ("b", "c", 10), ("c", "z", 2)], 2, &["b"]);
        check(&[("a", "b", 1), ("b", "z", 100)], 3, &["b"]);
    }
}
