//! Opening a volume: its index from the checkpoint and from what the
//! checkpoint misses, and its tail cut to the last whole photo.
//!
//! The index file gives a prefix (Haystack 3.4.4). Needles after it, the
//! paper's orphans, are read from the volume, tombstones among them, so a
//! delete that the index file misses is found here and not at the first read.
//! An index file that is missing, of another volume, or whose last record names
//! another needle than lies there, gives the empty prefix, and the whole volume
//! is read.
//!
//! Bytes that are no needle end the volume if no needle follows them: that is a
//! torn write, which nobody was told of, and it is cut off before anything is
//! appended. With a needle after them they are damage: the stretch is kept,
//! reported and skipped, and the volume takes no more photos.
//!
//! | the power goes                      | what is found                          | what is done |
//! |-------------------------------------|----------------------------------------|--------------|
//! | in a volume's creation              | a file shorter than, or no, superblock | the file is removed; no write to it was acknowledged |
//! | in the write of a batch             | whole photos, then a torn one          | whole ones are kept, the rest is cut |
//! | between the batch's sync and index  | orphans                                | they are scanned |
//! | in the index file's append          | a torn record                          | cut; orphans are scanned |

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use vfs::{File, FileSystem};

use crate::error::Result;
use crate::index::{Group, Index};
use crate::index_file::{Content, IndexFile, IndexRecord};
use crate::needle::{HEADER_BYTES, NEEDLE_ALIGNMENT, Needle, NeedleDamage, claimed_needle_bytes};
use crate::photo_id::{PhotoKey, PhotoSize};
use crate::superblock::{SUPERBLOCK_BYTES, Superblock};

/// Bytes read at a time while scanning, unless a needle is larger.
const WINDOW_BYTES: u64 = 1 << 20;

/// Records appended to the index file at a time.
const RECORD_COUNT_BATCH: usize = 1024;

/// A volume as it was found.
#[derive(Debug)]
pub struct Recovered {
    /// Where each photo lies.
    pub index: Index,
    /// Where the next needle goes.
    pub tail_offset: u64,
    /// The index file, complete.
    pub index_file: IndexFile,
    /// Stretches that hold no needle although needles follow.
    pub damage: Vec<Range<u64>>,
    /// Bytes of a torn write that were cut off.
    pub cut_bytes: u64,
    /// Needles that the index file did not know.
    pub orphan_count: u64,
}

/// Recovers the volume in `file`.
///
/// # Errors
///
/// Only where files fail.
pub fn recover(
    fs: &dyn FileSystem,
    file: &Arc<dyn File>,
    index_path: &Path,
    superblock: &Superblock,
) -> Result<Recovered> {
    let volume_bytes = file.len()?;
    let mut builder = Builder::default();
    let mut last = None;
    let mut index_file = IndexFile::load(fs, index_path, superblock, volume_bytes, |record| {
        builder.apply(record);
        last = Some(*record);
    })?;
    let mut scanner = Scanner::new(Arc::clone(file), superblock.checksum_seed(), volume_bytes);
    if let Some(record) = last {
        match scanner.needle_at(record.offset)? {
            Ok(found) if found == record => {}
            Ok(_) => {
                index_file.clear(superblock)?;
                builder = Builder::default();
                last = None;
            }
            // The file is bound to this volume, so it is the needle that is ill.
            Err(_) => builder.damage.push(record.offset..record.end()),
        }
    }
    let start = last.map_or(SUPERBLOCK_BYTES as u64, |record| record.end());
    let scanned = scan_orphans(&mut scanner, start, &mut builder, &mut index_file)?;
    if scanned.tail_offset < volume_bytes {
        file.set_len(scanned.tail_offset)?;
        file.sync()?;
    }
    if scanned.orphan_count > 0 {
        index_file.sync()?;
    }
    Ok(Recovered {
        index: builder.index,
        tail_offset: scanned.tail_offset,
        index_file,
        damage: builder.damage,
        cut_bytes: volume_bytes - scanned.tail_offset,
        orphan_count: scanned.orphan_count,
    })
}

struct Scanned {
    tail_offset: u64,
    orphan_count: u64,
}

fn scan_orphans(
    scanner: &mut Scanner,
    start: u64,
    builder: &mut Builder,
    index_file: &mut IndexFile,
) -> Result<Scanned> {
    let mut scanned = Scanned { tail_offset: start, orphan_count: 0 };
    // Records after the last complete photo: not the index file's until it ends.
    let mut unfinished = Vec::new();
    let mut finished = Vec::new();
    let mut offset = start;
    while let Some(record) = scanner.next(offset)? {
        offset = record.end();
        scanned.orphan_count += u64::from(record.content != Content::Damage);
        unfinished.push(record);
        if record.ends_photo() {
            unfinished.iter().for_each(|record| builder.apply(record));
            finished.append(&mut unfinished);
            scanned.tail_offset = offset;
        }
        if finished.len() >= RECORD_COUNT_BATCH {
            index_file.append(&finished)?;
            finished.clear();
        }
    }
    index_file.append(&finished)?;
    Ok(scanned)
}

/// Puts an index together from records in the volume's order.
#[derive(Debug, Default)]
struct Builder {
    index: Index,
    damage: Vec<Range<u64>>,
    /// A photo whose last needle has not come yet.
    unfinished: Option<(PhotoKey, Group)>,
    /// The stretch of damage that the last record was, if it was one.
    gap_bytes: u64,
}

impl Builder {
    fn apply(&mut self, record: &IndexRecord) {
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

/// Reads needles one after the other through a window on the file.
#[derive(Debug)]
struct Scanner {
    file: Arc<dyn File>,
    seed: u32,
    end: u64,
    window: Vec<u8>,
    window_offset: u64,
}

impl Scanner {
    fn new(file: Arc<dyn File>, seed: u32, end: u64) -> Self {
        Self { file, seed, end, window: Vec::new(), window_offset: 0 }
    }

    /// What lies at `offset`; none where no needle follows any more.
    fn next(&mut self, offset: u64) -> Result<Option<IndexRecord>> {
        if let Ok(record) = self.needle_at(offset)? {
            return Ok(Some(record));
        }
        let mut candidate = offset + NEEDLE_ALIGNMENT;
        while candidate + HEADER_BYTES as u64 <= self.end {
            if self.needle_at(candidate)?.is_ok() {
                return Ok(Some(IndexRecord { offset, bytes: candidate - offset, content: Content::Damage }));
            }
            candidate += NEEDLE_ALIGNMENT;
        }
        Ok(None)
    }

    /// The needle at `offset`, verified, or what is wrong there.
    fn needle_at(&mut self, offset: u64) -> Result<std::result::Result<IndexRecord, NeedleDamage>> {
        let left = self.end.saturating_sub(offset);
        if left < HEADER_BYTES as u64 {
            return Ok(Err(NeedleDamage::Short { found: left, expected: HEADER_BYTES as u64 }));
        }
        let claimed = match claimed_needle_bytes(self.bytes(offset, HEADER_BYTES as u64)?) {
            Ok(claimed) if claimed <= left => claimed,
            Ok(expected) => return Ok(Err(NeedleDamage::Short { found: left, expected })),
            Err(damage) => return Ok(Err(damage)),
        };
        let seed = self.seed;
        let bytes = self.bytes(offset, claimed)?;
        Ok(Needle::decode(bytes, seed).and_then(|needle| {
            let header = &needle.header;
            if !header.deleted && PhotoSize::from_alternate_key(header.alternate_key).is_none() {
                return Err(NeedleDamage::Field { field: "alternate key", found: header.alternate_key });
            }
            Ok(IndexRecord::of(header, offset))
        }))
    }

    /// The `length` bytes at `offset`, which end before the file does.
    fn bytes(&mut self, offset: u64, length: u64) -> Result<&[u8]> {
        let window_end = self.window_offset + self.window.len() as u64;
        if offset < self.window_offset || offset + length > window_end {
            let size = length.max(WINDOW_BYTES).min(self.end - offset);
            self.window.resize(usize::try_from(size).expect("a needle or a window"), 0);
            self.file.read_exact_at(&mut self.window, offset)?;
            self.window_offset = offset;
        }
        let start = usize::try_from(offset - self.window_offset).expect("within the window");
        Ok(&self.window[start..start + usize::try_from(length).expect("within the window")])
    }
}
