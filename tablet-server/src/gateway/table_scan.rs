//! ReadRows over the tablets of a table, one after the other.
//!
//! A scan reads only as its reader takes: a step gives half a megabyte at most,
//! which is what a slow client holds of the server's memory, and dropping the
//! scan ends the work. Where a tablet moves away in the middle, the scan goes
//! on behind the last row it looked at, so no row is missed or repeated.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::locator::{Location, Place};
use super::router::{Attempts, Router};
use crate::catalog::Table;
use crate::error::{Error, Result};
use crate::row::Seen;
use crate::row_scan::ScanBatch;
use crate::row_server::{ReadRequest, TabletScan};
use crate::row_set::RowRange;

/// Bytes of rows that a step gives at most, roughly; one row may be larger.
const STEP_BYTES: usize = 512 << 10;

/// A read of rows that goes on from step to step.
pub struct TableScan {
    router: Arc<Router>,
    table: Arc<Table>,
    /// What is still to be read: its rows and its limit shrink as the scan goes on.
    rest: ReadRequest,
    tablet: Option<(Arc<Location>, Box<dyn TabletScan>)>,
    attempts: Attempts,
    seen: Seen,
}

impl TableScan {
    /// A scan of `table` that has read nothing yet.
    pub fn new(router: Arc<Router>, table: Arc<Table>, request: ReadRequest) -> Self {
        let attempts = Attempts::new();
        Self { router, table, rest: request, tablet: None, attempts, seen: Seen::default() }
    }

    /// What it has looked at so far.
    pub fn seen(&self) -> Seen {
        self.seen
    }

    /// The next rows; none once the scan is complete.
    ///
    /// # Errors
    ///
    /// [`Error`]; the scan is over.
    pub async fn next(&mut self) -> Result<Option<ScanBatch>> {
        while !self.rest.rows.is_empty() && self.rest.options.rows_limit != Some(0) {
            match self.step().await {
                Ok(batch) => {
                    self.attempts = Attempts::new();
                    if !batch.rows.is_empty() || batch.last_scanned_row_key.is_some() {
                        return Ok(Some(batch));
                    }
                }
                Err(error) => {
                    if let (Error::NotServed { .. }, Some((location, _))) = (&error, self.tablet.take()) {
                        self.router.locator().forget(&location);
                    }
                    self.attempts.pause(&self.router, &self.table, error).await?;
                }
            }
        }
        Ok(None)
    }

    async fn step(&mut self) -> Result<ScanBatch> {
        if self.tablet.is_none() {
            self.tablet = Some(self.open_next().await?);
        }
        let (location, scan) = self.tablet.as_mut().expect("a tablet is open");
        let batch = scan.next_rows(STEP_BYTES).await?;
        self.seen += batch.seen;
        let reached = batch.last_scanned_row_key.clone().or_else(|| Some(batch.rows.last()?.key.clone()));
        let location = Arc::clone(location);
        if let Some(limit) = &mut self.rest.options.rows_limit {
            *limit = limit.saturating_sub(batch.rows.len().try_into().unwrap_or(u64::MAX));
        }
        if batch.done {
            self.tablet = None;
            self.leave(if self.rest.options.reversed { &location.range.start } else { &location.range.end });
        } else if let Some(row) = reached {
            self.leave_behind(&row);
        }
        Ok(batch)
    }

    /// Opens the scan of the tablet where the rest begins.
    async fn open_next(&mut self) -> Result<(Arc<Location>, Box<dyn TabletScan>)> {
        let ranges = self.rest.rows.ranges();
        let place = match self.rest.options.reversed {
            false => Place::At(&ranges.first().expect("the rest is not empty").start),
            true => Place::Before(&ranges.last().expect("the rest is not empty").end),
        };
        let location = self.router.locator().locate(self.table.id, place).await?;
        let request = ReadRequest { rows: self.rest.rows.clip(&location.range), ..self.rest.clone() };
        match location.server.scan(location.tablet, request).await {
            Ok(scan) => Ok((location, scan)),
            Err(error) => {
                if matches!(error, Error::NotServed { .. }) {
                    self.router.locator().forget(&location);
                }
                Err(error)
            }
        }
    }

    /// Takes the rows up to `row`, and it too, off the rest.
    fn leave_behind(&mut self, row: &Bytes) {
        if self.rest.options.reversed {
            self.leave(row);
        } else {
            let mut next = BytesMut::with_capacity(row.len() + 1);
            next.put_slice(row);
            next.put_u8(0);
            self.leave(&next.freeze());
        }
    }

    /// Takes the rows on the near side of `boundary` off the rest; an empty one is the table's end.
    fn leave(&mut self, boundary: &Bytes) {
        let far_side = match self.rest.options.reversed {
            _ if boundary.is_empty() => None,
            false => Some(RowRange { start: boundary.clone(), end: Bytes::new() }),
            true => Some(RowRange { start: Bytes::new(), end: boundary.clone() }),
        };
        self.rest.rows = far_side.map(|range| self.rest.rows.clip(&range)).unwrap_or_default();
    }
}
