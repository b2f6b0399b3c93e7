//! Where a row's tablet is: METADATA's three levels, read once and remembered.
//!
//! A location is found by going up: the tablet of a user's row stands in a row
//! of METADATA, whose own tablet stands in the root tablet, whose server the
//! lock service names. Nothing goes around it. A location that turned out to be
//! stale is forgotten, and found again at the next call (Bigtable section 5.1).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use cluster::lock_service::LockService;
use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use prost::Message;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::metadata::{self, METADATA_TABLE, RootRecord, TabletRecord};
use crate::row_scan::ScanOptions;
use crate::row_server::{ReadRequest, RowServer};
use crate::row_set::{RowRange, RowSet};
use crate::schema::{TableId, TableSchema, TabletId};
use crate::servers::Servers;
use crate::table_record::BadTableRecord;

/// Tablets that one look-up in METADATA remembers.
const PREFETCH_COUNT: usize = 32;

/// Locations remembered at most; one more, and all are found anew.
const LOCATION_COUNT_MAX: usize = 100_000;

/// Bytes of METADATA rows read at a time.
const STEP_BYTES: usize = 64 << 10;

/// A tablet and the server that was last known to own it.
#[derive(Clone, Debug)]
pub struct Location {
    /// The table.
    pub table: TableId,
    /// The tablet.
    pub tablet: TabletId,
    /// Its rows.
    pub range: RowRange,
    /// Its owner.
    pub server: Arc<dyn RowServer>,
}

/// A place among a table's rows.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The row itself.
    At(&'a [u8]),
    /// What comes before it; before the empty row, the end of the table.
    Before(&'a [u8]),
}

impl Place<'_> {
    /// The METADATA key from which on the first one is the key of the place's tablet.
    fn first_key(self, table: TableId) -> Vec<u8> {
        match self {
            Self::At(row) => metadata::search_key(table, row),
            Self::Before(end) => metadata::row_key(table, end),
        }
    }

    fn is_in(self, range: &RowRange) -> bool {
        match self {
            Self::At(row) => range.contains(row),
            Self::Before([]) => range.end.is_empty(),
            Self::Before(end) => *range.start < *end && (range.end.is_empty() || *end <= *range.end),
        }
    }
}

/// Finds tablets.
#[derive(Debug)]
pub struct Locator {
    lock_service: Arc<dyn LockService>,
    servers: Arc<Servers>,
    metadata_schema: Arc<TableSchema>,
    all_cells: Filter,
    /// Locations by the keys of their METADATA rows.
    known: RwLock<BTreeMap<Vec<u8>, Arc<Location>>>,
}

impl Locator {
    /// A locator that remembers nothing yet.
    pub fn new(lock_service: Arc<dyn LockService>, servers: Arc<Servers>, catalog: &Catalog) -> Self {
        let metadata = catalog.by_id(METADATA_TABLE).expect("every catalog holds METADATA");
        let metadata_schema = metadata.schema();
        let all_cells =
            Filter::compile("filter", None, &metadata_schema).expect("no filter is a valid filter");
        Self { lock_service, servers, metadata_schema, all_cells, known: RwLock::default() }
    }

    /// The tablet of `place` in `table`.
    ///
    /// # Errors
    ///
    /// - [`Error::NoTablet`]: METADATA names none.
    /// - [`Error::NotServed`]: nobody serves it, or a tablet of METADATA on the way, now.
    pub async fn locate(&self, table: TableId, place: Place<'_>) -> Result<Arc<Location>> {
        let first_key = place.first_key(table);
        match self.known(&first_key, table, place) {
            Some(location) => Ok(location),
            // Rare, and large to hold.
            None => Box::pin(self.find(table, place, first_key)).await,
        }
    }

    /// Forgets `location`, which turned out to be wrong.
    pub fn forget(&self, location: &Location) {
        let key = metadata::row_key(location.table, &location.range.end);
        let mut known = self.known.write();
        if known.get(&key).is_some_and(|current| current.tablet == location.tablet) {
            known.remove(&key);
        }
    }

    /// What METADATA's rows in `range` say, `count_max` of them at most.
    ///
    /// # Errors
    ///
    /// As [`Locator::locate`], and [`Error::CorruptMetadata`].
    pub fn metadata_rows(
        &self,
        range: RowRange,
        count_max: usize,
    ) -> BoxFuture<'_, Result<Vec<TabletRecord>>> {
        Box::pin(async move {
            let mut records = Vec::new();
            let mut rest = range;
            let mut was_stale = false;
            loop {
                let location = self.locate(METADATA_TABLE, Place::At(&rest.start)).await?;
                let read_count = records.len();
                if let Err(error) = self.read_tablet(&location, &rest, count_max, &mut records).await {
                    self.forget(&location);
                    // Once, for a tablet of METADATA that was split or moved since it was found.
                    if was_stale || !matches!(error, Error::NotServed { .. }) {
                        return Err(error);
                    }
                    was_stale = true;
                    records.truncate(read_count);
                    continue;
                }
                was_stale = false;
                rest.start = location.range.end.clone();
                if records.len() >= count_max || rest.start.is_empty() || rest.is_empty() {
                    return Ok(records);
                }
            }
        })
    }

    /// Adds what the rows of `range` in one tablet of METADATA say to `records`.
    async fn read_tablet(
        &self,
        location: &Location,
        range: &RowRange,
        count_max: usize,
        records: &mut Vec<TabletRecord>,
    ) -> Result<()> {
        let rows_limit = u64::try_from(count_max.saturating_sub(records.len())).unwrap_or(u64::MAX);
        let request = ReadRequest {
            schema: Arc::clone(&self.metadata_schema),
            rows: RowSet::all().clip(range).clip(&location.range),
            filter: self.all_cells.clone(),
            options: ScanOptions { rows_limit: Some(rows_limit), ..ScanOptions::default() },
        };
        let mut scan = location.server.scan(location.tablet, request).await?;
        loop {
            let batch = scan.next_rows(STEP_BYTES).await?;
            for row in &batch.rows {
                records.push(TabletRecord::decode(row)?);
            }
            if batch.done {
                return Ok(());
            }
        }
    }

    fn known(&self, first_key: &[u8], table: TableId, place: Place<'_>) -> Option<Arc<Location>> {
        let known = self.known.read();
        let (_, location) = known.range::<[u8], _>((Bound::Included(first_key), Bound::Unbounded)).next()?;
        (location.table == table && place.is_in(&location.range)).then(|| Arc::clone(location))
    }

    async fn find(&self, table: TableId, place: Place<'_>, first_key: Vec<u8>) -> Result<Arc<Location>> {
        let records = if table == METADATA_TABLE && place.is_in(&metadata::root_range()) {
            vec![self.root().await?]
        } else {
            let rows = RowRange { start: first_key.into(), end: metadata::table_end_key(table).into() };
            self.metadata_rows(rows, PREFETCH_COUNT).await?
        };
        let found = records.first().filter(|record| place.is_in(&record.range)).ok_or(Error::NoTablet)?;
        let location = self.remember(found).ok_or(Error::NotServed { tablet: found.tablet })?;
        for record in &records[1..] {
            self.remember(record);
        }
        Ok(location)
    }

    /// None where nobody that can be reached owns the tablet.
    fn remember(&self, record: &TabletRecord) -> Option<Arc<Location>> {
        let location = Arc::new(Location {
            table: record.table,
            tablet: record.tablet,
            range: record.range.clone(),
            server: self.servers.rows(record.server.as_ref()?)?,
        });
        let mut known = self.known.write();
        if known.len() >= LOCATION_COUNT_MAX {
            known.clear();
        }
        known.insert(record.key(), Arc::clone(&location));
        Some(location)
    }

    async fn root(&self) -> Result<TabletRecord> {
        let record = self.lock_service.get(metadata::ROOT_RECORD_KEY).await?.ok_or(Error::NoTablet)?;
        match RootRecord::decode(record.value) {
            Ok(root) => Ok(root.to_tablet()),
            Err(error) => Err(BadTableRecord { key: record.key, found: error.to_string() }.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_before_a_row_is_in_the_tablet_that_ends_there() {
        let range =
            |start: &'static str, end: &'static str| RowRange { start: start.into(), end: end.into() };
        for (place, start, end, inside) in [
            (Place::At(b"b"), "a", "b", false),
            (Place::At(b"b"), "b", "", true),
            (Place::Before(b"b"), "a", "b", true),
            (Place::Before(b"b"), "b", "", false),
            (Place::Before(b"c"), "a", "b", false),
            (Place::Before(b"c"), "b", "", true),
            (Place::Before(b""), "a", "b", false),
            (Place::Before(b""), "b", "", true),
        ] {
            assert_eq!(place.is_in(&range(start, end)), inside, "{place:?} in {start:?}..{end:?}");
        }
    }
}
