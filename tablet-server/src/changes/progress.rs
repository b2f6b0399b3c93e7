//! How far a reader of changes is, over splits and merges.
//!
//! A reader of one partition is at one place of it. When partitions are merged,
//! whoever read them goes on in the one that they became, at two places: each
//! row is read from where its old partition had been read to. The places become
//! one again as soon as the reader is past them all.

use super::ChangePosition;
use crate::row_set::RowRange;

/// Rows that have been read equally far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The rows.
    pub rows: RowRange,
    /// The first place that may hold a change of theirs which is not read yet.
    pub from: ChangePosition,
    /// All of their changes that were committed before this time, µs, have been
    /// read; where nothing has been, the time to start at. At least the time of `from`.
    pub as_of_us: u64,
}

impl Segment {
    /// `rows`, of which nothing that was committed from `time_us` on has been read.
    pub fn starting(rows: RowRange, time_us: u64) -> Self {
        Self { rows, from: ChangePosition::at_time(time_us), as_of_us: time_us }
    }
}

/// How far a partition has been read: segments in order, without a gap; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeProgress {
    segments: Vec<Segment>,
}

impl ChangeProgress {
    /// Progress through the rows of `segments`; none where these leave a gap,
    /// overlap or are no rows at all.
    pub fn new(mut segments: Vec<Segment>) -> Option<Self> {
        segments.sort_unstable_by(|left, right| left.rows.start.cmp(&right.rows.start));
        let touch = |pair: &[Segment]| !pair[0].rows.end.is_empty() && pair[0].rows.end == pair[1].rows.start;
        if segments.is_empty()
            || segments.iter().any(|segment| segment.rows.is_empty())
            || !segments.windows(2).all(touch)
        {
            return None;
        }
        let mut progress = Self { segments };
        progress.join();
        Some(progress)
    }

    /// The segments, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// All the rows.
    pub fn rows(&self) -> RowRange {
        let start = self.segments.first().map(|first| first.rows.start.clone()).unwrap_or_default();
        let end = self.segments.last().map(|last| last.rows.end.clone()).unwrap_or_default();
        RowRange { start, end }
    }

    /// The first place that may hold a change which is not read yet.
    pub fn from(&self) -> ChangePosition {
        self.segments.iter().map(|segment| segment.from).min().unwrap_or_default()
    }

    /// All changes that were committed before this time, µs, have been read.
    pub fn as_of_us(&self) -> u64 {
        self.segments.iter().map(|segment| segment.as_of_us).min().unwrap_or_default()
    }

    /// Whether the change of `row_key` at `position` is one to read.
    pub fn is_new(&self, row_key: &[u8], position: ChangePosition) -> bool {
        let first =
            self.segments.partition_point(|ours| !ours.rows.end.is_empty() && *ours.rows.end <= *row_key);
        self.segments.get(first).is_some_and(|ours| ours.rows.contains(row_key) && ours.from <= position)
    }

    /// Notes that all changes before `position` have been read, and all that
    /// were committed before `as_of_us`.
    pub fn advance(&mut self, position: ChangePosition, as_of_us: u64) {
        for segment in &mut self.segments {
            segment.from = segment.from.max(position);
            segment.as_of_us = segment.as_of_us.max(as_of_us).max(position.commit_us);
        }
        self.join();
    }

    /// The same, for those of the rows that are in `rows` alone; none if no row is.
    pub fn within(&self, rows: &RowRange) -> Option<Self> {
        let clip =
            |segment: &Segment| Some(Segment { rows: segment.rows.intersection(rows)?, ..segment.clone() });
        Self::new(self.segments.iter().filter_map(clip).collect())
    }

    /// Makes neighbours that have been read equally far one segment.
    fn join(&mut self) {
        self.segments.dedup_by(|right, left| {
            let is_same = (left.from, left.as_of_us) == (right.from, right.as_of_us);
            if is_same {
                left.rows.end = std::mem::take(&mut right.rows.end);
            }
            is_same
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: &'static str, end: &'static str, time_us: u64) -> Segment {
        Segment::starting(RowRange { start: start.into(), end: end.into() }, time_us)
    }

    #[test]
    fn segments_touch_and_do_not_overlap() {
        for (segments, is_good) in [
            (vec![segment("", "", 1)], true),
            (vec![segment("m", "", 1), segment("", "m", 2)], true),
            (vec![], false),
            (vec![segment("", "m", 1), segment("n", "", 1)], false),
            (vec![segment("", "n", 1), segment("m", "", 1)], false),
            (vec![segment("", "", 1), segment("m", "", 1)], false),
            (vec![segment("b", "b", 1)], false),
            (vec![segment("b", "a", 1)], false),
        ] {
            assert_eq!(ChangeProgress::new(segments.clone()).is_some(), is_good, "{segments:?}");
        }
    }

    #[test]
    fn each_row_is_read_from_where_its_old_partition_was_left() {
        let mut progress = ChangeProgress::new(vec![segment("a", "m", 5), segment("m", "z", 8)]).unwrap();
        let at = ChangePosition::at_time;
        let new = |progress: &ChangeProgress| {
            ["A", "a", "l", "m", "z"].map(|row| progress.is_new(row.as_bytes(), at(6)))
        };
        assert_eq!((progress.from(), progress.as_of_us()), (at(5), 5));
        assert_eq!(new(&progress), [false, true, true, false, false]);
        progress.advance(at(7), 7);
        assert_eq!(new(&progress), [false; 5]);
        assert_eq!(progress.segments().len(), 2);
        progress.advance(at(9), 9);
        assert_eq!(progress.segments(), [segment("a", "z", 9)]);
    }

    #[test]
    fn a_part_of_the_rows_keeps_their_places() {
        let progress = ChangeProgress::new(vec![segment("a", "m", 5), segment("m", "", 8)]).unwrap();
        let rows = |start: &'static str, end: &'static str| RowRange { start: start.into(), end: end.into() };
        assert_eq!(
            progress.within(&rows("b", "n")).unwrap().segments(),
            [segment("b", "m", 5), segment("m", "n", 8)]
        );
        assert_eq!(progress.within(&rows("x", "")).unwrap().segments(), [segment("x", "", 8)]);
        assert!(progress.within(&rows("", "a")).is_none());
        assert_eq!(progress.rows(), rows("a", ""));
    }
}
