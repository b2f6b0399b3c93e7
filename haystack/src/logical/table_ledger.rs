//! The coordinator's memory in the table `volumes` of the system instance,
//! reached over the public row API. No photo read needs it.
//!
//! One family, `info`, and one column in each row, `record`, in JSON:
//!
//! | row key                                   | value                                     |
//! |-------------------------------------------|-------------------------------------------|
//! | `v`, volume (8 hex digits)                 | a [`VolumeRecord`]                        |
//! | `d`, volume, key (16 hex digits)           | a tombstone's cookie, and the stores that lack it |
//! | `s`, store (16 hex digits)                 | `{}`: an operator keeps photos from it    |
//!
//! A row that cannot be read is an error: what it said of replicas would be
//! forgotten otherwise.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use row_api::admin::{ColumnFamily, CreateTableRequest, GcRule, Table, gc_rule};
use row_api::client::RowClient;
use row_api::data::mutation::{DeleteFromRow, Mutation as Change, SetCell};
use row_api::data::{Mutation, ReadRowsRequest};
use row_api::names::{InstanceName, TableName};
use row_api::row::Row;
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use super::ledger::{Debt, Debts, Ledger, Pages, VolumeRecord};
use crate::error::{Error, Result};
use crate::photo_id::{Cookie, PhotoKey, VolumeId};
use crate::stores::identity::StoreId;

const INFO: &str = "info";
const RECORD: &[u8] = b"record";
/// Time between two attempts to create the table.
const RETRY_PERIOD: Duration = Duration::from_millis(100);
/// Rows in one MutateRows, at most.
const BATCH_ROW_COUNT_MAX: usize = 1000;

/// The memory in a table.
#[derive(Debug)]
pub struct TableLedger {
    rows: RowClient,
    table: TableName,
    ready: AtomicBool,
}

/// A debt, as it is written down.
#[derive(Debug, Serialize, Deserialize)]
struct DebtRecord {
    cookie: u64,
    stores: BTreeSet<StoreId>,
}

impl TableLedger {
    /// The memory behind `rows`.
    pub fn new(rows: RowClient) -> Self {
        let instance = InstanceName { project: "hayloft".to_owned(), instance: "system".to_owned() };
        let table = TableName { instance, table: "volumes".to_owned() };
        Self { rows, table, ready: AtomicBool::new(false) }
    }

    async fn create_table(&self) -> std::result::Result<(), Status> {
        let one_version = GcRule { rule: Some(gc_rule::Rule::MaxNumVersions(1)) };
        let family = ColumnFamily { gc_rule: Some(one_version), ..ColumnFamily::default() };
        let request = CreateTableRequest {
            parent: self.table.instance.to_string(),
            table_id: self.table.table.clone(),
            table: Some(Table { column_families: [(INFO.to_owned(), family)].into(), ..Table::default() }),
            ..CreateTableRequest::default()
        };
        match self.rows.table_admin().create_table(request).await {
            Err(status) if status.code() != Code::AlreadyExists => Err(status),
            _ => Ok(()),
        }
    }

    async fn write(&self, rows: Vec<(Vec<u8>, Vec<Mutation>)>) -> Result<()> {
        if !self.is_ready() {
            return Err(Error::DirectoryAway);
        }
        for rows in rows.chunks(BATCH_ROW_COUNT_MAX) {
            let outcomes = self.rows.mutate_rows(&self.table, rows.to_vec()).await.map_err(from_status)?;
            outcomes.into_iter().collect::<std::result::Result<(), Status>>().map_err(from_status)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Ledger for TableLedger {
    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    async fn load(&self) -> Result<Pages> {
        while let Err(status) = self.create_table().await {
            if status.code() != Code::Unavailable {
                return Err(from_status(status));
            }
            tokio::time::sleep(RETRY_PERIOD).await;
        }
        let request = ReadRowsRequest { table_name: self.table.to_string(), ..ReadRowsRequest::default() };
        let mut rows = self.rows.read_rows(request).await.map_err(from_status)?;
        let mut pages = Pages::default();
        while let Some(row) = rows.next().await.map_err(from_status)? {
            take_row(&row, &mut pages).ok_or_else(|| {
                let key = row.key.escape_ascii();
                from_status(Status::data_loss(format!("row {key} of the table volumes cannot be read")))
            })?;
        }
        self.ready.store(true, Ordering::Release);
        Ok(pages)
    }

    async fn put_volume(&self, volume: VolumeId, record: &VolumeRecord) -> Result<()> {
        self.write(vec![(volume_key(volume), vec![set(record)])]).await
    }

    async fn put_debts(&self, debts: &Debts) -> Result<()> {
        let row = |((volume, key), debt): (&(VolumeId, PhotoKey), &Debt)| {
            let record = DebtRecord { cookie: debt.cookie.0, stores: debt.stores.clone() };
            let change = if debt.stores.is_empty() { delete() } else { set(&record) };
            (format!("d{:08x}{:016x}", volume.0, key.0).into_bytes(), vec![change])
        };
        self.write(debts.iter().map(row).collect()).await
    }

    async fn put_store(&self, store: StoreId, read_only: bool) -> Result<()> {
        let change = if read_only { set(&serde_json::json!({})) } else { delete() };
        self.write(vec![(format!("s{store}").into_bytes(), vec![change])]).await
    }
}

fn volume_key(volume: VolumeId) -> Vec<u8> {
    format!("v{:08x}", volume.0).into_bytes()
}

fn set(record: &impl Serialize) -> Mutation {
    let value = serde_json::to_vec(record).expect("our records have text keys and no failing parts");
    Mutation::from(Change::SetCell(SetCell {
        family_name: INFO.to_owned(),
        column_qualifier: RECORD.into(),
        // The server's clock: the last word counts.
        timestamp_micros: -1,
        value: value.into(),
    }))
}

fn delete() -> Mutation {
    Mutation::from(Change::DeleteFromRow(DeleteFromRow {}))
}

/// Takes in a row; none if it makes no sense.
fn take_row(row: &Row, pages: &mut Pages) -> Option<()> {
    let record = &row.cell(INFO, RECORD)?.value;
    let key = std::str::from_utf8(&row.key).ok()?;
    let (kind, of) = key.split_at_checked(1)?;
    match (kind, of.len()) {
        ("v", 8) => {
            let volume = VolumeId(u32::from_str_radix(of, 16).ok()?);
            pages.volumes.insert(volume, serde_json::from_slice(record).ok()?);
        }
        ("d", 24) => {
            let (volume, key) = of.split_at_checked(8)?;
            let of = (
                VolumeId(u32::from_str_radix(volume, 16).ok()?),
                PhotoKey(u64::from_str_radix(key, 16).ok()?),
            );
            let DebtRecord { cookie, stores } = serde_json::from_slice(record).ok()?;
            pages.debts.insert(of, Debt { cookie: Cookie(cookie), stores });
        }
        ("s", 16) => drop(pages.read_only_stores.insert(of.parse().ok()?)),
        _ => return None,
    }
    Some(())
}

fn from_status(status: Status) -> Error {
    match status.code() {
        Code::Unavailable => Error::DirectoryAway,
        _ => Error::Directory(Arc::new(status)),
    }
}
