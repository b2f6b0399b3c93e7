//! What can go wrong with rows and tablets, and the status a client gets for it.
//!
//! Requests that are wrong in themselves never come this far: checking them
//! gives `tonic::Status` at once, with the field that is wrong (`limits`).

use std::io;

use bytes::Bytes;
use cluster::lock_service::LockError;
use row_api::retry;
use tonic::{Code, Status};

use crate::cell_key::BadCellKey;
use crate::changes::change::BadChange;
use crate::metadata::BadTabletRow;
use crate::schema::TabletId;
use crate::table_record::BadTableRecord;

/// A failed operation on rows or tablets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server does not own the tablet, or the row is not in it: find the
    /// tablet again. Nothing was logged.
    #[error("tablet {} is not served here", tablet.0)]
    NotServed {
        /// The tablet asked for.
        tablet: TabletId,
    },
    /// METADATA names no tablet for the row.
    #[error("METADATA names no tablet for the row")]
    NoTablet,
    /// The table is gone, or never was.
    #[error("Table not found: {name}")]
    NoTable {
        /// Its full name.
        name: String,
    },
    /// A bound is reached: back off and try again. Nothing was logged.
    #[error("{what}; try again")]
    Busy {
        /// Which bound.
        what: &'static str,
    },
    /// The engine failed.
    #[error("the storage engine failed")]
    Storage(#[from] lsm::Error),
    /// The tree holds a key that no cell has.
    #[error("a stored key is damaged")]
    CorruptKey(#[from] BadCellKey),
    /// A change tree holds what is no change.
    #[error("a stored change is damaged")]
    CorruptChange(#[from] BadChange),
    /// A METADATA row describes no tablet.
    #[error(transparent)]
    CorruptMetadata(#[from] BadTabletRow),
    /// A record of the lock service describes no table.
    #[error(transparent)]
    CorruptTableRecord(#[from] BadTableRecord),
    /// A tablet's data is not where it was left: a human must look.
    #[error("the data of tablet {} is missing from {server}", tablet.0)]
    DataMissing {
        /// The tablet.
        tablet: TabletId,
        /// The server that should have it.
        server: String,
    },
    /// There is no tablet server of this name.
    #[error("there is no tablet server {server}")]
    NoServer {
        /// The name.
        server: String,
    },
    /// The lock service failed.
    #[error("the lock service failed")]
    Lock(#[from] LockError),
    /// The table has no change stream.
    #[error("the table has no change stream: set change_stream_config.retention_period to enable one")]
    NoChangeStream,
    /// The changes to go on from are no longer kept, or never were.
    #[error(
        "the stream cannot be read from {as_of_us} µs on: the table has its changes from {kept_since_us} µs on"
    )]
    ChangesGone {
        /// When to go on.
        as_of_us: u64,
        /// Since when there are changes.
        kept_since_us: u64,
    },
    /// A row has more bytes, after filters, than a read may return.
    #[error("row {:?} has more than {bytes_max} bytes: narrow the read with a filter", .row_key)]
    RowTooLarge {
        /// The row.
        row_key: Bytes,
        /// The limit.
        bytes_max: usize,
    },
    /// An increment met a cell that is no 64-bit integer.
    #[error("{field}: the cell holds {found} bytes, an increment needs 8 (a big-endian integer)")]
    NotAnInteger {
        /// The rule's path in the request.
        field: String,
        /// The cell's size.
        found: usize,
    },
    /// An append would make a cell larger than a cell may be.
    #[error("{field}: the cell would have {found} bytes, at most {bytes_max}")]
    CellTooLarge {
        /// The rule's path in the request.
        field: String,
        /// The size it would have.
        found: usize,
        /// The limit.
        bytes_max: usize,
    },
}

impl Error {
    /// Whether the disk has no space for what was to be written; more of it may help.
    pub fn is_full_disk(&self) -> bool {
        let mut source = Some(self as &(dyn std::error::Error + 'static));
        while let Some(error) = source {
            let kind = error.downcast_ref::<vfs::Error>().map(vfs::Error::kind);
            let is_full = matches!(error.downcast_ref(), Some(lsm::Error::DiskFull))
                || matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded));
            if is_full {
                return true;
            }
            source = error.source();
        }
        false
    }
}

/// An operation's outcome.
pub type Result<T> = std::result::Result<T, Error>;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match &error {
            Error::NotServed { .. } | Error::NoTablet => {
                retry::unavailable("the row's tablet is not served at the moment; try again")
            }
            Error::NoTable { .. } | Error::NoServer { .. } => Self::not_found(error.to_string()),
            Error::Busy { .. } => retry::unavailable(error.to_string()),
            Error::Storage(source) => storage_status(source),
            Error::Lock(source) => {
                tracing::error!(error = source as &dyn std::error::Error, "the lock service failed");
                Self::unavailable(format!("{error}: {source}"))
            }
            Error::CorruptKey(source) => Self::data_loss(format!("{error}: {source}")),
            Error::CorruptChange(source) => Self::data_loss(format!("{error}: {source}")),
            Error::NoChangeStream => Self::failed_precondition(error.to_string()),
            Error::ChangesGone { .. } => Self::out_of_range(error.to_string()),
            Error::CorruptMetadata(_) | Error::CorruptTableRecord(_) | Error::DataMissing { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "damage");
                Self::data_loss(error.to_string())
            }
            Error::RowTooLarge { .. } | Error::NotAnInteger { .. } | Error::CellTooLarge { .. } => {
                Self::failed_precondition(error.to_string())
            }
        }
    }
}

fn storage_status(error: &lsm::Error) -> Status {
    match error {
        lsm::Error::Poisoned => Status::unavailable(
            "an earlier write failed on the server's disk; it takes no writes until it is restarted",
        ),
        // A closed engine logs nothing; what it logged before is durable or was poisoned.
        lsm::Error::Closed => retry::unavailable("the server is stopping"),
        lsm::Error::BatchTooLarge { bytes, bytes_max } => Status::invalid_argument(format!(
            "the request takes {bytes} bytes in the commit log, at most {bytes_max}: a table with a change stream logs its mutations twice",
        )),
        lsm::Error::EntryTooLarge { .. } => Status::invalid_argument(error.to_string()),
        lsm::Error::NoMergeOperator(_) => Status::failed_precondition(
            "the row's tablet was made by a version without aggregates: copy the table to one that this version creates",
        ),
        lsm::Error::DiskFull => Status::resource_exhausted(
            "the server's disk is full: what was written may or may not be there once it has space",
        ),
        lsm::Error::Io(source) if source.kind() == io::ErrorKind::StorageFull => {
            Status::resource_exhausted("the server's disk is full")
        }
        error => {
            tracing::error!(error = error as &dyn std::error::Error, "the storage engine failed");
            let is_damage = matches!(error, lsm::Error::Damaged { .. });
            let code = if is_damage { Code::DataLoss } else { Code::Internal };
            Status::new(code, format!("the storage engine failed: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_turned_away_before_the_log_is_to_be_tried_again_soon() {
        let delay = |error: Error| retry::delay_of(&Status::from(error));
        assert_eq!(delay(Error::Busy { what: "too many requests wait" }), Some(retry::SOON));
        assert_eq!(delay(Error::NotServed { tablet: TabletId(7) }), Some(retry::SOON));
        assert_eq!(delay(Error::NoTablet), Some(retry::SOON));
        assert_eq!(delay(Error::Storage(lsm::Error::Closed)), Some(retry::SOON));
        assert_eq!(delay(Error::Storage(lsm::Error::Poisoned)), None);
        assert_eq!(delay(Error::Storage(lsm::Error::DiskFull)), None);
    }
}
