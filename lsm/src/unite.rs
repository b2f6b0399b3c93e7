//! Unions: a tree that begins with what several others hold, each in a key
//! range of its own, by naming their tables: the opposite of a fork.
//!
//! A crash leaves no half of it, as with forks. The parts may share files, since
//! they may have been forked from one tree. A tree names a file once, so where a
//! file comes again it does so as a second link under a name of its own.

use std::collections::HashSet;
use std::sync::Arc;

use crate::core::Core;
use crate::file_id::FileId;
use crate::manifest::{TableRecord, TreeRecord};
use crate::tables::table_ref::TableRef;
use crate::tree::TreeCore;
use crate::version::Version;
use crate::{Engine, Error, KeyRange, Result, Tree, TreeId};

impl Engine {
    /// Makes the tree `id`, which holds what the trees `parts` hold now, each in the
    /// range beside it, without writing any of it again. The ranges must not
    /// overlap, and the trees are of one format. From then on all of them go ways
    /// of their own.
    ///
    /// The tree shows its parts as of one sequence number; what they have in
    /// memory by then is flushed first, as in [`Engine::fork_tree`].
    ///
    /// # Durability
    ///
    /// The tree is durable when this returns. After a crash before, it is there
    /// whole or not at all.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSuchTree`]: one of the parts does not exist, or there is none.
    /// - [`Error::TreeExists`]: `id` exists or was dropped of late.
    /// - [`Error::UnfitParts`]: the ranges overlap, or the formats differ.
    /// - [`Error::Background`], [`Error::Closed`], [`Error::Poisoned`]: a flush
    ///   failed. As with the errors before, there is no new tree.
    /// - [`Error::Io`]: the tree may exist after a reopening.
    pub fn unite_trees(&self, id: TreeId, parts: &[(TreeId, KeyRange)]) -> Result<Tree> {
        Ok(self.handle_of(self.core().unite_trees(id, parts)?))
    }
}

impl Core {
    /// Makes the tree `id` of what `parts` hold now, durably.
    fn unite_trees(&self, id: TreeId, parts: &[(TreeId, KeyRange)]) -> Result<Arc<TreeCore>> {
        let admin = self.admin.lock();
        self.check_new(&admin, id)?;
        let ids: Vec<TreeId> = parts.iter().map(|(part, _)| *part).collect();
        let trees = self.find_all(&ids)?;
        let format = &trees.first().ok_or(Error::NoSuchTree(id))?.format;
        let overlap = |at: usize| parts[..at].iter().any(|(_, other)| other.overlaps(&parts[at].1));
        if trees.iter().any(|tree| tree.format != *format) || (0..parts.len()).any(overlap) {
            return Err(Error::UnfitParts { tree: id });
        }
        let operator = self.options.merge_operator(id, format)?;
        let captured = self.capture(&trees)?;

        let mut taken = Vec::new();
        let versions = captured.versions.iter().zip(parts).map(|(version, (_, range))| (&**version, range));
        let tables = self.gather(versions, &mut taken);
        let tables = tables.inspect_err(|_| taken.iter().for_each(|id| self.tables.sweeper().remove(*id)))?;
        let record = TreeRecord::of(id, format, captured.sequence, tables.iter().map(|table| table.record()));
        // Should it fail, all of them stay: it may be there after a reopening.
        let manifest = self.create_manifest(record)?;
        let tree = Arc::new(TreeCore::new(manifest, Version::new(tables), operator));
        self.trees.write().insert(id, Arc::clone(&tree));
        drop(admin);
        self.after_change();
        self.signals.compaction_due();
        Ok(tree)
    }

    /// The parts' tables, each within its part's range. The files that got a new name for it are in
    /// `taken`, whatever the outcome.
    fn gather<'a>(
        &self,
        parts: impl Iterator<Item = (&'a Version, &'a KeyRange)>,
        taken: &mut Vec<FileId>,
    ) -> Result<Vec<Arc<TableRef>>> {
        let mut named = HashSet::new();
        // Counted as the manifest's only once nothing can fail any more.
        let mut shared = Vec::new();
        let mut linked = Vec::new();
        for (version, range) in parts {
            for table in version.tables() {
                let Some(key_range) = table.key_range().intersection(range) else { continue };
                if named.insert(table.id()) {
                    shared.push((table, range));
                    continue;
                }
                let id = self.tables.adopt(&self.tables.path(table.id()), &mut |_| {}, taken)?;
                let record = TableRecord { id, key_range, ..table.record().clone() };
                linked.push(self.tables.named(record, self.tables.open_table(id)?));
            }
        }
        if !taken.is_empty() {
            self.tables.sync_names()?;
        }
        linked.extend(shared.into_iter().filter_map(|(table, range)| table.clipped(range)));
        Ok(linked)
    }
}
