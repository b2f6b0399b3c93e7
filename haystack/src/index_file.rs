//! The index file: the checkpoint from which a volume's index is read at a
//! start, so that the volume itself need not be (Haystack 3.4.4 and table 2).
//!
//! | OFFSET      | SIZE | FIELD                                  |
//! |-------------|------|----------------------------------------|
//! | 0           | 8    | magic, `HAYINDEX`                      |
//! | 8           | 4    | format version, 1                      |
//! | 12          | 4    | logical volume                         |
//! | 16          | 8    | physical volume                        |
//! | 24          | 4    | reserved, zero                         |
//! | 28          | 4    | crc32c of bytes 0 to 28                |
//! | 32 + 32 i   | 32   | record i                               |
//!
//! A record, one for each needle, tombstone or damaged stretch of the volume,
//! in the volume's order and without a gap:
//!
//! | OFFSET | SIZE | FIELD                                                |
//! |--------|------|------------------------------------------------------|
//! | 0      | 8    | key; 0 for a damaged stretch                         |
//! | 8      | 4    | alternate key; 0 for a tombstone or damaged stretch  |
//! | 12     | 1    | flags: 1 deleted, 2 continued, 4 damaged             |
//! | 13     | 3    | reserved, zero                                       |
//! | 16     | 8    | offset in the volume, bytes                          |
//! | 24     | 4    | length, in units of 8 bytes                          |
//! | 28     | 4    | crc32c of bytes 0 to 28, begun at the volume's seed  |
//!
//! Little-endian. Records are appended after the volume's sync and never synced
//! for a write's sake, so the file may lag or be torn, but it never tells of a
//! needle that is not durable. What is read of it is the longest sound prefix
//! that ends with a whole photo; the volume's bytes after that are scanned.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use vfs::{File, FileSystem};

use crate::error::Result;
use crate::group::VOLUME_BYTES_LIMIT;
use crate::needle::{NEEDLE_ALIGNMENT, NeedleHeader};
use crate::photo_id::PhotoKey;
use crate::superblock::{SUPERBLOCK_BYTES, Superblock};

const MAGIC: [u8; 8] = *b"HAYINDEX";
const FORMAT_VERSION: u32 = 1;

const VERSION_AT: usize = 8;
const LOGICAL_AT: usize = VERSION_AT + 4;
const PHYSICAL_AT: usize = LOGICAL_AT + 4;
const HEADER_RESERVED_AT: usize = PHYSICAL_AT + 8;
const HEADER_CHECKSUM_AT: usize = HEADER_RESERVED_AT + 4;
const HEADER_BYTES: usize = HEADER_CHECKSUM_AT + 4;
const _: () = assert!(HEADER_BYTES == 32);

const KEY_AT: usize = 0;
const ALTERNATE_KEY_AT: usize = KEY_AT + 8;
const FLAGS_AT: usize = ALTERNATE_KEY_AT + 4;
const RECORD_RESERVED_AT: usize = FLAGS_AT + 1;
const OFFSET_AT: usize = RECORD_RESERVED_AT + 3;
const UNITS_AT: usize = OFFSET_AT + 8;
const RECORD_CHECKSUM_AT: usize = UNITS_AT + 4;
/// Bytes of one record.
pub const RECORD_BYTES: usize = RECORD_CHECKSUM_AT + 4;
const _: () = assert!(RECORD_BYTES == 32);

const FLAG_DELETED: u8 = 1;
const FLAG_CONTINUED: u8 = 2;
const FLAG_DAMAGED: u8 = 4;

/// Bytes read at a time.
const READ_BYTES: usize = 32 << 10;

/// What lies in a stretch of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A needle of a photo.
    Needle {
        /// The photo.
        key: PhotoKey,
        /// Its size.
        alternate_key: u32,
        /// Whether more of the same multi-write follows.
        continued: bool,
    },
    /// The photo's deletion.
    Tombstone {
        /// The photo.
        key: PhotoKey,
    },
    /// Bytes that are no needle, with needles after them.
    Damage,
}

/// A stretch of a volume and what lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRecord {
    /// Its first byte.
    pub offset: u64,
    /// Its length, bytes.
    pub bytes: u64,
    /// What it is.
    pub content: Content,
}

impl IndexRecord {
    /// The record of a needle that lies at `offset`.
    pub fn of(header: &NeedleHeader, offset: u64) -> Self {
        let content = if header.deleted {
            Content::Tombstone { key: header.key }
        } else {
            Content::Needle {
                key: header.key,
                alternate_key: header.alternate_key,
                continued: header.continued,
            }
        };
        Self { offset, bytes: header.needle_bytes(), content }
    }

    /// The first byte after it.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes
    }

    /// Whether a photo or a deletion is complete with it.
    pub fn ends_photo(&self) -> bool {
        !matches!(self.content, Content::Needle { continued: true, .. } | Content::Damage)
    }

    fn encode(&self, seed: u32) -> [u8; RECORD_BYTES] {
        let (key, alternate_key, flags) = match self.content {
            Content::Needle { key, alternate_key, continued } => {
                (key.0, alternate_key, u8::from(continued) * FLAG_CONTINUED)
            }
            Content::Tombstone { key } => (key.0, 0, FLAG_DELETED),
            Content::Damage => (0, 0, FLAG_DAMAGED),
        };
        let units = u32::try_from(self.bytes / NEEDLE_ALIGNMENT).expect("within VOLUME_BYTES_LIMIT");
        let mut record = [0; RECORD_BYTES];
        record[KEY_AT..ALTERNATE_KEY_AT].copy_from_slice(&key.to_le_bytes());
        record[ALTERNATE_KEY_AT..FLAGS_AT].copy_from_slice(&alternate_key.to_le_bytes());
        record[FLAGS_AT] = flags;
        record[OFFSET_AT..UNITS_AT].copy_from_slice(&self.offset.to_le_bytes());
        record[UNITS_AT..RECORD_CHECKSUM_AT].copy_from_slice(&units.to_le_bytes());
        Self::put_checksum(&mut record, seed);
        record
    }

    /// Puts the checksum of the rest of a record into it.
    pub(crate) fn put_checksum(record: &mut [u8; RECORD_BYTES], seed: u32) {
        let checksum = crc32c::crc32c_append(seed, &record[..RECORD_CHECKSUM_AT]);
        record[RECORD_CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Takes a record; none if it is torn, damaged or of another volume.
    pub(crate) fn decode(record: &[u8; RECORD_BYTES], seed: u32) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("eight bytes"));
        if crc32c::crc32c_append(seed, &record[..RECORD_CHECKSUM_AT]) != word(RECORD_CHECKSUM_AT) {
            return None;
        }
        if record[RECORD_RESERVED_AT..OFFSET_AT].iter().any(|byte| *byte != 0) {
            return None;
        }
        let (key, alternate_key) = (PhotoKey(long(KEY_AT)), word(ALTERNATE_KEY_AT));
        let content = match record[FLAGS_AT] {
            0 => Content::Needle { key, alternate_key, continued: false },
            FLAG_CONTINUED => Content::Needle { key, alternate_key, continued: true },
            FLAG_DELETED => Content::Tombstone { key },
            FLAG_DAMAGED => Content::Damage,
            _ => return None,
        };
        let (offset, bytes) = (long(OFFSET_AT), u64::from(word(UNITS_AT)) * NEEDLE_ALIGNMENT);
        let sound = bytes > 0 && offset % NEEDLE_ALIGNMENT == 0 && offset <= VOLUME_BYTES_LIMIT - bytes;
        sound.then_some(Self { offset, bytes, content })
    }
}

/// An index file open for appending. One writer, the volume's.
#[derive(Debug)]
pub struct IndexFile {
    file: Arc<dyn File>,
    seed: u32,
    /// Bytes of the file that are sound.
    len: u64,
}

impl IndexFile {
    /// Opens the index file of the volume with `superblock`, or creates it, and
    /// hands its sound records to `apply`. What follows them is cut off.
    ///
    /// # Errors
    ///
    /// Only where files fail: a damaged index file is an empty one.
    pub fn load(
        fs: &dyn FileSystem,
        path: &Path,
        superblock: &Superblock,
        volume_bytes: u64,
        mut apply: impl FnMut(&IndexRecord),
    ) -> Result<Self> {
        if !fs.exists(path)? {
            let index_file = Self::create(fs, path, superblock)?;
            fs.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
            return Ok(index_file);
        }
        let file = fs.open(path, vfs::Access::ReadWrite)?;
        let mut index_file = Self { file, seed: superblock.checksum_seed(), len: HEADER_BYTES as u64 };
        let file_bytes = index_file.file.len()?;
        if !is_bound(&*index_file.file, superblock)? {
            index_file.clear(superblock)?;
            return Ok(index_file);
        }
        index_file.len += index_file.read_records(file_bytes, volume_bytes, &mut apply)?;
        if index_file.len < file_bytes {
            index_file.file.set_len(index_file.len)?;
        }
        Ok(index_file)
    }

    /// Creates an empty one at `path`, whose name is not synced.
    pub fn create(fs: &dyn FileSystem, path: &Path, superblock: &Superblock) -> Result<Self> {
        let file = fs.create(path)?;
        let mut index_file = Self { file, seed: superblock.checksum_seed(), len: 0 };
        index_file.clear(superblock)?;
        Ok(index_file)
    }

    /// Whether the file at `path` is the index file of the volume with `superblock`.
    pub fn is_of(fs: &dyn FileSystem, path: &Path, superblock: &Superblock) -> Result<bool> {
        is_bound(&*fs.open(path, vfs::Access::Read)?, superblock)
    }

    /// Hands the sound records of the file at `path` to `apply`, changes nothing,
    /// and returns how many bytes of the file are sound.
    pub fn read(
        fs: &dyn FileSystem,
        path: &Path,
        superblock: &Superblock,
        volume_bytes: u64,
        mut apply: impl FnMut(&IndexRecord),
    ) -> Result<u64> {
        let file = fs.open(path, vfs::Access::Read)?;
        if !is_bound(&*file, superblock)? {
            return Ok(0);
        }
        let file_bytes = file.len()?;
        let index_file = Self { file, seed: superblock.checksum_seed(), len: HEADER_BYTES as u64 };
        Ok(index_file.len + index_file.read_records(file_bytes, volume_bytes, &mut apply)?)
    }

    /// Forgets every record.
    pub fn clear(&mut self, superblock: &Superblock) -> Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(&[IoSlice::new(&encode_header(superblock))], 0)?;
        self.len = HEADER_BYTES as u64;
        Ok(())
    }

    /// Reads the sound prefix and returns its length, in bytes.
    fn read_records(
        &self,
        file_bytes: u64,
        volume_bytes: u64,
        apply: &mut impl FnMut(&IndexRecord),
    ) -> Result<u64> {
        let mut buffer = vec![0; READ_BYTES];
        // Records of a photo that is not complete yet: a handful.
        let mut pending: Vec<IndexRecord> = Vec::new();
        let (mut read, mut sound) = (0, 0);
        let mut expected_offset = SUPERBLOCK_BYTES as u64;
        loop {
            let left = (file_bytes - HEADER_BYTES as u64 - read) / RECORD_BYTES as u64 * RECORD_BYTES as u64;
            let step = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
            if step == 0 {
                return Ok(sound);
            }
            self.file.read_exact_at(&mut buffer[..step], HEADER_BYTES as u64 + read)?;
            for bytes in buffer[..step].as_chunks::<RECORD_BYTES>().0 {
                let record = IndexRecord::decode(bytes, self.seed)
                    .filter(|record| record.offset == expected_offset && record.end() <= volume_bytes);
                let Some(record) = record else { return Ok(sound) };
                expected_offset = record.end();
                read += RECORD_BYTES as u64;
                pending.push(record);
                if record.ends_photo() {
                    pending.drain(..).for_each(|record| apply(&record));
                    sound = read;
                }
            }
        }
    }

    /// Appends `records`. They are not synced.
    pub fn append(&mut self, records: &[IndexRecord]) -> Result<()> {
        let bytes: Vec<u8> = records.iter().flat_map(|record| record.encode(self.seed)).collect();
        self.file.write_all_at(&[IoSlice::new(&bytes)], self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Makes what was appended durable.
    pub fn sync(&self) -> Result<()> {
        Ok(self.file.sync()?)
    }
}

fn is_bound(file: &dyn File, superblock: &Superblock) -> Result<bool> {
    let mut header = [0; HEADER_BYTES];
    if file.len()? < HEADER_BYTES as u64 {
        return Ok(false);
    }
    file.read_exact_at(&mut header, 0)?;
    Ok(header == encode_header(superblock))
}

fn encode_header(superblock: &Superblock) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..VERSION_AT].copy_from_slice(&MAGIC);
    header[VERSION_AT..LOGICAL_AT].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[LOGICAL_AT..PHYSICAL_AT].copy_from_slice(&superblock.logical_volume.0.to_le_bytes());
    header[PHYSICAL_AT..HEADER_RESERVED_AT].copy_from_slice(&superblock.physical_volume.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..HEADER_CHECKSUM_AT]);
    header[HEADER_CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::photo_id::VolumeId;

    #[test]
    fn the_bytes_are_pinned() {
        let superblock =
            Superblock { logical_volume: VolumeId(7), physical_volume: 0x0102_0304_0506_0708, created_ms: 0 };
        let records = [
            IndexRecord {
                offset: 64,
                bytes: 48,
                content: Content::Needle { key: PhotoKey(5), alternate_key: 1, continued: true },
            },
            IndexRecord { offset: 112, bytes: 40, content: Content::Tombstone { key: PhotoKey(5) } },
            IndexRecord { offset: 152, bytes: 800, content: Content::Damage },
        ];
        let mut bytes = encode_header(&superblock).to_vec();
        for record in &records {
            let encoded = record.encode(superblock.checksum_seed());
            assert_eq!(IndexRecord::decode(&encoded, superblock.checksum_seed()), Some(*record));
            bytes.extend_from_slice(&encoded);
        }
        assert_eq!(bytes, include_bytes!("../tests/golden/index_file.bin"));
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_seen() {
        let record = IndexRecord { offset: 112, bytes: 40, content: Content::Tombstone { key: PhotoKey(5) } };
        for bit in 0..RECORD_BYTES * 8 {
            let mut bytes = record.encode(1);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(IndexRecord::decode(&bytes, 1), None, "bit {bit}");
        }
    }
}
