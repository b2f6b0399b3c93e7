//! What gateways have a tablet server do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use row_api::data;
use tokio::sync::OwnedSemaphorePermit;

use super::{INLINE_STEP_BYTES, TabletServer, blocking};
use crate::changes::{TabletChanges, TabletReader};
use crate::check_and_mutate::CheckAndMutate;
use crate::error::{Error, Result};
use crate::mutation::RowMutations;
use crate::read_modify_write::ReadModifyWrite;
use crate::row::Row;
use crate::row_scan::{RowScan, ScanBatch};
use crate::row_server::{ReadRequest, RowSample, RowServer, RowsOutcome, TabletScan};
use crate::row_set::RowRange;
use crate::schema::{TableSchema, TabletId};
use crate::tablet::Tablet;

/// A step that took longer waited for the disk, and the rest of its scan goes on on a thread that may.
const INLINE_STEP_TIME: Duration = Duration::from_millis(2);

#[async_trait]
impl RowServer for TabletServer {
    async fn mutate_row(&self, tablet: TabletId, row: &RowMutations) -> Result<()> {
        let _permit = self.admit()?;
        self.tablet_for(tablet, 1)?.mutate_row(row).await
    }

    async fn mutate_rows(&self, tablet: TabletId, rows: &[RowMutations]) -> Result<Vec<RowsOutcome>> {
        let _permit = self.admit()?;
        self.tablet_for(tablet, rows.len())?.mutate_rows(rows).await
    }

    async fn check_and_mutate(
        &self,
        tablet: TabletId,
        schema: &Arc<TableSchema>,
        request: &CheckAndMutate,
    ) -> Result<bool> {
        let _permit = self.admit()?;
        self.tablet_for(tablet, 1)?.check_and_mutate(schema, request).await
    }

    async fn read_modify_write(
        &self,
        tablet: TabletId,
        schema: &Arc<TableSchema>,
        request: &ReadModifyWrite,
    ) -> Result<data::Row> {
        let _permit = self.admit()?;
        self.tablet_for(tablet, 1)?.read_modify_write(schema, request).await
    }

    async fn read_row(&self, tablet: TabletId, row_key: &[u8], request: &ReadRequest) -> Result<Option<Row>> {
        let _permit = self.admit()?;
        self.tablet_for(tablet, 1)?.read_row(row_key, request)
    }

    async fn scan(&self, tablet: TabletId, request: ReadRequest) -> Result<Box<dyn TabletScan>> {
        let permit = self.admit_scan()?;
        let tablet = self.tablet(tablet)?;
        let scan = tablet.scan(request)?;
        Ok(Box::new(LocalScan { scan: Some(scan), tablet, waits_for_disk: false, _permit: permit }))
    }

    async fn read_changes(&self, tablet: TabletId, rows: &RowRange) -> Result<Box<dyn TabletChanges>> {
        let permit = Arc::clone(&self.change_streams).try_acquire_owned();
        let permit =
            permit.map_err(|_| Error::Busy { what: "the server has too many change streams at once" })?;
        let tablet = self.tablet(tablet)?;
        let log = tablet.change_log(rows)?;
        Ok(Box::new(TabletReader::new(tablet, log, permit)))
    }

    async fn sample(&self, tablet: TabletId, rows: &RowRange) -> Result<Vec<RowSample>> {
        let _permit = self.admit()?;
        let (tablet, rows) = (self.tablet(tablet)?, rows.clone());
        blocking(move || tablet.sample(&rows)).await
    }
}

struct LocalScan {
    /// Away only while a step runs, and for good if that step was given up.
    scan: Option<RowScan>,
    tablet: Arc<Tablet>,
    /// Whether a step has taken so long that it can only have waited for the disk.
    waits_for_disk: bool,
    _permit: OwnedSemaphorePermit,
}

#[async_trait]
impl TabletScan for LocalScan {
    async fn next_rows(&mut self, budget_bytes: usize) -> Result<ScanBatch> {
        let mut scan = self.scan.take().ok_or(Error::Busy { what: "an earlier step was given up" })?;
        let (scan, batch) = if self.waits_for_disk {
            let step = move || {
                let batch = scan.next_rows(budget_bytes);
                Ok((scan, batch))
            };
            blocking(step).await?
        } else {
            let begun = Instant::now();
            let batch = scan.next_rows(budget_bytes.min(INLINE_STEP_BYTES));
            self.waits_for_disk = begun.elapsed() > INLINE_STEP_TIME;
            (scan, batch)
        };
        self.scan = Some(scan);
        // The tree of a tablet that was closed meanwhile may have been read half empty.
        self.tablet.check_open()?;
        let batch = batch?;
        self.tablet.count_rows(batch.seen.row_count);
        batch.rows.first().into_iter().for_each(|row| self.tablet.note_request(&row.key));
        Ok(batch)
    }
}
