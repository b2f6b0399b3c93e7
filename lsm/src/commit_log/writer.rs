//! Writing segments: one group, one write, one sync.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segment::{Descriptor, EXTENSION, PRELUDE};
use crate::Result;
use crate::file_id::{FileId, FileIds};
use crate::frame::{FrameWriter, HEADER_BYTES};

/// A segment that is written no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedSegment {
    pub(crate) id: FileId,
    pub(crate) bytes: u64,
    /// The least sequence number that it can hold.
    pub(crate) first_sequence: u64,
    /// The greatest one; `first_sequence - 1` if it holds none.
    pub(crate) last_sequence: u64,
}

/// Appends groups, beginning a new segment when one is full.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    fs: Arc<dyn vfs::FileSystem>,
    dir: PathBuf,
    ids: Arc<FileIds>,
    segment_bytes: u64,
    id: FileId,
    first_sequence: u64,
    last_sequence: u64,
    file: Arc<dyn vfs::File>,
    frames: FrameWriter,
    /// The file's length: disk space is reserved up to here, and reads as zeros where no frame stands yet.
    reserved: u64,
}

/// Files grow ahead of their frames, in steps: a sync that finds neither a new
/// length nor new blocks writes data alone and not the file system's journal,
/// which makes it a third cheaper on ext4. A segment that stays short wastes little.
const RESERVED_STEP_BYTES_MAX: u64 = 4 << 20;

impl SegmentWriter {
    /// Begins the first segment of an opening, durably, behind `previous`.
    pub(crate) fn create(
        fs: Arc<dyn vfs::FileSystem>,
        dir: &Path,
        ids: Arc<FileIds>,
        segment_bytes: u64,
        descriptor: Descriptor,
    ) -> Result<Self> {
        let (id, file, frames) = begin(&*fs, dir, &ids, descriptor)?;
        let first_sequence = descriptor.first_sequence;
        Ok(Self {
            fs,
            dir: dir.to_owned(),
            ids,
            segment_bytes,
            id,
            first_sequence,
            last_sequence: first_sequence - 1,
            file,
            frames,
            reserved: 0,
        })
    }

    /// Writes `group`, whose last record ends at `last_sequence`, and syncs it.
    ///
    /// # Errors
    ///
    /// What is on disk is unknown: nothing may be written after it.
    pub(crate) fn append(&mut self, group: &[u8], last_sequence: u64) -> Result<()> {
        let end = self.frames.offset() + (HEADER_BYTES + group.len()) as u64;
        if end > self.reserved {
            let until = end.next_multiple_of(self.segment_bytes.min(RESERVED_STEP_BYTES_MAX));
            self.file.allocate(self.reserved, until - self.reserved)?;
            self.file.set_len(until)?;
            self.reserved = until;
        }
        self.frames.append(group)?;
        self.frames.sync()?;
        self.last_sequence = last_sequence;
        Ok(())
    }

    /// Begins a new segment if this one is full, and returns the full one.
    pub(crate) fn rotate_if_full(&mut self) -> Result<Option<SealedSegment>> {
        if self.frames.offset() < self.segment_bytes {
            return Ok(None);
        }
        let sealed = self.figures();
        let previous = Some((self.id, self.frames.offset()));
        let descriptor = Descriptor { first_sequence: self.last_sequence + 1, previous };
        (self.id, self.file, self.frames) = begin(&*self.fs, &self.dir, &self.ids, descriptor)?;
        self.reserved = 0;
        self.first_sequence = descriptor.first_sequence;
        Ok(Some(sealed))
    }

    /// The current segment as it is now.
    pub(crate) fn figures(&self) -> SealedSegment {
        SealedSegment {
            id: self.id,
            bytes: self.frames.offset(),
            first_sequence: self.first_sequence,
            last_sequence: self.last_sequence,
        }
    }
}

fn begin(
    fs: &dyn vfs::FileSystem,
    dir: &Path,
    ids: &FileIds,
    descriptor: Descriptor,
) -> Result<(FileId, Arc<dyn vfs::File>, FrameWriter)> {
    let id = ids.next();
    let file = fs.create(&id.path(dir, EXTENSION))?;
    let frames = FrameWriter::start(Arc::clone(&file), id, PRELUDE, &descriptor.encode())?;
    frames.sync()?;
    fs.sync_dir(dir)?;
    Ok((id, file, frames))
}
