//! Takeovers: what trees of one engine hold becomes trees of another one in the
//! same process, on the same file system, with no checkpoint between them.
//!
//! The one engine pins its trees: their tables stay, whatever becomes of the
//! trees. The other one links them under names of its own, most of them ahead,
//! while the trees are still written to; then the trees are pinned once more,
//! and little is left to be linked before the new trees begin, as restored ones do.
//!
//! A crash before then leaves links that no manifest names, which an opening removes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::core::Core;
use crate::file_id::FileId;
use crate::manifest::{TableRecord, TreeRecord};
use crate::sstable::Table;
use crate::version::Version;
use crate::{Engine, Result, Tree, TreeId};

/// What a tree held at one moment. Keeps its files while it lives.
#[derive(Clone)]
pub struct Pinned {
    record: TreeRecord,
    /// Each of the record's tables, as a file.
    paths: BTreeMap<FileId, PathBuf>,
    _files: Arc<Version>,
}

impl Pinned {
    /// The tree.
    pub fn tree(&self) -> TreeId {
        self.record.tree
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pinned").field(&self.record.tree.0).finish()
    }
}

/// Tables of another engine that this one has linked. Those that no tree was
/// begun with go when this is dropped.
pub struct Staged {
    core: Arc<Core>,
    /// By the names that the other engine has for them.
    tables: BTreeMap<FileId, (FileId, Arc<Table>)>,
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.tables.values().for_each(|(id, _)| self.core.tables.sweeper().remove(*id));
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Staged").field("tables", &self.tables.len()).finish()
    }
}

impl Engine {
    /// What `trees` hold now, as of one sequence number; what they have in memory is flushed first.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NoSuchTree`], [`crate::Error::Background`], [`crate::Error::Closed`], [`crate::Error::Poisoned`].
    pub fn pin(&self, trees: &[TreeId]) -> Result<Vec<Pinned>> {
        let core = self.core();
        let _admin = core.admin.lock();
        let trees = core.find_all(trees)?;
        let captured = core.capture(&trees)?;
        let pinned = trees.iter().zip(&captured.versions).map(|(tree, version)| {
            let records = version.tables().map(|table| table.record());
            Pinned {
                record: TreeRecord::of(tree.id, &tree.format, captured.sequence, records),
                paths: version.tables().map(|table| (table.id(), core.tables.path(table.id()))).collect(),
                _files: Arc::clone(version),
            }
        });
        Ok(pinned.collect())
    }

    /// Nothing staged yet.
    pub fn stage(&self) -> Staged {
        Staged { core: Arc::clone(self.core()), tables: BTreeMap::new() }
    }

    /// Makes what is pinned the new tree `id` of this engine. Its tables are those that are in `staged`, and
    /// otherwise linked, or copied, now.
    ///
    /// # Durability
    ///
    /// The tree is durable and visible to [`Engine::snapshot`] when this returns.
    /// After a crash before, it is there whole or not at all.
    ///
    /// # Errors
    ///
    /// Those of [`Engine::restore_tree`] that are not about a checkpoint.
    pub fn take_over(&self, pinned: &Pinned, staged: &mut Staged, id: TreeId) -> Result<Tree> {
        let core = self.core();
        core.check_new(&core.admin.lock(), id)?;
        core.options.merge_operator(id, &pinned.record.format)?;
        staged.add(pinned)?;
        let named = pinned.record.tables.values().map(|record| {
            let (own, table) = &staged.tables[&record.id];
            core.tables.named(TableRecord { id: *own, ..record.clone() }, Arc::clone(table))
        });
        let named = named.collect();
        let mut taken: Vec<_> = pinned.record.tables.keys().copied().collect();
        let tree = core.begin_restored(id, &pinned.record, named, &mut taken);
        if taken.is_empty() {
            // They are the tree's from now on.
            staged.tables.retain(|theirs, _| !pinned.record.tables.contains_key(theirs));
        }
        let tree = tree?;
        core.after_change();
        core.signals.compaction_due();
        Ok(self.handle_of(tree))
    }
}

impl Staged {
    /// Links those of the tables that are pinned and not here yet.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Damaged`], [`crate::Error::Io`]; those that are linked stay.
    pub fn add(&mut self, pinned: &Pinned) -> Result<()> {
        let tables = &self.core.tables;
        let mut taken = Vec::new();
        for (theirs, path) in &pinned.paths {
            if self.tables.contains_key(theirs) {
                continue;
            }
            let linked =
                tables.adopt(path, &mut |_| {}, &mut taken).and_then(|id| Ok((id, tables.open_table(id)?)));
            match linked {
                Ok(linked) => self.tables.insert(*theirs, linked),
                Err(error) => {
                    taken.last().into_iter().for_each(|id| tables.sweeper().remove(*id));
                    return Err(error);
                }
            };
        }
        if taken.is_empty() { Ok(()) } else { tables.sync_names() }
    }

    /// Tables that are here.
    pub fn table_count(&self) -> usize {
        self.tables.len()
    }
}
