//! One row's request, brought to its tablet.
//!
//! A request is sent again only where it was refused before the log: its tablet
//! was not served there. Whatever may have been logged is never sent twice, so
//! no counter counts twice (DESIGN section 5).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cluster::Shutdown;
use row_api::data;
use tokio::time::Instant;

use super::locator::{Location, Locator, Place};
use crate::catalog::{Catalog, Table};
use crate::check_and_mutate::CheckAndMutate;
use crate::error::{Error, Result};
use crate::mutation::RowMutations;
use crate::read_modify_write::ReadModifyWrite;
use crate::row::Row;
use crate::row_server::{ReadRequest, RowSample};
use crate::row_set::RowRange;
use crate::schema::TableSchema;

/// How long a request looks for a tablet that nobody serves.
const PATIENCE: Duration = Duration::from_secs(2);

const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Sends requests to tablets.
#[derive(Debug)]
pub struct Router {
    locator: Locator,
    catalog: Arc<Catalog>,
    /// Begins once no stream is to wait for more.
    streams_end: Shutdown,
}

impl Router {
    /// A router that finds tablets with `locator`.
    pub fn new(locator: Locator, catalog: Arc<Catalog>) -> Self {
        Self { locator, catalog, streams_end: Shutdown::new() }
    }

    /// Ends the change streams, which otherwise have no end: their clients are to go elsewhere.
    pub fn end_streams(&self) {
        self.streams_end.begin();
    }

    pub(super) fn is_ending(&self) -> bool {
        self.streams_end.has_begun()
    }

    pub(super) async fn ending(&self) {
        self.streams_end.begun().await;
    }

    /// Where tablets are.
    pub fn locator(&self) -> &Locator {
        &self.locator
    }

    /// The tables that exist.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Applies `row`, durably.
    ///
    /// # Errors
    ///
    /// [`Error`]; the row may have changed only after [`Error::Storage`].
    pub async fn mutate_row(&self, table: &Table, row: &RowMutations) -> Result<()> {
        let send =
            |location: Arc<Location>| async move { location.server.mutate_row(location.tablet, row).await };
        self.at_tablet(table, Place::At(row.row_key()), send).await
    }

    /// Applies what `request` has for the case that its predicate finds; whether it matched.
    ///
    /// # Errors
    ///
    /// As [`Router::mutate_row`].
    pub async fn check_and_mutate(
        &self,
        table: &Table,
        schema: &Arc<TableSchema>,
        request: &CheckAndMutate,
    ) -> Result<bool> {
        let send = |location: Arc<Location>| async move {
            location.server.check_and_mutate(location.tablet, schema, request).await
        };
        self.at_tablet(table, Place::At(request.row_key()), send).await
    }

    /// Applies the rules of `request`; the row with its new cells.
    ///
    /// # Errors
    ///
    /// As [`Router::mutate_row`].
    pub async fn read_modify_write(
        &self,
        table: &Table,
        schema: &Arc<TableSchema>,
        request: &ReadModifyWrite,
    ) -> Result<data::Row> {
        let send = |location: Arc<Location>| async move {
            location.server.read_modify_write(location.tablet, schema, request).await
        };
        self.at_tablet(table, Place::At(request.row_key()), send).await
    }

    /// The row `row_key`, if the request's filter leaves any cell of it.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn read_row(
        &self,
        table: &Table,
        row_key: &[u8],
        request: &ReadRequest,
    ) -> Result<Option<Row>> {
        let send = |location: Arc<Location>| async move {
            location.server.read_row(location.tablet, row_key, request).await
        };
        self.at_tablet(table, Place::At(row_key), send).await
    }

    /// Places that part `rows` into pieces of similar size, ascending: where
    /// tablets end, some within large ones, and last the end of `rows`.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn sample(&self, table: &Table, rows: &RowRange) -> Result<Vec<RowSample>> {
        let mut samples = Vec::new();
        let mut bytes_before = 0_u64;
        let mut rest = rows.clone();
        while !rest.is_empty() {
            let asked = &rest;
            let ask = |location: Arc<Location>| async move {
                let part = location.range.intersection(asked).unwrap_or_default();
                location.server.sample(location.tablet, &part).await
            };
            let part = self.at_tablet(table, Place::At(&rest.start), ask).await?;
            let whole = part.last().map_or(0, |last| last.bytes_before);
            samples.extend(part.into_iter().map(|sample| RowSample {
                bytes_before: bytes_before.saturating_add(sample.bytes_before),
                ..sample
            }));
            bytes_before = bytes_before.saturating_add(whole);
            match samples.last() {
                Some(last) if !last.row.is_empty() => rest.start = last.row.clone(),
                _ => break,
            }
        }
        Ok(samples)
    }

    /// Calls `call` with the tablet of `place`, again while nobody serves it and patience lasts.
    pub(super) async fn at_tablet<T, F>(
        &self,
        table: &Table,
        place: Place<'_>,
        call: impl Fn(Arc<Location>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut attempts = Attempts::new();
        loop {
            let error = match self.locator.locate(table.id, place).await {
                Ok(location) => match call(Arc::clone(&location)).await {
                    Err(error @ Error::NotServed { .. }) => {
                        self.locator.forget(&location);
                        error
                    }
                    outcome => return outcome,
                },
                Err(error) => error,
            };
            // Rare, and large to hold.
            Box::pin(attempts.pause(self, table, error)).await?;
        }
    }
}

/// How long a request has been refused, and whether it may be sent again.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// Set when it is refused first: it may have waited before, at a tablet that is split.
    deadline: Option<Instant>,
    /// Before the next attempt; none before the second, as the tablet's new place mostly stands in METADATA.
    pause: Duration,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Waits a little where `error` may pass and patience lasts; otherwise gives it back.
    pub(super) async fn pause(&mut self, router: &Router, table: &Table, error: Error) -> Result<()> {
        if !matches!(error, Error::NotServed { .. } | Error::NoTablet) {
            return Err(error);
        }
        if router.catalog.by_id(table.id).is_none() {
            return Err(Error::NoTable { name: table.name.to_string() });
        }
        let now = Instant::now();
        if now >= *self.deadline.get_or_insert(now + PATIENCE) {
            return Err(error);
        }
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        Ok(())
    }
}
