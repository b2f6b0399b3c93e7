//! Where each photo lies in one volume, in memory (Haystack 3.4.2).
//!
//! All sizes of a photo are one entry: they lie one after the other, largest
//! first, because one multi-write put them there. So the entry holds where the
//! first begins and how long each is, in units of eight bytes: 24 bytes beside
//! the key's 8, and the table's spare places. That is 33 to 75 bytes a photo
//! depending on how full the table is, or 7 to 15 a needle for five sizes.
//! Cookies and media types are not here: the needle carries them.
//!
//! Tombstones win: a key that was deleted never comes back, whichever of its
//! needles and its tombstone lies first. So replicas that took the same needles
//! and tombstones in different orders show the same photos, and two that differ
//! become equal by giving each other what they lack.

use std::collections::BinaryHeap;

use hashbrown::{HashMap, HashSet};

use crate::needle::NEEDLE_ALIGNMENT;
use crate::photo_id::{PhotoKey, PhotoSize};

/// The largest volume that an entry can describe, bytes.
pub const VOLUME_BYTES_LIMIT: u64 = (u32::MAX as u64) * NEEDLE_ALIGNMENT;

/// Where a needle lies in its volume's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Its first byte.
    pub offset: u64,
    /// Its length, padding included, bytes.
    pub needle_bytes: u64,
}

/// The needles of one photo: consecutive, in the order of [`PhotoSize::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Group {
    first_unit: u32,
    /// Units of each size; 0 where there is none.
    units: [u32; PhotoSize::COUNT],
}

impl Group {
    /// A photo whose first needle will begin at `offset`.
    ///
    /// # Panics
    ///
    /// If `offset` is not within [`VOLUME_BYTES_LIMIT`].
    pub fn at(offset: u64) -> Self {
        Self { first_unit: units(offset), units: [0; PhotoSize::COUNT] }
    }

    /// Adds the needle that follows those added before.
    pub fn push(&mut self, size: PhotoSize, needle_bytes: u64) {
        self.units[size.place()] = units(needle_bytes);
    }

    /// The largest size after those there are, if any is left.
    pub fn next_size(&self) -> Option<PhotoSize> {
        let next = self.units.iter().rposition(|units| *units != 0).map_or(0, |place| place + 1);
        PhotoSize::ALL.get(next).copied()
    }

    /// Where the needle of `size` lies, if there is one.
    pub fn locate(&self, size: PhotoSize) -> Option<Location> {
        let (before, rest) = self.units.split_at(size.place());
        let needle_bytes = u64::from(rest[0]) * NEEDLE_ALIGNMENT;
        let skipped: u64 = before.iter().copied().map(u64::from).sum();
        let offset = (u64::from(self.first_unit) + skipped) * NEEDLE_ALIGNMENT;
        (needle_bytes != 0).then_some(Location { offset, needle_bytes })
    }

    /// Needles of the photo.
    pub fn needle_count(&self) -> usize {
        self.units.iter().filter(|units| **units != 0).count()
    }

    /// Bytes of all its needles.
    pub fn bytes(&self) -> u64 {
        self.units.iter().map(|units| u64::from(*units) * NEEDLE_ALIGNMENT).sum()
    }
}

fn units(bytes: u64) -> u32 {
    debug_assert_eq!(bytes % NEEDLE_ALIGNMENT, 0);
    u32::try_from(bytes / NEEDLE_ALIGNMENT).expect("a volume ends before VOLUME_BYTES_LIMIT")
}

/// A key that a volume knows, and what it knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KnownKey {
    /// The key.
    pub key: PhotoKey,
    /// Whether it was deleted.
    pub buried: bool,
}

/// The photos of one volume.
#[derive(Debug, Default)]
pub struct Index {
    photos: HashMap<PhotoKey, Group>,
    tombstones: HashSet<PhotoKey>,
    needle_count: usize,
    live_bytes: u64,
    key_max: Option<PhotoKey>,
}

impl Index {
    /// The photo `key`, if it is there and not deleted.
    pub fn get(&self, key: PhotoKey) -> Option<Group> {
        self.photos.get(&key).copied()
    }

    /// Sets where the photo `key` lies: of equal keys the later write wins, and
    /// a tombstone over any.
    pub fn insert(&mut self, key: PhotoKey, group: Group) {
        self.key_max = self.key_max.max(Some(key));
        if self.tombstones.contains(&key) {
            return;
        }
        if let Some(old) = self.photos.insert(key, group) {
            self.forget(&old);
        }
        self.needle_count += group.needle_count();
        self.live_bytes += group.bytes();
    }

    /// Takes the photo `key` out for good; false if it was not there.
    pub fn remove(&mut self, key: PhotoKey) -> bool {
        self.key_max = self.key_max.max(Some(key));
        self.tombstones.insert(key);
        let removed = self.photos.remove(&key);
        if let Some(group) = &removed {
            self.forget(group);
        }
        removed.is_some()
    }

    fn forget(&mut self, group: &Group) {
        self.needle_count -= group.needle_count();
        self.live_bytes -= group.bytes();
    }

    /// Whether the photo `key` was deleted.
    pub fn is_buried(&self, key: PhotoKey) -> bool {
        self.tombstones.contains(&key)
    }

    /// The first keys after `after` in order, at most `count_max`: those of
    /// photos and those of deleted ones.
    pub fn keys_after(&self, after: Option<PhotoKey>, count_max: usize) -> Vec<KnownKey> {
        let live = self.photos.keys().map(|key| KnownKey { key: *key, buried: false });
        let dead = self.tombstones.iter().map(|key| KnownKey { key: *key, buried: true });
        let mut first = BinaryHeap::with_capacity(count_max + 1);
        for known in live.chain(dead).filter(|known| Some(known.key) > after) {
            first.push(known);
            if first.len() > count_max {
                first.pop();
            }
        }
        first.into_sorted_vec()
    }

    /// Some photo that is not deleted.
    pub fn some_key(&self) -> Option<PhotoKey> {
        self.photos.keys().next().copied()
    }

    /// Tombstones that are kept.
    pub fn tombstone_count(&self) -> usize {
        self.tombstones.len()
    }

    /// The largest key ever seen, of deleted photos too.
    pub fn key_max(&self) -> Option<PhotoKey> {
        self.key_max
    }

    /// Photos that are not deleted.
    pub fn photo_count(&self) -> usize {
        self.photos.len()
    }

    /// Their needles.
    pub fn needle_count(&self) -> usize {
        self.needle_count
    }

    /// Bytes of those needles in the volume.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of memory that the table takes.
    pub fn memory_bytes(&self) -> usize {
        self.photos.allocation_size() + self.tombstones.allocation_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_a_photo_follow_each_other() {
        let mut group = Group::at(64);
        group.push(PhotoSize::Original, 160);
        group.push(PhotoSize::Large, 80);
        group.push(PhotoSize::Thumb, 48);
        assert_eq!(group.locate(PhotoSize::Original), Some(Location { offset: 64, needle_bytes: 160 }));
        assert_eq!(group.locate(PhotoSize::Large), Some(Location { offset: 224, needle_bytes: 80 }));
        assert_eq!(group.locate(PhotoSize::Small), None);
        assert_eq!(group.locate(PhotoSize::Thumb), Some(Location { offset: 304, needle_bytes: 48 }));
    }

    #[test]
    fn counts_follow_overwrites_and_deletes() {
        let mut group = Group::at(64);
        group.push(PhotoSize::Original, 160);
        let mut index = Index::default();
        index.insert(PhotoKey(1), group);
        group.push(PhotoSize::Large, 40);
        index.insert(PhotoKey(1), group);
        assert_eq!((index.photo_count(), index.needle_count(), index.live_bytes()), (1, 2, 200));
        assert!(index.remove(PhotoKey(1)));
        assert!(!index.remove(PhotoKey(1)));
        index.insert(PhotoKey(1), group);
        assert_eq!((index.photo_count(), index.needle_count(), index.live_bytes()), (0, 0, 0));
        assert_eq!(index.key_max(), Some(PhotoKey(1)));
    }

    #[test]
    fn keys_come_in_order_with_those_that_are_buried() {
        let mut index = Index::default();
        for key in [5, 3, 9, 7] {
            index.insert(PhotoKey(key), Group::at(64));
        }
        index.remove(PhotoKey(5));
        index.remove(PhotoKey(4));
        let known = |key, buried| KnownKey { key: PhotoKey(key), buried };
        let first = index.keys_after(None, 3);
        assert_eq!(first, [known(3, false), known(4, true), known(5, true)]);
        let rest = index.keys_after(Some(PhotoKey(5)), 3);
        assert_eq!(rest, [known(7, false), known(9, false)]);
    }

    #[test]
    fn an_entry_stays_small() {
        assert_eq!(size_of::<(PhotoKey, Group)>(), 32);
    }
}
