//! Trees as they are at one moment of the log, all of it in tables: what forks
//! and checkpoints start from.

use std::sync::Arc;

use crate::Result;
use crate::core::Core;
use crate::options::Background;
use crate::tree::TreeCore;
use crate::version::Version;

/// What trees held at one moment. Keeps the tables' files.
pub(crate) struct Captured {
    /// The last write that is in it.
    pub(crate) sequence: u64,
    /// Each tree's tables: all up to that write, and nothing beyond.
    pub(crate) versions: Vec<Arc<Version>>,
}

impl Core {
    /// Freezes what `trees` have in memory, at the same moment, and waits until
    /// it is flushed. Other writes go on meanwhile.
    ///
    /// REQUIRES: the caller holds `admin`, and none of the trees is dropped.
    pub(crate) fn capture(&self, trees: &[Arc<TreeCore>]) -> Result<Captured> {
        let (sequence, states) = {
            let appending = self.lock_log()?;
            let freeze = |tree: &Arc<TreeCore>| {
                self.freeze(tree, &appending);
                tree.state().clone()
            };
            (self.log.applied(), trees.iter().map(freeze).collect::<Vec<_>>())
        };
        // It becomes a redo point, also where nothing has to be flushed.
        self.wait_durable(sequence)?;
        if self.options.background == Background::Inline {
            self.run_inline()?;
        }
        let mut versions = Vec::with_capacity(trees.len());
        for (tree, state) in trees.iter().zip(states) {
            versions.push(match state.frozen.first() {
                None => Arc::clone(&state.version),
                Some(newest) => {
                    tree.wait_for_flush(newest.redo_point)?;
                    Arc::clone(newest.flushed.get().expect("it is flushed"))
                }
            });
        }
        Ok(Captured { sequence, versions })
    }
}
