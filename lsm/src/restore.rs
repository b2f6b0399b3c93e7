//! Restores: a tree of a checkpoint becomes a tree of this engine.
//!
//! Its tables are taken over under new names and keep their sequence numbers.
//! So the engine's counter is raised above all of them first, and the number
//! after them logged, as that of a write which changes nothing. Once it is
//! durable the tree's manifest is written, with that number as its redo point, and
//! the tree appears: snapshots from then on see it whole.

use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::CopyProgress;
use crate::core::Core;
use crate::file_id::FileId;
use crate::internal_key::SEQUENCE_MAX;
use crate::layout::Layout;
use crate::manifest::{self, TableRecord, TreeRecord};
use crate::tables::sweeper::TABLE_EXTENSION;
use crate::tables::table_ref::TableRef;
use crate::tree::TreeCore;
use crate::version::Version;
use crate::{Engine, Error, Result, Tree, TreeId};

impl Engine {
    /// Makes the tree `from` of the checkpoint in `dir` the new tree `to` of this
    /// engine. Its tables are linked under new names, or copied as [`Engine::checkpoint`] does.
    /// The checkpoint is only read: any number of trees and engines can be
    /// restored from it, and it can be removed afterwards.
    ///
    /// Every sequence number from then on is greater than those in the tree; so a
    /// snapshot from before sees none or a part of it.
    ///
    /// # Durability
    ///
    /// The tree is durable and visible to [`Engine::snapshot`] when this returns.
    /// After a crash before, it is there whole or not at all.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSuchTree`]: there is no tree `from` in the checkpoint.
    /// - [`Error::TreeExists`]: `to` exists or was dropped of late.
    /// - [`Error::UnfitCheckpoint`]: it was opened as an engine, so that its log may hold writes
    ///   (take a checkpoint of that engine), or a table is not as long as it should be.
    /// - [`Error::UnknownMergeOperator`]
    /// - [`Error::Damaged`]: a manifest, or a table's footer, index, filters or range deletes do not
    ///   hold. Data blocks are verified as they are read, by whom they are read.
    /// - [`Error::Io`], [`Error::Closed`], [`Error::Poisoned`]: the tree may exist after
    ///   a reopening.
    pub fn restore_tree(
        &self,
        dir: &Path,
        from: TreeId,
        to: TreeId,
        mut progress: impl FnMut(CopyProgress),
    ) -> Result<Tree> {
        Ok(self.handle_of(self.core().restore_tree(dir, from, to, &mut progress)?))
    }
}

impl Core {
    /// Makes `from` of the checkpoint in `dir` the tree `to`, durably.
    pub(crate) fn restore_tree(
        &self,
        dir: &Path,
        from: TreeId,
        to: TreeId,
        progress: &mut dyn FnMut(CopyProgress),
    ) -> Result<Arc<TreeCore>> {
        self.check_new(&self.admin.lock(), to)?;
        let found = self.find_record(dir, from)?;
        // Before anything is copied.
        self.options.merge_operator(to, &found.format)?;
        let mut taken = Vec::with_capacity(found.tables.len());
        let adopted = self.adopt_tables(dir, &found, &mut taken, progress);
        let begun = adopted.and_then(|tables| self.begin_restored(to, &found, tables, &mut taken));
        let tree = begun.inspect_err(|_| taken.iter().for_each(|id| self.tables.sweeper().remove(*id)))?;
        self.after_change();
        self.signals.compaction_due();
        Ok(tree)
    }

    /// What the checkpoint in `dir` says of the tree `id`.
    fn find_record(&self, dir: &Path, id: TreeId) -> Result<TreeRecord> {
        let unfit = |what| Error::UnfitCheckpoint { dir: dir.to_owned(), what };
        let layout = Layout::of(dir);
        let records = manifest::records(&*self.fs, &layout.manifests)?;
        let found = records.into_iter().find(|record| record.tree == id && record.dropped_at.is_none());
        let found = found.ok_or(Error::NoSuchTree(id))?;
        if self.fs.exists(&layout.log)? && !self.fs.list(&layout.log)?.is_empty() {
            return Err(unfit("it was opened as an engine, and its log may hold writes to the tree"));
        }
        if found.sequence_max() > SEQUENCE_MAX / 2 {
            return Err(unfit("its sequence numbers leave no room for more"));
        }
        Ok(found)
    }

    /// Takes the tables over. All that was taken is in `taken`, whatever the outcome.
    fn adopt_tables(
        &self,
        dir: &Path,
        record: &TreeRecord,
        taken: &mut Vec<FileId>,
        progress: &mut dyn FnMut(CopyProgress),
    ) -> Result<Vec<Arc<TableRef>>> {
        let from = Layout::of(dir).tables;
        let mut at = CopyProgress::of(record.tables.values().map(|table| table.file_bytes));
        let mut tables = Vec::with_capacity(record.tables.len());
        for table in record.tables.values() {
            let path = table.id.path(&from, TABLE_EXTENSION);
            let mut copied = |bytes| {
                at.copied_bytes += bytes;
                progress(at);
            };
            let id = self.tables.adopt(&path, &mut copied, taken)?;
            let opened = self.tables.open_table(id)?;
            if opened.file_bytes() != table.file_bytes {
                let what = "a table has another length than its manifest says";
                return Err(Error::UnfitCheckpoint { dir: dir.to_owned(), what });
            }
            tables.push(self.tables.named(TableRecord { id, ..table.clone() }, opened));
            at.table_count += 1;
            progress(at);
        }
        self.tables.sync_names()?;
        Ok(tables)
    }

    /// Writes the tree's manifest, from when on the tables are its own and not in `taken` any more, and
    /// lets the tree appear.
    pub(crate) fn begin_restored(
        &self,
        id: TreeId,
        found: &TreeRecord,
        tables: Vec<Arc<TableRef>>,
        taken: &mut Vec<FileId>,
    ) -> Result<Arc<TreeCore>> {
        let operator = self.options.merge_operator(id, &found.format)?;
        let admin = self.admin.lock();
        self.check_new(&admin, id)?;
        let sequence = {
            let mut appending = self.lock_log_with_room(id)?;
            appending.raise_above(found.sequence_max());
            let sequence = appending.append_marker(id);
            appending.publish();
            sequence
        };
        // As every redo point it is durable in the log before it stands in a manifest.
        self.wait_durable(sequence)?;
        let records = tables.iter().map(|table| table.record());
        let record = TreeRecord::of(id, &found.format, sequence, records);
        // Should it fail, it may be there after a reopening.
        taken.clear();
        let manifest = self.create_manifest(record)?;
        let tree = Arc::new(TreeCore::new(manifest, Version::new(tables), operator));
        self.trees.write().insert(id, Arc::clone(&tree));
        Ok(tree)
    }
}
