//! The master: which tablets there are, who serves them, and the admin API.
//!
//! One at a time, by a lock of the lock service. No read or write passes
//! through it. Read on in this order:
//!
//! - [`assignment`]: decides, purely: from what is known of tablets and servers
//!   to what is to be done.
//! - [`master`]: carries that out; the first start, and every start after it.
//! - [`metadata_writer`]: the master's writes to METADATA.
//! - [`tables`]: the life of a table: creation and deletion that a crash leaves
//!   either done or undone, and changes of its schema.
//! - [`table_rules`]: what a table may look like.
//! - [`table_admin`], [`instance_admin`], [`operations`]: Google's admin API in front of it.

pub mod assignment;
pub mod error;
pub mod instance_admin;
pub mod master;
pub mod metadata_writer;
pub mod operations;
pub mod table_admin;
pub mod table_rules;
pub mod tables;

use std::sync::Arc;

use tablet_server::gateway::Caller;
use tonic::service::Routes;

pub use error::{Error, Result};
pub use master::Master;

/// Adds the admin services of `master`, for `caller`, to `routes`.
pub fn add_services(routes: Routes, master: &Arc<Master>, caller: Caller) -> Routes {
    routes
        .add_service(table_admin::TableAdmin::new(Arc::clone(master), caller).into_server())
        .add_service(instance_admin::InstanceAdmin::new(Arc::clone(master)).into_server())
        .add_service(operations::OperationsService::new(Arc::clone(master)).into_server())
}
