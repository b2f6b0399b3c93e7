//! The trees of a tablet's locality groups: which of them writers and readers
//! use now, and what becomes of those that they used before.
//!
//! Writers hold the tablet's gate from when they look which trees there are until
//! their batch is applied, and the trees change under the gate alone: so a
//! deletion of a row, say, reaches all trees that any of its cells is in. Readers
//! hold the trees that they began with, and compactions drop nothing of a family
//! that was moved before the last of them is gone.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use lsm::{Candidate, Decision, KeepDecision, Snapshot, Tree};
use parking_lot::Mutex;
use tokio::sync::RwLockReadGuard;

use super::{HELD, Surroundings, Tablet};
use crate::control::Assignment;
use crate::error::Result;
use crate::gc;
use crate::group_trees::GroupTrees;
use crate::schema::{FamilyId, GroupId, TableId, TableSchema, TabletId};
use crate::server::blocking;

/// The trees of a tablet, now and for readers that began before.
pub(super) struct Groups {
    around: Surroundings,
    tablet: TabletId,
    table: TableId,
    /// Changed under the tablet's gate, but for the first time that the table is known.
    current: ArcSwap<GroupTrees>,
    /// Those before; some may still be read by.
    earlier: Mutex<Vec<Weak<GroupTrees>>>,
}

impl Groups {
    /// The trees of the tablet beside `default`, with families as its table places them.
    pub(super) fn open(around: &Surroundings, assignment: &Assignment, default: Tree) -> Arc<Self> {
        let Assignment { tablet, table, .. } = *assignment;
        let schema = around.catalog.by_id(table).map(|table| table.schema());
        let trees = GroupTrees::open(&around.engine, tablet, default, schema.as_deref());
        let groups = Arc::new(Self {
            around: around.clone(),
            tablet,
            table,
            current: ArcSwap::from_pointee(trees),
            earlier: Mutex::default(),
        });
        groups.prepare(&groups.current.load());
        groups
    }

    /// The trees now.
    pub(super) fn trees(self: &Arc<Self>) -> Arc<GroupTrees> {
        let trees = self.current.load_full();
        if trees.is_unsettled() { self.learn(trees) } else { trees }
    }

    /// Whether `trees` are those in use.
    pub(super) fn are_current(&self, trees: &Arc<GroupTrees>) -> bool {
        Arc::ptr_eq(trees, &self.current.load())
    }

    /// Places families as the table does that was not known when the tablet was
    /// opened; nobody has written to it since.
    fn learn(self: &Arc<Self>, unsettled: Arc<GroupTrees>) -> Arc<GroupTrees> {
        let Some(table) = self.around.catalog.by_id(self.table) else { return unsettled };
        let mut learned = unsettled.arranged(&table.schema());
        learned.find(&self.around.engine, self.tablet);
        self.current.compare_and_swap(&unsettled, Arc::new(learned));
        let trees = self.current.load_full();
        self.prepare(&trees);
        trees
    }

    /// Puts `trees` in place of those now.
    ///
    /// REQUIRES: the tablet's gate is held alone.
    fn replace(self: &Arc<Self>, trees: GroupTrees) {
        let mut earlier = self.earlier.lock();
        earlier.retain(|trees| trees.strong_count() > 0);
        earlier.push(Arc::downgrade(&self.current.load_full()));
        self.current.store(Arc::new(trees));
        drop(earlier);
        self.prepare(&self.current.load());
    }

    /// Has the trees written, kept and compacted as their groups are.
    fn prepare(self: &Arc<Self>, trees: &GroupTrees) {
        let mut in_memory = Vec::new();
        for (group, tree) in trees.iter() {
            let (groups, table) = (Arc::downgrade(self), self.table);
            let (catalog, clock) = (Arc::clone(&self.around.catalog), Arc::clone(&self.around.clock));
            // Each compaction asks for the schema of its moment.
            tree.set_keep_decision(Arc::new(move || match catalog.by_id(table) {
                Some(table) => {
                    let schema = table.schema();
                    let schema = groups.upgrade().map_or_else(|| schema.clone(), |g| g.held(group, &schema));
                    gc::keep_decisions(schema, Arc::clone(&clock))()
                }
                None => Box::new(KeepAll),
            }));
            let tuning = trees.tuning(group);
            if let Err(error) = tree.tune(tuning) {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    tablet = self.tablet.0,
                    group = group.0,
                    error,
                    "a locality group is not tuned"
                );
            }
            if tuning.in_memory {
                in_memory.push(tree.clone());
            }
        }
        if !in_memory.is_empty() {
            tokio::task::spawn_blocking(move || in_memory.iter().for_each(Tree::load));
        }
    }

    /// `schema` with those families that `group` may hold something of that matters to anybody.
    fn held(&self, group: GroupId, schema: &Arc<TableSchema>) -> Arc<TableSchema> {
        let earlier = self.earlier.lock();
        let mut all: Vec<_> = earlier.iter().filter_map(Weak::upgrade).collect();
        all.push(self.current.load_full());
        drop(earlier);
        let is_held = |family: FamilyId| all.iter().any(|trees| trees.uses(group, family));
        if schema.families.values().all(|family| is_held(family.id)) {
            return Arc::clone(schema);
        }
        let mut held = TableSchema::clone(schema);
        held.families.retain(|_, family| is_held(family.id));
        Arc::new(held)
    }

    /// Whether somebody may still read as it was before the last change.
    pub(super) fn is_read_as_before(&self) -> bool {
        self.earlier.lock().iter().any(|trees| trees.strong_count() > 0)
    }
}

impl Tablet {
    /// The trees, and a moment that they hold all of.
    pub(super) fn view(&self) -> (Arc<GroupTrees>, Snapshot) {
        loop {
            let trees = self.groups.trees();
            let snapshot = self.around.engine.snapshot();
            // Otherwise something that is in the snapshot may have been written to other trees.
            if self.groups.are_current(&trees) {
                return (trees, snapshot);
            }
        }
    }

    /// Keeps the tablet open while the guard lives, and gives the trees that `families` go to.
    pub(super) async fn gate<F: Iterator<Item = FamilyId>>(
        &self,
        families: impl Fn() -> F,
    ) -> Result<(RwLockReadGuard<'_, ()>, Arc<GroupTrees>)> {
        let gate = self.pass_gate().await?;
        let trees = self.groups.trees();
        if !families().any(|family| trees.lacks(family)) {
            return Ok((gate, trees));
        }
        drop(gate);
        if let Some(table) = self.around.catalog.by_id(self.assignment.table) {
            self.settle_groups(&table.schema()).await?;
        }
        // What is lacking now is of families that are no more: nobody reads it.
        let gate = self.pass_gate().await?;
        Ok((gate, self.groups.trees()))
    }

    /// Writes and reads families where `schema` places them from now on; writers wait meanwhile.
    pub(super) async fn settle_groups(&self, schema: &TableSchema) -> Result<()> {
        let arranged = |now: &GroupTrees| {
            let arranged = now.arranged(schema);
            let lacks = schema.families.values().any(|family| arranged.lacks(family.id));
            (lacks || !arranged.is_arranged_as(now)).then_some(arranged)
        };
        if arranged(&self.groups.trees()).is_none() {
            return Ok(());
        }
        let alone = tokio::time::timeout(self.around.stall_patience, self.gate.write()).await;
        let _alone = alone.map_err(|_| HELD)?;
        self.check_open()?;
        let Some(mut arranged) = arranged(&self.groups.trees()) else { return Ok(()) };
        let (engine, tablet) = (self.around.engine.clone(), self.id());
        let arranged = blocking(move || {
            arranged.create(&engine, tablet)?;
            Ok(arranged)
        });
        self.groups.replace(arranged.await?);
        Ok(())
    }
}

/// Keeps every cell: for a table whose schema is not known here yet.
struct KeepAll;

impl KeepDecision for KeepAll {
    fn decide(&mut self, _candidate: &Candidate<'_>) -> Decision {
        Decision::Keep
    }
}
