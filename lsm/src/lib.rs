//! A log-structured merge engine: many trees, one commit log.
//!
//! Synchronous; files come through `vfs`, and nothing here knows a network, a
//! tablet, a wall clock or an async runtime.

pub mod batch;
mod block_cache;
pub mod engine;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
mod internal_key;
pub mod iter;
pub mod options;
mod range_tombstone;
pub mod snapshot;
pub mod sstable;
pub mod tree;
mod varint;

pub use batch::WriteBatch;
pub use engine::{Commit, Engine};
pub use error::{Error, Result};
pub use iter::Iter;
pub use options::{FilterKey, Options, TreeFormat};
pub use snapshot::Snapshot;
pub use tree::{Decision, KeepDecision, KeyRange, Tree, TreeId, TreeStats};
