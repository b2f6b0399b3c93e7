//! The data directory.
//!
//! ```text
//! coordination/      the embedded lock service: schemas, locks, epochs
//! tablet-server/     commit log, SSTables, manifests
//! tablet-server-2/   the same of a second tablet server, and so on
//! checkpoints/       what backups and deleted tables hold
//! haystack/          photo volumes and their index files
//! cache/streams/     how far the cache has followed the changes of which tables
//! cache/items        the cache's items, between a clean stop and the next start
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use cluster::lock_service::LockError;
use cluster::lock_service::embedded::EmbeddedLockService;
use tempfile::TempDir;
use vfs::{FileSystem, RealFileSystem};

use super::ServeError;
use crate::config::Config;

/// The data directory, which no other process has while this lives.
pub(super) struct Home {
    dir: PathBuf,
    pub(super) fs: Arc<dyn FileSystem>,
    pub(super) lock_service: Arc<EmbeddedLockService>,
    /// Removes an ephemeral directory when dropped.
    _ephemeral: Option<TempDir>,
}

impl Home {
    /// Creates the directory if it is missing, and takes it.
    ///
    /// # Errors
    ///
    /// [`ServeError::InUse`]: another process has it.
    pub(super) fn open(config: &Config) -> Result<Self, ServeError> {
        let ephemeral = if config.ephemeral {
            let dir = tempfile::Builder::new().prefix("hayloft-").tempdir();
            Some(dir.map_err(ServeError::Ephemeral)?)
        } else {
            None
        };
        let dir = ephemeral.as_ref().map_or_else(|| config.data_dir.clone(), |dir| dir.path().to_owned());
        let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
        let opened = EmbeddedLockService::open(Arc::clone(&fs), &dir.join("coordination"));
        let lock_service = opened.map_err(|error| match error {
            LockError::Held { .. } => ServeError::InUse { dir: dir.clone() },
            error => ServeError::LockService(error),
        })?;
        Ok(Self { dir, fs, lock_service: Arc::new(lock_service), _ephemeral: ephemeral })
    }

    /// Where the tablet servers' directories are.
    pub(super) fn tablet_servers(&self) -> PathBuf {
        self.dir.clone()
    }

    /// Where the cache keeps how far it has followed changes.
    pub(super) fn cache_streams(&self) -> PathBuf {
        self.dir.join("cache/streams")
    }

    /// Where the cache's items are between a clean stop and the next start.
    pub(super) fn cache_items(&self) -> PathBuf {
        self.dir.join("cache/items")
    }

    /// The photo store's directory.
    pub(super) fn haystack(&self) -> PathBuf {
        self.dir.join("haystack")
    }
}
