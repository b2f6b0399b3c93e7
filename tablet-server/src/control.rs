//! What the master may ask of a tablet server.

use std::fmt;
use std::sync::Arc;

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

/// A checkpoint's number, never used twice: what some tablets held at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckpointId(pub u64);

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
    /// Whether [`TabletControl::merge_tablets`] can take it.
    pub can_merge: bool,
}

/// A tablet that has grown too large, or too busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitProposal {
    /// The tablet.
    pub tablet: TabletId,
    /// A row that parts it in two of about the same size, or as much asked for: the first of the second.
    pub row: Bytes,
}

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It serves.
    Well,
    /// Its log has failed: it reads, and takes no more writes.
    ReadOnly,
    /// It has lost its lock and serves nobody.
    Gone,
}

/// Names what a tablet is handed over by while it moves; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandOver(pub u64);

/// The master's side of a tablet server.
///
/// Tablets take the place of others in three steps. The old ones are held, and
/// the new ones made of what they hold and served, both only to readers: by
/// [`split_tablet`](TabletControl::split_tablet), by
/// [`merge_tablets`](TabletControl::merge_tablets), or by
/// [`send_tablet`](TabletControl::send_tablet) and
/// [`receive_tablet`](TabletControl::receive_tablet). Then either the old ones
/// are unloaded, so that their waiting writers are refused before anything of
/// theirs is logged, and the new ones loaded, which lets writers in; or the new
/// ones are dropped and the old ones resumed. One of the two is to be done
/// whatever came of the first step.
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

    /// Serves a tablet that this server holds the data of, to writers, too.
    ///
    /// # Errors
    ///
    /// [`Error::DataMissing`](crate::Error::DataMissing): it does not.
    async fn load_tablet(&self, assignment: Assignment) -> Result<()>;

    /// Stops serving the tablet; its data stays. Writes under way are applied when this returns.
    async fn unload_tablet(&self, tablet: TabletId) -> Result<()>;

    /// Stops serving the tablet and removes its data.
    async fn drop_tablet(&self, tablet: TabletId) -> Result<()>;

    /// Has the tablet record its changes from now on, or no more and forget them all.
    async fn keep_changes(&self, tablet: TabletId, kept: bool) -> Result<()>;

    /// Has the tablet keep its families in the locality groups that its table says
    /// now, and moves some of the cells that are elsewhere, while it is read and
    /// written. Whether there are none left: then the table may say that they
    /// have been moved.
    async fn place_families(&self, tablet: TabletId) -> Result<bool>;

    /// Removes the tablet's rows in `range`, durably; each with a change of its
    /// own where the tablet records them, so in time by their number.
    async fn drop_row_range(&self, tablet: TabletId, range: RowRange) -> Result<()>;

    /// The tablets that have grown too large.
    async fn splits_due(&self) -> Result<Vec<SplitProposal>>;

    /// Where the tablet's bytes are parted in two, if it is served here and holds enough.
    async fn split_by_size(&self, tablet: TabletId) -> Result<Option<SplitProposal>>;

    /// Where the tablet's requests of late are parted in two, if it is served here
    /// and they are for more than a few rows.
    async fn split_by_load(&self, tablet: TabletId) -> Result<Option<SplitProposal>>;

    /// Writes out what the tablet has in memory, so that little is left to be
    /// written while its writers wait.
    async fn flush_tablet(&self, tablet: TabletId) -> Result<()>;

    /// Makes `children` of what `parent` holds, each with the rows of its range,
    /// durably and without writing any of it again, and serves them, to readers.
    ///
    /// # Errors
    ///
    /// Some of the children may exist; writers of the parent go on.
    async fn split_tablet(&self, parent: TabletId, children: &[Assignment; 2]) -> Result<()>;

    /// Makes `child` of what `parents` hold, which follow each other, durably and
    /// without writing any of it again, and serves it, to readers.
    ///
    /// # Errors
    ///
    /// The child may exist; writers of the parents go on.
    async fn merge_tablets(&self, parents: &[TabletId; 2], child: &Assignment) -> Result<()>;

    /// Lets other servers take over, by `hand_over`, what the tablet holds now, while it is written to.
    async fn offer_tablet(&self, tablet: TabletId, hand_over: HandOver) -> Result<()>;

    /// Takes over what is offered, so that little is left of it when it is sent.
    async fn stage_tablet(&self, hand_over: HandOver) -> Result<()>;

    /// Holds the tablet, if it is served, and offers all that it holds.
    ///
    /// # Errors
    ///
    /// Writers of the tablet go on.
    async fn send_tablet(&self, tablet: TabletId, hand_over: HandOver) -> Result<()>;

    /// Makes a tablet of what was held when it was sent, durably, and serves it, to readers.
    ///
    /// # Errors
    ///
    /// It may exist, whole or not at all.
    async fn receive_tablet(&self, assignment: &Assignment, hand_over: HandOver) -> Result<()>;

    /// Forgets what a hand-over has left beside the tablets, if anything.
    async fn end_hand_over(&self, hand_over: HandOver) -> Result<()>;

    /// Lets the writers of a tablet that is held go on.
    async fn resume_tablet(&self, tablet: TabletId) -> Result<()>;

    /// Writes what `tablets`, served or not, hold now to the checkpoint `id`, all
    /// of it as of one moment, and gives the bytes that it pins. Writes go on
    /// meanwhile; those acknowledged before the call are in it.
    ///
    /// # Errors
    ///
    /// [`Error::DataMissing`](crate::Error::DataMissing): the data of one of them
    /// is not here. There is no such checkpoint then, as after any other error.
    async fn write_checkpoint(&self, id: CheckpointId, tablets: &[TabletId]) -> Result<u64>;

    /// The checkpoints that this server reaches, unfinished ones among them.
    async fn checkpoints(&self) -> Result<Vec<CheckpointId>>;

    /// Removes a checkpoint. Tablets that were restored from it keep their data.
    async fn drop_checkpoint(&self, id: CheckpointId) -> Result<()>;

    /// Makes a tablet of what `from` held in the checkpoint `id`, durably, and serves it.
    ///
    /// # Errors
    ///
    /// The tablet may exist; it does so whole or not at all.
    async fn restore_tablet(&self, assignment: Assignment, id: CheckpointId, from: TabletId) -> Result<()>;

    /// How the server is.
    fn health(&self) -> Health;
}

/// Brings the tablets of a server that is gone back within reach.
#[async_trait]
pub trait Recovery: Send + Sync + fmt::Debug {
    /// Takes the lock of `server`, under a new epoch, sees to it that nobody acts
    /// for it any more, and recovers what it held. It serves nothing.
    async fn recover(&self, server: &ServerId) -> Result<Arc<dyn TabletControl>>;

    /// Has the recovered `server` serve whatever it is given from now on.
    fn welcome(&self, server: &ServerId);
}
