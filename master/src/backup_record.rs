//! A backup's record in the lock service, `backup/<backup name>`.
//!
//! It is the only durable copy of what a backup is. Written first when the backup
//! begins, so that a start after a crash goes on with it, and again once its
//! data is in checkpoints, which completes it.

use cluster::lock_service::Record;
use prost::Message;
use row_api::admin;
use row_api::admin::backup::State;
use row_api::admin::encryption_info::EncryptionType;
use row_api::names::{BackupName, ClusterName};

use crate::error::Result;
use crate::master::damaged;
use crate::saved_table::SavedTable;

/// What the keys of backup records start with.
pub const PREFIX: &str = "backup/";

/// A backup, as it is recorded.
#[derive(Clone, PartialEq, Message)]
pub struct BackupRecord {
    /// The backup in Google's terms, with its state; its name is empty.
    #[prost(message, optional, tag = "1")]
    pub backup: Option<admin::Backup>,
    /// The table. Until the backup is complete, only which one it is.
    #[prost(message, optional, tag = "2")]
    pub saved: Option<SavedTable>,
    /// The number of the operation that makes it.
    #[prost(uint64, tag = "3")]
    pub operation: u64,
}

/// Where the record of the backup `name` stands.
pub fn key(name: &BackupName) -> String {
    format!("{PREFIX}{name}")
}

/// What the keys of the backups in `cluster` start with; in all clusters where its id is `-`.
pub fn prefix_of(cluster: &ClusterName) -> String {
    match cluster.cluster.as_str() {
        "-" => format!("{PREFIX}{}/clusters/", cluster.instance),
        _ => format!("{PREFIX}{cluster}/backups/"),
    }
}

impl BackupRecord {
    /// Reads the record `found`: whose it is, and what it says.
    ///
    /// # Errors
    ///
    /// DATA_LOSS where it describes no backup.
    pub fn read(found: &Record) -> Result<(BackupName, Self)> {
        let bad = |why: &str| damaged(&found.key, why);
        let name = found.key.strip_prefix(PREFIX).unwrap_or_default();
        let name = BackupName::parse("name", name).map_err(|error| bad(&error.to_string()))?;
        let record = Self::decode(&*found.value).map_err(|error| bad(&error.to_string()))?;
        if record.backup.is_none() || record.saved.as_ref().is_none_or(|saved| saved.table.is_none()) {
            return Err(bad("it has no backup or no table"));
        }
        Ok((name, record))
    }

    /// The backup in Google's terms.
    pub fn backup(&self) -> &admin::Backup {
        self.backup.as_ref().expect("a record is made and read with its backup")
    }

    /// The same, to change it.
    pub fn backup_mut(&mut self) -> &mut admin::Backup {
        self.backup.get_or_insert_default()
    }

    /// The table that it holds.
    pub fn saved(&self) -> &SavedTable {
        self.saved.as_ref().expect("a record is made and read with its table")
    }

    /// Whether it is complete.
    pub fn is_ready(&self) -> bool {
        self.backup().state() == State::Ready
    }

    /// The backup as clients see it.
    pub fn view(&self, name: &BackupName) -> admin::Backup {
        admin::Backup {
            name: name.to_string(),
            encryption_info: Some(admin::EncryptionInfo {
                encryption_type: EncryptionType::GoogleDefaultEncryption.into(),
                ..admin::EncryptionInfo::default()
            }),
            ..self.backup().clone()
        }
    }

    /// What is said of it where something was made of it.
    pub fn info(&self, name: &BackupName) -> admin::BackupInfo {
        let backup = self.backup();
        admin::BackupInfo {
            backup: name.to_string(),
            start_time: backup.start_time,
            end_time: backup.end_time,
            source_table: backup.source_table.clone(),
            source_backup: backup.source_backup.clone(),
        }
    }
}
