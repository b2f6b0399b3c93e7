//! Files as Hayloft uses them, behind one trait, so that a test can take the
//! power away.
//!
//! A leaf. `lsm`, `haystack`, `cluster` and `cache-proxy` touch the disk only
//! through [`FileSystem`] and [`File`]. Read on in this order:
//!
//! - [`FileSystem`], [`File`]: what a file system offers, and what it promises.
//! - [`real`]: the operating system's.
//! - [`simulated`]: one in memory that loses what was not synced, tears writes,
//!   flips bits and runs out of space, all from a seed.

pub mod error;
pub mod real;
pub mod simulated;

use std::fmt;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

pub use error::{Error, Result};
pub use real::RealFileSystem;
pub use simulated::SimulatedFileSystem;

/// What may be done with a file that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads only; the file is never changed again by anybody.
    Read,
    /// Reads and positional writes.
    ReadWrite,
}

/// A directory of files with the durability rules of POSIX.
///
/// A file's bytes survive a power cut once [`File::sync`] returned; its name
/// survives once [`FileSystem::sync_dir`] of its directory returned.
pub trait FileSystem: Send + Sync + fmt::Debug + 'static {
    /// Creates `dir` and its missing ancestors, and syncs each new name.
    fn create_dir_all(&self, dir: &Path) -> Result<()>;

    /// Creates `path`, empty, for reading and writing.
    ///
    /// # Errors
    ///
    /// [`std::io::ErrorKind::AlreadyExists`] if there is such a file; it is untouched.
    fn create(&self, path: &Path) -> Result<Arc<dyn File>>;

    /// Opens a file that exists.
    fn open(&self, path: &Path, access: Access) -> Result<Arc<dyn File>>;

    /// Gives the file at `from` the name `to`, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Gives the file at `from` a second name `to`.
    fn hard_link(&self, from: &Path, to: &Path) -> Result<()>;

    /// Takes the name `path` away.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Removes the empty directory `dir`.
    fn remove_dir(&self, dir: &Path) -> Result<()>;

    /// The names in `dir`, files and directories, in byte order, each without
    /// `dir` before it: `000007.log`.
    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>>;

    /// Whether `path` names a file or a directory.
    fn exists(&self, path: &Path) -> Result<bool>;

    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> Result<()>;

    /// Locks `path`, which is created if missing, against every other process
    /// until the guard is dropped.
    ///
    /// # Errors
    ///
    /// [`std::io::ErrorKind::WouldBlock`] if somebody holds it.
    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>>;

    /// Bytes that can still be written below `dir`.
    fn available_bytes(&self, dir: &Path) -> Result<u64>;
}

/// An open file. Offsets and lengths are bytes; every call is positional, so
/// one handle serves many threads.
pub trait File: Send + Sync + fmt::Debug {
    /// The file's length.
    fn len(&self) -> Result<u64>;

    /// Whether the file holds no byte.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// [`std::io::ErrorKind::UnexpectedEof`] where the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;

    /// Like [`File::read_exact_at`], if the bytes are in memory; `false`, with
    /// `buffer` in any state, where a disk would have to be waited for, or the
    /// file system cannot tell.
    fn try_read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<bool>;

    /// Writes all of `slices`, one after the other, from `offset` on.
    fn write_all_at(&self, slices: &[IoSlice<'_>], offset: u64) -> Result<()>;

    /// Makes the file's bytes and its length durable (`fdatasync`).
    ///
    /// # Errors
    ///
    /// After a failure what is on disk is unknown, and calling again proves
    /// nothing: the caller stops writing to this file.
    fn sync(&self) -> Result<()>;

    /// Writes every byte again where it is, and syncs. Where a sync failed, be it
    /// that of a process before this one, the system may believe that the disk
    /// has what only memory holds; who goes on what it reads makes it true first.
    fn sync_anew(&self) -> Result<()> {
        const PIECE_BYTES: u64 = 1 << 20;
        let len = self.len()?;
        let mut buffer = Vec::new();
        for offset in (0..len).step_by(usize::try_from(PIECE_BYTES).expect("small")) {
            buffer.resize(usize::try_from(PIECE_BYTES.min(len - offset)).expect("small"), 0);
            self.read_exact_at(&mut buffer, offset)?;
            self.write_all_at(&[IoSlice::new(&buffer)], offset)?;
        }
        self.sync()
    }

    /// Cuts or extends the file to `len`.
    fn set_len(&self, len: u64) -> Result<()>;

    /// Reserves disk space for `len` bytes from `offset` on without changing
    /// the file's length; does nothing where the file system cannot.
    fn allocate(&self, offset: u64, len: u64) -> Result<()>;

    /// Tells the system that reads will come in no order, so that it reads from
    /// the disk what is asked for and nothing beside it. Only a hint.
    fn expect_random_reads(&self) -> Result<()> {
        Ok(())
    }

    /// The whole file, mapped into memory where the system can.
    ///
    /// REQUIRES: nobody changes or cuts the file while a slice of it lives.
    fn map(&self) -> Result<Bytes>;
}

/// Holds a lock taken with [`FileSystem::lock`]; dropping it lets go.
pub trait FileLock: Send + Sync + fmt::Debug {}
