//! What the master has a tablet server do.

use std::collections::BTreeSet;

use async_trait::async_trait;
use cluster::ServerId;
use lsm::Engine;

use super::{TabletServer, blocking};
use crate::control::{Assignment, CheckpointId, HandOver, Health, SplitProposal, TabletControl, TabletStats};
use crate::error::Result;
use crate::group_trees::tree_format;
use crate::row_set::RowRange;
use crate::schema::TabletId;
use crate::tablet_trees::{counterpart, part_of, tree_id, trees_of};

#[async_trait]
impl TabletControl for TabletServer {
    fn id(&self) -> &ServerId {
        &self.id
    }

    async fn tablets(&self) -> Result<Vec<TabletStats>> {
        Ok(self.stats())
    }

    async fn create_tablet(&self, assignment: Assignment) -> Result<()> {
        if self.serves(&assignment) {
            return Ok(());
        }
        let (engine, id) = (self.around.engine.clone(), tree_id(assignment.tablet));
        let tree = blocking(move || match engine.tree(id) {
            Some(tree) => Ok(tree),
            None => Ok(engine.create_tree(id, tree_format())?),
        });
        let tree = tree.await?;
        self.serve(assignment, tree).await
    }

    async fn load_tablet(&self, assignment: Assignment) -> Result<()> {
        if self.serves(&assignment) {
            self.resume_tablet(assignment.tablet).await?;
        } else {
            let tree = self.find_tree(assignment.tablet)?;
            self.serve(assignment.clone(), tree).await?;
        }
        // The stream may have been enabled or disabled while nobody could write to the tablet.
        self.settle_changes(&assignment).await
    }

    async fn unload_tablet(&self, tablet: TabletId) -> Result<()> {
        self.stop_serving(tablet).await;
        Ok(())
    }

    async fn drop_tablet(&self, tablet: TabletId) -> Result<()> {
        self.stop_serving(tablet).await;
        let engine = self.around.engine.clone();
        let drop_all = move || {
            trees_of(&engine, tablet).into_iter().try_for_each(|tree| engine.drop_tree(tree))?;
            // Where a manifest has failed, a tree that is not there now may be there at the next start.
            match engine.check() {
                Err(lsm::Error::DiskFull) => Ok(()),
                checked => checked,
            }
        };
        blocking(move || Ok(drop_all()?)).await
    }

    async fn keep_changes(&self, tablet: TabletId, kept: bool) -> Result<()> {
        let served = self.tablet(tablet)?;
        if kept {
            return served.keep_changes().await;
        }
        served.forget_changes().await
    }

    async fn place_families(&self, tablet: TabletId) -> Result<bool> {
        self.tablet(tablet)?.place_families().await
    }

    async fn drop_row_range(&self, tablet: TabletId, range: RowRange) -> Result<()> {
        self.tablet(tablet)?.drop_row_range(&range).await
    }

    async fn splits_due(&self) -> Result<Vec<SplitProposal>> {
        let bytes_max = self.tablet_bytes_max;
        let tablets: Vec<_> = self.tablets.read().values().cloned().collect();
        blocking(move || Ok(tablets.iter().filter_map(|tablet| tablet.split_due(bytes_max)).collect())).await
    }

    async fn split_by_size(&self, tablet: TabletId) -> Result<Option<SplitProposal>> {
        let Ok(tablet) = self.tablet(tablet) else { return Ok(None) };
        blocking(move || Ok(tablet.split_due(0))).await
    }

    async fn split_by_load(&self, tablet: TabletId) -> Result<Option<SplitProposal>> {
        let row = self.tablet(tablet).ok().and_then(|tablet| tablet.busy_middle());
        Ok(row.map(|row| SplitProposal { tablet, row }))
    }

    async fn flush_tablet(&self, tablet: TabletId) -> Result<()> {
        match self.tablet(tablet) {
            Ok(tablet) => blocking(move || tablet.flush_ahead()).await,
            // One that is recovered and not served: nobody waits.
            Err(_) => Ok(()),
        }
    }

    async fn split_tablet(&self, parent: TabletId, children: &[Assignment; 2]) -> Result<()> {
        if children.iter().all(|child| self.serves(child)) {
            return Ok(());
        }
        let parts = children.clone().map(|child| (child.tablet, child.range));
        let fork = move |engine: &Engine| {
            for tree in trees_of(engine, parent) {
                let forks =
                    parts.each_ref().map(|(child, rows)| (counterpart(tree, *child), part_of(tree, rows)));
                engine.fork_tree(tree, &forks)?;
            }
            Ok(())
        };
        self.while_held(&[self.tablet(parent)?], fork).await?;
        for child in children {
            self.serve_held(child).await?;
        }
        Ok(())
    }

    async fn merge_tablets(&self, parents: &[TabletId; 2], child: &Assignment) -> Result<()> {
        if self.serves(child) {
            return Ok(());
        }
        let tablets = [self.tablet(parents[0])?, self.tablet(parents[1])?];
        let rows = tablets.each_ref().map(|tablet| tablet.assignment().range.clone());
        let (parents, united) = (*parents, child.tablet);
        let unite = move |engine: &Engine| {
            let trees = parents.iter().flat_map(|parent| trees_of(engine, *parent));
            let united: BTreeSet<_> = trees.map(|tree| counterpart(tree, united)).collect();
            for tree in united {
                let part = |side: usize| (counterpart(tree, parents[side]), part_of(tree, &rows[side]));
                // A locality group may have a tree in one of them alone.
                let parts: Vec<_> =
                    [0, 1].map(part).into_iter().filter(|(id, _)| engine.tree(*id).is_some()).collect();
                engine.unite_trees(tree, &parts)?;
            }
            Ok(())
        };
        self.while_held(&tablets, unite).await?;
        self.serve_held(child).await
    }

    async fn offer_tablet(&self, tablet: TabletId, hand_over: HandOver) -> Result<()> {
        self.find_tree(tablet)?;
        self.flush_tablet(tablet).await?;
        let (engine, hand_overs) = (self.around.engine.clone(), self.hand_overs.clone());
        blocking(move || hand_overs.offer(hand_over, &engine, tablet)).await
    }

    async fn stage_tablet(&self, hand_over: HandOver) -> Result<()> {
        let (engine, hand_overs) = (self.around.engine.clone(), self.hand_overs.clone());
        blocking(move || hand_overs.stage(hand_over, &engine)).await
    }

    async fn send_tablet(&self, tablet: TabletId, hand_over: HandOver) -> Result<()> {
        self.find_tree(tablet)?;
        let hand_overs = self.hand_overs.clone();
        // One that is recovered is not served.
        let served: Vec<_> = self.tablet(tablet).into_iter().collect();
        self.while_held(&served, move |engine| hand_overs.offer(hand_over, engine, tablet)).await
    }

    async fn receive_tablet(&self, assignment: &Assignment, hand_over: HandOver) -> Result<()> {
        if self.serves(assignment) {
            return Ok(());
        }
        let (engine, hand_overs, to) =
            (self.around.engine.clone(), self.hand_overs.clone(), assignment.tablet);
        blocking(move || hand_overs.take(hand_over, &engine, to)).await?;
        self.serve_held(assignment).await
    }

    async fn end_hand_over(&self, hand_over: HandOver) -> Result<()> {
        let hand_overs = self.hand_overs.clone();
        let end = move || {
            hand_overs.end(hand_over);
            Ok(())
        };
        blocking(end).await
    }

    async fn resume_tablet(&self, tablet: TabletId) -> Result<()> {
        if let Ok(tablet) = self.tablet(tablet) {
            tablet.resume();
        }
        Ok(())
    }

    async fn write_checkpoint(&self, id: CheckpointId, tablets: &[TabletId]) -> Result<u64> {
        for tablet in tablets {
            self.find_tree(*tablet)?;
        }
        let (checkpoints, tablets) = (self.checkpoints.clone(), tablets.to_vec());
        let engine = self.around.engine.clone();
        blocking(move || {
            checkpoints.write(id, &engine, &tablets)?;
            checkpoints.table_bytes(id)
        })
        .await
    }

    async fn checkpoints(&self) -> Result<Vec<CheckpointId>> {
        let checkpoints = self.checkpoints.clone();
        blocking(move || checkpoints.list()).await
    }

    async fn drop_checkpoint(&self, id: CheckpointId) -> Result<()> {
        let checkpoints = self.checkpoints.clone();
        blocking(move || checkpoints.remove(id)).await
    }

    async fn restore_tablet(&self, assignment: Assignment, id: CheckpointId, from: TabletId) -> Result<()> {
        if self.serves(&assignment) {
            return Ok(());
        }
        let (engine, checkpoints) = (self.around.engine.clone(), self.checkpoints.clone());
        let to = assignment.tablet;
        blocking(move || checkpoints.restore(id, from, &engine, to)).await?;
        let tree = self.find_tree(to)?;
        self.serve(assignment, tree).await
    }

    fn health(&self) -> Health {
        match self.around.engine.check() {
            _ if self.session.lock().is_none() => Health::Gone,
            // A full disk is no better anywhere else.
            Ok(()) | Err(lsm::Error::DiskFull) => Health::Well,
            Err(_) => Health::ReadOnly,
        }
    }
}
