//! The one who deletes SSTables: nobody else does.
//!
//! A table's file goes when no manifest names it and nobody reads it any more
//! (`table_ref` counts both), or, at an opening, when a crash left it behind
//! without a manifest that names it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::Result;
use crate::file_id::FileId;

/// The extension of an SSTable's name.
pub(crate) const TABLE_EXTENSION: &str = "sst";

/// Deletes tables that nothing names any more.
#[derive(Debug)]
pub(crate) struct Sweeper {
    fs: Arc<dyn vfs::FileSystem>,
    dir: PathBuf,
    doomed: Mutex<Vec<FileId>>,
}

impl Sweeper {
    pub(crate) fn new(fs: Arc<dyn vfs::FileSystem>, dir: &Path) -> Self {
        Self { fs, dir: dir.to_owned(), doomed: Mutex::default() }
    }

    /// Takes over a table that no manifest names and nobody reads.
    pub(crate) fn release(&self, id: FileId) {
        self.doomed.lock().push(id);
    }

    /// Deletes what was released since the last call. What cannot be deleted
    /// now is left to the next opening.
    pub(crate) fn sweep(&self) {
        let doomed = std::mem::take(&mut *self.doomed.lock());
        for id in doomed {
            self.remove(id);
        }
    }

    /// Deletes the tables in the directory that are not in `named`: what a
    /// crash left of flushes and compactions.
    pub(crate) fn sweep_orphans(&self, named: &HashSet<FileId>) -> Result<()> {
        for name in self.fs.list(&self.dir)? {
            if let Some(id) = FileId::parse(&name, TABLE_EXTENSION).filter(|id| !named.contains(id)) {
                self.remove(id);
            }
        }
        Ok(())
    }

    /// Deletes the table `id`, which no manifest names.
    pub(crate) fn remove(&self, id: FileId) {
        if let Err(error) = self.fs.remove(&id.path(&self.dir, TABLE_EXTENSION)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot delete an obsolete table");
        }
    }
}
