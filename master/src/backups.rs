//! The life of a backup.
//!
//! ```text
//! 1  the backup's record: creating
//! 2  its table's tablets written to checkpoints, as of one moment a server
//! 3  the backup's record: ready, with the schema and the checkpoints. This completes it
//! 4  the operation ended
//! ```
//!
//! A checkpoint is made of links (`lsm::checkpoint`), after what is in memory is
//! flushed: it takes no longer than that, and no space until compactions rewrite what it
//! links to. A start after a crash before step 3 goes on with step 2 anew. A backup
//! ends with its record; its checkpoints go in a sweep, unless a copy or a restore
//! names them too.

use std::sync::Arc;
use std::time::SystemTime;

use cluster::lock_service::{Expect, Revision};
use prost::Message;
use row_api::admin;
use row_api::admin::OperationProgress;
use row_api::admin::backup::State;
use row_api::longrunning::Operation;
use row_api::names::{BackupName, ClusterName, InstanceName, TableName};
use tablet_server::schema::TableId;
use tonic::Status;

use crate::assignment::Cluster;
use crate::backup_record::{self, BackupRecord};
use crate::backup_rules::{self, BACKUP_COUNT_MAX};
use crate::error::{Error, Result};
use crate::master::Master;
use crate::operations::{RunningOperation, any, cancelled};
use crate::policies::Resource;
use crate::saved_table::SavedTable;
use crate::tables::{intended, to_its_end};

impl Master {
    /// Begins a backup of `table`, as [`backup_rules::check_new`] gives it.
    ///
    /// # Errors
    ///
    /// NOT_FOUND for the cluster or the table, ALREADY_EXISTS, RESOURCE_EXHAUSTED, or
    /// [`Error`]; then nothing began.
    pub async fn create_backup(
        self: &Arc<Self>,
        name: BackupName,
        table: TableName,
        backup: admin::Backup,
    ) -> Result<Operation> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let _cluster = master.cluster.lock().await;
            let table = master.table(&table).await?;
            master.check_new_backup(&name, &backup.source_table).await?;
            let metadata = creation_metadata(&name, &backup);
            let running = master.begin_operation(&name, metadata.clone()).await?;
            let saved = SavedTable { table: Some(table), tablets: Vec::new() };
            let record =
                BackupRecord { backup: Some(backup), saved: Some(saved), operation: running.number() };
            if let Err(error) = master.write_backup(&name, &record, Expect::Absent).await {
                master.end_operation(running, metadata, Err(Status::aborted(error.to_string()))).await?;
                return Err(error);
            }
            let operation = running.operation();
            master.run_backup(running, name);
            Ok(operation)
        })
        .await
    }

    /// Carries out, or goes on with, a backup in a task of its own.
    pub(crate) fn run_backup(self: &Arc<Self>, running: RunningOperation, name: BackupName) {
        let master = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = master.conduct_backup(running, &name).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(backup = %name, error, "a backup is left for the next start");
            }
        });
    }

    async fn conduct_backup(&self, running: RunningOperation, name: &BackupName) -> Result<()> {
        let (metadata, outcome) = match self.back_up(&running, name).await {
            Ok(record) => (creation_metadata(name, record.backup()), Ok(any("Backup", &record.view(name)))),
            Err(error) if error.is_stop() => return Err(error),
            Err(error) => {
                tracing::warn!(backup = %name, error = &error as &dyn std::error::Error, "a backup failed");
                let backup = self.abandon_backup(running.number(), name).await?;
                (creation_metadata(name, &backup), Err(error.into()))
            }
        };
        self.end_operation(running, metadata, outcome).await
    }

    /// Steps 2 and 3.
    async fn back_up(&self, running: &RunningOperation, name: &BackupName) -> Result<BackupRecord> {
        let mut cluster = self.cluster.lock().await;
        let (mut record, revision) = match self.read_backup(name).await? {
            Some(found) if found.0.operation == running.number() => found,
            _ => return Err(cancelled()),
        };
        if record.is_ready() {
            return Ok(record);
        }
        running.check_cancelled()?;
        let source = TableName::parse("source_table", &record.backup().source_table).map_err(Status::from)?;
        let table = self.table(&source).await?;
        if record.saved().table.as_ref().is_none_or(|known| known.table_id != table.table_id) {
            let why = format!("{source} was deleted before its backup began");
            return Err(Status::not_found(why).into());
        }
        self.settle_replacements(&mut cluster).await?;
        let tablets = self.tablets_of(TableId(table.table_id)).await?;
        let tablets: Vec<_> = tablets.iter().map(intended).collect();
        record.check_room(&table, &tablets)?;
        let (tablets, bytes) = self.save_tablets(&cluster, &tablets).await?;
        running.check_cancelled()?;
        record.saved = Some(SavedTable { table: Some(table), tablets });
        let backup = record.backup_mut();
        backup.set_state(State::Ready);
        backup.end_time = Some(SystemTime::now().into());
        backup.size_bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.write_backup(name, &record, Expect::At(revision)).await?;
        Ok(record)
    }

    /// Removes the backup that the operation `number` failed to make. Gives what there was of it.
    async fn abandon_backup(&self, number: u64, name: &BackupName) -> Result<admin::Backup> {
        let cluster = self.cluster.lock().await;
        let mut backup = admin::Backup::default();
        if let Some((record, revision)) = self.read_backup(name).await?
            && record.operation == number
        {
            self.lock_service.delete(&backup_record::key(name), Expect::At(revision)).await?;
            backup = record.backup().clone();
        }
        self.try_sweep_checkpoints(&cluster).await;
        backup.end_time = Some(SystemTime::now().into());
        Ok(backup)
    }

    /// Copies the backup `source`, which shares what it holds with its copy.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, ALREADY_EXISTS, RESOURCE_EXHAUSTED, what
    /// [`backup_rules::check_copy`] refuses, or [`Error`].
    pub async fn copy_backup(
        self: &Arc<Self>,
        name: BackupName,
        source: BackupName,
        expire_time: Option<prost_types::Timestamp>,
    ) -> Result<Operation> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let _cluster = master.cluster.lock().await;
            let now = SystemTime::now();
            let found = master.backup(&source).await?;
            let record = backup_rules::check_copy(&source, &found, expire_time, now)?;
            master.check_new_backup(&name, &record.backup().source_table).await?;
            master.write_backup(&name, &record, Expect::Absent).await?;
            let metadata = admin::CopyBackupMetadata {
                name: name.to_string(),
                source_backup_info: Some(found.info(&source)),
                progress: Some(OperationProgress {
                    progress_percent: 100,
                    start_time: Some(now.into()),
                    end_time: Some(SystemTime::now().into()),
                }),
            };
            let response = any("Backup", &record.view(&name));
            master.complete_operation(&name, any("CopyBackupMetadata", &metadata), response).await
        })
        .await
    }

    /// Changes what `paths` name of the backup.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, what [`backup_rules::update`] refuses, or [`Error`]; then nothing changed.
    pub async fn update_backup(
        self: &Arc<Self>,
        name: BackupName,
        update: admin::Backup,
        paths: Vec<String>,
    ) -> Result<BackupRecord> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let _cluster = master.cluster.lock().await;
            let (mut record, revision) = master.read_backup(&name).await?.ok_or_else(|| not_found(&name))?;
            backup_rules::update(&name, &mut record, &update, &paths, SystemTime::now())?;
            master.write_backup(&name, &record, Expect::At(revision)).await?;
            Ok(record)
        })
        .await
    }

    /// Removes the backup; one that is being made ends as cancelled.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, or [`Error`].
    pub async fn delete_backup(self: &Arc<Self>, name: BackupName) -> Result<()> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let cluster = master.cluster.lock().await;
            master.backup(&name).await?;
            master.remove_backup(&name).await?;
            master.try_sweep_checkpoints(&cluster).await;
            Ok(())
        })
        .await
    }

    /// The backup's record.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, or [`Error`].
    pub async fn backup(&self, name: &BackupName) -> Result<BackupRecord> {
        Ok(self.read_backup(name).await?.ok_or_else(|| not_found(name))?.0)
    }

    /// The backups in `cluster`, or, where its id is `-`, in all clusters of its instance.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, or [`Error`].
    pub async fn backups(&self, cluster: &ClusterName) -> Result<Vec<(BackupName, BackupRecord)>> {
        match cluster.cluster.as_str() {
            "-" => self.instance(&cluster.instance).await.map(drop)?,
            _ => self.check_cluster(cluster).await?,
        }
        self.backups_below(&backup_record::prefix_of(cluster)).await
    }

    /// All backups there are.
    pub(crate) async fn all_backups(&self) -> Result<Vec<(BackupName, BackupRecord)>> {
        self.backups_below(backup_record::PREFIX).await
    }

    /// Removes backups, and what is kept of deleted tables, whose time is over at
    /// `now`; to be called each minute or so.
    ///
    /// # Errors
    ///
    /// [`Error`]; the rest is for the next call.
    pub async fn expire(self: &Arc<Self>, now: SystemTime) -> Result<()> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let cluster = master.cluster.lock().await;
            let mut is_any = master.expire_deleted(now).await?;
            for (name, mut record) in master.all_backups().await? {
                if !record.is_ready() {
                    continue;
                }
                if backup_rules::is_expired(record.backup(), now) {
                    tracing::info!(backup = %name, "a backup has expired");
                    master.remove_backup(&name).await?;
                    is_any = true;
                } else if backup_rules::cool_down(record.backup_mut(), now) {
                    master.write_backup(&name, &record, Expect::Anything).await?;
                }
            }
            if is_any { master.sweep_checkpoints(&cluster).await } else { Ok(()) }
        })
        .await
    }

    /// Refuses to delete `instance`, or one cluster of it, while that keeps backups.
    pub(crate) async fn check_no_backup(&self, _locked: &Cluster, of: &ClusterName) -> Result<()> {
        match self.backups_below(&backup_record::prefix_of(of)).await?.first() {
            None => Ok(()),
            Some((backup, _)) => {
                let why = format!("{} keeps backups, such as {backup}: delete them first", subject(of));
                Err(Status::failed_precondition(why).into())
            }
        }
    }

    /// Removes the backup's policy, then its record.
    pub(crate) async fn remove_backup(&self, name: &BackupName) -> Result<()> {
        self.remove_policies(&Resource::Backup(name.clone())).await?;
        Ok(self.lock_service.delete(&backup_record::key(name), Expect::Anything).await?)
    }

    /// Refuses a backup of `table` that cannot be called `name`, or is one too many.
    async fn check_new_backup(&self, name: &BackupName, table: &str) -> Result<()> {
        self.check_cluster(&name.cluster).await?;
        if self.read_backup(name).await?.is_some() {
            return Err(Status::already_exists(format!("Backup already exists: {name}")).into());
        }
        let there = self.backups_below(&backup_record::prefix_of(&name.cluster)).await?;
        let count = there.iter().filter(|(_, record)| record.backup().source_table == table).count();
        if count >= BACKUP_COUNT_MAX {
            let why =
                format!("{} keeps {count} backups of {table}, at most {BACKUP_COUNT_MAX}", name.cluster);
            return Err(Status::resource_exhausted(why).into());
        }
        Ok(())
    }

    async fn check_cluster(&self, name: &ClusterName) -> Result<()> {
        let is_there = self.instance(&name.instance).await?.clusters.contains_key(&name.cluster);
        let not_found = || Status::not_found(format!("Cluster not found: {name}")).into();
        is_there.then_some(()).ok_or_else(not_found)
    }

    async fn backups_below(&self, prefix: &str) -> Result<Vec<(BackupName, BackupRecord)>> {
        self.lock_service.list(prefix).await?.iter().map(BackupRecord::read).collect()
    }

    async fn read_backup(&self, name: &BackupName) -> Result<Option<(BackupRecord, Revision)>> {
        let Some(found) = self.lock_service.get(&backup_record::key(name)).await? else { return Ok(None) };
        Ok(Some((BackupRecord::read(&found)?.1, found.revision)))
    }

    async fn write_backup(&self, name: &BackupName, record: &BackupRecord, expect: Expect) -> Result<()> {
        self.lock_service.put(&backup_record::key(name), record.encode_to_vec().into(), expect).await?;
        Ok(())
    }
}

/// All clusters of `instance`, as a list of backups names them.
pub(crate) fn any_cluster(instance: &InstanceName) -> ClusterName {
    ClusterName { instance: instance.clone(), cluster: "-".to_owned() }
}

fn subject(of: &ClusterName) -> String {
    if of.cluster == "-" { of.instance.to_string() } else { of.to_string() }
}

fn not_found(name: &BackupName) -> Error {
    Status::not_found(format!("Backup not found: {name}")).into()
}

fn creation_metadata(name: &BackupName, backup: &admin::Backup) -> prost_types::Any {
    let metadata = admin::CreateBackupMetadata {
        name: name.to_string(),
        source_table: backup.source_table.clone(),
        start_time: backup.start_time,
        end_time: backup.end_time,
    };
    any("CreateBackupMetadata", &metadata)
}
