//! Forks: trees that begin with what another tree holds, by naming its tables.
//!
//! A crash leaves no half of it: a child is there once its manifest is, and
//! until then nothing but memory knows of it. The tables stay from before the
//! first manifest is written: who captured them reads them, and then they count
//! the child's manifest, too, whatever the parent's compactions do meanwhile.

use std::sync::Arc;

use crate::core::Core;
use crate::manifest::TreeRecord;
use crate::tree::TreeCore;
use crate::version::Version;
use crate::{Engine, Error, KeyRange, Result, Tree, TreeId};

impl Engine {
    /// Makes trees that hold what the tree `parent` holds now, each the keys in
    /// its range, without writing any of it again: they share the parent's
    /// tables. From then on all of them go ways of their own; each can be
    /// written, compacted, forked and dropped, and takes on the parent's format.
    ///
    /// All of them show the parent as of one sequence number, that of the last
    /// write applied before the call or, under writes at the same time, of one
    /// applied during it. What the parent has in memory by then is flushed
    /// first. Writers are held up no longer than a memtable takes to be frozen;
    /// who holds them back until this returns, as a tablet's split does, may call
    /// [`Tree::flush`] before, so that little is left to be flushed.
    ///
    /// # Durability
    ///
    /// The trees are durable when this returns. After a crash before, each of
    /// them is there whole or not at all.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSuchTree`]: there is no such parent.
    /// - [`Error::TreeExists`]: one of the ids exists, was dropped of late or comes twice.
    /// - [`Error::Background`], [`Error::Closed`], [`Error::Poisoned`]: the flush
    ///   failed. As with the errors before, there is no new tree.
    /// - [`Error::Io`]: some of the trees may exist after a reopening.
    pub fn fork_tree(&self, parent: TreeId, children: &[(TreeId, KeyRange)]) -> Result<Vec<Tree>> {
        let children = self.core().fork_tree(parent, children)?;
        Ok(children.into_iter().map(|tree| self.handle_of(tree)).collect())
    }
}

impl Core {
    /// Makes `children` of what `parent` holds now, durably.
    pub(crate) fn fork_tree(
        &self,
        parent: TreeId,
        children: &[(TreeId, KeyRange)],
    ) -> Result<Vec<Arc<TreeCore>>> {
        let admin = self.admin.lock();
        let parent = self.trees.read().get(&parent).cloned().ok_or(Error::NoSuchTree(parent))?;
        for (at, (id, _)) in children.iter().enumerate() {
            self.check_new(&admin, *id)?;
            if children[..at].iter().any(|(other, _)| other == id) {
                return Err(Error::TreeExists(*id));
            }
        }
        let captured = self.capture(std::slice::from_ref(&parent))?;
        let mut forked = Vec::with_capacity(children.len());
        for (id, range) in children {
            forked.push(self.fork_version(&parent, &captured.versions[0], captured.sequence, *id, range)?);
        }
        self.trees.write().extend(forked.iter().map(|tree| (tree.id, Arc::clone(tree))));
        drop(admin);
        self.after_change();
        Ok(forked)
    }

    /// Makes the tree `id` of what `version`, `parent`'s up to `sequence`, holds in `range`.
    fn fork_version(
        &self,
        parent: &TreeCore,
        version: &Version,
        sequence: u64,
        id: TreeId,
        range: &KeyRange,
    ) -> Result<Arc<TreeCore>> {
        let operator = self.options.merge_operator(id, &parent.format)?;
        // Should the manifest fail, they stay counted: it may be there after a reopening.
        let tables: Vec<_> = version.tables().filter_map(|table| table.clipped(range)).collect();
        let record = TreeRecord::of(id, &parent.format, sequence, tables.iter().map(|table| table.record()));
        let manifest = self.create_manifest(record)?;
        Ok(Arc::new(TreeCore::new(manifest, Version::new(tables), operator)))
    }
}
