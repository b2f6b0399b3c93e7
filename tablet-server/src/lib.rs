//! Tablets, the row service over them, and the gateway that finds them.
//!
//! Row semantics first, synchronous and free of any runtime: requests become
//! checked values, those become batches for `lsm`, and cursors of `lsm` become
//! rows, over the trees of locality groups ([`group_trees`]); cells of [`aggregate`] families gather what is added to them. Then tables
//! and where their tablets are: [`schema`], [`value_type`], [`table_record`],
//! [`authorized_view`], [`app_profiles`], [`catalog`], [`metadata`]. Then the tablet
//! server, which serves the tablets that the master has it load ([`control`]) to
//! gateways ([`row_server`]), and keeps what they held at some moment in `checkpoints`;
//! a [`fleet`] of them runs in one process. Last the [`gateway`], the gRPC service in front of them all.

pub mod schema;

pub mod cell_key;
pub mod limits;

pub mod aggregate;
mod unique_count;

pub mod check_and_mutate;
pub mod mutation;
pub mod read_modify_write;

mod cell_cursor;
pub mod chunk;
pub mod filter;
pub mod gc;
pub mod group_trees;
mod key_ranges;
pub mod row;
mod row_reader;
pub mod row_scan;
pub mod row_set;

pub mod app_profiles;
pub mod authorized_view;
pub mod catalog;
pub mod metadata;
pub mod table_record;
pub mod value_type;

pub mod changes;
mod checkpoints;
pub mod clock;
pub mod control;
pub mod fleet;
pub mod hand_overs;
mod request_samples;
mod row_locks;
pub mod row_server;
pub mod server;
pub mod servers;
mod tablet;
mod tablet_trees;

pub mod gateway;

pub mod error;

pub use catalog::Catalog;
pub use clock::{Clock, system_clock};
pub use error::{Error, Result};
pub use fleet::{Fleet, FleetOptions};
pub use server::{TabletServer, TabletServerOptions};
pub use servers::Servers;
pub use unique_count::CountedInput;
