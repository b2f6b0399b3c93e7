//! A run of the index, in memory, packed: photos in the order of their keys.
//!
//! Photos stand in blocks of [`BLOCK_PHOTO_COUNT`]. A lookup finds the block by
//! binary search over first keys and decodes it up to the photo; so a photo
//! costs its packed bytes and shares twelve bytes with its block.
//!
//! A photo in its block, all numbers as little-endian base 128:
//!
//! | FIELD | WHAT |
//! |-------|------|
//! | key   | less the key before it; not there for the first of a block |
//! | marks | bit n: there is a needle of size n; bit 5: it does not follow the photo before it |
//! | first | only with bit 5: where its first needle begins, in units, less where the photo before it ends, zigzag |
//! | units | of each size that there is |
//!
//! Uploads come with rising keys and lie one after the other, so the usual photo
//! of five sizes takes 4 bytes of key, 1 of marks and 2 to 3 a size. A deleted
//! photo has no marks and nothing after them.

use crate::group::Group;
use crate::photo_id::{PhotoKey, PhotoSize};

/// Photos that are decoded for a lookup, at most.
const BLOCK_PHOTO_COUNT: usize = 8;

const MARK_APART: u8 = 1 << PhotoSize::COUNT;

/// Photos in the order of their keys, packed. Never empty, never changed.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The first key of each block.
    keys: Box<[u64]>,
    /// Where each block begins in `bytes`.
    starts: Box<[u32]>,
    bytes: Box<[u8]>,
    photo_count: usize,
    key_max: PhotoKey,
}

impl Segment {
    /// Packs `photos`, which are in the order of their keys, each key once.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub(crate) fn pack(photos: &[(PhotoKey, Group)]) -> Self {
        let (key_max, _) = *photos.last().expect("a segment holds photos");
        let block_count = photos.len().div_ceil(BLOCK_PHOTO_COUNT);
        let (mut keys, mut starts) = (Vec::with_capacity(block_count), Vec::with_capacity(block_count));
        let mut bytes = Vec::with_capacity(photos.len() * 20);
        for block in photos.chunks(BLOCK_PHOTO_COUNT) {
            keys.push(block[0].0.0);
            starts.push(u32::try_from(bytes.len()).expect("a segment is small"));
            let mut end_unit = 0;
            let mut before = None;
            for (key, group) in block {
                if let Some(before) = before.replace(key.0) {
                    put(&mut bytes, key.0 - before);
                }
                end_unit = put_group(&mut bytes, group, end_unit);
            }
        }
        Self {
            keys: keys.into(),
            starts: starts.into(),
            bytes: bytes.into(),
            photo_count: photos.len(),
            key_max,
        }
    }

    /// The photo `key`, deleted ones too.
    pub(crate) fn find(&self, key: PhotoKey) -> Option<Group> {
        let block = self.keys.partition_point(|first| *first <= key.0).checked_sub(1)?;
        let found = self.block(block).find(|(there, _)| *there >= key);
        found.filter(|(there, _)| *there == key).map(|(_, group)| group)
    }

    /// Its photos with keys from `key` on.
    pub(crate) fn photos_from(&self, key: PhotoKey) -> impl Iterator<Item = (PhotoKey, Group)> {
        let block = self.keys.partition_point(|first| *first <= key.0).saturating_sub(1);
        let photos = (block..self.keys.len()).flat_map(|block| self.block(block));
        photos.skip_while(move |(there, _)| *there < key)
    }

    pub(crate) fn key_min(&self) -> PhotoKey {
        PhotoKey(self.keys[0])
    }

    pub(crate) fn key_max(&self) -> PhotoKey {
        self.key_max
    }

    pub(crate) fn photo_count(&self) -> usize {
        self.photo_count
    }

    /// Bytes of memory, those of the value itself too.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.keys) + size_of_val(&*self.starts) + self.bytes.len()
    }

    fn block(&self, block: usize) -> Block<'_> {
        let left = (self.photo_count - block * BLOCK_PHOTO_COUNT).min(BLOCK_PHOTO_COUNT);
        let rest = &self.bytes[self.starts[block] as usize..];
        Block { rest, key: self.keys[block], is_first: true, end_unit: 0, left }
    }
}

struct Block<'a> {
    rest: &'a [u8],
    key: u64,
    is_first: bool,
    end_unit: u32,
    left: usize,
}

impl Iterator for Block<'_> {
    type Item = (PhotoKey, Group);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        if !std::mem::take(&mut self.is_first) {
            self.key += take(&mut self.rest);
        }
        let marks = self.rest[0];
        self.rest = &self.rest[1..];
        let mut group = Group::BURIED;
        if marks == 0 {
            return Some((PhotoKey(self.key), group));
        }
        group.first_unit = self.end_unit;
        if marks & MARK_APART != 0 {
            group.first_unit = self.end_unit.wrapping_add_signed(unzigzag(take(&mut self.rest)));
        }
        self.end_unit = group.first_unit;
        for (place, units) in group.units.iter_mut().enumerate() {
            if marks & 1 << place != 0 {
                *units = u32_of(take(&mut self.rest));
                self.end_unit += *units;
            }
        }
        Some((PhotoKey(self.key), group))
    }
}

/// Packs `group` behind one that ends at `end_unit`, and returns its own end.
fn put_group(bytes: &mut Vec<u8>, group: &Group, end_unit: u32) -> u32 {
    if group.is_buried() {
        bytes.push(0);
        return end_unit;
    }
    let sizes = group.units.iter().enumerate().filter(|(_, units)| **units != 0);
    let marks = sizes.fold(0, |marks, (place, _)| marks | 1_u8 << place);
    let is_apart = group.first_unit != end_unit;
    bytes.push(marks | if is_apart { MARK_APART } else { 0 });
    if is_apart {
        put(bytes, zigzag(group.first_unit.wrapping_sub(end_unit).cast_signed()));
    }
    let mut end = group.first_unit;
    for units in group.units.into_iter().filter(|units| *units != 0) {
        put(bytes, units.into());
        end += units;
    }
    end
}

fn zigzag(value: i32) -> u64 {
    u64::from(((value << 1) ^ (value >> 31)).cast_unsigned())
}

fn unzigzag(value: u64) -> i32 {
    let value = u32_of(value);
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

fn u32_of(value: u64) -> u32 {
    u32::try_from(value).expect("it was packed from one")
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
}

/// Takes a number that [`put`] put there.
fn take(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            *bytes = &bytes[place + 1..];
            return value;
        }
    }
    unreachable!("a segment is packed whole")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(first_unit: u32, units: [u32; PhotoSize::COUNT]) -> Group {
        Group { first_unit, units }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_packed_is_found_and_nothing_else(
            photos in proptest::collection::btree_map(
                proptest::prop_oneof![0..200_u64, proptest::num::u64::ANY],
                (0..=u32::MAX / 2, proptest::array::uniform5(proptest::prop_oneof![0..3_u32, 0..=u32::MAX / 20])),
                1..100,
            ),
            others: Vec<u64>,
        ) {
            let photos: Vec<(PhotoKey, Group)> = photos
                .into_iter()
                .map(|(key, (first, units))| (PhotoKey(key), group(if units == [0; 5] { 0 } else { first }, units)))
                .collect();
            let segment = Segment::pack(&photos);
            for (key, group) in &photos {
                proptest::prop_assert_eq!(segment.find(*key), Some(*group));
            }
            for other in others.into_iter().chain(0..200).map(PhotoKey) {
                let there = photos.iter().find(|(key, _)| *key == other).map(|(_, group)| *group);
                proptest::prop_assert_eq!(segment.find(other), there);
                let from: Vec<_> = photos.iter().copied().filter(|(key, _)| *key >= other).collect();
                proptest::prop_assert_eq!(segment.photos_from(other).collect::<Vec<_>>(), from);
            }
            proptest::prop_assert_eq!((segment.key_min(), segment.key_max()), (photos[0].0, photos[photos.len() - 1].0));
        }
    }

    #[test]
    fn a_photo_that_follows_another_takes_few_bytes() {
        let units = [400_000, 40_000, 12_000, 4_000, 600];
        let length = units.iter().sum::<u32>();
        let photos: Vec<(PhotoKey, Group)> = (0..1600_u32)
            .map(|number| {
                (
                    PhotoKey::first_at(1_800_000_000_000 + u64::from(number)),
                    group(8 + number % 3 * length, units),
                )
            })
            .collect();
        let bytes = Segment::pack(&photos).memory_bytes();
        assert!(bytes < 1600 * 24, "{bytes} bytes");
    }
}
