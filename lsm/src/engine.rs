//! Trees, their log, and the threads that flush and compact.

use std::path::Path;
use std::sync::Arc;

use crate::{Options, Result, Snapshot, Tree, TreeFormat, TreeId, WriteBatch};

/// An open engine. Cheap to clone; the last clone's drop stops its threads.
#[derive(Clone)]
pub struct Engine {}

/// A batch that is applied and not yet durable.
#[must_use = "a batch is acknowledged only once it is durable"]
pub struct Commit {}

impl Commit {
    /// The last sequence number of the batch.
    pub fn sequence(&self) -> u64 {
        unimplemented!()
    }
    /// Waits until the batch is durable and visible to [`Engine::snapshot`].
    pub fn wait(self) -> Result<()> {
        unimplemented!()
    }
    /// Calls `done` once the batch is durable and visible, or has failed; from
    /// the sync thread, so `done` must be short.
    pub fn on_durable(self, _done: impl FnOnce(Result<()>) + Send + 'static) {
        unimplemented!()
    }
}

impl Engine {
    /// Opens the engine in `dir`, recovering what its log holds. `epoch` must be
    /// greater than that of any opening before.
    pub fn open(_fs: Arc<dyn vfs::FileSystem>, _dir: &Path, _epoch: u64, _options: Options) -> Result<Self> {
        unimplemented!()
    }
    /// The trees that exist, in id order.
    pub fn trees(&self) -> Vec<Tree> {
        unimplemented!()
    }
    /// The tree `id`, if it exists.
    pub fn tree(&self, _id: TreeId) -> Option<Tree> {
        unimplemented!()
    }
    /// Creates the tree `id`, durably.
    pub fn create_tree(&self, _id: TreeId, _format: TreeFormat) -> Result<Tree> {
        unimplemented!()
    }
    /// Drops the tree `id` and, once no reader is left, its files. Dropping one that is not there is no error.
    pub fn drop_tree(&self, _id: TreeId) -> Result<()> {
        unimplemented!()
    }
    /// Logs and applies `batch`, blocking while writes are stalled.
    pub fn write(&self, _batch: WriteBatch) -> Result<Commit> {
        unimplemented!()
    }
    /// Logs and applies `batch`, or hands it back where [`Engine::write`] would block.
    pub fn try_write(&self, _batch: WriteBatch) -> Result<std::result::Result<Commit, WriteBatch>> {
        unimplemented!()
    }
    /// Calls `ready` once writes are not stalled, at once if they are not now.
    pub fn on_writable(&self, _ready: impl FnOnce() + Send + 'static) {
        unimplemented!()
    }
    /// What is durable now.
    pub fn snapshot(&self) -> Snapshot {
        unimplemented!()
    }
    /// What is applied now, durable or not: for read-modify-writes, whose answer
    /// waits for a [`Commit`] that covers it.
    pub fn applied_snapshot(&self) -> Snapshot {
        unimplemented!()
    }
    /// A commit that is done once everything applied so far is durable.
    pub fn barrier(&self) -> Commit {
        unimplemented!()
    }
    /// Flushes nothing, syncs the log and stops the threads.
    pub fn close(&self) -> Result<()> {
        unimplemented!()
    }
}
