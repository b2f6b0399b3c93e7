//! Puts an index together from records in the volume's order.

use std::ops::Range;

use crate::group::Group;
use crate::index::Index;
use crate::index_file::{Content, IndexRecord};
use crate::photo_id::{PhotoKey, PhotoSize};

/// Puts an index together from records in the volume's order.
#[derive(Debug, Default)]
pub(crate) struct IndexBuilder {
    pub(crate) index: Index,
    /// Stretches that hold no needle although needles follow.
    pub(crate) damage: Vec<Range<u64>>,
    /// A photo whose last needle has not come yet.
    unfinished: Option<(PhotoKey, Group)>,
    /// The stretch of damage that the last record was, if it was one.
    gap_bytes: u64,
}

impl IndexBuilder {
    pub(crate) fn apply(&mut self, record: &IndexRecord) {
        let gap_bytes = std::mem::take(&mut self.gap_bytes);
        match record.content {
            Content::Damage => {
                self.damage.push(record.offset..record.end());
                self.gap_bytes = record.bytes;
            }
            Content::Tombstone { key } => {
                self.finish();
                self.index.remove(key);
            }
            Content::Needle { key, alternate_key, continued } => {
                let Some(size) = PhotoSize::from_alternate_key(alternate_key) else { return };
                self.add(key, size, record, gap_bytes);
                if !continued {
                    self.finish();
                }
            }
        }
    }

    /// Adds a needle to its photo. If the needle before it was damaged, the
    /// damaged stretch stands for it: a read of it then says so.
    fn add(&mut self, key: PhotoKey, size: PhotoSize, record: &IndexRecord, gap_bytes: u64) {
        let follows = self.unfinished.is_some_and(|(unfinished, group)| {
            unfinished == key && group.next_size().is_some_and(|next| size >= next)
        });
        if !follows {
            self.finish();
        }
        let (_, group) = self.unfinished.get_or_insert_with(|| (key, Group::at(record.offset)));
        if follows && gap_bytes > 0 {
            match group.next_size().filter(|lost| *lost < size) {
                Some(lost) => group.push(lost, gap_bytes),
                None => {
                    // The stretch lies between two needles that belong together: no layout of ours.
                    self.finish();
                    self.unfinished = Some((key, Group::at(record.offset)));
                }
            }
        }
        let (_, group) = self.unfinished.as_mut().expect("just set");
        group.push(size, record.bytes);
    }

    fn finish(&mut self) {
        if let Some((key, group)) = self.unfinished.take() {
            self.index.insert(key, group);
        }
    }
}
