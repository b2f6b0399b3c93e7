//! An open file of the operating system.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memmap2::{Advice, Mmap};
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};

use super::failed;
use crate::{Error, File, Result};

/// Slices that one `pwritev` takes: Linux's `UIO_MAXIOV`.
const SLICE_COUNT_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct RealFile {
    file: fs::File,
    path: PathBuf,
}

impl RealFile {
    pub(super) fn new(file: fs::File, path: &Path) -> Self {
        Self { file, path: path.to_owned() }
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> Error + '_ {
        failed(operation, &self.path)
    }

    /// Reads what the page cache holds; `None` where it does not hold enough.
    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<()>> {
        let mut filled = 0;
        while filled < buffer.len() {
            let mut rest = [IoSliceMut::new(&mut buffer[filled..])];
            let at = offset + filled as u64;
            match rustix::io::preadv2(&self.file, &mut rest, at, ReadWriteFlags::NOWAIT) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                // AGAIN: not in memory. The others: this file system cannot tell,
                // so the caller reads as if it were not.
                Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Some(()))
    }

    fn write_slices(&self, slices: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let (mut index, mut within) = (0, 0);
        while index < slices.len() {
            if slices[index].len() == within {
                (index, within) = (index + 1, 0);
                continue;
            }
            let written = if within == 0 {
                let batch = &slices[index..slices.len().min(index + SLICE_COUNT_MAX)];
                retry_on_intr(|| rustix::io::pwritev(&self.file, batch, offset))?
            } else {
                retry_on_intr(|| rustix::io::pwrite(&self.file, &slices[index][within..], offset))?
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            within += written;
            while index < slices.len() && within >= slices[index].len() {
                within -= slices[index].len();
                index += 1;
            }
        }
        Ok(())
    }
}

impl File for RealFile {
    fn len(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(self.failed("measure"))?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(self.failed("read"))
    }

    fn try_read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool> {
        Ok(self.read_cached(buffer, offset).map_err(self.failed("read"))?.is_some())
    }

    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> Result<()> {
        self.write_slices(slices, offset).map_err(self.failed("write"))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(self.failed("sync"))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(self.failed("resize"))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        match retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, len)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(errno) => Err(Error::new("allocate", &self.path, errno.into())),
        }
    }

    fn expect_random_reads(&self) -> Result<()> {
        let advised = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::Random);
        advised.map_err(|errno| Error::new("advise on", &self.path, errno.into()))
    }

    fn map(&self) -> Result<Bytes> {
        // The kernel maps no empty range.
        if self.is_empty()? {
            return Ok(Bytes::new());
        }
        #[expect(
            unsafe_code,
            reason = "a read through a map saves the copy and a third of the time of pread"
        )]
        // SAFETY: a map is unsound only if the file changes below it, which
        // `File::map` forbids while a slice lives; a disk that fails under a
        // page ends the process with SIGBUS, and gives no wrong bytes.
        let map = unsafe { Mmap::map(&self.file) }.map_err(self.failed("map"))?;
        map.advise(Advice::Random).map_err(self.failed("map"))?;
        Ok(Bytes::from_owner(map))
    }
}
