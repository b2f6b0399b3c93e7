//! The tables that the photo service keeps in the system instance, reached over
//! the public row API only (DESIGN 6).
//!
//! They are created at the first start, and until the row service answers,
//! whatever needs one is told to come back. Rows of all who wait at the same
//! time share one MutateRows a table, so a group commit of photos or blobs costs
//! the row service one commit too.
//!
//! What a table's rows hold stands at the head of the module that writes them:
//!
//! | table             | module                                     |
//! |-------------------|--------------------------------------------|
//! | `photos`, `albums` | [`directory`](crate::directory)            |
//! | `blobs`           | [`blob`](crate::blob)                      |
//! | `upload_keys`     | [`upload_key`](crate::upload_key)          |
//! | `partial_uploads` | [`partial_upload`](crate::partial_upload)  |

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::Shutdown;
use parking_lot::Mutex;
use row_api::admin::{ColumnFamily, CreateTableRequest, GcRule, Table, gc_rule};
use row_api::client::RowClient;
use row_api::data::mutation::{DeleteFromRow, Mutation as Change, SetCell};
use row_api::data::row_filter::{Chain, Filter};
use row_api::data::row_range::{EndKey, StartKey};
use row_api::data::{CheckAndMutateRowRequest, Mutation, ReadRowsRequest, RowFilter, RowRange, RowSet};
use row_api::names::{InstanceName, TableName};
use row_api::row::Row;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Code, Status};

use crate::error::{Error, Result};
use crate::upload_key::KEY_LIFETIME;

/// Writes in one MutateRows, at most, and writes that wait for the next one.
const BATCH_WRITE_COUNT_MAX: usize = 128;
/// Time between two attempts to create the tables.
const RETRY_PERIOD: Duration = Duration::from_millis(100);

/// One table of the photo service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SystemTable {
    /// One row a photo.
    Photos,
    /// One row for each place of a photo in an album.
    Albums,
    /// One row a blob.
    Blobs,
    /// One row an idempotency key, for a day.
    UploadKeys,
    /// One row an upload that comes in parts.
    PartialUploads,
}

impl SystemTable {
    const ALL: [Self; 5] = [Self::Photos, Self::Albums, Self::Blobs, Self::UploadKeys, Self::PartialUploads];

    /// Its id.
    pub fn id(self) -> &'static str {
        match self {
            Self::Photos => "photos",
            Self::Albums => "albums",
            Self::Blobs => "blobs",
            Self::UploadKeys => "upload_keys",
            Self::PartialUploads => "partial_uploads",
        }
    }

    /// Its families.
    fn families(self) -> &'static [&'static str] {
        match self {
            Self::Photos | Self::Albums => &["info", "size"],
            Self::Blobs => &["blob"],
            Self::UploadKeys => &["claim"],
            Self::PartialUploads => &["upload"],
        }
    }

    /// Which cells go by themselves: all but the newest of a column, and that
    /// one too where the table forgets.
    fn gc_rule(self) -> GcRule {
        let rule = |rule| GcRule { rule: Some(rule) };
        let one_version = rule(gc_rule::Rule::MaxNumVersions(1));
        let Self::UploadKeys = self else { return one_version };
        let seconds = i64::try_from(KEY_LIFETIME.as_secs()).unwrap_or(i64::MAX);
        let age = rule(gc_rule::Rule::MaxAge(prost_types::Duration { seconds, nanos: 0 }));
        rule(gc_rule::Rule::Union(gc_rule::Union { rules: vec![one_version, age] }))
    }

    fn name(self) -> TableName {
        let instance = InstanceName { project: "hayloft".to_owned(), instance: "system".to_owned() };
        TableName { instance, table: self.id().to_owned() }
    }
}

/// A cell to write.
pub fn set_cell(
    family: &str,
    qualifier: impl Into<Bytes>,
    timestamp_ms: u64,
    value: impl Into<Bytes>,
) -> Mutation {
    Mutation::from(Change::SetCell(SetCell {
        family_name: family.to_owned(),
        column_qualifier: qualifier.into(),
        timestamp_micros: i64::try_from(timestamp_ms).unwrap_or(0).saturating_mul(1000),
        value: value.into(),
    }))
}

/// The deletion of a row.
pub fn delete_row() -> Mutation {
    Mutation::from(Change::DeleteFromRow(DeleteFromRow {}))
}

/// The cells of one column; of `value` only, where that is given.
pub fn column_filter(family: &str, qualifier: &str, value: Option<&str>) -> RowFilter {
    let filter = |filter| RowFilter { filter: Some(filter), ..RowFilter::default() };
    let mut filters = vec![
        filter(Filter::FamilyNameRegexFilter(family.to_owned())),
        filter(Filter::ColumnQualifierRegexFilter(Bytes::copy_from_slice(qualifier.as_bytes()))),
    ];
    let exact = |value: &str| filter(Filter::ValueRegexFilter(Bytes::copy_from_slice(value.as_bytes())));
    filters.extend(value.map(exact));
    filter(Filter::Chain(Chain { filters }))
}

/// Which rows a scan gives, and what of them.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The table.
    pub table: SystemTable,
    /// Where the rows begin.
    pub start: Bound<Vec<u8>>,
    /// The key before which they end.
    pub end: Vec<u8>,
    /// Rows, at most.
    pub row_count_max: usize,
    /// The cells of each row that are wanted; all, if there is none.
    pub filter: Option<RowFilter>,
}

/// Changes of one row.
#[derive(Clone, Debug)]
pub struct RowWrite {
    /// The row's table.
    pub table: SystemTable,
    /// Its key.
    pub key: Vec<u8>,
    /// What is done to it, in order and at once.
    pub mutations: Vec<Mutation>,
}

/// Rows that one caller waits for.
#[derive(Debug)]
struct Waiting {
    rows: Vec<RowWrite>,
    answer: oneshot::Sender<Result<()>>,
}

/// The photo service's tables.
#[derive(Debug)]
pub struct Tables {
    rows: RowClient,
    ready: watch::Sender<bool>,
    writes: mpsc::Sender<Waiting>,
    /// The other end of `writes`, until [`Tables::start`].
    waiting: Mutex<Option<mpsc::Receiver<Waiting>>>,
}

impl Tables {
    /// The tables behind `rows`. Nothing is done before [`Tables::start`].
    pub fn new(rows: RowClient) -> Self {
        let (writes, waiting) = mpsc::channel(BATCH_WRITE_COUNT_MAX);
        Self { rows, ready: watch::Sender::new(false), writes, waiting: Mutex::new(Some(waiting)) }
    }

    /// Creates the tables, as often as it takes, and then writes rows, until
    /// `shutdown` begins and nobody writes any more. Starting twice is starting once.
    pub fn start(self: &Arc<Self>, shutdown: &Shutdown) {
        let Some(mut waiting) = self.waiting.lock().take() else { return };
        let tables = Arc::clone(self);
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.begun() => return,
                () = tables.create() => {}
            }
            tables.ready.send_replace(true);
            tracing::info!("the photo directory answers");
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, BATCH_WRITE_COUNT_MAX).await > 0 {
                tables.write_batch(std::mem::take(&mut batch)).await;
            }
        });
    }

    /// Whether the tables are there.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Returns once the tables are there.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop and to call again.
    pub async fn wait_until_ready(&self) {
        let known = self.ready.subscribe().wait_for(|ready| *ready).await.is_ok();
        debug_assert!(known, "the sender lives in self");
    }

    async fn create(&self) {
        let mut warned = false;
        for table in SystemTable::ALL {
            while let Err(status) = self.create_table(table).await {
                if status.code() != Code::Unavailable && !warned {
                    warned = true;
                    let table = table.id();
                    tracing::warn!(table, %status, "cannot create a table of the photo directory; trying on");
                }
                tokio::time::sleep(RETRY_PERIOD).await;
            }
        }
    }

    async fn create_table(&self, table: SystemTable) -> std::result::Result<(), Status> {
        let family = ColumnFamily { gc_rule: Some(table.gc_rule()), ..ColumnFamily::default() };
        let families = table.families().iter().map(|name| ((*name).to_owned(), family.clone()));
        let request = CreateTableRequest {
            parent: table.name().instance.to_string(),
            table_id: table.id().to_owned(),
            table: Some(Table { column_families: families.collect(), ..Table::default() }),
            ..CreateTableRequest::default()
        };
        match self.rows.table_admin().create_table(request).await {
            Err(status) if status.code() != Code::AlreadyExists => Err(status),
            _ => Ok(()),
        }
    }

    /// Writes `rows`, each of them atomically.
    ///
    /// # Durability
    ///
    /// All are durable when this returns.
    ///
    /// # Errors
    ///
    /// - [`Error::DirectoryAway`]: nothing was written.
    /// - [`Error::Directory`]: each row may or may not be there.
    pub async fn write(&self, rows: Vec<RowWrite>) -> Result<()> {
        if !self.is_ready() {
            return Err(Error::DirectoryAway);
        }
        let (answer, outcome) = oneshot::channel();
        self.writes.send(Waiting { rows, answer }).await.map_err(|_| Error::Closing)?;
        outcome.await.map_err(|_| Error::Closing)?
    }

    async fn write_batch(&self, batch: Vec<Waiting>) {
        let mut entries = SystemTable::ALL.map(|_| Vec::new());
        let mut callers = Vec::with_capacity(batch.len());
        for Waiting { rows, answer } in batch {
            callers.push((answer, rows.iter().map(|row| row.table).collect::<Vec<_>>()));
            for row in rows {
                entries[row.table as usize].push((row.key, row.mutations));
            }
        }
        let calls = SystemTable::ALL.into_iter().zip(entries).map(|(table, entries)| async move {
            match entries.is_empty() {
                true => Ok(Vec::new()),
                false => self.rows.mutate_rows(&table.name(), entries).await,
            }
        });
        let mut outcomes: Vec<_> =
            futures_util::future::join_all(calls).await.into_iter().map(each).collect();
        for (answer, tables) in callers {
            let mut outcome = Ok(());
            for table in tables {
                // Each row's answer is taken, or the next caller would get it.
                outcome = outcome.and(outcomes[table as usize]());
            }
            // Whoever waited may have gone.
            let _ = answer.send(outcome.map_err(from_status));
        }
    }

    /// The row `key` of `table`, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`], [`Error::Directory`]
    pub async fn read(&self, table: SystemTable, key: &[u8]) -> Result<Option<Row>> {
        self.rows.read_row(&table.name(), key).await.map_err(from_status)
    }

    /// Applies `then` to the row `key` if it has a cell that passes `predicate`,
    /// and `otherwise` if not, atomically; whether it had one.
    ///
    /// # Durability
    ///
    /// What was applied is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`], [`Error::Directory`]: something may have been applied.
    pub async fn check_and_write(
        &self,
        table: SystemTable,
        key: &[u8],
        predicate: RowFilter,
        [then, otherwise]: [Vec<Mutation>; 2],
    ) -> Result<bool> {
        let request = CheckAndMutateRowRequest {
            table_name: table.name().to_string(),
            row_key: Bytes::copy_from_slice(key),
            predicate_filter: Some(predicate),
            true_mutations: then,
            false_mutations: otherwise,
            ..CheckAndMutateRowRequest::default()
        };
        let answer = self.rows.data().check_and_mutate_row(request).await.map_err(from_status)?;
        Ok(answer.into_inner().predicate_matched)
    }

    /// The rows that `scan` asks for.
    ///
    /// # Errors
    ///
    /// [`Error::DirectoryAway`], [`Error::Directory`]
    pub async fn scan(&self, scan: Scan) -> Result<Vec<Row>> {
        let Scan { table, start, end, row_count_max, filter } = scan;
        let start_key = match start {
            Bound::Included(key) => Some(StartKey::StartKeyClosed(key.into())),
            Bound::Excluded(key) => Some(StartKey::StartKeyOpen(key.into())),
            Bound::Unbounded => None,
        };
        let range = RowRange { start_key, end_key: Some(EndKey::EndKeyOpen(end.into())) };
        let request = ReadRowsRequest {
            table_name: table.name().to_string(),
            rows: Some(RowSet { row_keys: Vec::new(), row_ranges: vec![range] }),
            rows_limit: i64::try_from(row_count_max).unwrap_or(i64::MAX),
            filter,
            ..ReadRowsRequest::default()
        };
        let mut stream = self.rows.read_rows(request).await.map_err(from_status)?;
        let mut rows = Vec::new();
        while let Some(row) = stream.next().await.map_err(from_status)? {
            rows.push(row);
        }
        Ok(rows)
    }
}

/// The outcomes of a MutateRows one by one; a failed call failed for each.
fn each(
    outcome: std::result::Result<Vec<std::result::Result<(), Status>>, Status>,
) -> impl FnMut() -> std::result::Result<(), Status> {
    let (mut answers, failure) = match outcome {
        Ok(answers) => (answers.into_iter(), Status::internal("the row service left a row out")),
        Err(status) => (Vec::new().into_iter(), status),
    };
    move || answers.next().unwrap_or_else(|| Err(failure.clone()))
}

fn from_status(status: Status) -> Error {
    match status.code() {
        Code::Unavailable => Error::DirectoryAway,
        _ => Error::Directory(Arc::new(status)),
    }
}
