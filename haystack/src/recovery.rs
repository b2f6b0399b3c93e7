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
//! Orphans may be of a batch whose sync failed in the life before: the system
//! then shows bytes that no later sync writes (Rebello et al., USENIX ATC 2020).
//! So they are written again before they are believed; more than
//! 64 MiB of them are no last batch, but a lost index file.
//!
//! | the power goes                      | what is found                          | what is done |
//! |-------------------------------------|----------------------------------------|--------------|
//! | in a volume's creation              | a file shorter than, or no, superblock | the file is removed; no write to it was acknowledged |
//! | in the write of a batch             | whole photos, then a torn one          | whole ones are kept, the rest is cut |
//! | between the batch's sync and index  | orphans                                | they are scanned |
//! | in the index file's append          | a torn record                          | cut; orphans are scanned |

use std::io::IoSlice;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use vfs::{File, FileSystem};

use crate::error::Result;
use crate::index::Index;
use crate::index_builder::IndexBuilder;
use crate::index_file::{Content, IndexFile};
use crate::scanner::Scanner;
use crate::superblock::{SUPERBLOCK_BYTES, Superblock};

/// Bytes of orphans that are written again, at most.
const REWRITTEN_BYTES_MAX: u64 = 64 << 20;

/// Bytes of them in memory at a time.
const REWRITTEN_PIECE_BYTES: u64 = 1 << 20;

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
    let mut builder = IndexBuilder::default();
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
                builder = IndexBuilder::default();
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
    }
    if scanned.orphan_count > 0 && scanned.tail_offset - start <= REWRITTEN_BYTES_MAX {
        write_again(&**file, start..scanned.tail_offset)?;
    }
    if scanned.tail_offset < volume_bytes || scanned.orphan_count > 0 {
        file.sync()?;
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

/// Writes the bytes in `range` again where they are: the sync that was to make
/// them durable may have failed, in which case only memory has them.
fn write_again(file: &dyn File, range: Range<u64>) -> Result<()> {
    let mut buffer = Vec::new();
    let mut offset = range.start;
    while offset < range.end {
        let piece_bytes = REWRITTEN_PIECE_BYTES.min(range.end - offset);
        buffer.resize(usize::try_from(piece_bytes).expect("a piece is small"), 0);
        file.read_exact_at(&mut buffer, offset)?;
        file.write_all_at(&[IoSlice::new(&buffer)], offset)?;
        offset += piece_bytes;
    }
    Ok(())
}

struct Scanned {
    tail_offset: u64,
    orphan_count: u64,
}

fn scan_orphans(
    scanner: &mut Scanner,
    start: u64,
    builder: &mut IndexBuilder,
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
