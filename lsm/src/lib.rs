//! A log-structured merge engine: many trees, one commit log.
//!
//! Synchronous; files come through `vfs`, and nothing here knows a network, a
//! tablet, a wall clock or an async runtime. It can be used alone, as an
//! embedded store:
//!
//! ```
//! # fn main() -> Result<(), lsm::Error> {
//! use std::sync::Arc;
//! use lsm::{Engine, KeyRange, Options, TreeFormat, TreeId, WriteBatch};
//!
//! let fs = Arc::new(vfs::SimulatedFileSystem::new());
//! let dir = std::path::Path::new("/data");
//! // Each opening has a greater epoch than the one before.
//! let engine = Engine::open(fs, dir, 1, Options::default())?;
//! let fruit = engine.create_tree(TreeId(1), TreeFormat::default())?;
//! let stock = engine.create_tree(TreeId(2), TreeFormat::default())?;
//!
//! // A batch takes effect as one, whatever the trees it writes to.
//! let mut batch = WriteBatch::new();
//! batch.put(fruit.id(), b"apple", b"green");
//! batch.put(fruit.id(), b"cherry", b"red");
//! batch.put(stock.id(), b"apple", b"12");
//! engine.write(batch)?.wait()?;
//!
//! // A snapshot sees what was durable when it was taken, and nothing else.
//! let snapshot = engine.snapshot();
//! let mut batch = WriteBatch::new();
//! batch.delete_range(fruit.id(), b"a", b"c");
//! engine.write(batch)?.wait()?;
//! assert_eq!(fruit.get(&snapshot, b"apple")?.as_deref(), Some(&b"green"[..]));
//!
//! let mut iter = fruit.iter(&engine.snapshot(), KeyRange::default());
//! assert!(iter.next()?);
//! assert_eq!((iter.key(), iter.value()), (&b"cherry"[..], &b"red"[..]));
//! assert!(!iter.next()?);
//! engine.close()
//! # }
//! ```
//!
//! # A guided tour
//!
//! A write is encoded in a [`batch`], which is its form in the log, too. The
//! `core` takes the lock of the `commit_log`, which assigns sequence numbers
//! and copies the batch to a buffer, and applies it to the `memtable` of each
//! [`tree`]. Whoever waits for a batch, or the sync thread of `background` for
//! those who wait otherwise, writes what has gathered as one `frame`, syncs it,
//! and publishes it: from then on [`snapshot`]s see it.
//!
//! Once memtables have grown, `core` freezes the largest; `flush` writes it as
//! an SSTable of level 0. `compaction` picks tables and rewrites them one level
//! deeper, without what no snapshot sees any more, operands folded and values
//! judged by a [`keep_decision`]. Either makes a new `version`
//! of the tree, durable by an edit of its `manifest` before anybody reads it.
//! The `gate` slows writers down as this lags behind, and stops them before
//! memory or level 0 overflows.
//!
//! A `read` looks into memtables, then level 0, then one table a level, and
//! folds operands by a [`merge_operator`]; of a hot counter it starts at what
//! others have folded (`memtable/folded_values.rs`). An [`iter`] merges the
//! cursors of its sources, and jumps over what a `range_tombstone` covers. Either
//! can be tried without permission to block, and names the block that it lacks
//! (a [`Miss`]). `sstable` is the tables' format; decoded blocks stay in the
//! `block_cache`.
//!
//! A `fork` begins a tree with the tables of another one, each clipped to key
//! bounds, and `unite` one with those of several; `takeover` brings them to another engine. Of `tables`, a file is deleted once no tree names it. An
//! `ingest` takes in tables that a [`table_builder`] wrote; a [`checkpoint`]
//! links the tables of a moment elsewhere, and `restore` takes a tree over from one.
//!
//! After a crash, `recovery` puts all of it together again.

pub mod batch;
pub mod engine;
pub mod error;
pub mod inspect;
pub mod iter;
pub mod keep_decision;
pub mod key_range;
pub mod log_store;
pub mod merge_operator;
pub mod options;
pub mod salvage;
pub mod snapshot;
pub mod stats;
pub mod tree;

mod core;

mod commit_log;
mod file_copy;
mod file_id;
mod frame;
mod layout;
mod manifest;
mod recovery;
mod varint;

mod internal_key;
mod memtable;
mod range_tombstone;

mod block_cache;
mod read_counters;
pub mod sstable;
pub mod table_builder;
mod tables;
mod version;

mod background;
mod compaction;
mod flush;
mod gate;
mod heap;
mod rate_limit;

mod capture;
pub mod checkpoint;
mod fork;
mod ingest;
mod restore;
mod takeover;
mod unite;

pub mod extent;
mod read;

#[doc(hidden)]
pub mod fuzzing;

pub use batch::WriteBatch;
pub use checkpoint::CopyProgress;
pub use engine::{Commit, Engine};
pub use error::{Error, Result};
pub use extent::SplitPoint;
pub use file_id::FileId;
pub use iter::Iter;
pub use keep_decision::{Candidate, Decision, KeepDecision};
pub use key_range::KeyRange;
pub use log_store::LogStore;
pub use merge_operator::MergeOperator;
pub use options::{Background, FilterKey, FilterKind, Options, TreeFormat, TreeTuning};
pub use snapshot::Snapshot;
pub use sstable::{Compression, Miss};
pub use stats::{EngineStats, StallStats};
pub use table_builder::TableBuilder;
pub use takeover::{Pinned, Staged};
pub use tree::{Tree, TreeId, TreeStats};
