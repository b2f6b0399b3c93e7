//! Families that move from one locality group to another while they are read
//! and written.
//!
//! In steps that the master takes for all tablets of the table
//! (`master::locality_groups`):
//!
//! 1. Whatever is written to the family goes to both groups; it is read where it was.
//! 2. Its cells are copied, row by row, under the row's lock: what the new group
//!    has of the row is deleted and what the old one has put in its place, in
//!    one batch. So it does not matter how often that is done, nor what the new
//!    group has held before, some of which a compaction may be about to drop.
//! 3. Once every tablet is done the table's record says that the family is in the
//!    new group, and it is read there.
//!
//! After a crash the record tells which of the trees is read, and copying
//! begins again. A tablet that has not heard of step 3 goes on with both trees,
//! which is as good.

use std::sync::{Arc, Weak};

use lsm::{KeyRange, Tree, WriteBatch};

use super::applied::Applied;
use super::{BATCH_BYTES, Tablet};
use crate::cell_cursor::CellCursor;
use crate::cell_key;
use crate::changes::Recorder;
use crate::error::Result;
use crate::group_trees::{GroupTrees, unused_trees};
use crate::schema::{FamilyId, GroupId};
use crate::server::blocking;

/// Rows that one step looks at, and bytes of rows after which it ends.
const ROWS_AT_ONCE: usize = 4_096;
const BYTES_AT_ONCE: usize = 4 << 20;

/// How far the families that move are copied.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// The trees that it is about.
    of: Weak<GroupTrees>,
    /// The first cell key that is not looked at yet.
    next_key: Vec<u8>,
    is_done: bool,
    /// The groups that families leave.
    sources: Vec<GroupId>,
}

/// What was copied of a row.
struct Copied {
    /// The last batch, which is durable after all others.
    last: Option<Applied>,
    bytes: usize,
}

/// A family, the group that it leaves and the one that it goes to.
type Move = (FamilyId, GroupId, GroupId);

impl Tablet {
    /// Places families as the table does, and copies some of the cells that are
    /// elsewhere. Whether all of them are where they are to be.
    pub(crate) async fn place_families(&self) -> Result<bool> {
        let Some(table) = self.around.catalog.by_id(self.assignment.table) else { return Ok(true) };
        self.settle_groups(&table.schema()).await?;
        let mut moving = self.moving.lock().await;
        let trees = self.groups.trees();
        let moves = trees.moves();
        if moves.is_empty() {
            if !self.groups.is_read_as_before() {
                let sources = std::mem::take(&mut *moving).sources;
                self.clean_up(&trees, &sources).await?;
            }
            return Ok(true);
        }
        if !Weak::ptr_eq(&moving.of, &Arc::downgrade(&trees)) {
            let sources = moves.iter().map(|(_, from, _)| *from).collect();
            *moving = Moving { of: Arc::downgrade(&trees), sources, ..Moving::default() };
        }
        if !moving.is_done {
            self.copy_some(&trees, &moves, &mut moving).await?;
        }
        Ok(moving.is_done)
    }

    /// Copies the cells of some more rows, durably.
    async fn copy_some(&self, trees: &Arc<GroupTrees>, moves: &[Move], moving: &mut Moving) -> Result<()> {
        // Rows that come later are written to both trees.
        let snapshot = self.around.engine.applied_snapshot();
        let mut keys = self.assignment.range.cell_keys();
        if *moving.next_key > *keys.start {
            keys.start = moving.next_key.clone().into();
        }
        let is_touched = |group: GroupId| moves.iter().any(|(_, from, to)| [*from, *to].contains(&group));
        let touched = trees.iter().enumerate().filter(|(_, (group, _))| is_touched(*group));
        let iters = touched.map(|(place, (_, tree))| (place, tree.iter(&snapshot, keys.clone())));
        let Some(mut rows) = CellCursor::at_first(iters)? else { return Ok(()) };
        let (mut last, mut bytes, mut is_done) = (None, 0, false);
        let mut row = Vec::new();
        for _ in 0..ROWS_AT_ONCE {
            let Some(key) = rows.key().filter(|_| bytes < BYTES_AT_ONCE) else {
                is_done = rows.key().is_none();
                break;
            };
            row.clear();
            let bad = |offset| cell_key::BadCellKey { offset, found: key.to_vec() };
            let row_end = cell_key::decode_escaped(key, 0, &mut row).map_err(bad)?;
            let past = cell_key::into_successor(key[..row_end].to_vec());
            let Some(copied) = self.copy_row(trees, moves, &row).await? else { break };
            bytes += copied.bytes;
            last = copied.last.or(last);
            rows.skip_to(&past)?;
            moving.next_key = past;
        }
        if let Some(applied) = last {
            applied.durable().await?;
        }
        moving.is_done = is_done;
        Ok(())
    }

    /// Copies what moves of `row`; none where families are placed otherwise by now.
    async fn copy_row(&self, trees: &Arc<GroupTrees>, moves: &[Move], row: &[u8]) -> Result<Option<Copied>> {
        let _gate = self.pass_gate().await?;
        if !self.groups.are_current(trees) {
            return Ok(None);
        }
        let _lock = self.around.locks.exclusive(self.id().0, row).await;
        let snapshot = self.around.engine.applied_snapshot();
        let mut batch = WriteBatch::new();
        let mut copied = Copied { last: None, bytes: 0 };
        for (family, from, to) in moves {
            let Some(target) = trees.tree(*to) else { continue };
            let prefix = cell_key::family_prefix(row, *family);
            let past = cell_key::into_successor(prefix.clone());
            let range = KeyRange { start: prefix.clone().into(), end: past.clone().into() };
            let cells = |tree: &Tree| tree.iter(&snapshot, range.clone());
            if cells(target).next()? {
                batch.delete_range(target.id(), &prefix, &past);
            }
            // Even what is there already: a compaction that began before the move may yet drop that.
            let Some(mut cells) = trees.tree(*from).map(cells) else { continue };
            while cells.next()? {
                batch.put(target.id(), cells.key(), cells.value());
                if batch.bytes() >= BATCH_BYTES {
                    copied.bytes += batch.bytes();
                    copied.last = Some(self.apply(std::mem::take(&mut batch), Recorder::none()).await?);
                }
            }
        }
        if !batch.is_empty() {
            copied.bytes += batch.bytes();
            copied.last = Some(self.apply(batch, Recorder::none()).await?);
        }
        Ok(Some(copied))
    }

    /// Drops trees of groups that are no more, and has compactions drop what families have left in `sources`;
    /// nobody reads either any more.
    async fn clean_up(&self, trees: &Arc<GroupTrees>, sources: &[GroupId]) -> Result<()> {
        let left: Vec<Tree> = sources.iter().filter_map(|group| trees.tree(*group).cloned()).collect();
        if !left.is_empty() {
            tokio::task::spawn_blocking(move || left.iter().for_each(compact));
        }
        let (engine, tablet) = (self.around.engine.clone(), self.id());
        if unused_trees(&engine, tablet, trees).is_empty() {
            return Ok(());
        }
        let _alone = self.gate.write().await;
        self.check_open()?;
        let trees = self.groups.trees();
        let drop_unused = move || {
            unused_trees(&engine, tablet, &trees).into_iter().try_for_each(|tree| engine.drop_tree(tree))
        };
        blocking(move || Ok(drop_unused()?)).await
    }
}

fn compact(tree: &Tree) {
    if let Err(error) = tree.compact() {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(?tree, error, "what a family has left behind is for later compactions to drop");
    }
}
