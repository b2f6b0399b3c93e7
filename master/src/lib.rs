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
//! - [`locality_groups`], over [`locality_group_rules`]: which families are stored beside each other.
//! - [`replacement`]: tablets take the place of others, under traffic: [`splits`],
//!   [`moves`], [`merges`].
//! - [`watch`], [`balance`]: from what servers count to what is to be moved, merged and split, purely.
//! - [`tablet_list`]: what operators see and ask for.
//! - [`failover`]: others serve the tablets of a server that is gone.
//! - `backups`, over [`backup_record`], [`backup_rules`], [`backup_filter`] and
//!   [`backup_fields`]; `deleted_tables`; `restores` of both: each holds a [`saved_table`],
//!   whose rows are in `checkpoints`.
//! - [`instances`]: the life of an instance, with its clusters and app profiles,
//!   over [`instance_record`].
//! - [`resource_ids`], [`table_rules`], [`authorized_view_rules`], [`instance_rules`],
//!   [`cluster_rules`], [`app_profile_rules`]: what each of them may look like.
//! - [`policies`], [`policy_rules`]: who may do what with them, as far as that is recorded.
//! - [`load`]: which tablets keep the servers busy.
//! - [`operations`], [`operation_filter`]: what became of requests, for clients that ask again;
//!   `resumption`: what a start does about those that a stop cut off.
//! - [`table_admin`], [`instance_admin`]: Google's admin API in front of it, and
//!   its lists in [`pages`] and [`list_token`].

pub mod app_profile_rules;
pub mod assignment;
pub mod authorized_view_rules;
pub mod backup_fields;
pub mod backup_filter;
pub mod backup_record;
pub mod backup_rules;
mod backups;
pub mod balance;
mod checkpoints;
pub mod cluster_rules;
mod deleted_tables;
pub mod error;
pub mod failover;
pub mod instance_admin;
pub mod instance_record;
pub mod instance_rules;
pub mod instances;
pub mod list_token;
pub mod load;
pub mod locality_group_rules;
pub mod locality_groups;
pub mod master;
pub mod merges;
pub mod metadata_writer;
pub mod moves;
pub mod operation_filter;
pub mod operations;
pub mod pages;
pub mod policies;
pub mod policy_rules;
pub mod replacement;
pub mod resource_ids;
mod restores;
mod resumption;
pub mod saved_table;
pub mod splits;
pub mod table_admin;
pub mod table_rules;
pub mod tables;
pub mod tablet_list;
pub mod watch;

use std::sync::Arc;

use tablet_server::gateway::Caller;
use tonic::service::Routes;

pub use error::{Error, Result};
pub use master::{Master, MasterOptions};

/// Adds the admin services of `master`, for `caller`, to `routes`.
pub fn add_services(routes: Routes, master: &Arc<Master>, caller: Caller) -> Routes {
    routes
        .add_service(table_admin::TableAdmin::new(Arc::clone(master), caller).into_server())
        .add_service(instance_admin::InstanceAdmin::new(Arc::clone(master), caller).into_server())
        .add_service(operations::OperationsService::new(Arc::clone(master)).into_server())
}
