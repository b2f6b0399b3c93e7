//! Volumes and index files, looked into offline. Nothing here writes.

use std::ops::Range;
use std::path::{Path, PathBuf};

use vfs::{Access, FileSystem};

use crate::error::{Error, Result};
use crate::index::Totals;
use crate::index_builder::IndexBuilder;
use crate::index_file::{Content, IndexFile, IndexRecord};
use crate::photo_id::VolumeId;
use crate::scanner::Scanner;
use crate::superblock::{SUPERBLOCK_BYTES, Superblock};
use crate::volume::volume_of_path;

/// What a volume's file and its index file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeReport {
    /// Which volume it is.
    pub superblock: Superblock,
    /// The file's length, bytes.
    pub file_bytes: u64,
    /// What was counted: in the whole file if it was verified, else as far as the
    /// index file knows.
    pub totals: Totals,
    /// Tombstones in the file; some may be of one photo.
    pub tombstone_needle_count: u64,
    /// Bytes that the index file accounts for.
    pub indexed_bytes: u64,
    /// Stretches that hold no needle although needles follow. Empty unless verified.
    pub damage: Vec<Range<u64>>,
    /// Bytes behind the last needle: a write that was never acknowledged. 0 unless verified.
    pub torn_bytes: u64,
    /// Where the index file says otherwise than the volume. Empty unless verified.
    pub disagreements: Vec<u64>,
}

/// What an index file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexReport {
    /// The logical volume and the number of the physical one.
    pub volume: (VolumeId, u64),
    /// The file's length, bytes.
    pub file_bytes: u64,
    /// Bytes of it that are sound and end with a whole photo.
    pub sound_bytes: u64,
    /// What its records count.
    pub totals: Totals,
    /// Where the needles end that it knows, bytes.
    pub indexed_bytes: u64,
}

/// Looks into the volume at `path`, and tells `visit` of each needle, tombstone
/// and damaged stretch. With `verify` every needle is read; else the index file
/// is believed.
///
/// # Errors
///
/// - [`Error::VolumeIll`]: the superblock is damaged or of another version.
/// - [`Error::Io`]
pub fn inspect_volume(
    fs: &dyn FileSystem,
    path: &Path,
    verify: bool,
    mut visit: impl FnMut(&IndexRecord),
) -> Result<VolumeReport> {
    let file = fs.open(path, Access::Read)?;
    let file_bytes = file.len()?;
    let superblock = read_superblock(fs, path)?;
    let mut indexed: Vec<IndexRecord> = Vec::new();
    let mut summary = Summary::default();
    let index_path = path.with_extension("index");
    let mut indexed_bytes = SUPERBLOCK_BYTES as u64;
    if fs.exists(&index_path)? && IndexFile::is_of(fs, &index_path, &superblock)? {
        IndexFile::read(fs, &index_path, &superblock, file_bytes, |record| {
            indexed_bytes = record.end();
            if verify {
                indexed.push(*record);
            } else {
                summary.add(record);
                visit(record);
            }
        })?;
    }
    let (mut disagreements, mut offset) = (Vec::new(), SUPERBLOCK_BYTES as u64);
    if verify {
        let mut scanner = Scanner::new(file, superblock.checksum_seed(), file_bytes);
        let mut indexed = indexed.into_iter().peekable();
        while let Some(record) = scanner.next(offset)? {
            offset = record.end();
            while indexed.peek().is_some_and(|known| known.offset < record.offset) {
                indexed.next();
            }
            let known = indexed.next_if(|known| known.offset == record.offset);
            if known.is_some_and(|known| known != record && record.content != Content::Damage) {
                disagreements.push(record.offset);
            }
            summary.add(&record);
            visit(&record);
        }
    }
    let Summary { builder, tombstone_needle_count } = summary;
    Ok(VolumeReport {
        superblock,
        file_bytes,
        totals: builder.index.totals(),
        tombstone_needle_count,
        indexed_bytes,
        damage: builder.damage,
        torn_bytes: if verify { file_bytes - offset } else { 0 },
        disagreements,
    })
}

/// Looks into the index file at `path`, beside which its volume lies, and tells
/// `visit` of each record.
///
/// # Errors
///
/// - [`Error::VolumeIll`]: the volume's superblock is damaged, or the index file
///   is another volume's.
/// - [`Error::Io`]
pub fn inspect_index(
    fs: &dyn FileSystem,
    path: &Path,
    mut visit: impl FnMut(&IndexRecord),
) -> Result<IndexReport> {
    let volume_path = path.with_extension("volume");
    let superblock = read_superblock(fs, &volume_path)?;
    if !IndexFile::is_of(fs, path, &superblock)? {
        let found = "the index file is damaged at its head, or belongs to another volume".to_owned();
        return Err(Error::VolumeIll { volume: superblock.logical_volume, found });
    }
    let volume_bytes = fs.open(&volume_path, Access::Read)?.len()?;
    let mut summary = Summary::default();
    let mut indexed_bytes = SUPERBLOCK_BYTES as u64;
    let sound_bytes = IndexFile::read(fs, path, &superblock, volume_bytes, |record| {
        indexed_bytes = record.end();
        summary.add(record);
        visit(record);
    })?;
    Ok(IndexReport {
        volume: (superblock.logical_volume, superblock.physical_volume),
        file_bytes: fs.open(path, Access::Read)?.len()?,
        sound_bytes,
        totals: summary.builder.index.totals(),
        indexed_bytes,
    })
}

/// The volume files in `dir`.
///
/// # Errors
///
/// [`Error::Io`]
pub fn volumes_in(fs: &dyn FileSystem, dir: &Path) -> Result<Vec<PathBuf>> {
    let names = fs.list(dir)?;
    Ok(names.iter().filter(|name| volume_of_path(name).is_some()).map(|name| dir.join(name)).collect())
}

fn read_superblock(fs: &dyn FileSystem, path: &Path) -> Result<Superblock> {
    let file = fs.open(path, Access::Read)?;
    let mut bytes = [0; SUPERBLOCK_BYTES];
    if file.len()? >= SUPERBLOCK_BYTES as u64 {
        file.read_exact_at(&mut bytes, 0)?;
    }
    let volume = volume_of_path(path).unwrap_or(VolumeId(0));
    Superblock::decode(&bytes).map_err(|damage| Error::VolumeIll { volume, found: damage.to_string() })
}

#[derive(Default)]
struct Summary {
    builder: IndexBuilder,
    tombstone_needle_count: u64,
}

impl Summary {
    fn add(&mut self, record: &IndexRecord) {
        self.tombstone_needle_count += u64::from(matches!(record.content, Content::Tombstone { .. }));
        self.builder.apply(record);
    }
}
