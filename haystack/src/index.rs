//! Where each photo lies in one volume, in memory (Haystack 3.4.2).
//!
//! Two parts. What was written lately stands in a map. The rest stands in
//! packed segments (`index_segment.rs`), in the order of keys. When the map has
//! grown past a 64th of all photos, each further write moves some neighbours from
//! it to the segment that they belong to, so no write waits long and no reader
//! either. A photo of four sizes takes some 17 bytes that way: 4.5 a needle, where
//! the paper has 10.
//!
//! A deleted photo stays as a mark without needles, and tombstones win: a key
//! that was deleted never comes back, whichever of its needles and its tombstone
//! lies first. So replicas that took the same needles and tombstones in different
//! orders show the same photos. Cookies and media types are not here: the needle
//! carries them.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;

use crate::group::Group;
use crate::index_segment::Segment;
use crate::photo_id::PhotoKey;

/// Photos of one segment, and photos moved at a time.
const SEGMENT_PHOTO_COUNT: usize = 2048;
/// Photos that the map holds at least before any is moved.
const RECENT_COUNT_MIN: usize = 2048;
/// The part of all photos that the map holds before some are moved.
const RECENT_PART: usize = 64;
/// Bytes that a photo takes in the map: a node holds eleven photos and is at
/// least half full.
const RECENT_PHOTO_BYTES: usize = 64;

/// The photos of one volume.
#[derive(Debug, Default)]
pub struct Index {
    /// Overrides the segments.
    recent: BTreeMap<PhotoKey, Group>,
    /// In the order of keys, none empty.
    segments: Vec<Segment>,
    /// The first key of each segment.
    segment_keys: Vec<PhotoKey>,
    /// Where the next move begins.
    cursor: PhotoKey,
    totals: Totals,
    key_max: Option<PhotoKey>,
}

/// A key that a volume knows, and what it knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KnownKey {
    /// The key.
    pub key: PhotoKey,
    /// Whether it was deleted.
    pub buried: bool,
}

/// What an index counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Photos that are not deleted.
    pub photo_count: usize,
    /// Deleted photos that are remembered.
    pub tombstone_count: usize,
    /// Needles of photos that are not deleted.
    pub needle_count: usize,
    /// Bytes of those needles in the volume.
    pub live_bytes: u64,
}

impl Index {
    /// The photo `key`, if it is there and not deleted.
    pub fn get(&self, key: PhotoKey) -> Option<Group> {
        self.find(key).filter(|group| !group.is_buried())
    }

    /// Whether the photo `key` was deleted.
    pub fn is_buried(&self, key: PhotoKey) -> bool {
        self.find(key).is_some_and(|group| group.is_buried())
    }

    fn find(&self, key: PhotoKey) -> Option<Group> {
        if let Some(group) = self.recent.get(&key) {
            return Some(*group);
        }
        self.segments.get(self.segment_of(key)?)?.find(key)
    }

    /// The segment that `key` belongs to, if there is any.
    fn segment_of(&self, key: PhotoKey) -> Option<usize> {
        let after = self.segment_keys.partition_point(|first| *first <= key);
        (!self.segments.is_empty()).then(|| after.saturating_sub(1))
    }

    /// Sets where the photo `key` lies: of equal keys the later write wins, and
    /// a tombstone over any.
    pub fn insert(&mut self, key: PhotoKey, group: Group) {
        // Uploads have rising keys.
        let old = if self.key_max.is_some_and(|max| key <= max) { self.find(key) } else { None };
        if old.is_some_and(|old| old.is_buried()) {
            return;
        }
        if let Some(old) = old {
            self.totals.photo_count -= 1;
            self.totals.needle_count -= old.needle_count();
            self.totals.live_bytes -= old.bytes();
        }
        self.totals.photo_count += usize::from(!group.is_buried());
        self.totals.tombstone_count += usize::from(group.is_buried());
        self.totals.needle_count += group.needle_count();
        self.totals.live_bytes += group.bytes();
        self.key_max = self.key_max.max(Some(key));
        self.recent.insert(key, group);
        if self.recent.len() > RECENT_COUNT_MIN.max(self.entry_count() / RECENT_PART) {
            self.move_some();
        }
    }

    /// Takes the photo `key` out for good.
    pub fn remove(&mut self, key: PhotoKey) {
        self.insert(key, Group::BURIED);
    }

    /// Moves photos that are neighbours from the map to their segment.
    fn move_some(&mut self) {
        let first = self.recent.range(self.cursor..).next().or_else(|| self.recent.first_key_value());
        let Some((first, _)) = first else { return };
        let place = self.segment_of(*first);
        let end = place.and_then(|place| self.segment_keys.get(place + 1).copied());
        let bounds = (Bound::Included(*first), end.map_or(Bound::Unbounded, Bound::Excluded));
        let moved: Vec<(PhotoKey, Group)> =
            self.recent.range(bounds).take(SEGMENT_PHOTO_COUNT).map(|(key, group)| (*key, *group)).collect();
        for (key, _) in &moved {
            self.recent.remove(key);
        }
        let (last, _) = moved[moved.len() - 1];
        self.cursor = PhotoKey(last.0.wrapping_add(1));
        let Some(place) = place else { return self.replace_segments(0..0, &moved) };
        let segment = &self.segments[place];
        // Photos behind a segment that has its size begin one of their own.
        if segment.key_max() < moved[0].0 && segment.photo_count() >= SEGMENT_PHOTO_COUNT / 2 {
            return self.replace_segments(place + 1..place + 1, &moved);
        }
        let merged: Vec<_> = merge(segment.photos_from(PhotoKey(0)), moved.into_iter()).collect();
        self.replace_segments(place..place + 1, &merged);
    }

    fn replace_segments(&mut self, range: std::ops::Range<usize>, photos: &[(PhotoKey, Group)]) {
        let part_count = photos.len().div_ceil(SEGMENT_PHOTO_COUNT);
        let parts: Vec<Segment> =
            photos.chunks(photos.len().div_ceil(part_count)).map(Segment::pack).collect();
        self.segment_keys.splice(range.clone(), parts.iter().map(Segment::key_min));
        self.segments.splice(range, parts);
    }

    /// The first keys behind `after` in order, at most `count_max`: those of
    /// photos and those of deleted ones.
    pub fn keys_after(&self, after: Option<PhotoKey>, count_max: usize) -> Vec<KnownKey> {
        let known = |(key, group): (PhotoKey, Group)| KnownKey { key, buried: group.is_buried() };
        self.page(after, count_max).into_iter().map(known).collect()
    }

    /// A photo that is there, if one is among those with the largest keys or
    /// written lately.
    pub fn some_key(&self) -> Option<PhotoKey> {
        let live = |(_, group): &(PhotoKey, Group)| !group.is_buried();
        let last = self.segments.last().map_or(PhotoKey(0), Segment::key_min);
        let packed = self.segments.iter().rev().take(1).flat_map(|segment| segment.photos_from(last));
        let recent = self.recent.iter().map(|(key, group)| (*key, *group));
        merge(packed, recent).find(live).map(|(key, _)| key)
    }

    /// At most `count` photos in the order of their keys, from the first behind
    /// `after` on, deleted ones too.
    pub fn page(&self, after: Option<PhotoKey>, count: usize) -> Vec<(PhotoKey, Group)> {
        let Some(first) = after.map_or(Some(0), |key| key.0.checked_add(1)).map(PhotoKey) else {
            return Vec::new();
        };
        let segments = &self.segments[self.segment_of(first).unwrap_or(0)..];
        let packed = segments.iter().flat_map(|segment| segment.photos_from(first));
        let recent = self.recent.range(first..).map(|(key, group)| (*key, *group));
        merge(packed, recent).take(count).collect()
    }

    /// What it counts.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    fn entry_count(&self) -> usize {
        self.totals.photo_count + self.totals.tombstone_count
    }

    /// The largest key ever seen, of deleted photos too.
    pub fn key_max(&self) -> Option<PhotoKey> {
        self.key_max
    }

    /// Bytes of memory that it takes, close to the truth.
    pub fn memory_bytes(&self) -> usize {
        let packed: usize = self.segments.iter().map(Segment::memory_bytes).sum();
        packed + self.segment_keys.len() * size_of::<PhotoKey>() + self.recent.len() * RECENT_PHOTO_BYTES
    }
}

/// Both in the order of keys; of equal keys the one of `later` wins.
fn merge(
    earlier: impl Iterator<Item = (PhotoKey, Group)>,
    later: impl Iterator<Item = (PhotoKey, Group)>,
) -> impl Iterator<Item = (PhotoKey, Group)> {
    let (mut earlier, mut later): (Peekable<_>, Peekable<_>) = (earlier.peekable(), later.peekable());
    std::iter::from_fn(move || match (earlier.peek(), later.peek()) {
        (Some((old, _)), Some((new, _))) if old < new => earlier.next(),
        (Some((old, _)), Some((new, _))) => {
            if old == new {
                earlier.next();
            }
            later.next()
        }
        (Some(_), None) => earlier.next(),
        (None, _) => later.next(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::photo_id::PhotoSize;

    fn group(offset: u64, sizes: &[(PhotoSize, u64)]) -> Group {
        let mut group = Group::at(offset);
        sizes.iter().for_each(|(size, bytes)| group.push(*size, *bytes));
        group
    }

    #[test]
    fn counts_follow_overwrites_and_deletes() {
        let mut index = Index::default();
        index.insert(PhotoKey(1), group(64, &[(PhotoSize::Original, 160)]));
        index.insert(PhotoKey(1), group(64, &[(PhotoSize::Original, 160), (PhotoSize::Large, 40)]));
        let live = Totals { photo_count: 1, tombstone_count: 0, needle_count: 2, live_bytes: 200 };
        assert_eq!(index.totals(), live);
        for _ in 0..2 {
            index.remove(PhotoKey(1));
            assert_eq!(index.totals(), Totals { tombstone_count: 1, ..Totals::default() });
            // A copy that a replica still had comes too late.
            index.insert(PhotoKey(1), group(64, &[(PhotoSize::Original, 160)]));
        }
        assert!(index.is_buried(PhotoKey(1)) && !index.is_buried(PhotoKey(2)));
        assert_eq!((index.get(PhotoKey(1)), index.key_max()), (None, Some(PhotoKey(1))));
    }

    /// SplitMix64, so that a failure can be repeated.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[test]
    fn keys_come_in_order_with_those_that_are_buried() {
        let mut index = Index::default();
        for key in [5, 3, 9, 7] {
            index.insert(PhotoKey(key), group(64, &[(PhotoSize::Original, 48)]));
        }
        index.remove(PhotoKey(5));
        index.remove(PhotoKey(4));
        let known = |key, buried| KnownKey { key: PhotoKey(key), buried };
        assert_eq!(index.keys_after(None, 3), [known(3, false), known(4, true), known(5, true)]);
        assert_eq!(index.keys_after(Some(PhotoKey(5)), 3), [known(7, false), known(9, false)]);
    }

    #[test]
    fn it_is_a_map_whatever_the_order_of_keys() {
        for (seed, spread) in [(1, 20_000), (2, u64::MAX), (3, 3_000)] {
            let (mut state, mut index, mut model) = (seed, Index::default(), BTreeMap::new());
            for step in 0..60_000_u64 {
                let rising = step % 3 == 0;
                let key = PhotoKey(if rising { step } else { random(&mut state) % spread });
                if random(&mut state).is_multiple_of(4) {
                    index.remove(key);
                    model.insert(key, Group::BURIED);
                } else {
                    let photo =
                        group(64 + step * 8, &[(PhotoSize::Original, 48 + random(&mut state) % 9 * 8)]);
                    index.insert(key, photo);
                    let there = model.entry(key).or_insert(photo);
                    *there = if there.is_buried() { *there } else { photo };
                }
            }
            assert!(index.segments.len() > 1 && index.recent.len() < model.len());
            for key in (0..20_000).chain((0..20_000).map(|_| random(&mut state))).map(PhotoKey) {
                assert_eq!(index.find(key), model.get(&key).copied(), "seed {seed}, key {key:?}");
            }
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let page = index.page(after, 777);
                let Some((last, _)) = page.last() else { break };
                after = Some(*last);
                all.extend(page);
            }
            assert_eq!(all, model.iter().map(|(key, group)| (*key, *group)).collect::<Vec<_>>());
            let live = model.values().filter(|group| !group.is_buried());
            let totals = Totals {
                photo_count: live.clone().count(),
                tombstone_count: model.len() - live.clone().count(),
                needle_count: live.clone().map(Group::needle_count).sum(),
                live_bytes: live.map(Group::bytes).sum(),
            };
            assert_eq!(index.totals(), totals);
        }
    }
}
