//! A backup's record in the lock service, `backup/<backup name>`.
//!
//! It is the only durable copy of what a backup is. Written first when the backup
//! begins, so that a start after a crash goes on with it, and again once its
//! data is in checkpoints, which completes it.

use cluster::lock_service::{Record, VALUE_BYTES_MAX};
use prost::Message;
use row_api::admin;
use row_api::admin::backup::State;
use row_api::admin::encryption_info::EncryptionType;
use row_api::names::{BackupName, ClusterName};
use tablet_server::table_record::{IntendedTablet, TableRecord};
use tonic::Status;

use crate::error::Result;
use crate::master::damaged;
use crate::saved_table::{SavedTable, SavedTablet};

/// What the keys of backup records start with.
pub const PREFIX: &str = "backup/";

/// What completion adds to a record: a time, a state and a size.
const COMPLETION_BYTES_MAX: usize = 64;

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

    /// Refuses a backup of so many tablets that its record would have no room for them, before
    /// anything of them is saved.
    ///
    /// # Errors
    ///
    /// FAILED_PRECONDITION.
    pub fn check_room(&self, table: &TableRecord, tablets: &[IntendedTablet]) -> Result<()> {
        let saved = |tablet: &IntendedTablet| SavedTablet {
            tablet: tablet.tablet,
            end: tablet.end.clone(),
            checkpoint: u64::MAX,
        };
        let tablets = tablets.iter().map(saved).collect::<Vec<_>>();
        let (tablet_count, saved) = (tablets.len(), SavedTable { table: Some(table.clone()), tablets });
        let bytes = Self { saved: Some(saved), ..self.clone() }.encoded_len() + COMPLETION_BYTES_MAX;
        if bytes <= VALUE_BYTES_MAX {
            return Ok(());
        }
        let why = format!(
            "the table has {tablet_count} tablets, and a backup's record of them would take {bytes} bytes, at most {VALUE_BYTES_MAX}"
        );
        Err(Status::failed_precondition(why).into())
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

#[cfg(test)]
mod tests {
    use tablet_server::schema::TableId;

    use super::*;

    #[test]
    fn a_table_of_too_many_tablets_is_refused_before_they_are_saved() {
        let table = TableRecord::new(TableId(1), Vec::new());
        let tablets = |count: u64| -> Vec<IntendedTablet> {
            let tablet = |number| IntendedTablet {
                tablet: number,
                end: format!("{number:0100}").into(),
                server: "tablet-server-1".to_owned(),
            };
            (0..count).map(tablet).collect()
        };
        let record = BackupRecord { backup: Some(admin::Backup::default()), ..BackupRecord::default() };
        record.check_room(&table, &tablets(8_000)).unwrap();
        let refused = Status::from(record.check_room(&table, &tablets(10_000)).unwrap_err());
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().starts_with("the table has 10000 tablets, "), "{refused}");

        let saved = |tablet: IntendedTablet| SavedTablet {
            tablet: tablet.tablet,
            end: tablet.end,
            checkpoint: u64::MAX,
        };
        let tablets = tablets(8_000).into_iter().map(saved).collect();
        let whole = BackupRecord { saved: Some(SavedTable { table: Some(table), tablets }), ..record };
        assert!(whole.encoded_len() <= VALUE_BYTES_MAX);
    }
}
