//! Sets of byte keys as ranges: what row sets and filters' column bounds share.
//!
//! Invariant: ranges are sorted, not empty, and neither overlap nor touch. An
//! empty `end` is past every key, so only the last range may have one.

use lsm::KeyRange;

/// A set of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyRanges(Vec<KeyRange>);

impl KeyRanges {
    /// All keys.
    pub(crate) fn all() -> Self {
        Self(vec![KeyRange::default()])
    }

    /// The keys of any of `ranges`.
    pub(crate) fn union(mut ranges: Vec<KeyRange>) -> Self {
        ranges.retain(|range| !is_empty(range));
        ranges.sort_unstable_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<KeyRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if last.end.is_empty() => {}
                Some(last) if last.end >= range.start => {
                    if range.end.is_empty() || range.end > last.end {
                        last.end = range.end;
                    }
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The keys that lie in both sets.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = Vec::new();
        while let (Some(a), Some(b)) = (ours.peek(), theirs.peek()) {
            common.extend(intersection(a, b));
            if ends_first(a, b) {
                ours.next();
            } else {
                theirs.next();
            }
        }
        Self(common)
    }

    /// The ranges, in order.
    pub(crate) fn ranges(&self) -> &[KeyRange] {
        &self.0
    }

    /// The ranges, in order.
    pub(crate) fn into_ranges(self) -> Vec<KeyRange> {
        self.0
    }
}

/// Whether no key lies in `range`.
pub(crate) fn is_empty(range: &KeyRange) -> bool {
    !range.end.is_empty() && range.start >= range.end
}

/// The keys that lie in both ranges, if any.
pub(crate) fn intersection(a: &KeyRange, b: &KeyRange) -> Option<KeyRange> {
    let start = a.start.clone().max(b.start.clone());
    let end = if ends_first(a, b) { a.end.clone() } else { b.end.clone() };
    let range = KeyRange { start, end };
    (!is_empty(&range)).then_some(range)
}

fn ends_first(a: &KeyRange, b: &KeyRange) -> bool {
    !a.end.is_empty() && (b.end.is_empty() || a.end <= b.end)
}
