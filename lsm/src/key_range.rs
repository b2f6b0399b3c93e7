//! Ranges of keys.

use bytes::Bytes;

/// Keys from `start` on and before `end`; an empty `end` is past every key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// The first key that is not in the range any more, or empty.
    pub end: Bytes,
}

impl KeyRange {
    /// The keys that start with `prefix`.
    pub fn of_prefix(prefix: &[u8]) -> Self {
        let kept = prefix.iter().rposition(|byte| *byte != 0xff).map_or(0, |last| last + 1);
        let mut end = prefix[..kept].to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Self { start: Bytes::copy_from_slice(prefix), end: end.into() }
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.begins_by(key) && (self.end.is_empty() || *key < *self.end)
    }

    /// Whether it begins at `key` or before.
    #[inline]
    pub(crate) fn begins_by(&self, key: &[u8]) -> bool {
        // To compare no bytes is not free: where `memcmp` is a masked load, a processor may take some hundred
        // cycles to find out that it need not fault at what an empty slice points to.
        self.start.is_empty() || *self.start <= *key
    }

    /// The keys that are in both ranges, if there can be any.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let start = self.start.clone().max(other.start.clone());
        let end = match (self.end.is_empty(), other.end.is_empty()) {
            (true, _) => other.end.clone(),
            (_, true) => self.end.clone(),
            _ => self.end.clone().min(other.end.clone()),
        };
        (end.is_empty() || start < end).then_some(Self { start, end })
    }

    /// Whether some key may be in both ranges.
    pub fn overlaps(&self, other: &Self) -> bool {
        (other.end.is_empty() || self.start < other.end) && (self.end.is_empty() || other.start < self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange { start: Bytes::from_static(start.as_bytes()), end: Bytes::from_static(end.as_bytes()) }
    }

    #[test]
    fn an_empty_end_is_past_every_key() {
        assert!(range("b", "").contains(b"\xff"));
        assert!(!range("b", "").contains(b"a"));
        assert!(!range("b", "c").contains(b"c"));
        assert!(range("b", "").overlaps(&range("", "c")));
        assert!(!range("b", "c").overlaps(&range("c", "")));
    }

    #[test]
    fn an_intersection_is_what_is_in_both() {
        assert_eq!(range("a", "m").intersection(&range("c", "")), Some(range("c", "m")));
        assert_eq!(range("a", "").intersection(&range("c", "")), Some(range("c", "")));
        assert_eq!(range("a", "c").intersection(&range("b", "z")), Some(range("b", "c")));
        assert_eq!(range("a", "c").intersection(&range("c", "z")), None);
    }

    #[test]
    fn the_range_of_a_prefix_ends_at_its_successor() {
        assert_eq!(KeyRange::of_prefix(b"ab"), range("ab", "ac"));
        assert_eq!(KeyRange::of_prefix(b"a\xff\xff").end, "b");
        assert_eq!(KeyRange::of_prefix(b"\xff").end, "");
        assert_eq!(KeyRange::of_prefix(b"").end, "");
    }
}
