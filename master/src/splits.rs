//! The split of a tablet that has grown too large, under traffic.
//!
//! Its server says where (`TabletControl::splits_due`). One at a time:
//!
//! ```text
//! 1  the lock service's record `splits/PARENT`: the intent, with both children
//! 2  at the server: the parent's writers wait, its tree is forked, the children are served
//! 3  METADATA's row of the new end key: the left child. This commits the split
//! 4  METADATA's row of the old end key: the right child, no longer the parent
//! 5  at the server: the parent is closed, its writers are refused and its tree dropped
//! 6  the record is removed
//! ```
//!
//! Nobody knows the children before step 3, and their rows are the parent's
//! until its writers go on, so reads go on at either. Who is refused at step 5
//! has written nothing; its gateway finds the children in METADATA and sends the
//! request once more, and scans go on there behind the row that they reached.
//!
//! A crash, or a failure, before step 3 took effect is followed by the removal
//! of what there is of the children; one after it by steps 4 to 6. Both can be
//! done again. That is settled at the next start, and before the next change of
//! any table's tablets. The new end key's row tells which of the two it is.

use std::sync::Arc;

use bytes::Bytes;
use cluster::lock_service::Expect;
use cluster::{Epoch, ServerId};
use prost::Message;
use tablet_server::control::SplitProposal;
use tablet_server::metadata::{METADATA_TABLE, TabletRecord};
use tablet_server::row_set::RowRange;
use tablet_server::schema::{TableId, TabletId};

use crate::assignment::{Cluster, Event, Split, assignment_of};
use crate::error::{Error, Result};
use crate::master::{Master, damaged};
use crate::tables::to_its_end;

/// What the keys of intents start with.
const PREFIX: &str = "splits/";

/// A split, as its intent stands in the lock service.
#[derive(Clone, PartialEq, Eq, Message)]
struct SplitRecord {
    #[prost(uint64, tag = "1")]
    parent: u64,
    #[prost(uint64, tag = "2")]
    left: u64,
    #[prost(uint64, tag = "3")]
    right: u64,
    #[prost(uint64, tag = "4")]
    table: u64,
    #[prost(bytes = "bytes", tag = "5")]
    start: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    row: Bytes,
    #[prost(bytes = "bytes", tag = "7")]
    end: Bytes,
    #[prost(string, tag = "8")]
    server: String,
    #[prost(uint64, tag = "9")]
    epoch: u64,
}

impl From<&Split> for SplitRecord {
    fn from(split: &Split) -> Self {
        let [left, right] = &split.children;
        Self {
            parent: split.parent.0,
            left: left.tablet.0,
            right: right.tablet.0,
            table: left.table.0,
            start: left.range.start.clone(),
            row: left.range.end.clone(),
            end: right.range.end.clone(),
            server: left.server.as_ref().map(ServerId::to_string).unwrap_or_default(),
            epoch: left.epoch.0,
        }
    }
}

impl From<SplitRecord> for Split {
    fn from(record: SplitRecord) -> Self {
        let child = |tablet, start: &Bytes, end: &Bytes| TabletRecord {
            tablet: TabletId(tablet),
            table: TableId(record.table),
            range: RowRange { start: start.clone(), end: end.clone() },
            epoch: Epoch(record.epoch),
            server: Some(ServerId(record.server.clone())),
        };
        let left = child(record.left, &record.start, &record.row);
        let right = child(record.right, &record.row, &record.end);
        Self { parent: TabletId(record.parent), children: [left, right] }
    }
}

impl Master {
    /// Splits the tablets that have grown too large for their servers; to be called each second or so.
    ///
    /// # Errors
    ///
    /// [`Error`]: of one of the splits, which is undone or is finished later.
    pub async fn split_large_tablets(self: &Arc<Self>) -> Result<()> {
        for server in self.servers.controls() {
            for proposal in server.splits_due().await? {
                let master = Arc::clone(self);
                to_its_end(async move { master.split(&proposal).await }).await?;
            }
        }
        Ok(())
    }

    async fn split(&self, proposal: &SplitProposal) -> Result<()> {
        let mut cluster = self.cluster.lock().await;
        self.settle_splits(&mut cluster).await?;
        let Some(parent) = cluster.splittable(proposal).cloned() else { return Ok(()) };
        let children =
            [TabletId(self.lock_service.next_id().await?), TabletId(self.lock_service.next_id().await?)];
        let split = Split::new(&parent, &proposal.row, children, self.new_epoch().await?);
        let intent = SplitRecord::from(&split).encode_to_vec().into();
        self.lock_service.put(&key(split.parent), intent, Expect::Absent).await?;
        let made = self.make_children(&split).await;
        self.settle(&mut cluster, split).await?;
        made
    }

    /// Steps 2 and 3.
    async fn make_children(&self, split: &Split) -> Result<()> {
        let [left, right] = &split.children;
        let children = [assignment_of(left), assignment_of(right)];
        self.control(left)?.split_tablet(split.parent, &children).await?;
        self.metadata.record(std::slice::from_ref(left)).await
    }

    /// Finishes or undoes what splits a crash or a failure has left half-done.
    ///
    /// # Errors
    ///
    /// [`Error`]; it is to be done again before the tablets of any table change.
    pub(crate) async fn settle_splits(&self, cluster: &mut Cluster) -> Result<()> {
        self.settle_splits_of(cluster, |_| true).await
    }

    /// The same for METADATA's own tablets alone, before the rest of it can be read.
    pub(crate) async fn settle_metadata_splits(&self, cluster: &mut Cluster) -> Result<()> {
        self.settle_splits_of(cluster, |table| table == METADATA_TABLE).await
    }

    async fn settle_splits_of(&self, cluster: &mut Cluster, which: impl Fn(TableId) -> bool) -> Result<()> {
        for record in self.lock_service.list(PREFIX).await? {
            let split = SplitRecord::decode(record.value)
                .map_err(|error| damaged(&record.key, &error.to_string()))?;
            if !which(TableId(split.table)) {
                continue;
            }
            match self.settle(cluster, split.into()).await {
                // Its tablets wait for their server anyway.
                Err(Error::NoServer) => tracing::warn!(record.key, "the server of a split is away"),
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Steps 4 to 6 of a split that is committed; removes the children of one that is not.
    async fn settle(&self, cluster: &mut Cluster, split: Split) -> Result<()> {
        let [left, right] = &split.children;
        let server = self.control(left)?;
        let there = self.read_metadata(RowRange::single(left.key().into())).await?;
        let is_committed = there.first().is_some_and(|record| record.tablet == left.tablet);
        let key = key(split.parent);
        if is_committed {
            self.metadata.record(std::slice::from_ref(right)).await?;
            server.finish_split(split.parent, &[assignment_of(left), assignment_of(right)]).await?;
            tracing::info!(
                tablet = split.parent.0,
                left = left.tablet.0,
                right = right.tablet.0,
                "a tablet was split"
            );
            cluster.learn(Event::TabletSplit(split), Epoch::default());
        } else {
            server.abandon_split(split.parent, [left.tablet, right.tablet]).await?;
            tracing::warn!(tablet = split.parent.0, "a split was undone");
        }
        Ok(self.lock_service.delete(&key, Expect::Anything).await?)
    }
}

/// Where the intent of the split of `parent` stands.
fn key(parent: TabletId) -> String {
    format!("{PREFIX}{}", parent.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_survives_its_record() {
        let record = SplitRecord {
            parent: 3,
            left: 7,
            right: 8,
            table: 2,
            start: "b".into(),
            row: "m".into(),
            end: Bytes::new(),
            server: "tablet-server-1".to_owned(),
            epoch: 9,
        };
        let split = Split::from(SplitRecord::decode(record.encode_to_vec().as_slice()).unwrap());
        assert_eq!(split.children[0].range, RowRange { start: "b".into(), end: "m".into() });
        assert_eq!(split.children[1].range, RowRange { start: "m".into(), end: Bytes::new() });
        assert_eq!(SplitRecord::from(&split), record);
    }
}
