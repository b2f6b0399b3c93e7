//! What the master may ask of a tablet server.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use cluster::{Epoch, ServerId};

use crate::error::Result;
use crate::row_set::RowRange;
use crate::schema::{TableId, TabletId};

/// A tablet, and the ownership under which a server is to serve it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The tablet's number.
    pub tablet: TabletId,
    /// Whose rows it holds.
    pub table: TableId,
    /// Which of them.
    pub range: RowRange,
    /// The ownership's number.
    pub epoch: Epoch,
}

/// Figures of one tablet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TabletStats {
    /// The tablet, its rows and its ownership.
    pub assignment: Assignment,
    /// Bytes in memory that are not in an SSTable yet.
    pub memtable_bytes: u64,
    /// Bytes of its SSTables.
    pub sstable_bytes: u64,
    /// Rows that it has read and written since it was loaded.
    pub row_count: u64,
}

/// A tablet that has grown too large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitProposal {
    /// The tablet.
    pub tablet: TabletId,
    /// A row that parts it in two of about the same size: the first of the second.
    pub row: Bytes,
}

/// The master's side of a tablet server.
///
/// Every call may be made again: what is done already stays done.
#[async_trait]
pub trait TabletControl: Send + Sync + fmt::Debug {
    /// The server's name.
    fn id(&self) -> &ServerId;

    /// The tablets that it serves, in order of their numbers.
    async fn tablets(&self) -> Result<Vec<TabletStats>>;

    /// Makes the tablet, empty and durable, and serves it.
    ///
    /// The table need not be in the catalog: what its rows look like is known
    /// once it is.
    async fn create_tablet(&self, assignment: Assignment) -> Result<()>;

    /// Serves a tablet that this server holds the data of.
    ///
    /// # Errors
    ///
    /// [`Error::DataMissing`](crate::Error::DataMissing): it does not.
    async fn load_tablet(&self, assignment: Assignment) -> Result<()>;

    /// Stops serving the tablet and removes its data.
    async fn drop_tablet(&self, tablet: TabletId) -> Result<()>;

    /// Removes the tablet's rows in `range`, durably.
    async fn drop_row_range(&self, tablet: TabletId, range: RowRange) -> Result<()>;

    /// The tablets that have grown too large.
    async fn splits_due(&self) -> Result<Vec<SplitProposal>>;

    /// Makes `children` of what `parent` holds, each with the rows of its range,
    /// durably and without writing any of it again, and serves them. From then
    /// on `parent` is only read: its writers wait until the split is finished
    /// or abandoned, one of which is to be called whatever comes of this.
    ///
    /// # Errors
    ///
    /// Some of the children may exist; the parent is as before.
    async fn split_tablet(&self, parent: TabletId, children: &[Assignment; 2]) -> Result<()>;

    /// Serves `children`, and `parent` no longer, whose waiting writers are
    /// refused before anything of theirs is logged; then removes its data.
    async fn finish_split(&self, parent: TabletId, children: &[Assignment; 2]) -> Result<()>;

    /// Removes what there is of `children`, and lets the writers of `parent` go on.
    async fn abandon_split(&self, parent: TabletId, children: [TabletId; 2]) -> Result<()>;
}
