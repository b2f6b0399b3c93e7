//! Ingests: tables that were built outside become part of a tree as they are.
//!
//! Files are taken into the engine's directory under names of their own and
//! verified there, before anybody knows of them. Then comes a moment at which
//! the tree has nothing in memory that the tables overlap, nothing that waits
//! to be flushed, and no compaction runs; at it, under the log's lock, they get
//! one sequence number and a place:
//!
//! - What the tree holds of their keys is in tables, and older. So they may
//!   stand at level 0, or deeper, down to where a level holds some of their keys.
//! - The number is logged, as that of a write which changes nothing, so that it
//!   becomes durable in its turn and snapshots then see the tables.
//! - Writers wait while the manifest is synced: whoever reads at a sequence
//!   number from then on finds the tables there.
//!
//! A crash before the manifest's edit leaves files that no manifest names.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::commit_log::Appending;
use crate::core::Core;
use crate::file_id::FileId;
use crate::manifest::{Edit, TableRecord};
use crate::options::Background;
use crate::sstable::{Table, inspect};
use crate::table_builder::STORED_SEQUENCE;
use crate::tree::TreeCore;
use crate::{Engine, Error, Result, TreeId};

/// So many times a moment without overlapping writes is waited for before writers are held back.
const TRIES_BESIDE_WRITERS: u32 = 2;

/// A table in the engine's directory that no manifest names yet.
struct Staged {
    id: FileId,
    table: Arc<Table>,
}

impl Engine {
    /// Makes tables that [`crate::TableBuilder`] wrote part of the tree `id`, all of
    /// them at one moment, without writing them again: as if a batch had written
    /// what they hold. They are linked into the engine's directory where the file
    /// system allows that, else copied; the files at `paths` stay, to be removed by
    /// the caller, and must not be changed. Their key ranges must not overlap.
    ///
    /// What the tree has in memory of their keys is flushed first. Writers are held
    /// up while one edit of a manifest is synced and, if they keep writing to the
    /// same keys meanwhile, until that is flushed. Returns the sequence number that
    /// the tables' entries got.
    ///
    /// # Durability
    ///
    /// The tables are part of the tree, durably and visible to [`Engine::snapshot`],
    /// when this returns. After a crash before, all of them are or none.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSuchTree`]
    /// - [`Error::UnfitTable`]: a table is empty, not from a builder, for another format, or overlaps
    ///   another one.
    /// - [`Error::Damaged`]: a table does not hold. Every block of each is verified before anything else.
    /// - [`Error::Background`], [`Error::Closed`]: a flush failed.
    /// - [`Error::Io`]
    /// - [`Error::DiskFull`], [`Error::Poisoned`]: whether the tables are part of the tree, or will be after a
    ///   reopening, is unknown.
    ///
    /// But for the last two nothing is changed.
    pub fn ingest(&self, id: TreeId, paths: &[impl AsRef<Path>]) -> Result<u64> {
        let paths: Vec<_> = paths.iter().map(AsRef::as_ref).collect();
        self.core().ingest(id, &paths)
    }
}

impl Core {
    /// Makes the tables at `paths` part of the tree `id`, durably, and returns
    /// the sequence number they got.
    pub(crate) fn ingest(&self, id: TreeId, paths: &[&Path]) -> Result<u64> {
        let tree = self.find_all(&[id])?.pop().expect("one was asked for");
        if paths.is_empty() {
            return Ok(self.log.applied());
        }
        let mut taken = Vec::with_capacity(paths.len());
        let staged = self.stage(&tree, paths, &mut taken);
        let ingested = staged.and_then(|staged| self.settle(&tree, &staged));
        let sequence = ingested.inspect_err(|_| {
            // Of a log that takes no more for good, nobody knows whether a manifest names them.
            if let Ok(()) | Err(Error::DiskFull) = self.log.lock().check() {
                taken.iter().for_each(|id| self.tables.sweeper().remove(*id));
            }
        })?;
        self.after_change();
        self.signals.compaction_due();
        self.wait_durable(sequence)?;
        Ok(sequence)
    }

    /// Takes the files over and verifies them. All that was taken is in `taken`, whatever the outcome.
    fn stage(&self, tree: &TreeCore, paths: &[&Path], taken: &mut Vec<FileId>) -> Result<Vec<Staged>> {
        let mut staged: Vec<Staged> = Vec::with_capacity(paths.len());
        for path in paths {
            let id = self.tables.adopt(path, &mut |_| {}, taken)?;
            check_fitness(&*self.fs, path, tree)?;
            let table = self.tables.open_table(id)?;
            let range = &table.properties().key_range;
            if staged.iter().any(|other| other.table.properties().key_range.overlaps(range)) {
                return Err(unfit(path, "its keys overlap those of another table taken in with it"));
            }
            staged.push(Staged { id, table });
        }
        self.tables.sync_names()?;
        Ok(staged)
    }

    /// Waits for the moment to make the tables part of the tree, and does.
    fn settle(&self, tree: &Arc<TreeCore>, staged: &[Staged]) -> Result<u64> {
        let _compacting = tree.compacting.lock();
        let mut tries = 0;
        loop {
            let _held_back = (tries >= TRIES_BESIDE_WRITERS).then(|| HeldBack::new(self));
            tries += 1;
            let settled = {
                let mut appending = self.lock_log_with_room(tree.id)?;
                self.find_all(&[tree.id])?;
                match self.redo_point_before(tree, staged, &appending) {
                    None => Ok(self.install_staged(tree, staged, &mut appending)),
                    Some(redo_point) => Err(redo_point),
                }
            };
            let redo_point = match settled {
                Ok(Ok((sequence, true))) => return Ok(sequence),
                Ok(Ok((_, false))) => return Err(Error::NoSuchTree(tree.id)),
                Ok(Err(error)) => {
                    self.edit_failed(&error);
                    return Err(error);
                }
                Err(redo_point) => redo_point,
            };
            if self.options.background == Background::Inline {
                self.run_inline()?;
            }
            tree.wait_for_flush(redo_point)?;
        }
    }

    /// Up to where the tree must be flushed before the tables can be part of it; none if it is.
    fn redo_point_before(
        &self,
        tree: &Arc<TreeCore>,
        staged: &[Staged],
        appending: &Appending<'_>,
    ) -> Option<u64> {
        let state = tree.state();
        let mut ranges = staged.iter().map(|staged| &staged.table.properties().key_range);
        if ranges.any(|range| state.active.overlaps(range)) {
            return Some(self.freeze(tree, appending));
        }
        state.frozen.first().map(|newest| newest.redo_point)
    }

    /// Gives the tables their sequence number and makes them part of the tree; false if it is dropped.
    fn install_staged(
        &self,
        tree: &TreeCore,
        staged: &[Staged],
        appending: &mut Appending<'_>,
    ) -> Result<(u64, bool)> {
        let sequence = appending.append_marker(tree.id);
        let version = Arc::clone(&tree.state().version);
        let tables: Vec<_> = staged
            .iter()
            .map(|staged| {
                let key_range = staged.table.properties().key_range.clone();
                let record = TableRecord {
                    id: staged.id,
                    level: version.lowest_free_level(&key_range),
                    file_bytes: staged.table.file_bytes(),
                    sequence_min: sequence,
                    sequence_max: sequence,
                    assigned_sequence: Some(sequence),
                    key_range,
                };
                self.tables.named(record, Arc::clone(&staged.table))
            })
            .collect();
        let added = tables.iter().map(|table| table.record().clone()).collect();
        let edit = Edit { added, ..Edit::default() };
        let installed = tree.install(&edit, &tables, None);
        // The number is taken, whatever came of it.
        appending.publish();
        Ok((sequence, installed?))
    }
}

/// Holds writers back while it lives.
struct HeldBack<'a>(&'a Core);

impl<'a> HeldBack<'a> {
    fn new(core: &'a Core) -> Self {
        core.ingests_in_wait.fetch_add(1, Ordering::AcqRel);
        core.update_gate();
        Self(core)
    }
}

impl Drop for HeldBack<'_> {
    fn drop(&mut self) {
        self.0.ingests_in_wait.fetch_sub(1, Ordering::AcqRel);
        self.0.update_gate();
    }
}

/// Verifies all of the table at `path`, and that it is one for this tree.
fn check_fitness(fs: &dyn vfs::FileSystem, path: &Path, tree: &TreeCore) -> Result<()> {
    let inspection = inspect::open(fs, path)?;
    let summary = inspection.summary();
    if summary.filter_key != tree.format.filter_key {
        return Err(unfit(path, "its filters follow another rule than the tree's"));
    }
    if summary.entry_count == 0 && summary.range_tombstone_count == 0 {
        return Err(unfit(path, "there is nothing in it"));
    }
    if (summary.sequence_min, summary.sequence_max) != (STORED_SEQUENCE, STORED_SEQUENCE) {
        return Err(unfit(path, "no table builder made it"));
    }
    match inspection.verify(|_, _| {})?.into_iter().next() {
        Some(damage) => Err(damage),
        None => Ok(()),
    }
}

fn unfit(path: &Path, what: &'static str) -> Error {
    Error::UnfitTable { file: path.to_owned(), what }
}
