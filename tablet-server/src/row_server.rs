//! What a gateway asks of a tablet server.
//!
//! A trait, so that a server of another process can stand in for one of this;
//! within a process requests pass as they are, checked once and never encoded.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use row_api::data;

use crate::changes::TabletChanges;
use crate::check_and_mutate::CheckAndMutate;
use crate::error::Result;
use crate::filter::Filter;
use crate::mutation::RowMutations;
use crate::read_modify_write::ReadModifyWrite;
use crate::row::Row;
use crate::row_scan::{ScanBatch, ScanOptions};
use crate::row_set::{RowRange, RowSet};
use crate::schema::{TableSchema, TabletId};

/// A read of one tablet.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// The table's schema, as the filter was compiled with.
    pub schema: Arc<TableSchema>,
    /// Rows of the tablet's range.
    pub rows: RowSet,
    /// What of them to return.
    pub filter: Filter,
    /// Direction, limit and moment.
    pub options: ScanOptions,
}

/// The common outcome of some rows of a request that follow each other.
#[derive(Debug)]
pub struct RowsOutcome {
    /// The rows' places in the request.
    pub rows: Range<usize>,
    /// What became of them.
    pub result: Result<()>,
}

/// A place among rows, and how much lies before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSample {
    /// The first row behind the place, which need not exist; empty at the end of the table.
    pub row: Bytes,
    /// Bytes of the rows asked for that lie before it, in memory and on disk, roughly.
    pub bytes_before: u64,
}

/// A tablet server as a gateway sees it.
///
/// Every call but a scan's fails with [`Error::NotServed`](crate::Error::NotServed)
/// before anything is logged where the server does not own the tablet or the
/// row is outside of it.
#[async_trait]
pub trait RowServer: Send + Sync + fmt::Debug {
    /// Applies `row`, durably.
    async fn mutate_row(&self, tablet: TabletId, row: &RowMutations) -> Result<()>;

    /// Applies `rows` in their order, each atomically, all durably; the
    /// outcomes cover each row once, in order.
    async fn mutate_rows(&self, tablet: TabletId, rows: &[RowMutations]) -> Result<Vec<RowsOutcome>>;

    /// Applies what the request has for the case that its predicate finds;
    /// whether it matched.
    async fn check_and_mutate(
        &self,
        tablet: TabletId,
        schema: &Arc<TableSchema>,
        request: &CheckAndMutate,
    ) -> Result<bool>;

    /// Applies the request's rules; the row with its new cells.
    async fn read_modify_write(
        &self,
        tablet: TabletId,
        schema: &Arc<TableSchema>,
        request: &ReadModifyWrite,
    ) -> Result<data::Row>;

    /// Reads one row at once: the only row of the request's set.
    async fn read_row(&self, tablet: TabletId, row_key: &[u8], request: &ReadRequest) -> Result<Option<Row>>;

    /// Begins to read changes of the tablet, whose rows must be `rows` and no others.
    async fn read_changes(&self, tablet: TabletId, rows: &RowRange) -> Result<Box<dyn TabletChanges>>;

    /// Begins to read what is durable now.
    async fn scan(&self, tablet: TabletId, request: ReadRequest) -> Result<Box<dyn TabletScan>>;

    /// Places that part `rows`, which lie in the tablet, into pieces of about as
    /// many bytes each, ascending; the last one is the end of `rows`.
    async fn sample(&self, tablet: TabletId, rows: &RowRange) -> Result<Vec<RowSample>>;
}

/// A scan of one tablet; dropping it ends it.
#[async_trait]
pub trait TabletScan: Send {
    /// The next rows, about `budget_bytes` of them at most; see [`ScanBatch`].
    async fn next_rows(&mut self, budget_bytes: usize) -> Result<ScanBatch>;
}
