//! Tablets on their way from one server of a process to another.
//!
//! The one offers a tablet: its trees are pinned, as they are at that moment.
//! The other one links their tables, at first while the tablet is still written
//! to, and after the last offer what has come meanwhile. All of it is in
//! memory; of a crash nothing is left but links, which nobody names.

use std::collections::HashMap;
use std::sync::Arc;

use lsm::{Engine, Pinned, Staged, TreeId};
use parking_lot::Mutex;

use crate::control::HandOver;
use crate::error::{Error, Result};
use crate::schema::TabletId;
use crate::tablet_trees::{counterpart, trees_of};

/// The hand-overs under way, as all servers of a process see them. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct HandOvers {
    under_way: Arc<Mutex<HashMap<HandOver, UnderWay>>>,
}

/// One of them.
#[derive(Debug, Default)]
struct UnderWay {
    /// As they were when they were offered last.
    offered: Vec<Pinned>,
    /// What the other server has linked, by tree.
    staged: HashMap<TreeId, Staged>,
}

impl HandOvers {
    /// Offers what `tablet` holds now, in place of what was offered before.
    pub(crate) fn offer(&self, hand_over: HandOver, engine: &Engine, tablet: TabletId) -> Result<()> {
        let offered = engine.pin(&trees_of(engine, tablet))?;
        self.under_way.lock().entry(hand_over).or_default().offered = offered;
        Ok(())
    }

    /// Links what is offered for `engine`.
    pub(crate) fn stage(&self, hand_over: HandOver, engine: &Engine) -> Result<()> {
        let UnderWay { offered, mut staged } = self.claim(hand_over)?;
        let outcome = offered
            .iter()
            .try_for_each(|pinned| staged.entry(pinned.tree()).or_insert_with(|| engine.stage()).add(pinned));
        self.under_way.lock().insert(hand_over, UnderWay { offered, staged });
        Ok(outcome?)
    }

    /// Makes what is offered the trees of the tablet `to` of `engine`.
    pub(crate) fn take(&self, hand_over: HandOver, engine: &Engine, to: TabletId) -> Result<()> {
        let UnderWay { offered, mut staged } = self.claim(hand_over)?;
        for pinned in &offered {
            let mut staged = staged.remove(&pinned.tree()).unwrap_or_else(|| engine.stage());
            engine.take_over(pinned, &mut staged, counterpart(pinned.tree(), to))?;
        }
        Ok(())
    }

    /// Forgets a hand-over.
    pub(crate) fn end(&self, hand_over: HandOver) {
        let ended = self.under_way.lock().remove(&hand_over);
        drop(ended);
    }

    fn claim(&self, hand_over: HandOver) -> Result<UnderWay> {
        let claimed = self.under_way.lock().remove(&hand_over);
        claimed.ok_or(Error::Busy { what: "the tablet is not offered any more" })
    }
}
