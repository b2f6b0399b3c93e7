//! Checkpoints: a directory that holds trees as they were at one moment, an
//! engine's directory of its own.
//!
//! Trees are captured at one sequence number, flushed up to it. Their tables
//! are linked, which takes no space until the engine compacts them away, or
//! copied where that cannot be; manifests are written anew. All of it stands
//! under another name until it is durable: a directory that has the name asked for is
//! complete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::capture::Captured;
use crate::core::Core;
use crate::file_copy::link_or_copy;
use crate::file_id::FileId;
use crate::layout::Layout;
use crate::manifest::{self, Manifest, TreeRecord};
use crate::tables::sweeper::TABLE_EXTENSION;
use crate::tables::table_ref::TableRef;
use crate::tree::TreeCore;
use crate::{Engine, Error, Result, TreeId};

/// Stands behind the name of a checkpoint that is being written.
const UNFINISHED_SUFFIX: &str = "-unfinished";

/// How far a checkpoint or the restoring of a tree is with its tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Tables that are linked or copied.
    pub table_count: u64,
    /// Of so many.
    pub table_count_total: u64,
    /// Bytes that had to be copied so far, since they could not be linked.
    pub copied_bytes: u64,
    /// Bytes of all the tables.
    pub bytes_total: u64,
}

impl CopyProgress {
    /// At the beginning of so many tables, of so many bytes each.
    pub(crate) fn of(table_bytes: impl Iterator<Item = u64>) -> Self {
        table_bytes.fold(Self::default(), |all, bytes| Self {
            table_count_total: all.table_count_total + 1,
            bytes_total: all.bytes_total.saturating_add(bytes),
            ..all
        })
    }
}

impl Engine {
    /// Writes what `trees`, or all trees, hold now to `dir`, which must not exist: an
    /// engine's directory of its own, to be opened under an epoch greater than this
    /// engine's, verified, kept as a backup, or restored from. All of it is as of one
    /// sequence number, which is returned: of each batch it holds all writes to these trees or none.
    ///
    /// What the trees have in memory is flushed first, while writes go on. Their
    /// tables are linked, and only take space of their own once this engine needs
    /// them no more; where a link cannot be, as on another file system, they are
    /// copied. `progress` is told after each table and each piece of a copy.
    ///
    /// # Durability
    ///
    /// The directory is complete and durable when this returns. It is written beside
    /// its place, as `dir` with `-unfinished` behind its name: after a crash before,
    /// `dir` is not there, or complete. What is left of an unfinished one is
    /// removed by the next checkpoint of that name. An engine writes one at a time.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSuchTree`]
    /// - [`Error::Background`], [`Error::Closed`], [`Error::Poisoned`]: a flush failed.
    /// - [`Error::Io`]: `dir` exists, or a file operation failed; if the last one did, making the
    ///   name durable, `dir` may be there.
    ///
    /// The engine's own trees are as before.
    pub fn checkpoint(
        &self,
        trees: Option<&[TreeId]>,
        dir: &Path,
        mut progress: impl FnMut(CopyProgress),
    ) -> Result<u64> {
        self.core().checkpoint(trees, dir, &mut progress)
    }
}

impl Core {
    /// Writes a checkpoint of `ids`, or of all trees, to `dir`. Returns the last sequence number in it.
    pub(crate) fn checkpoint(
        &self,
        ids: Option<&[TreeId]>,
        dir: &Path,
        progress: &mut dyn FnMut(CopyProgress),
    ) -> Result<u64> {
        // Two of one name would write into one another.
        let _checkpointing = self.checkpointing.lock();
        if self.fs.exists(dir)? {
            let there = std::io::ErrorKind::AlreadyExists.into();
            return Err(vfs::Error::new("create", dir, there).into());
        }
        let (trees, captured) = {
            // Nobody creates or drops trees meanwhile.
            let _admin = self.admin.lock();
            let trees = match ids {
                Some(ids) => self.find_all(ids)?.into_vec(),
                None => self.all_trees(),
            };
            let captured = self.capture(&trees)?;
            (trees, captured)
        };
        let unfinished = unfinished(dir);
        remove_dir(&*self.fs, &unfinished)?;
        let written = self.write_checkpoint(&trees, &captured, &unfinished, progress).and_then(|()| {
            self.fs.rename(&unfinished, dir)?;
            Ok(self.fs.sync_dir(parent(dir))?)
        });
        if written.is_err()
            && let Err(error) = remove_dir(&*self.fs, &unfinished)
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot remove an unfinished checkpoint"
            );
        }
        written.map(|()| captured.sequence)
    }

    fn write_checkpoint(
        &self,
        trees: &[Arc<TreeCore>],
        captured: &Captured,
        dir: &Path,
        progress: &mut dyn FnMut(CopyProgress),
    ) -> Result<()> {
        let layout = Layout::create(&*self.fs, dir)?;
        self.link_tables(captured, &layout.tables, progress)?;
        for (tree, version) in trees.iter().zip(&captured.versions) {
            let records = version.tables().map(|table| table.record());
            let record = TreeRecord::of(tree.id, &tree.format, captured.sequence, records);
            Manifest::create(Arc::clone(&self.fs), &layout.manifests, Arc::clone(&self.ids), record)?;
        }
        Ok(())
    }

    fn link_tables(
        &self,
        captured: &Captured,
        dir: &Path,
        progress: &mut dyn FnMut(CopyProgress),
    ) -> Result<()> {
        // Trees may share files.
        let tables = captured.versions.iter().flat_map(|version| version.tables());
        let by_file: BTreeMap<FileId, &Arc<TableRef>> = tables.map(|table| (table.id(), table)).collect();
        let mut at = CopyProgress::of(by_file.values().map(|table| table.record().file_bytes));
        for id in by_file.keys() {
            let to = id.path(dir, TABLE_EXTENSION);
            link_or_copy(&*self.fs, &self.tables.path(*id), &to, &mut |bytes| {
                at.copied_bytes += bytes;
                progress(at);
            })?;
            at.table_count += 1;
            progress(at);
        }
        Ok(self.fs.sync_dir(dir)?)
    }
}

/// Where the checkpoint that is to be `dir` is written.
fn unfinished(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(UNFINISHED_SUFFIX);
    dir.with_file_name(name)
}

/// The directory that holds the name `dir`.
fn parent(dir: &Path) -> &Path {
    dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes the checkpoint `dir`, and what is left of an unfinished one of that
/// name. Removing what is not there succeeds.
///
/// # Errors
///
/// [`Error::Io`]: some of it is left, or what is there is no checkpoint.
pub fn remove(fs: &dyn vfs::FileSystem, dir: &Path) -> Result<()> {
    remove_dir(fs, &unfinished(dir))?;
    remove_dir(fs, dir)
}

/// The trees in the checkpoint `dir`, in id order.
///
/// # Errors
///
/// [`Error::Damaged`], [`Error::Io`]
pub fn trees(fs: &dyn vfs::FileSystem, dir: &Path) -> Result<Vec<TreeId>> {
    let records = manifest::records(fs, &Layout::of(dir).manifests)?;
    Ok(records.into_iter().map(|record| record.tree).collect())
}

/// Bytes of the tables in the checkpoint `dir`, those included that it shares with others by links.
///
/// # Errors
///
/// [`Error::Io`]
pub fn table_bytes(fs: &dyn vfs::FileSystem, dir: &Path) -> Result<u64> {
    let tables = Layout::of(dir).tables;
    let mut bytes = 0;
    for name in fs.list(&tables)? {
        bytes += fs.open(&tables.join(name), vfs::Access::Read)?.len()?;
    }
    Ok(bytes)
}

/// The name of the checkpoint that the directory `name` holds, be it finished or not.
pub fn finished_name(name: &str) -> &str {
    name.strip_suffix(UNFINISHED_SUFFIX).unwrap_or(name)
}

fn remove_dir(fs: &dyn vfs::FileSystem, dir: &Path) -> Result<(), Error> {
    if !fs.exists(dir)? {
        return Ok(());
    }
    let layout = Layout::of(dir);
    for inner in [&layout.log, &layout.manifests, &layout.tables] {
        if fs.exists(inner)? {
            for name in fs.list(inner)? {
                fs.remove(&inner.join(name))?;
            }
            fs.remove_dir(inner)?;
        }
    }
    fs.remove_dir(dir)?;
    Ok(fs.sync_dir(parent(dir))?)
}
