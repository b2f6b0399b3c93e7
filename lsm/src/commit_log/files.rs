//! The log in local files, one a segment, under the engine's directory.
//!
//! A group is a [frame](crate::frame): one `pwritev`, one `fdatasync`. The
//! lock on the directory keeps others out, so that nothing has to be sealed.
//!
//! Files are longer than their frames. A sync that finds neither a new length
//! nor new blocks writes data alone and not the file system's journal, which
//! makes it a third cheaper on ext4, and cheaper by far where others keep the
//! journal busy. Space that is only reserved does not do: its first use is a
//! change for the journal, too. So a small group that reaches the end of the
//! file writes zeros behind itself. Large ones gain nothing from that, and
//! reserve space in larger steps.
//!
//! Where a write meets a full disk, nothing was synced since the group before
//! was, and a later attempt writes over whatever there is of it, at the same
//! offset. A sync that fails is another matter, whatever its reason: what it
//! should have written may be gone from memory.

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use vfs::Access;

use super::segment::{EXTENSION, PRELUDE};
use crate::frame::{FrameReader, FrameWriter, HEADER_BYTES};
use crate::log_store::{LogSegment, LogSegmentReader, LogStore};
use crate::{Error, FileId, Result};

/// Zeros are written so far ahead: a hundred microseconds once in thousands of small groups.
const ZEROED_STEP_BYTES: u64 = 512 << 10;

/// Groups of this size and above write no zeros.
const LARGE_GROUP_BYTES: usize = 64 << 10;

/// Space is reserved so far ahead for large groups. A segment that stays short wastes little.
const RESERVED_STEP_BYTES: u64 = 4 << 20;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A directory of segments.
#[derive(Debug)]
pub(crate) struct LogFiles {
    fs: Arc<dyn vfs::FileSystem>,
    dir: PathBuf,
    /// A segment is not written much beyond this, nor reserved.
    segment_bytes: u64,
    /// A file that [`LogStore::prepare`] made.
    prepared: Mutex<Option<(FileId, Arc<dyn vfs::File>)>>,
}

impl LogFiles {
    pub(crate) fn new(fs: Arc<dyn vfs::FileSystem>, dir: &Path, segment_bytes: u64) -> Self {
        Self { fs, dir: dir.to_owned(), segment_bytes, prepared: Mutex::default() }
    }

    fn path(&self, id: FileId) -> PathBuf {
        id.path(&self.dir, EXTENSION)
    }

    fn zeroed_step(&self) -> u64 {
        self.segment_bytes.min(ZEROED_STEP_BYTES)
    }
}

impl LogStore for LogFiles {
    fn seal_before(&self, _epoch: u64) -> Result<()> {
        // What is read from the system's memory may not be on the disk, not even where a sync succeeds now, if
        // one failed before; and what is applied is soon seen by readers and written to tables. Only the last
        // segment that was written can be concerned, and one behind it whose creation was cut short.
        let ids = self.list()?;
        for id in ids.into_iter().rev().take(2) {
            self.fs.open(&self.path(id), Access::ReadWrite)?.sync_anew()?;
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<FileId>> {
        let names = self.fs.list(&self.dir)?;
        Ok(names.iter().filter_map(|name| FileId::parse(name, EXTENSION)).collect())
    }

    fn create(&self, id: FileId, first: &[u8]) -> Result<Box<dyn LogSegment>> {
        let prepared = self.prepared.lock().take().filter(|(prepared, _)| *prepared == id);
        let (file, is_named, reserved) = match prepared {
            Some((_, file)) => (file, true, self.zeroed_step()),
            None => {
                (self.fs.create(&self.path(id)).map_err(|error| Error::from(error).told_full())?, false, 0)
            }
        };
        let frames = FrameWriter::start(Arc::clone(&file), id, PRELUDE, first).map_err(Error::told_full);
        if let Err(Error::DiskFull) = frames {
            self.remove(id)?;
        }
        let frames = frames?;
        frames.sync()?;
        if !is_named {
            self.fs.sync_dir(&self.dir)?;
        }
        let zeroed_step = self.zeroed_step();
        let reserved_step = self.segment_bytes.min(RESERVED_STEP_BYTES);
        Ok(Box::new(LogFile { file, frames, reserved, zeroed_step, reserved_step }))
    }

    fn prepare(&self, id: FileId) -> Result<()> {
        let path = self.path(id);
        let file = self.fs.create(&path)?;
        let zeroed = write_zeros(&*file, 0, self.zeroed_step())
            .and_then(|()| Ok(file.sync()?))
            .and_then(|()| Ok(self.fs.sync_dir(&self.dir)?));
        match zeroed {
            Ok(()) => *self.prepared.lock() = Some((id, file)),
            // For `create` to try again.
            Err(_) => self.fs.remove(&path)?,
        }
        zeroed
    }

    fn read(&self, id: FileId) -> Result<Option<Box<dyn LogSegmentReader>>> {
        let path = self.path(id);
        let reader = FrameReader::open(self.fs.open(&path, Access::Read)?, &path, id, &[PRELUDE])?;
        Ok(reader.map(|reader| Box::new(reader) as Box<dyn LogSegmentReader>))
    }

    fn remove(&self, id: FileId) -> Result<()> {
        match self.fs.remove(&self.path(id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(self.fs.sync_dir(&self.dir)?),
        }
    }
}

fn write_zeros(file: &dyn vfs::File, offset: u64, len: u64) -> Result<()> {
    Ok(file.write_all_at(&zeros(len), offset)?)
}

/// So many zeros, as slices.
fn zeros(len: u64) -> Vec<IoSlice<'static>> {
    let len = usize::try_from(len).expect("steps are short");
    let whole = std::iter::repeat_n(IoSlice::new(&ZEROS), len / ZEROS.len());
    whole.chain([IoSlice::new(&ZEROS[..len % ZEROS.len()])]).collect()
}

/// A file that is written.
#[derive(Debug)]
struct LogFile {
    file: Arc<dyn vfs::File>,
    frames: FrameWriter,
    /// The file's length: space is there up to here, and reads as zeros where no frame stands yet.
    reserved: u64,
    zeroed_step: u64,
    reserved_step: u64,
}

impl LogFile {
    /// Writes `group`, with more space behind it where it reaches the end of the file.
    fn write(&mut self, group: &[u8]) -> Result<()> {
        let end = self.frames.offset() + (HEADER_BYTES + group.len()) as u64;
        if end <= self.reserved {
            return self.frames.append(group, &[]);
        }
        if group.len() < LARGE_GROUP_BYTES {
            let until = end.next_multiple_of(self.zeroed_step);
            self.frames.append(group, &zeros(until - end))?;
            self.reserved = until;
            return Ok(());
        }
        let until = end.next_multiple_of(self.reserved_step);
        self.file.allocate(self.reserved, until - self.reserved)?;
        self.file.set_len(until)?;
        self.reserved = until;
        self.frames.append(group, &[])
    }
}

impl LogSegment for LogFile {
    fn append(&mut self, group: &[u8]) -> Result<()> {
        self.write(group).map_err(Error::told_full)?;
        self.frames.sync()
    }

    fn end(&self) -> u64 {
        self.frames.offset()
    }
}

impl LogSegmentReader for FrameReader {
    fn next(&mut self) -> Result<Option<&[u8]>> {
        Self::next(self)
    }

    fn end(&self) -> u64 {
        self.offset()
    }

    fn path(&self) -> &Path {
        Self::path(self)
    }
}
