//! The gateway: Bigtable's data API over any table, wherever its tablets are.
//!
//! Read on in this order:
//!
//! - [`locator`]: finds a row's tablet through METADATA and remembers it.
//! - [`router`]: sends a row's request to its tablet, and again where it was
//!   refused before the log.
//! - [`table_scan`]: reads rows over the tablets of a table.
//! - [`row_batches`]: MutateRows, its entries grouped by tablet.
//! - `change_stream`: reads the changes of a partition, wherever its tablet is;
//!   `change_request` says of which, `change_token` how far, `change_messages` tells
//!   the client.
//! - [`service`]: the gRPC service: checks requests, then calls the above.

pub mod locator;
pub mod router;
pub mod row_batches;
pub mod service;
pub mod table_scan;

mod change_messages;
mod change_request;
mod change_stream;
mod change_token;
mod meters;
mod request_stats;

use row_api::names::{InstanceName, TableName};
use tonic::Status;

use crate::metadata;

pub use locator::Locator;
pub use router::Router;
pub use service::RowService;

/// The largest request that is taken, bytes: a 256 MiB row and its frame.
pub const REQUEST_BYTES_MAX: usize = 257 << 20;

/// Who calls, which decides what of the system instance may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Anybody who reaches the door: changes nothing of the system instance.
    Public,
    /// A role of Hayloft's own: uses the system instance like any other, except
    /// METADATA, which is the master's alone.
    Role,
}

impl Caller {
    /// Refuses a change of `table`, its rows or its schema, that is not the caller's to make.
    ///
    /// # Errors
    ///
    /// PERMISSION_DENIED.
    pub fn check_change(self, table: &TableName) -> Result<(), Status> {
        let allowed = match self {
            Self::Public => !metadata::is_system(&table.instance),
            Self::Role => *table != metadata::metadata_table_name(),
        };
        if allowed {
            return Ok(());
        }
        Err(Status::permission_denied(format!("{table} is Hayloft's own table: it can be read, not changed")))
    }

    /// Refuses a change of `instance` as a whole, or of what belongs to it, that is not the caller's to make.
    ///
    /// # Errors
    ///
    /// PERMISSION_DENIED.
    pub fn check_instance_change(self, instance: &InstanceName) -> Result<(), Status> {
        if !metadata::is_system(instance) {
            return Ok(());
        }
        Err(Status::permission_denied(format!("{instance} is Hayloft's own instance: it cannot be changed")))
    }
}
