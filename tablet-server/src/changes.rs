//! Changes of rows: what change streams are made of (DESIGN section 4).
//!
//! A tablet of a table with a change stream has a second tree, its change tree,
//! and each batch that changes rows puts there, too, what it does to each of
//! them. A table without one pays nothing. Read on in this order:
//!
//! - [`change`]: one row's change, its place among others, and both as bytes.
//! - `recorder`: what a batch adds to a change tree.
//! - `log`: the change tree: gives out the places, in the order of commits.
//! - [`progress`]: how far a reader is, over splits and merges.
//! - `reader`: reads on from there, and waits for more.
//!
//! What stands in a stream is what requests have changed: the mutations as they
//! were sent, with the timestamps that the server chose for them, in one change
//! a row and request; a read-modify-write is the cells that it made, and rows
//! that a DropRowRange removed are one deletion each. What compactions remove
//! by garbage collection rules and what goes with a dropped family does not
//! stand in it: the former is yet to come, the latter is a change of the
//! schema, of which streams do not tell in production either.

pub mod change;
mod log;
pub mod progress;
mod reader;
mod recorder;

use async_trait::async_trait;

pub use change::{Change, ChangePosition};
pub use progress::{ChangeProgress, Segment};

pub(crate) use log::ChangeLog;
pub(crate) use reader::TabletReader;
pub(crate) use recorder::Recorder;

use crate::error::Result;

/// What one step of reading gives.
#[derive(Clone, Debug, Default)]
pub struct ChangeBatch {
    /// Changes that are new to the reader, in order.
    pub changes: Vec<Change>,
    /// Changes before this place have been looked at.
    pub reached: ChangePosition,
    /// All changes that were committed before this time, µs, have been looked at.
    pub as_of_us: u64,
    /// Whether there was nothing more.
    pub is_all: bool,
}

/// A reader of one tablet's changes; dropping it ends it.
#[async_trait]
pub trait TabletChanges: Send + Sync {
    /// Changes behind `progress` that are durable now, about `budget_bytes` of
    /// them; one change may exceed the budget.
    ///
    /// # Errors
    ///
    /// - [`Error::NotServed`](crate::Error::NotServed): the tablet was split, merged or moved.
    /// - [`Error::ChangesGone`](crate::Error::ChangesGone): `progress` is older than what is kept.
    /// - [`Error::NoChangeStream`](crate::Error::NoChangeStream): the stream was disabled.
    async fn next_changes(&mut self, progress: &ChangeProgress, budget_bytes: usize) -> Result<ChangeBatch>;

    /// Waits until there may be more than at the last step, or the tablet is no longer served.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    async fn changed(&mut self);
}
