//! Keys with a route: read through from their origin, and written through to it.
//!
//! Who uses it: the session, for what the item table does not answer. An
//! [`Errand`] is what a session cannot do by itself; the server runs it and hands
//! the outcome back. Read on in this order:
//!
//! - [`key`]: which cell or photo a key names;
//! - [`cell`]: a cell's value, with what only memcached knows of it;
//! - [`gate`], [`flights`]: who may store what while reads, writes and changes overlap;
//! - [`shelf`]: where values and absences are kept;
//! - [`write`]: what a write does to a cell, purely;
//! - [`rows`], [`photos`]: the origins;
//! - [`reading`], [`writing`]: errands;
//! - [`mod@options`]: what all of it is bounded by.
//!
//! Invariants: an origin is read once for all who miss a key at the same time. A
//! value is served only if no write through this proxy was acknowledged since it
//! was read, and no change that `invalidation` knows of was made. At most
//! [`OriginOptions::call_count_max`] calls are under way, each within
//! [`OriginOptions::timeout`], queueing included.

pub(crate) mod cell;
pub(crate) mod flights;
pub(crate) mod gate;
pub(crate) mod key;
#[cfg(test)]
mod model;
pub(crate) mod options;
mod photos;
mod reading;
mod rows;
pub(crate) mod shelf;
pub(crate) mod write;
mod writing;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use row_api::client::RowClient;
use tokio::sync::Semaphore;
use tonic::{Code, Status};

use crate::clock::Clock;
use crate::invalidation::change::Touched;
use crate::invalidation::positions::PositionFiles;
use crate::invalidation::table_state::TableState;
use crate::item_table::{ItemTable, Slot};
use cell::CellValue;
use flights::Flights;
use key::{BadKey, CellKey, OriginKey};
use options::OriginOptions;
use photos::PhotoOrigin;
use shelf::Shelf;
use write::{CellWrite, WriteOutcome};

/// Tables that cells are cached of.
const TABLE_COUNT_MAX: usize = 256;

/// Bytes of an origin's message that are passed on.
const MESSAGE_BYTES_MAX: usize = 400;

/// What came of reading one key.
#[derive(Clone, Debug)]
pub(crate) enum Fetched {
    /// The value, and the cas of its item.
    Value(Arc<CellValue>, u64),
    Absent,
    /// Not read, because enough else was: to be asked for again.
    Later,
    /// The line to answer, without its end.
    Failed(Arc<str>),
}

/// What a session cannot do by itself.
#[derive(Debug)]
pub(crate) enum Errand {
    Read(Vec<OriginKey>),
    Write(CellKey, CellWrite),
}

/// What came of an errand.
#[derive(Debug)]
pub(crate) enum ErrandOutcome {
    /// In the order of the keys.
    Read(Vec<(OriginKey, Fetched)>),
    Write(WriteOutcome),
}

/// What is known of a key without asking its origin.
#[derive(Debug)]
pub(crate) enum Lookup<'s> {
    /// The slot's item is the value.
    Hit(Slot<'s>),
    Absent,
    Unknown,
}

/// The origins, and what is kept of them.
#[derive(Debug)]
pub(crate) struct Origins {
    pub(crate) options: OriginOptions,
    pub(crate) client: RowClient,
    photos: Option<PhotoOrigin>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shelf: Shelf,
    pub(crate) flights: Flights,
    value_bytes_max: usize,
    /// Where streams of changes are followed to.
    pub(crate) positions: Arc<PositionFiles>,
    /// By the part of a canonical key.
    tables: ArcSwap<HashMap<Box<[u8]>, Arc<TableState>>>,
    tables_change: Mutex<()>,
    calls: Semaphore,
    /// Tables that are to be followed are announced here.
    pub(crate) wish_to_follow: tokio::sync::Notify,
}

impl Origins {
    pub(crate) fn new(
        options: OriginOptions,
        client: RowClient,
        items: Arc<ItemTable>,
        clock: Arc<dyn Clock>,
        value_bytes_max: usize,
        positions: PositionFiles,
    ) -> Self {
        Self {
            photos: options.photos.clone().map(PhotoOrigin::new),
            calls: Semaphore::new(options.call_count_max),
            options,
            client,
            clock,
            shelf: Shelf::new(items),
            flights: Flights::new(),
            value_bytes_max,
            positions: Arc::new(positions),
            tables: ArcSwap::default(),
            tables_change: Mutex::new(()),
            wish_to_follow: tokio::sync::Notify::new(),
        }
    }

    /// What `key` names.
    pub(crate) fn parse(&self, key: &[u8]) -> Result<OriginKey, BadKey> {
        OriginKey::parse(key, &self.options.instance)
    }

    /// What is known of `key`.
    pub(crate) fn look_up<'s>(&'s self, key: &'s OriginKey, now: u32) -> Lookup<'s> {
        let canonical = key.canonical();
        let (table, row) = match key {
            OriginKey::Cell(cell) => match self.table(cell.table_part()) {
                Some(table) => (Some(table), cell.row.as_slice()),
                None => return Lookup::Unknown,
            },
            OriginKey::Photo(_) => (None, &[][..]),
        };
        let generation = table.as_ref().map_or(0, |table| table.generation(row));
        let slot = self.shelf.slot(canonical, now);
        let serves = |cas| table.as_ref().is_none_or(|table| table.serves(row, cas, self.clock.now_us()));
        match slot.item() {
            Some(item) if serves(item.cas()) => Lookup::Hit(slot),
            Some(_) => Lookup::Unknown,
            None => {
                drop(slot);
                if self.shelf.is_absent(canonical, generation, now) {
                    Lookup::Absent
                } else {
                    Lookup::Unknown
                }
            }
        }
    }

    /// Counts a get of `key` that its origin answered.
    pub(crate) fn count_miss(&self, key: &OriginKey, now: u32) {
        let mut slot = self.shelf.slot(key.canonical(), now);
        let counts = slot.counts();
        counts.cmd_get += 1;
        counts.get_misses += 1;
    }

    /// Does an errand.
    ///
    /// # Cancel safety
    ///
    /// Reads that others wait for go on. Whether a write that was dropped has
    /// happened is unknown; nothing is kept of its key.
    pub(crate) async fn run(self: &Arc<Self>, errand: Errand) -> ErrandOutcome {
        match errand {
            Errand::Read(keys) => ErrandOutcome::Read(self.read(keys).await),
            Errand::Write(key, write) => ErrandOutcome::Write(self.write(&key, &write).await),
        }
    }

    /// The tables that cells are cached of.
    pub(crate) fn tables(&self) -> Vec<Arc<TableState>> {
        self.tables.load().values().cloned().collect()
    }

    fn table(&self, part: &[u8]) -> Option<Arc<TableState>> {
        self.tables.load().get(part).cloned()
    }

    /// The table `part`, as it is known from now on; none if that is one too many,
    /// or no table's name.
    fn table_or_new(&self, part: &[u8]) -> Option<Arc<TableState>> {
        if let Some(table) = self.table(part) {
            return Some(table);
        }
        let name = key::table_name(part, &self.options.instance)?;
        let _change = self.tables_change.lock();
        let mut tables = HashMap::clone(&self.tables.load());
        if let Some(table) = tables.get(part) {
            return Some(Arc::clone(table));
        }
        if tables.len() >= TABLE_COUNT_MAX {
            return None;
        }
        let table = Arc::new(TableState::new(name, part.into(), self.options.staleness_max));
        tables.insert(part.into(), Arc::clone(&table));
        self.tables.store(Arc::new(tables));
        Some(table)
    }

    /// Forgets a table that is not there, unless its changes are followed: its
    /// follower knows better.
    pub(crate) fn forget_table(&self, part: &[u8]) {
        let _change = self.tables_change.lock();
        let mut tables = HashMap::clone(&self.tables.load());
        if tables.get(part).is_some_and(|table| !table.has_follower()) {
            tables.remove(part);
            self.tables.store(Arc::new(tables));
        }
    }

    /// Evicts what a change of `row` by somebody else has touched.
    pub(crate) fn invalidate(&self, table: &TableState, row: &[u8], touched: &Touched) {
        let now = self.clock.now_s();
        let evict = |family: &str, qualifier: &[u8]| {
            let Some(key) = CellKey::canonical_of(&table.part, row, family, qualifier) else { return };
            let removed = self.flights.disturb(&key, || self.shelf.remove(&key, now));
            if removed {
                metrics::counter!("hayloft_cache_invalidated_total").increment(1);
            }
        };
        for (family, qualifier) in &touched.columns {
            evict(family, qualifier);
        }
        if !touched.row && touched.families.is_empty() {
            return;
        }
        let Some(columns) = table.columns() else { return table.invalidate_row(row) };
        for (family, qualifier) in &columns {
            if touched.row || touched.families.contains(family) {
                evict(family, qualifier);
            }
        }
    }

    /// Makes a call of an origin: within the bounds of time and number, and counted.
    async fn call<T>(
        &self,
        origin: &'static str,
        verb: &'static str,
        call: impl Future<Output = Result<T, Arc<str>>>,
    ) -> Result<T, Arc<str>> {
        let started = Instant::now();
        let bounded = async {
            let _permit = self.calls.acquire().await.expect("it is never closed");
            metrics::counter!("hayloft_cache_origin_calls_total", "origin" => origin, "verb" => verb)
                .increment(1);
            call.await
        };
        let outcome = match tokio::time::timeout(self.options.timeout, bounded).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.timed_out(origin)),
        };
        metrics::histogram!("hayloft_cache_origin_seconds", "origin" => origin, "verb" => verb)
            .record(started.elapsed());
        if outcome.is_err() {
            metrics::counter!("hayloft_cache_origin_errors_total", "origin" => origin, "verb" => verb)
                .increment(1);
        }
        outcome
    }

    fn timed_out(&self, origin: &str) -> Arc<str> {
        let timeout = self.options.timeout;
        format!("SERVER_ERROR the {origin} origin did not answer within {timeout:?}").into()
    }

    /// Brings the metrics of tables up to date.
    pub(crate) fn publish_metrics(&self) {
        let now_us = self.clock.now_us();
        for table in self.tables() {
            let name = table.name.to_string();
            let followed = f64::from(u8::from(table.is_followed()));
            metrics::gauge!("hayloft_cache_lag_seconds", "table" => name.clone())
                .set(table.lag(now_us).as_secs_f64());
            metrics::gauge!("hayloft_cache_followed", "table" => name).set(followed);
        }
    }

    fn lifetime_seconds(lifetime: Duration) -> u32 {
        u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).max(1)
    }
}

/// The line that tells a client of an origin's refusal.
fn refusal(status: &Status) -> Arc<str> {
    let kind = match status.code() {
        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition | Code::PermissionDenied => {
            "CLIENT_ERROR"
        }
        _ => "SERVER_ERROR",
    };
    line(&format!("{kind} {}: {}", status.code().description(), status.message()))
}

/// `text` as one line of bounded length.
fn line(text: &str) -> Arc<str> {
    let clean = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut bytes = 0;
    clean
        .take_while(|letter| {
            bytes += letter.len_utf8();
            bytes <= MESSAGE_BYTES_MAX
        })
        .collect::<String>()
        .into()
}
