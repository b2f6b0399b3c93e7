//! The operating system's file system.
//!
//! What [`FileSystem`] promises holds as far as the disk below honours
//! `fdatasync`: nothing here works around one that lies. Locks are `flock`
//! locks, which the kernel lets go of when their process dies.

mod file;

use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use self::file::RealFile;
use crate::{Access, Error, File, FileLock, FileSystem, Result};

/// Files of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFileSystem;

#[derive(Debug)]
struct RealLock {
    /// Locked as long as it is open.
    _file: fs::File,
}

impl FileLock for RealLock {}

/// Turns what the system said into this crate's error.
fn failed<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::new(operation, path, source)
}

/// The directory that holds the name `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

impl FileSystem for RealFileSystem {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let mut missing = Vec::new();
        let mut ancestor = dir;
        while !ancestor.as_os_str().is_empty() && !self.exists(ancestor)? {
            missing.push(ancestor);
            ancestor = parent(ancestor);
        }
        if !ancestor.is_dir() && !ancestor.as_os_str().is_empty() {
            return Err(Error::new("create directory", dir, io::ErrorKind::NotADirectory.into()));
        }
        for new in missing.into_iter().rev() {
            match fs::create_dir(new) {
                Ok(()) => {}
                // Somebody else was as fast; its name is synced below all the same.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && new.is_dir() => {}
                Err(error) => return Err(Error::new("create directory", new, error)),
            }
            self.sync_dir(parent(new))?;
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        Ok(Arc::new(RealFile::new(file.map_err(failed("create", path))?, path)))
    }

    fn open(&self, path: &Path, access: Access) -> Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(access == Access::ReadWrite).open(path);
        let file = file.map_err(failed("open", path))?;
        // Reading a directory opens, and fails only at the first read.
        if file.metadata().map_err(failed("open", path))?.is_dir() {
            return Err(Error::new("open", path, io::ErrorKind::IsADirectory.into()));
        }
        Ok(Arc::new(RealFile::new(file, path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(failed("rename", from))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        fs::hard_link(from, to).map_err(failed("link", to))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(failed("remove", path))
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        fs::remove_dir(dir).map_err(failed("remove directory", dir))
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(dir).map_err(failed("list", dir))?;
        let names = entries.map(|entry| Ok(PathBuf::from(entry?.file_name())));
        let mut names: Vec<PathBuf> = names.collect::<io::Result<_>>().map_err(failed("list", dir))?;
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        path.try_exists().map_err(failed("look for", path))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let opened =
            rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let synced = opened.map_err(io::Error::from).and_then(|dir| fs::File::from(dir).sync_all());
        synced.map_err(failed("sync directory", dir))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(failed("lock", path))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(Error::new("lock", path, io::ErrorKind::WouldBlock.into())),
            Err(TryLockError::Error(error)) => Err(Error::new("lock", path, error)),
        }
    }

    fn available_bytes(&self, dir: &Path) -> Result<u64> {
        let space = rustix::fs::statvfs(dir).map_err(|errno| Error::new("measure", dir, errno.into()))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}
