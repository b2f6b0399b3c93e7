//! Where the needles of one photo lie: what the index keeps of it.
//!
//! All sizes of a photo lie one after the other, largest first, because one
//! multi-write put them there. So where the first begins and how long each is
//! says it all. A photo without a needle is one that was deleted.

use crate::needle::NEEDLE_ALIGNMENT;
use crate::photo_id::PhotoSize;

/// The largest volume that a [`Group`] can describe, bytes.
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
    /// Where the first begins, in units of eight bytes.
    pub(crate) first_unit: u32,
    /// Units of each size; 0 where there is none.
    pub(crate) units: [u32; PhotoSize::COUNT],
}

impl Group {
    /// What stands for a photo that was deleted: a tombstone's.
    pub const BURIED: Self = Self { first_unit: 0, units: [0; PhotoSize::COUNT] };

    /// A photo whose first needle will begin at `offset`.
    ///
    /// # Panics
    ///
    /// If `offset` is not within [`VOLUME_BYTES_LIMIT`].
    pub fn at(offset: u64) -> Self {
        Self { first_unit: units(offset), ..Self::BURIED }
    }

    /// Whether the photo was deleted.
    pub fn is_buried(&self) -> bool {
        self.units == Self::BURIED.units
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

    /// Its sizes, largest first.
    pub fn sizes(&self) -> impl DoubleEndedIterator<Item = PhotoSize> + use<> {
        let units = self.units;
        PhotoSize::ALL.into_iter().filter(move |size| units[size.place()] != 0)
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
        assert!(!group.is_buried());
        assert!(Group::at(64).is_buried(), "a photo without a needle is none");
    }
}
