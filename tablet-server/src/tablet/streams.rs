//! A tablet's change log: kept, read, trimmed, and what a dropped range of rows leaves in it.

use std::sync::Arc;

use bytes::Bytes;
use lsm::WriteBatch;

use super::Tablet;
use crate::cell_cursor::CellCursor;
use crate::cell_key;
use crate::changes::{ChangeBatch, ChangeLog, ChangeProgress, Recorder};
use crate::clock;
use crate::error::{Error, Result};
use crate::row_set::RowRange;

/// Rows that are deleted at once, at most, where each stands in the change log.
const ROWS_AT_ONCE: usize = 1_000;

impl Tablet {
    /// Has changes recorded from now on, in a tree that exists. Writers wait meanwhile.
    pub(crate) async fn keep_changes(self: &Arc<Self>) -> Result<()> {
        let _alone = self.gate.write().await;
        self.check_open()?;
        if self.changes.load().is_some() {
            return Ok(());
        }
        let (engine, tablet, now_us) = (self.around.engine.clone(), self.id(), (self.around.clock)());
        let log = crate::server::blocking(move || {
            ChangeLog::create(&engine, tablet, now_us)?;
            ChangeLog::open(&engine, tablet)
        });
        self.set_changes(log.await?);
        Ok(())
    }

    /// Has no more changes recorded or read, and removes those there are. The
    /// tree stays, empty: one of its number may be wanted again.
    pub(crate) async fn forget_changes(&self) -> Result<()> {
        if self.changes.load().is_none() {
            return Ok(());
        }
        let applied = {
            let _alone = self.gate.write().await;
            self.check_open()?;
            let Some(log) = self.changes.swap(None) else { return Ok(()) };
            log.tell();
            let mut batch = WriteBatch::new();
            log.clear(&mut batch);
            self.apply(batch, Recorder::none()).await?
        };
        applied.durable().await
    }

    /// Records changes in `log`.
    pub(super) fn set_changes(&self, log: Option<ChangeLog>) {
        let Some(log) = log else { return };
        let (around, Self { assignment, .. }) = (&self.around, self);
        let (catalog, clock) = (Arc::clone(&around.catalog), Arc::clone(&around.clock));
        log.set_keep_decision(catalog, clock, assignment.table, assignment.range.clone());
        self.changes.store(Some(Arc::new(log)));
    }

    /// The log of the tablet, whose rows are to be `rows`: whoever reads it reads one partition.
    pub(crate) fn change_log(&self, rows: &RowRange) -> Result<Arc<ChangeLog>> {
        self.check_open()?;
        if self.assignment.range != *rows {
            return Err(self.not_served());
        }
        self.changes.load_full().ok_or(Error::NoChangeStream)
    }

    /// Reads on in `log`. May wait for the disk.
    pub(crate) fn read_changes(
        &self,
        log: &Arc<ChangeLog>,
        progress: &ChangeProgress,
        budget_bytes: usize,
    ) -> Result<ChangeBatch> {
        self.check_open()?;
        let retention_us = self.change_retention_us().ok_or(Error::NoChangeStream)?;
        let snapshot = self.around.engine.snapshot();
        let now_us = clock::unsigned((self.around.clock)());
        let batch = log.read(&snapshot, progress, budget_bytes, now_us, retention_us);
        // A tree that was dropped meanwhile may have been read half empty.
        self.check_open()?;
        match &*self.changes.load() {
            Some(current) if Arc::ptr_eq(current, log) => batch,
            _ => Err(Error::NoChangeStream),
        }
    }

    /// Deletes changes that are too old for the table.
    pub(crate) async fn trim_changes(self: &Arc<Self>) -> Result<()> {
        let _gate = self.gate.read().await;
        self.check_open()?;
        let (Some(log), Some(retention_us)) = (self.changes.load_full(), self.change_retention_us()) else {
            return Ok(());
        };
        let cutoff_us = clock::unsigned((self.around.clock)()).saturating_sub(retention_us);
        let snapshot = self.around.engine.snapshot();
        let batch = crate::server::blocking(move || log.trim(&snapshot, cutoff_us, retention_us)).await?;
        if !batch.is_empty() {
            self.apply(batch, Recorder::none()).await?.durable().await?;
        }
        Ok(())
    }

    fn change_retention_us(&self) -> Option<u64> {
        self.around.catalog.by_id(self.assignment.table)?.schema().change_retention_us
    }

    /// One that takes down what the next batch does, if anybody is to know.
    pub(super) fn recorder(&self) -> Recorder {
        let Some(log) = &*self.changes.load() else { return Recorder::none() };
        match self.around.catalog.by_id(self.assignment.table) {
            Some(table) => Recorder::new(Arc::clone(log), table.schema()),
            None => Recorder::none(),
        }
    }

    /// Removes the rows in `range`, each with a change of its own, some at a
    /// time; writers go on in between.
    pub(super) async fn drop_rows_one_by_one(&self, range: RowRange) -> Result<()> {
        let mut rest = range;
        loop {
            let alone = self.gate.write().await;
            self.check_open()?;
            let rows = self.first_rows(&rest)?;
            let mut batch = WriteBatch::new();
            let mut recorder = self.recorder();
            for row in &rows {
                let prefix = cell_key::row_prefix(row);
                let past = cell_key::into_successor(prefix.clone());
                self.groups.trees().each(|tree| batch.delete_range(tree, &prefix, &past));
                recorder.note_deletion(row.clone());
            }
            let applied = self.apply(batch, recorder).await?;
            drop(alone);
            applied.durable().await?;
            match rows.last() {
                Some(last) if rows.len() == ROWS_AT_ONCE => rest.start = RowRange::single(last.clone()).end,
                _ => return Ok(()),
            }
        }
    }

    /// The first rows in `range` that have cells stored, as they are applied now.
    fn first_rows(&self, range: &RowRange) -> Result<Vec<Bytes>> {
        let snapshot = self.around.engine.applied_snapshot();
        let trees = self.groups.trees();
        let iters = trees.iter().enumerate();
        let iters = iters.map(|(place, (_, tree))| (place, tree.iter(&snapshot, range.cell_keys())));
        let Some(mut cells) = CellCursor::at_first(iters)? else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        while rows.len() < ROWS_AT_ONCE
            && let Some(key) = cells.key()
        {
            let mut row = Vec::new();
            let bad = |offset| cell_key::BadCellKey { offset, found: key.to_vec() };
            cell_key::decode_escaped(key, 0, &mut row).map_err(bad)?;
            let next = cell_key::into_successor(cell_key::row_prefix(&row));
            cells.skip_to(&next)?;
            rows.push(row.into());
        }
        Ok(rows)
    }
}
