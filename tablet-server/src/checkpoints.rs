//! Checkpoints: what tablets held at one moment, beside the servers' engines.
//!
//! Backups, and what is kept of deleted tables, are lists of tablets in
//! checkpoints. Each is an engine's directory of its own (`lsm::checkpoint`), its
//! tables links to those of the engine that it was taken of: it takes no space
//! until that engine needs them no more. The servers of a machine share one
//! directory, so that a tablet can be restored at another server.
//!
//! ```text
//! <checkpoint dir>/17/    checkpoint 17
//! ```
//!
//! Which of them are needed is not known here: the master drops the others.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lsm::{Engine, checkpoint};
use vfs::FileSystem;

use crate::control::CheckpointId;
use crate::error::Result;
use crate::schema::TabletId;
use crate::tablet_trees::{counterpart, trees_of};

/// A directory of checkpoints, as one server uses it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Checkpoints {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
}

impl Checkpoints {
    pub(crate) fn new(fs: Arc<dyn FileSystem>, dir: PathBuf) -> Self {
        Self { fs, dir }
    }

    /// Writes what `tablets`, which are in `engine`, hold to the checkpoint `id`, unless it is there.
    pub(crate) fn write(&self, id: CheckpointId, engine: &Engine, tablets: &[TabletId]) -> Result<()> {
        let dir = self.path(id);
        if !self.fs.exists(&dir).map_err(lsm::Error::from)? {
            self.fs.create_dir_all(&self.dir).map_err(lsm::Error::from)?;
            let trees: Vec<_> = tablets.iter().flat_map(|tablet| trees_of(engine, *tablet)).collect();
            engine.checkpoint(Some(&trees), &dir, |_| {})?;
        }
        Ok(())
    }

    /// Bytes of the tables of the checkpoint `id`.
    pub(crate) fn table_bytes(&self, id: CheckpointId) -> Result<u64> {
        Ok(checkpoint::table_bytes(&*self.fs, &self.path(id))?)
    }

    /// Makes `to` in `engine` of what `from` holds in the checkpoint `id`; the trees
    /// that are there already stay.
    pub(crate) fn restore(
        &self,
        id: CheckpointId,
        from: TabletId,
        engine: &Engine,
        to: TabletId,
    ) -> Result<()> {
        let dir = self.path(id);
        for tree in checkpoint::trees(&*self.fs, &dir)? {
            let restored = counterpart(tree, to);
            if tree == counterpart(tree, from) && engine.tree(restored).is_none() {
                engine.restore_tree(&dir, tree, restored, |_| {})?;
            }
        }
        Ok(())
    }

    /// The checkpoints that are there, whole or not.
    pub(crate) fn list(&self) -> Result<Vec<CheckpointId>> {
        if !self.fs.exists(&self.dir).map_err(lsm::Error::from)? {
            return Ok(Vec::new());
        }
        let names = self.fs.list(&self.dir).map_err(lsm::Error::from)?;
        let mut ids: Vec<_> = names.iter().filter_map(|name| id_of(name)).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Removes the checkpoint `id`, if it is there.
    pub(crate) fn remove(&self, id: CheckpointId) -> Result<()> {
        Ok(checkpoint::remove(&*self.fs, &self.path(id))?)
    }

    fn path(&self, id: CheckpointId) -> PathBuf {
        self.dir.join(id.0.to_string())
    }
}

fn id_of(name: &Path) -> Option<CheckpointId> {
    checkpoint::finished_name(name.to_str()?).parse().ok().map(CheckpointId)
}

impl fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoints").field("dir", &self.dir).finish_non_exhaustive()
    }
}
