//! Deleted tables, which can be brought back for a while.
//!
//! What a table held when it was deleted is kept in checkpoints, named by a record
//! `deleted-table/<table number>` of the lock service, until its time is over, as
//! [`crate::MasterOptions::undelete_time`] says, or until it is brought back, which is a
//! restore (`restores`) under its own name.

use std::time::SystemTime;

use cluster::lock_service::Expect;
use prost::Message;
use prost_types::Timestamp;
use row_api::longrunning::Operation;
use row_api::names::{InstanceName, TableName};
use tablet_server::schema::TabletId;
use tablet_server::table_record::{TableRecord, TableState};
use tonic::Status;

use crate::assignment::Cluster;
use crate::error::{Error, Result};
use crate::master::{Master, damaged};
use crate::saved_table::SavedTable;
use crate::tables::to_its_end;

/// What the keys of deleted tables start with; the table's number follows, in 20 digits.
const PREFIX: &str = "deleted-table/";

/// Deleted tables that are kept; the one deleted first goes for another.
const DELETED_COUNT_MAX: usize = 1_000;

/// A deleted table, as it is recorded.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeletedTable {
    /// The table's full name.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// What it held.
    #[prost(message, optional, tag = "2")]
    saved: Option<SavedTable>,
    #[prost(message, optional, tag = "3")]
    deleted: Option<Timestamp>,
}

impl DeletedTable {
    /// What it held.
    pub(crate) fn saved(&self) -> &SavedTable {
        self.saved.as_ref().expect("a record is made and read with its table")
    }

    /// The table's number.
    fn number(&self) -> u64 {
        self.saved().table.as_ref().expect("a record is made and read with its table").table_id
    }

    /// When it was deleted.
    fn deleted(&self) -> SystemTime {
        self.deleted.and_then(|time| time.try_into().ok()).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Master {
    /// Brings the table back that was deleted last under `name`.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, ALREADY_EXISTS, or [`Error`]; then nothing began.
    pub async fn undelete_table(self: &std::sync::Arc<Self>, name: TableName) -> Result<Operation> {
        let master = std::sync::Arc::clone(self);
        to_its_end(async move {
            let mut cluster = master.cluster.lock().await;
            master.instance(&name.instance).await?;
            master.free_name(&mut cluster, &name).await?;
            let deleted = master.deleted_tables().await?;
            let text = name.to_string();
            let newest =
                deleted.into_iter().filter(|table| table.name == text).max_by_key(DeletedTable::deleted);
            let Some(deleted) = newest else {
                let why = format!("No deleted table to bring back: {name}");
                return Err(Status::not_found(why).into());
            };
            let number = deleted.number();
            master.begin_restore(&cluster, name, deleted.saved().clone(), number).await
        })
        .await
    }

    /// Keeps what the tablets of `record`, a table that is being deleted, hold, unless the disk is too
    /// full to. Doing it again does no harm.
    pub(crate) async fn keep_deleted(
        &self,
        cluster: &Cluster,
        name: &TableName,
        record: &TableRecord,
    ) -> Result<()> {
        let key = key(record.table_id);
        if self.lock_service.get(&key).await?.is_some() {
            return Ok(());
        }
        for tablet in &record.tablets {
            self.server_of(tablet)?.unload_tablet(TabletId(tablet.tablet)).await?;
        }
        let (tablets, _) = match self.save_tablets(cluster, &record.tablets).await {
            // Tables are deleted to make space, which what is kept of them would go on taking.
            Err(Error::Tablets(error)) if error.is_full_disk() => {
                tell_not_kept(name, &error);
                self.try_sweep_checkpoints(cluster).await;
                return Ok(());
            }
            saved => saved?,
        };
        let table = TableRecord {
            state: TableState::Serving.into(),
            tablets: Vec::new(),
            is_kept: false,
            ..record.clone()
        };
        let deleted = DeletedTable {
            name: name.to_string(),
            saved: Some(SavedTable { table: Some(table), tablets }),
            deleted: Some(SystemTime::now().into()),
        };
        self.lock_service.put(&key, deleted.encode_to_vec().into(), Expect::Absent).await?;
        self.forget_first_deleted(cluster).await
    }

    /// All that are kept.
    pub(crate) async fn deleted_tables(&self) -> Result<Vec<DeletedTable>> {
        let mut tables = Vec::new();
        for record in self.lock_service.list(PREFIX).await? {
            let bad = |found: &str| damaged(&record.key, found);
            let table =
                DeletedTable::decode(record.value.clone()).map_err(|error| bad(&error.to_string()))?;
            if table.saved.as_ref().is_none_or(|saved| saved.table.is_none()) {
                return Err(bad("it has no table"));
            }
            tables.push(table);
        }
        Ok(tables)
    }

    /// Forgets the deleted table of that number; its checkpoints go with the next sweep.
    pub(crate) async fn forget_deleted(&self, number: u64) -> Result<()> {
        Ok(self.lock_service.delete(&key(number), Expect::Anything).await?)
    }

    /// Forgets the deleted tables whose time is over at `now`; false if there is none.
    pub(crate) async fn expire_deleted(&self, now: SystemTime) -> Result<bool> {
        let mut is_any = false;
        for table in self.deleted_tables().await? {
            let age = now.duration_since(table.deleted()).unwrap_or_default();
            if age >= self.options.undelete_time {
                self.forget_deleted(table.number()).await?;
                is_any = true;
            }
        }
        Ok(is_any)
    }

    /// Forgets the deleted tables of an instance that is being deleted.
    pub(crate) async fn forget_deleted_of(&self, cluster: &Cluster, instance: &InstanceName) -> Result<()> {
        let prefix = format!("{instance}/");
        for table in self.deleted_tables().await? {
            if table.name.starts_with(&prefix) {
                self.forget_deleted(table.number()).await?;
            }
        }
        self.try_sweep_checkpoints(cluster).await;
        Ok(())
    }

    async fn forget_first_deleted(&self, cluster: &Cluster) -> Result<()> {
        let mut tables = self.deleted_tables().await?;
        let surplus = tables.len().saturating_sub(DELETED_COUNT_MAX);
        if surplus == 0 {
            return Ok(());
        }
        tables.sort_by_key(DeletedTable::deleted);
        for table in &tables[..surplus] {
            self.forget_deleted(table.number()).await?;
        }
        self.try_sweep_checkpoints(cluster).await;
        Ok(())
    }
}

fn tell_not_kept(name: &TableName, error: &tablet_server::Error) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(table = %name, error, "a deleted table is not kept: the disk is full");
}

fn key(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}
