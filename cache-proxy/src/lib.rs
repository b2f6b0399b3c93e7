//! The memcached door: memcached's text protocol over an item table in memory.
//!
//! Two things go on here, and they do not know of each other: the protocol,
//! which is bytes in and commands out, and the table, which is keys and items
//! within a number of bytes. A session joins them, and a server puts a socket
//! and a clock to the session. Read on in this order:
//!
//! - [`options`], [`error`], [`clock`]: what a [`Cache`] is made of;
//! - `item_table`: the items, evicted by S3-FIFO within a limit of bytes;
//! - `protocol`: lines into commands, numbers, and the answers' buffer;
//! - `session`: one connection's commands run against the table, without a socket;
//! - `origins`: keys with a route, read and written through to rows and photos;
//! - `invalidation`: what is cached of rows goes when they change;
//! - `connections`: who is connected, for `stats conns`;
//! - `watch`, `prefixes`: what happens, for those who watch, and by prefix;
//! - [`activity`]: hot keys and hit rates by prefix, of a sample;
//! - [`lease`]: fills and writes of keys that have an origin, inside the process;
//! - `snapshot`: the table in a file, between a clean stop and the next start;
//! - [`server`]: sockets, timers, shutdown; [`Cache`] itself.

pub mod activity;
pub mod clock;
pub mod error;
pub mod options;

mod connections;
mod invalidation;
mod item_table;
pub mod lease;
mod origins;
mod prefixes;
mod protocol;
pub mod server;
mod session;
mod snapshot;
mod watch;

pub use activity::Activity;
pub use clock::{Clock, SystemClock};
pub use error::{Error, Result};
pub use item_table::{Statistics, TableStatistics};
pub use options::{CacheOptions, Credential, REFUSAL};
pub use origins::key::has_route;
pub use origins::options::OriginOptions;
pub use server::{Cache, Certificates};
pub use snapshot::Loaded;
