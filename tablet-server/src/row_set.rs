//! Which rows: ranges, and the set that a ReadRows asks for.
//!
//! All the API's open and closed ends become one form, `start..end` with an
//! empty end past every row: after `k` exclusive means from `k` and a zero byte
//! on, up to `k` inclusive means before that key.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use lsm::KeyRange;
use row_api::data;
use row_api::data::row_range::{EndKey, StartKey};
use tonic::Status;

use crate::key_ranges::{self, KeyRanges};
use crate::{cell_key, limits};

/// Rows from `start` on and before `end`; an empty `end` is past every row. So
/// the default is all rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RowRange {
    /// The first row key.
    pub start: Bytes,
    /// The first row key past the range, or empty.
    pub end: Bytes,
}

impl RowRange {
    /// Checks `range`, which stands at `field`. An empty end of either kind is none.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for an overlong key and a range that ends before it starts.
    pub fn check(field: &str, range: &data::RowRange) -> Result<Self, Status> {
        check_range(&field, range)
    }

    /// The one row `key`.
    pub fn single(key: Bytes) -> Self {
        let end = next_key(&key);
        Self { start: key, end }
    }

    /// The row, where the range has room for one only.
    pub fn as_single(&self) -> Option<&Bytes> {
        let single = self.end.split_last().is_some_and(|(last, rest)| *last == 0 && *rest == *self.start);
        single.then_some(&self.start)
    }

    /// Whether there is no key in it.
    pub fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.start >= self.end
    }

    /// Whether `key` lies in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start <= key && (self.end.is_empty() || key < self.end)
    }

    /// The rows that start with `prefix`.
    pub fn of_prefix(prefix: &Bytes) -> Self {
        let end = cell_key::into_successor(prefix.to_vec());
        Self { start: prefix.clone(), end: end.into() }
    }

    /// The keys that lie in both, if any.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        key_ranges::intersection(&self.clone().into(), &other.clone().into()).map(Self::from)
    }

    /// The keys of the range's cells.
    pub fn cell_keys(&self) -> KeyRange {
        cell_key::rows_range(&self.start, &self.end)
    }
}

impl From<RowRange> for KeyRange {
    fn from(rows: RowRange) -> Self {
        Self { start: rows.start, end: rows.end }
    }
}

impl From<KeyRange> for RowRange {
    fn from(keys: KeyRange) -> Self {
        Self { start: keys.start, end: keys.end }
    }
}

/// Rows to read: ranges in order, none touching another, but for neighbouring
/// rows that were asked for one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSet {
    ranges: Vec<RowRange>,
}

impl RowSet {
    /// All rows.
    pub fn all() -> Self {
        Self { ranges: vec![RowRange::default()] }
    }

    /// The one row `key`.
    pub fn single(key: Bytes) -> Self {
        Self { ranges: vec![RowRange::single(key)] }
    }

    /// Checks `rows`, which stands at `field`, and merges its keys and ranges.
    /// Nothing at all, or an empty message, is all rows.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for an empty or overlong key and a range that ends
    /// before it starts.
    pub fn check(field: &str, rows: Option<&data::RowSet>) -> Result<Self, Status> {
        let Some(rows) = rows else { return Ok(Self::all()) };
        if rows.row_keys.is_empty() && rows.row_ranges.is_empty() {
            return Ok(Self::all());
        }
        let mut ranges = Vec::with_capacity(rows.row_keys.len() + rows.row_ranges.len());
        for (index, key) in rows.row_keys.iter().enumerate() {
            limits::check_row_key(format_args!("{field}.row_keys[{index}]"), key)?;
            ranges.push(RowRange::single(key.clone()).into());
        }
        for (index, range) in rows.row_ranges.iter().enumerate() {
            ranges.push(check_range(&format_args!("{field}.row_ranges[{index}]"), range)?.into());
        }
        Ok(Self { ranges: KeyRanges::union(ranges).into_ranges().into_iter().map(RowRange::from).collect() })
    }

    /// The rows that start with any of `prefixes`.
    pub fn of_prefixes(prefixes: &[Bytes]) -> Self {
        let ranges = prefixes.iter().map(|prefix| RowRange::of_prefix(prefix).into()).collect();
        Self { ranges: KeyRanges::union(ranges).into_ranges().into_iter().map(RowRange::from).collect() }
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> &[RowRange] {
        &self.ranges
    }

    /// The ranges, in order.
    pub fn into_ranges(self) -> Vec<RowRange> {
        self.ranges
    }

    /// Whether there is no row to read.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether `key` lies in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        let first = self.ranges.partition_point(|ours| !ours.end.is_empty() && *ours.end <= *key);
        self.ranges.get(first).is_some_and(|ours| ours.contains(key))
    }

    /// The rows that lie in both.
    pub fn intersection(&self, other: &Self) -> Self {
        Self { ranges: other.ranges.iter().flat_map(|range| self.clip(range).ranges).collect() }
    }

    /// What of the set lies in `range`, a tablet's for instance.
    pub fn clip(&self, range: &RowRange) -> Self {
        let first = self.ranges.partition_point(|ours| !ours.end.is_empty() && ours.end <= range.start);
        let ranges = self.ranges[first..].iter().map_while(|ours| ours.intersection(range)).collect();
        Self { ranges }
    }
}

/// The first key after `key`.
fn next_key(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

fn check_range(field: &dyn fmt::Display, range: &data::RowRange) -> Result<RowRange, Status> {
    let (start, start_name) = match &range.start_key {
        None => (Bytes::new(), "start_key"),
        Some(StartKey::StartKeyClosed(key)) => (key.clone(), "start_key_closed"),
        Some(StartKey::StartKeyOpen(key)) => (key.clone(), "start_key_open"),
    };
    let (end, end_name) = match &range.end_key {
        None => (Bytes::new(), "end_key"),
        Some(EndKey::EndKeyClosed(key)) => (key.clone(), "end_key_closed"),
        Some(EndKey::EndKeyOpen(key)) => (key.clone(), "end_key_open"),
    };
    for (key, name) in [(&start, start_name), (&end, end_name)] {
        limits::check_at_most(format_args!("{field}.{name}"), key.len(), limits::ROW_KEY_BYTES_MAX, "bytes")?;
    }
    // An empty end of either kind is none: clients leave the bytes empty to say so.
    if !end.is_empty() && start > end {
        return Err(limits::refuse(field, format_args!("{start_name} is after {end_name}")));
    }
    Ok(RowRange {
        start: match &range.start_key {
            Some(StartKey::StartKeyOpen(_)) => next_key(&start),
            _ => start,
        },
        end: match &range.end_key {
            Some(EndKey::EndKeyClosed(_)) if !end.is_empty() => next_key(&end),
            _ => end,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &'static [u8], end: &'static [u8]) -> RowRange {
        RowRange { start: start.into(), end: end.into() }
    }

    fn asked(start_key: Option<StartKey>, end_key: Option<EndKey>) -> data::RowRange {
        data::RowRange { start_key, end_key }
    }

    #[track_caller]
    fn check(keys: &[&'static [u8]], ranges: Vec<data::RowRange>, expect: &[RowRange]) {
        let asked = data::RowSet {
            row_keys: keys.iter().map(|key| Bytes::from_static(key)).collect(),
            row_ranges: ranges,
        };
        assert_eq!(RowSet::check("rows", Some(&asked)).unwrap().ranges(), expect);
    }

    #[test]
    fn nothing_asked_is_all_rows() {
        assert_eq!(RowSet::check("rows", None).unwrap(), RowSet::all());
        check(&[], vec![], &[RowRange::default()]);
        check(&[], vec![asked(None, None)], &[RowRange::default()]);
    }

    #[test]
    fn ends_become_half_open() {
        let closed = |key: &'static [u8]| Some(StartKey::StartKeyClosed(key.into()));
        let open = |key: &'static [u8]| Some(StartKey::StartKeyOpen(key.into()));
        let before = |key: &'static [u8]| Some(EndKey::EndKeyOpen(key.into()));
        let through = |key: &'static [u8]| Some(EndKey::EndKeyClosed(key.into()));
        check(&[], vec![asked(closed(b"a"), before(b"c"))], &[range(b"a", b"c")]);
        check(&[], vec![asked(open(b"a"), through(b"c"))], &[range(b"a\0", b"c\0")]);
        check(&[], vec![asked(closed(b"a"), through(b""))], &[range(b"a", b"")]);
        check(&[], vec![asked(None, before(b"c"))], &[range(b"", b"c")]);
        for empty in [
            asked(closed(b"a"), before(b"a")),
            asked(open(b"a"), before(b"a")),
            asked(open(b"a"), through(b"a")),
        ] {
            check(&[], vec![empty], &[]);
        }
    }

    #[test]
    fn keys_and_ranges_merge_in_order() {
        let part = |start: &'static [u8], end: &'static [u8]| {
            asked(Some(StartKey::StartKeyClosed(start.into())), Some(EndKey::EndKeyOpen(end.into())))
        };
        check(
            &[b"z", b"b", b"b"],
            vec![part(b"m", b"p"), part(b"a", b"d"), part(b"c", b"f")],
            &[range(b"a", b"f"), range(b"m", b"p"), range(b"z", b"z\0")],
        );
        check(&[b"a", b"a\0"], vec![], &[range(b"a", b"a\0\0")]);
        check(&[b"z"], vec![part(b"q", b"")], &[range(b"q", b"")]);
    }

    #[test]
    fn wrong_ranges_are_refused_by_field() {
        let refused = |keys: Vec<Bytes>, ranges| {
            let asked = data::RowSet { row_keys: keys, row_ranges: ranges };
            RowSet::check("rows", Some(&asked)).unwrap_err().message().to_owned()
        };
        let backwards =
            asked(Some(StartKey::StartKeyClosed("b".into())), Some(EndKey::EndKeyOpen("a".into())));
        assert_eq!(
            refused(vec![], vec![backwards]),
            "rows.row_ranges[0]: start_key_closed is after end_key_open"
        );
        assert_eq!(
            refused(vec!["a".into(), Bytes::new()], vec![]),
            "rows.row_keys[1]: is empty, a row key has at least 1 byte"
        );
        assert_eq!(
            refused(vec![vec![b'x'; 4097].into()], vec![]),
            "rows.row_keys[0]: 4097 bytes, at most 4096"
        );
    }

    #[test]
    fn clipping_keeps_what_lies_within() {
        let set = RowSet { ranges: vec![range(b"a", b"c"), range(b"e", b"g"), range(b"k", b"")] };
        assert_eq!(set.clip(&range(b"b", b"f")).ranges(), [range(b"b", b"c"), range(b"e", b"f")]);
        assert_eq!(set.clip(&range(b"c", b"e")).ranges(), []);
        assert_eq!(set.clip(&range(b"x", b"")).ranges(), [range(b"x", b"")]);
        assert_eq!(set.clip(&RowRange::default()), set);
        assert_eq!(range(b"a", b"a\0").as_single().unwrap(), "a");
        assert_eq!(range(b"a", b"b").as_single(), None);
    }
}
