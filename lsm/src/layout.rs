//! The directories of an engine.
//!
//! ```text
//! LOCK        held while the engine is open
//! log/        the commit log
//! manifests/  one manifest a tree
//! tables/     SSTables of all trees
//! ```
//!
//! A checkpoint has the same, with nothing in its log.

use std::path::{Path, PathBuf};

use crate::Result;

/// The paths in an engine's directory.
pub(crate) struct Layout {
    pub(crate) lock: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) manifests: PathBuf,
    pub(crate) tables: PathBuf,
}

impl Layout {
    /// The paths in `dir`.
    pub(crate) fn of(dir: &Path) -> Self {
        Self {
            lock: dir.join("LOCK"),
            log: dir.join("log"),
            manifests: dir.join("manifests"),
            tables: dir.join("tables"),
        }
    }

    /// Creates what is missing of them in `dir`, durably.
    pub(crate) fn create(fs: &dyn vfs::FileSystem, dir: &Path) -> Result<Self> {
        let layout = Self::of(dir);
        for dir in [dir, &layout.log, &layout.manifests, &layout.tables] {
            fs.create_dir_all(dir)?;
        }
        Ok(layout)
    }
}
