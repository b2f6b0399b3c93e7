//! What can go wrong below the row service, and the status a client gets for it.
//!
//! Requests that are wrong in themselves never come this far: checking them
//! gives `tonic::Status` at once, with the field that is wrong (`limits`).

use bytes::Bytes;
use tonic::Status;

use crate::cell_key::BadCellKey;

/// A failed operation on rows.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine failed.
    #[error("the storage engine failed")]
    Storage(#[from] lsm::Error),
    /// The tree holds a key that no cell has.
    #[error("a stored key is damaged")]
    CorruptKey(#[from] BadCellKey),
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

/// An operation's outcome.
pub type Result<T> = std::result::Result<T, Error>;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match &error {
            Error::Storage(lsm::Error::Stalled) => Self::unavailable(error.to_string()),
            Error::Storage(source) => Self::internal(format!("{error}: {source}")),
            Error::CorruptKey(source) => Self::data_loss(format!("{error}: {source}")),
            Error::RowTooLarge { .. } | Error::NotAnInteger { .. } | Error::CellTooLarge { .. } => {
                Self::failed_precondition(error.to_string())
            }
        }
    }
}
