//! The making of a table from what a backup, or a deleted table, holds.
//!
//! ```text
//! 1  record restore/OPERATION: the intent, with the table and its tablets
//! 2  tablets restored on their servers, by links to the tables of checkpoints
//! 3  rows written to METADATA
//! 4  the table's record: serving. This commits the restore
//! 5  the deleted table's record removed, the operation ended, the intent removed
//! ```
//!
//! Step 2 takes its time, and runs beside whatever else the master does; the
//! intent keeps the checkpoints, and the table's name, meanwhile. A failure or a
//! cancellation before step 4 is followed by the removal of what there is of the
//! tablets. A start after a crash takes METADATA's rows away, if the table's record is
//! not there, and goes on with step 2: what is restored already stays.

use std::sync::Arc;
use std::time::SystemTime;

use cluster::lock_service::Expect;
use cluster::{Epoch, ServerId};
use prost::Message;
use prost_types::Timestamp;
use row_api::admin;
use row_api::admin::restore_info::SourceInfo;
use row_api::admin::{OperationProgress, RestoreSourceType, restore_table_metadata};
use row_api::longrunning::Operation;
use row_api::names::{BackupName, TableName};
use tablet_server::control::CheckpointId;
use tablet_server::metadata::TabletRecord;
use tablet_server::row_set::RowRange;
use tablet_server::schema::{TableId, TabletId};
use tablet_server::table_record::{IntendedTablet, TableRecord};

use tonic::Status;

use crate::assignment::{Cluster, assignment_of};
use crate::backup_record::BackupRecord;
use crate::backup_rules::check_ready;
use crate::error::{Error, Result};
use crate::master::{Master, damaged};
use crate::operations::{RunningOperation, any, empty};
use crate::saved_table::{SavedTable, SavedTablet};
use crate::table_admin::schema_view;
use crate::tables::{learn_of_new_tablets, to_its_end};

/// What the keys of intents start with; the operation's number follows, in 20 digits.
const PREFIX: &str = "restore/";

/// The making of a table, as its intent stands in the lock service.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RestoreRecord {
    /// The table's full name.
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Its record, as it is written in the end.
    #[prost(message, optional, tag = "2")]
    table: Option<TableRecord>,
    #[prost(message, repeated, tag = "3")]
    tablets: Vec<RestoredTablet>,
    /// The number of the deleted table that is brought back; 0 where a backup is restored.
    #[prost(uint64, tag = "4")]
    deleted_table: u64,
    #[prost(message, optional, tag = "5")]
    start_time: Option<Timestamp>,
}

/// A tablet that is made.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
struct RestoredTablet {
    #[prost(uint64, tag = "1")]
    tablet: u64,
    #[prost(string, tag = "2")]
    server: String,
    /// What it is made of.
    #[prost(message, required, tag = "3")]
    from: SavedTablet,
}

impl RestoreRecord {
    /// What is kept for it.
    pub(crate) fn sources(&self) -> impl Iterator<Item = &SavedTablet> {
        self.tablets.iter().map(|tablet| &tablet.from)
    }

    fn table(&self) -> &TableRecord {
        self.table.as_ref().expect("a record is made and read with its table")
    }

    fn intended(&self) -> Vec<IntendedTablet> {
        let intended = |tablet: &RestoredTablet| IntendedTablet {
            tablet: tablet.tablet,
            end: tablet.from.end.clone(),
            server: tablet.server.clone(),
        };
        self.tablets.iter().map(intended).collect()
    }

    /// Its tablets under the ownership `epoch`.
    fn tablet_records(&self, epoch: Epoch) -> Vec<TabletRecord> {
        let mut records: Vec<TabletRecord> = Vec::with_capacity(self.tablets.len());
        for tablet in &self.tablets {
            let start = records.last().map(|record| record.range.end.clone()).unwrap_or_default();
            records.push(TabletRecord {
                tablet: TabletId(tablet.tablet),
                table: TableId(self.table().table_id),
                range: RowRange { start, end: tablet.from.end.clone() },
                epoch,
                server: Some(ServerId(tablet.server.clone())),
            });
        }
        records
    }

    /// The operation's metadata when so many tablets are made, or at its end.
    fn metadata(
        &self,
        tablet_count: usize,
        end_time: Option<Timestamp>,
        optimization: String,
    ) -> prost_types::Any {
        if self.deleted_table != 0 {
            let (name, start_time) = (self.name.clone(), self.start_time);
            let metadata = admin::UndeleteTableMetadata { name, start_time, end_time };
            return any("UndeleteTableMetadata", &metadata);
        }
        let info = self.table().table().restore_info.as_ref().and_then(|info| info.source_info.clone());
        let source_info =
            info.map(|SourceInfo::BackupInfo(info)| restore_table_metadata::SourceInfo::BackupInfo(info));
        let percent = tablet_count * 100 / self.tablets.len().max(1);
        let metadata = admin::RestoreTableMetadata {
            name: self.name.clone(),
            source_type: RestoreSourceType::Backup.into(),
            optimize_table_operation_name: optimization,
            progress: Some(OperationProgress {
                progress_percent: i32::try_from(percent).unwrap_or(100),
                start_time: self.start_time,
                end_time,
            }),
            source_info,
        };
        any("RestoreTableMetadata", &metadata)
    }
}

impl Master {
    /// Begins to make the table `name` of the backup `backup`.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION where the backup is not
    /// complete, or [`Error`]; then nothing began.
    pub async fn restore_table(self: &Arc<Self>, name: TableName, backup: BackupName) -> Result<Operation> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let mut cluster = master.cluster.lock().await;
            master.instance(&name.instance).await?;
            let record = master.backup(&backup).await?;
            check_ready("backup", &backup, &record)?;
            master.free_name(&mut cluster, &name).await?;
            let saved = restorable(&backup, &record);
            master.begin_restore(&cluster, name, saved, 0).await
        })
        .await
    }

    /// Begins to make the table `name`, which is free, of `saved`.
    pub(crate) async fn begin_restore(
        self: &Arc<Self>,
        cluster: &Cluster,
        name: TableName,
        saved: SavedTable,
        deleted_table: u64,
    ) -> Result<Operation> {
        let servers = cluster.place(saved.tablets.len());
        let mut tablets = Vec::with_capacity(saved.tablets.len());
        for from in saved.tablets {
            let server = servers.get(tablets.len()).ok_or(Error::NoServer)?.to_string();
            tablets.push(RestoredTablet { tablet: self.lock_service.next_id().await?, server, from });
        }
        let table_id = self.lock_service.next_id().await?;
        let record = RestoreRecord {
            name: name.to_string(),
            table: saved.table.map(|table| TableRecord { table_id, ..table }),
            tablets,
            deleted_table,
            start_time: Some(SystemTime::now().into()),
        };
        let metadata = record.metadata(0, None, String::new());
        let running = self.begin_operation(&name, metadata.clone()).await?;
        let key = key(running.number());
        if let Err(error) = self.lock_service.put(&key, record.encode_to_vec().into(), Expect::Absent).await {
            let error = Error::from(error);
            self.end_operation(running, metadata, Err(Status::aborted(error.to_string()))).await?;
            return Err(error);
        }
        let operation = running.operation();
        self.run_restore(running, record);
        Ok(operation)
    }

    /// Carries out, or goes on with, a restore in a task of its own.
    pub(crate) fn run_restore(self: &Arc<Self>, running: RunningOperation, record: RestoreRecord) {
        let master = Arc::clone(self);
        tokio::spawn(async move {
            let number = running.number();
            if let Err(error) = master.conduct_restore(running, &record).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(table = record.name, number, error, "a restore is left for the next start");
            }
        });
    }

    async fn conduct_restore(&self, running: RunningOperation, record: &RestoreRecord) -> Result<()> {
        let number = running.number();
        let (tablet_count, outcome, optimization) = match self.restore(&running, record).await {
            Ok(response) => {
                let optimization = match record.deleted_table {
                    0 => self.note_optimization(&record.name).await?,
                    _ => String::new(),
                };
                (record.tablets.len(), Ok(any("Table", &response)), optimization)
            }
            Err(error) if error.is_stop() => return Err(error),
            Err(error) => {
                self.undo_restore(number, record).await?;
                (0, Err(error.into()), String::new())
            }
        };
        let metadata = record.metadata(tablet_count, Some(SystemTime::now().into()), optimization);
        self.end_operation(running, metadata, outcome).await?;
        let cluster = self.cluster.lock().await;
        self.forget_restore(&cluster, number).await
    }

    /// Steps 2 to 4, and the first part of step 5.
    async fn restore(
        &self,
        running: &RunningOperation,
        record: &RestoreRecord,
    ) -> Result<admin::TableAnswer> {
        let name = record.table_name()?;
        if !self.is_restored(record).await? {
            let tablets = record.tablet_records(self.new_epoch().await?);
            for (place, (tablet, made)) in tablets.iter().zip(&record.tablets).enumerate() {
                running.check_cancelled()?;
                let (checkpoint, from) = (CheckpointId(made.from.checkpoint), TabletId(made.from.tablet));
                let control = self.control(tablet)?;
                control.restore_tablet(assignment_of(tablet), checkpoint, from).await?;
                // The changes of a table that is brought back go on; a copy has none.
                let has_changes = record.table().schema().change_retention_us.is_some();
                control.keep_changes(tablet.tablet, has_changes).await?;
                running.show(record.metadata(place + 1, None, String::new()));
            }
            let mut cluster = self.cluster.lock().await;
            running.check_cancelled()?;
            // It may have been deleted meanwhile.
            self.instance(&name.instance).await?;
            self.metadata.record(&tablets).await?;
            self.write_table(&name, record.table(), Expect::Absent).await?;
            learn_of_new_tablets(&mut cluster, tablets)?;
            self.catalog().publish(&name, record.table().schema());
            self.note_groups(&name, record.table());
        }
        if record.deleted_table != 0 {
            self.forget_deleted(record.deleted_table).await?;
        }
        Ok(schema_view(&name, record.table()))
    }

    /// Whether the restore was committed.
    async fn is_restored(&self, record: &RestoreRecord) -> Result<bool> {
        let found = self.read_table(&record.table_name()?).await?;
        Ok(found.is_some_and(|(found, _)| found.table_id == record.table().table_id))
    }

    /// A table that was made of links needs no further work: gives the name of an operation that says so.
    async fn note_optimization(&self, table: &str) -> Result<String> {
        let now = Some(SystemTime::now().into());
        let progress = OperationProgress { progress_percent: 100, start_time: now, end_time: now };
        let metadata =
            admin::OptimizeRestoredTableMetadata { name: table.to_owned(), progress: Some(progress) };
        let metadata = any("OptimizeRestoredTableMetadata", &metadata);
        Ok(self.complete_operation(table, metadata, empty()).await?.name)
    }

    /// Removes what there is of a restore that was not committed.
    async fn undo_restore(&self, number: u64, record: &RestoreRecord) -> Result<()> {
        let mut cluster = self.cluster.lock().await;
        let tablets = record.intended();
        self.withdraw_rows(TableId(record.table().table_id), &tablets).await?;
        self.drop_tablets(&mut cluster, &tablets).await?;
        self.forget_restore(&cluster, number).await
    }

    async fn forget_restore(&self, cluster: &Cluster, number: u64) -> Result<()> {
        self.lock_service.delete(&key(number), Expect::Anything).await?;
        self.try_sweep_checkpoints(cluster).await;
        Ok(())
    }

    /// Takes the rows out of METADATA of tables that are not restored to their end: nobody is to load or
    /// split their tablets before they are.
    pub(crate) async fn withdraw_half_restored(&self) -> Result<()> {
        for (_, record) in self.restores().await? {
            if !self.is_restored(&record).await? {
                self.withdraw_rows(TableId(record.table().table_id), &record.intended()).await?;
            }
        }
        Ok(())
    }

    /// Removes what is left of a restore whose operation has ended.
    pub(crate) async fn settle_restore(&self, number: u64, record: &RestoreRecord) -> Result<()> {
        if self.is_restored(record).await? {
            let cluster = self.cluster.lock().await;
            return self.forget_restore(&cluster, number).await;
        }
        self.undo_restore(number, record).await
    }

    /// Those under way, by the numbers of their operations.
    pub(crate) async fn restores(&self) -> Result<Vec<(u64, RestoreRecord)>> {
        let mut restores = Vec::new();
        for found in self.lock_service.list(PREFIX).await? {
            let bad = |why: &str| damaged(&found.key, why);
            let number = found.key.strip_prefix(PREFIX).and_then(|digits| digits.parse().ok());
            let number = number.ok_or_else(|| bad("it has no number"))?;
            let record =
                RestoreRecord::decode(found.value.clone()).map_err(|error| bad(&error.to_string()))?;
            if record.table.is_none() {
                return Err(bad("it has no table"));
            }
            restores.push((number, record));
        }
        Ok(restores)
    }
}

impl RestoreRecord {
    fn table_name(&self) -> Result<TableName> {
        TableName::parse("name", &self.name).map_err(|error| damaged(PREFIX, &error.to_string()))
    }
}

/// What of the backup a new table is made of. Protection, views and change
/// streams are not restored, as in production; families and GC rules are.
fn restorable(name: &BackupName, record: &BackupRecord) -> SavedTable {
    let mut saved = record.saved().clone();
    if let Some(record) = &mut saved.table {
        record.authorized_views.clear();
    }
    if let Some(table) = saved.table.as_mut().map(TableRecord::table_mut) {
        table.deletion_protection = false;
        table.change_stream_config = None;
        table.automated_backup_config = None;
        table.restore_info = Some(admin::RestoreInfo {
            source_type: RestoreSourceType::Backup.into(),
            source_info: Some(SourceInfo::BackupInfo(record.info(name))),
        });
    }
    saved
}

fn key(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}
