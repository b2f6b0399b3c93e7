//! Freezing: which memtables are to be flushed, and when.

use std::sync::Arc;

use super::Core;
use crate::commit_log::Appending;
use crate::memtable::Memtable;
use crate::options::Background;
use crate::tree::TreeCore;
use crate::{Error, Result};

impl Core {
    /// Takes a memtable that is flushed from its tree's to those that are to be freed.
    pub(crate) fn retire(&self, memtable: Arc<Memtable>) {
        let appending = self.log.lock();
        self.retired.add(memtable);
        self.recount(&appending);
    }

    /// Freezes the largest active memtable, to be flushed.
    pub(super) fn freeze_largest(&self, appending: &Appending<'_>) {
        let largest = self.trees.read().values().max_by_key(|tree| tree.state().active.bytes()).cloned();
        if let Some(largest) = largest {
            self.freeze(&largest, appending);
        }
    }

    /// Freezes a tree's active memtable, to be flushed. Returns the redo point to wait for.
    pub(crate) fn freeze(&self, tree: &Arc<TreeCore>, appending: &Appending<'_>) -> u64 {
        let state = tree.state();
        if state.active.is_empty() {
            return state.frozen.first().map_or(0, |newest| newest.redo_point);
        }
        drop(state);
        let redo_point = self.log.applied();
        tree.freeze(redo_point);
        self.recount(appending);
        self.signals.queue_flush(Arc::clone(tree));
        redo_point
    }

    /// Freezes and flushes a tree, and waits for it.
    pub(crate) fn flush(&self, tree: &Arc<TreeCore>) -> Result<()> {
        let redo_point = {
            let appending = self.lock_log()?;
            if !self.trees.read().contains_key(&tree.id) {
                return Err(Error::NoSuchTree(tree.id));
            }
            self.freeze(tree, &appending)
        };
        if self.options.background == Background::Inline {
            self.run_inline()?;
        }
        tree.wait_for_flush(redo_point)
    }

    /// Freezes the trees that pin the oldest segment while the log takes more than it may.
    pub(crate) fn bound_log(&self) {
        if self.log.figures().bytes <= self.options.log_bytes_max {
            return;
        }
        let Some(oldest_end) = self.log.oldest_sealed_end() else { return };
        let appending = self.log.lock();
        let trees = self.all_trees();
        for tree in trees.iter().filter(|tree| tree.state().active.first_sequence() <= oldest_end) {
            self.freeze(tree, &appending);
        }
    }
}
