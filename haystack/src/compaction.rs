//! Compaction of a volume under traffic (Haystack 3.5).
//!
//! Live needles are copied to a second file, in their order; readers and the
//! writer go on meanwhile. What is written meanwhile, overwrites and deletes
//! too, lies behind where the copy began to read, so further passes bring it
//! along, each shorter than the one before. The last pass is the writer's, between
//! two batches: nothing is written while it runs. Then:
//!
//! | step | what | what a crash after it leaves |
//! |------|------|------------------------------|
//! | 1 | the new volume `….compact` and its index `….compact-index` are synced | the old volume; the next opening removes both |
//! | 2 | `….compact` is renamed to `….volume`: the commit | either, by what of the directory reached the disk; both hold all that was acknowledged |
//! | 3 | the directory is synced | the new volume |
//! | 4 | `….compact-index` is renamed to `….index` | the new volume; the next opening finishes the rename, or scans |
//! | 5 | file and index are replaced in memory, in one | the new volume |
//!
//! An index file is bound to its volume file by the physical volume's number, so
//! no order of renames can pair the wrong two. A failure before step 2 changes
//! nothing. If step 2 or 3 fails, nobody knows which file the disk has, so the volume
//! is poisoned: reads go on from the old one, and opening the volume again
//! settles it.
//!
//! Before step 1 the copy must count what the index counts: photos, needles and
//! bytes. A live needle that is damaged is therefore never dropped: the compaction
//! is given up instead.
//!
//! A photo whose needles were copied and that is deleted meanwhile brings its
//! tombstone along. Other tombstones are copied if the [`Overseer`] says that a
//! replica may still have the photo.
//!
//! [`Overseer`]: crate::overseer::Overseer

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfs::FileSystem;

use crate::error::{Error, Result};
use crate::index::Index;
use crate::index_builder::IndexBuilder;
use crate::index_file::{Content, IndexFile, IndexRecord};
use crate::needle;
use crate::pace::Pace;
use crate::photo_id::{PhotoKey, PhotoSize};
use crate::scanner::Scanner;
use crate::superblock::{SUPERBLOCK_BYTES, Superblock};
use crate::volume_core::VolumeCore;
use crate::volume_file::VolumeFile;

/// Bytes gathered for one write.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes that the writer's own pass may be left with.
const LAST_PASS_BYTES_MAX: u64 = 256 << 10;

/// Passes before the writer's, at most.
const PASS_COUNT_MAX: usize = 10;

/// What a compaction is told.
#[derive(Debug)]
pub struct CompactionTerms {
    /// The new file's own number.
    pub physical_volume: u64,
    /// The time, ms since 1970.
    pub now_ms: u64,
    /// How fast it reads.
    pub pace: Pace,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Length of the volume's file before, bytes.
    pub bytes_before: u64,
    /// Length of the volume's file now, bytes.
    pub bytes_after: u64,
}

/// The names of a volume's files.
#[derive(Clone, Debug)]
pub(crate) struct VolumePaths {
    pub(crate) volume: PathBuf,
    pub(crate) index: PathBuf,
    compact: PathBuf,
    compact_index: PathBuf,
}

impl VolumePaths {
    pub(crate) fn new(volume: &Path) -> Self {
        Self {
            volume: volume.to_owned(),
            index: volume.with_extension("index"),
            compact: volume.with_extension("compact"),
            compact_index: volume.with_extension("compact-index"),
        }
    }

    fn dir(&self) -> &Path {
        self.volume.parent().unwrap_or(Path::new("."))
    }

    /// Finishes or undoes what a compaction of an earlier life has left, given
    /// the superblock of the volume file that there is.
    pub(crate) fn settle(&self, fs: &dyn FileSystem, superblock: &Superblock) -> Result<()> {
        if fs.exists(&self.compact)? {
            fs.remove(&self.compact)?;
        }
        if fs.exists(&self.compact_index)? {
            if IndexFile::is_of(fs, &self.compact_index, superblock)? {
                fs.rename(&self.compact_index, &self.index)?;
            } else {
                fs.remove(&self.compact_index)?;
            }
            fs.sync_dir(self.dir())?;
        }
        Ok(())
    }
}

/// A compaction under way.
#[derive(Debug)]
pub(crate) struct Compaction {
    fs: Arc<dyn FileSystem>,
    paths: VolumePaths,
    core: Arc<VolumeCore>,
    scanner: Scanner,
    read_offset: u64,
    target: Arc<VolumeFile>,
    index_file: IndexFile,
    builder: IndexBuilder,
    /// Needles that go to the target together, and what they are.
    gathered: Vec<u8>,
    records: Vec<IndexRecord>,
    write_offset: u64,
    /// Whether the rest of the photo whose first needle was just met is copied.
    rest_is_copied: Option<bool>,
}

/// What takes the place of the old volume.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) file: Arc<VolumeFile>,
    pub(crate) index: Index,
    pub(crate) index_file: IndexFile,
    pub(crate) tail_offset: u64,
}

impl Compaction {
    /// Creates the files to copy to.
    pub(crate) fn begin(
        fs: Arc<dyn FileSystem>,
        paths: VolumePaths,
        core: Arc<VolumeCore>,
        superblock: Superblock,
    ) -> Result<Self> {
        let source = core.file();
        paths.settle(&*fs, &source.superblock)?;
        let file = fs.create(&paths.compact)?;
        file.expect_random_reads()?;
        let live_bytes = core.index().totals().live_bytes;
        file.allocate(0, SUPERBLOCK_BYTES as u64 + live_bytes)?;
        file.write_all_at(&[IoSlice::new(&superblock.encode())], 0)?;
        let index_file = IndexFile::create(&*fs, &paths.compact_index, &superblock)?;
        Ok(Self {
            scanner: Scanner::new(Arc::clone(source.file()), source.seed(), SUPERBLOCK_BYTES as u64),
            read_offset: SUPERBLOCK_BYTES as u64,
            target: Arc::new(VolumeFile::new(superblock, &paths.volume, file)),
            index_file,
            builder: IndexBuilder::default(),
            gathered: Vec::new(),
            records: Vec::new(),
            write_offset: SUPERBLOCK_BYTES as u64,
            rest_is_copied: None,
            fs,
            paths,
            core,
        })
    }

    /// Copies what there is, until little is left for the writer's pass.
    pub(crate) fn copy_under_traffic(&mut self, mut pace: Pace) -> Result<()> {
        for _ in 0..PASS_COUNT_MAX {
            let tail_offset = self.core.tail_offset();
            if tail_offset - self.read_offset <= LAST_PASS_BYTES_MAX
                && self.read_offset > SUPERBLOCK_BYTES as u64
            {
                break;
            }
            self.copy_until(tail_offset, |bytes| pace.spend(bytes))?;
        }
        self.flush()?;
        self.sync()
    }

    /// The writer's pass: nothing is written to the volume meanwhile.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.copy_until(self.core.tail_offset(), |_| Ok(()))?;
        self.flush()?;
        let (wanted, copied) = (self.core.index().totals(), self.builder.index.totals());
        let same_needles =
            (wanted.photo_count, wanted.needle_count) == (copied.photo_count, copied.needle_count);
        if !same_needles || wanted.live_bytes != copied.live_bytes {
            let missing_count = wanted.needle_count.saturating_sub(copied.needle_count).max(1);
            return Err(Error::Uncompactable { volume: self.core.id(), missing_count });
        }
        self.sync()
    }

    /// Makes the copy the volume. After a failure either file may be.
    pub(crate) fn commit(self) -> std::result::Result<Successor, vfs::Error> {
        let Self { fs, paths, .. } = self;
        fs.rename(&paths.compact, &paths.volume)?;
        fs.sync_dir(paths.dir())?;
        // The next opening does it, or scans.
        if let Err(error) =
            fs.rename(&paths.compact_index, &paths.index).and_then(|()| fs.sync_dir(paths.dir()))
        {
            tracing::warn!(path = %paths.index.display(), %error, "the index file keeps its old name");
        }
        Ok(Successor {
            file: self.target,
            index: self.builder.index,
            index_file: self.index_file,
            tail_offset: self.write_offset,
        })
    }

    /// Removes what a compaction that was given up has left.
    pub(crate) fn clean_up(fs: &dyn FileSystem, paths: &VolumePaths) {
        for left in [&paths.compact, &paths.compact_index] {
            if let Err(error) = fs.remove(left) {
                tracing::debug!(path = %left.display(), %error, "nothing to remove");
            }
        }
        // The space comes back with it.
        if let Err(error) = fs.sync_dir(paths.dir()) {
            tracing::warn!(path = %paths.volume.display(), %error, "what a compaction has left may stay until the next start");
        }
    }

    fn copy_until(&mut self, end: u64, mut spend: impl FnMut(u64) -> Result<()>) -> Result<()> {
        self.scanner.set_end(end);
        // What was written at once ends before `end`.
        self.rest_is_copied = None;
        while self.read_offset < end {
            let Some(record) = self.scanner.next(self.read_offset)? else {
                // Damage up to the tail: if it was a live photo's, the counts will say so.
                self.read_offset = end;
                break;
            };
            spend(record.bytes)?;
            if self.core.is_closing() {
                return Err(Error::Closing);
            }
            if self.is_copied(&record) {
                self.copy(&record)?;
            }
            self.read_offset = record.end();
        }
        Ok(())
    }

    fn is_copied(&mut self, record: &IndexRecord) -> bool {
        match record.content {
            Content::Damage => {
                self.rest_is_copied = None;
                false
            }
            Content::Tombstone { key } => {
                self.rest_is_copied = None;
                let is_new = !self.builder.index.is_buried(key);
                let was_copied = self.builder.index.get(key).is_some();
                was_copied || is_new && self.core.overseer().keeps_tombstone(self.core.id(), key)
            }
            Content::Needle { key, alternate_key, continued } => {
                let is_copied =
                    self.rest_is_copied.unwrap_or_else(|| self.is_live(key, alternate_key, record.offset));
                self.rest_is_copied = continued.then_some(is_copied);
                is_copied
            }
        }
    }

    fn is_live(&self, key: PhotoKey, alternate_key: u32, offset: u64) -> bool {
        let Some(size) = PhotoSize::from_alternate_key(alternate_key) else { return false };
        let location = self.core.index().get(key).and_then(|group| group.locate(size));
        location.is_some_and(|location| location.offset == offset)
    }

    fn copy(&mut self, record: &IndexRecord) -> Result<()> {
        let start = self.gathered.len();
        self.gathered.extend_from_slice(self.scanner.bytes(record.offset, record.bytes)?);
        needle::rebind(&mut self.gathered[start..], self.target.seed());
        let copy = IndexRecord { offset: self.write_offset + start as u64, ..*record };
        self.builder.apply(&copy);
        self.records.push(copy);
        if self.gathered.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.target.file().write_all_at(&[IoSlice::new(&self.gathered)], self.write_offset)?;
        self.index_file.append(&self.records)?;
        self.write_offset += self.gathered.len() as u64;
        self.gathered.clear();
        self.records.clear();
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.target.file().sync()?;
        self.index_file.sync()
    }
}
