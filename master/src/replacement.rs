//! Tablets that take the place of others, under traffic: the protocol of splits,
//! moves and merges.
//!
//! The old tablets are at one server, and so are the new ones, which have numbers
//! and an ownership of their own and together the same rows. One replacement at a time:
//!
//! ```text
//! 1  the lock service's record `replacements/FIRST`: the intent, with all of them
//! 2  the old tablets' writers wait; the new ones are made, and served to readers
//! 3  METADATA's row of the first new tablet. This commits
//! 4  METADATA's rows of the others; those of old tablets that no new one has, removed
//! 5  the old tablets are unloaded, so that their writers are refused
//! 6  the new tablets are loaded: writers are let in
//! 7  the old tablets' data is removed
//! 8  the record is removed
//! ```
//!
//! Nobody knows the new tablets before step 3, and nothing is written to either
//! until step 6, after which nobody reads the old ones: so it does not matter at
//! which of them a gateway reads in between. Who is refused at step 5 has written
//! nothing; its gateway finds the new tablets in METADATA and sends the request
//! once more, and scans go on there behind the row that they reached.
//!
//! A crash, or a failure, before step 3 took effect is followed by METADATA's row as it
//! was, once more, in case that the failed write is in a log somewhere, and by the removal of
//! what there is of the new tablets; one after it by steps 4 to 8. Both can be
//! done again. That is settled at the next start, and before the next change of
//! any table's tablets. The first new tablet's row tells which of the two it is;
//! where that is the root tablet, which no row of METADATA names, the lock
//! service's record of it.
//!
//! A server that is gone meanwhile is not waited for: nobody writes there, and
//! the record stays until what it has of the tablets is removed.

use bytes::Bytes;
use cluster::lock_service::Expect;
use cluster::{Epoch, ServerId};
use prost::Message;
use tablet_server::control::{Assignment, HandOver, TabletControl};
use tablet_server::metadata::{self, METADATA_TABLE, TabletRecord};
use tablet_server::row_set::RowRange;
use tablet_server::schema::{TableId, TabletId};

use crate::assignment::{Cluster, Event, assignment_of};
use crate::error::Result;
use crate::master::{Master, damaged};

/// What the keys of intents start with.
const PREFIX: &str = "replacements/";

/// Tablets, and those that take their place; each in the order of their rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Those that go, all at one server.
    pub from: Vec<TabletRecord>,
    /// Those that come, all at one server.
    pub to: Vec<TabletRecord>,
}

/// Which tablets METADATA's rows tell of, one level after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// The root tablet.
    Root,
    /// METADATA's other tablets.
    Metadata,
    /// All the rest.
    Tables,
}

impl Level {
    /// That of `tablet`.
    pub(crate) fn of(tablet: &TabletRecord) -> Self {
        match tablet.table {
            METADATA_TABLE if tablet.range == metadata::root_range() => Self::Root,
            METADATA_TABLE => Self::Metadata,
            _ => Self::Tables,
        }
    }
}

impl Replacement {
    /// The split of `parent` before `row`, which lies inside it, into tablets of
    /// these numbers, under an ownership of this one.
    pub fn split(parent: &TabletRecord, row: &Bytes, [left, right]: [TabletId; 2], epoch: Epoch) -> Self {
        let RowRange { start, end } = parent.range.clone();
        let child = |tablet, start, end| TabletRecord {
            tablet,
            range: RowRange { start, end },
            epoch,
            ..parent.clone()
        };
        let to = vec![child(left, start, row.clone()), child(right, row.clone(), end)];
        Self { from: vec![parent.clone()], to }
    }

    /// The move of `tablet` to `server`, where it has this number.
    pub fn relocation(tablet: &TabletRecord, server: ServerId, moved: TabletId, epoch: Epoch) -> Self {
        let moved = TabletRecord { tablet: moved, server: Some(server), epoch, ..tablet.clone() };
        Self { from: vec![tablet.clone()], to: vec![moved] }
    }

    /// The union of `left` and `right`, which follow each other at one server, under this number.
    pub fn merge(left: &TabletRecord, right: &TabletRecord, merged: TabletId, epoch: Epoch) -> Self {
        let range = RowRange { start: left.range.start.clone(), end: right.range.end.clone() };
        let merged = TabletRecord { tablet: merged, range, epoch, ..right.clone() };
        Self { from: vec![left.clone(), right.clone()], to: vec![merged] }
    }

    /// The new tablet whose row commits.
    fn first(&self) -> &TabletRecord {
        &self.to[0]
    }

    fn is_relocation(&self) -> bool {
        self.from[0].server != self.first().server
    }

    /// What it hands its tablet over by, if it is a move.
    fn hand_over(&self) -> HandOver {
        HandOver(self.first().tablet.0)
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", self.first().tablet.0)
    }

    /// The old tablets whose rows of METADATA no new one has.
    fn rows_to_remove(&self) -> Vec<TabletRecord> {
        let is_kept = |old: &&TabletRecord| self.to.iter().any(|new| new.key() == old.key());
        self.from.iter().filter(|old| !is_kept(old)).cloned().collect()
    }
}

/// A replacement, as its intent stands in the lock service.
#[derive(Clone, PartialEq, Eq, Message)]
struct ReplacementRecord {
    #[prost(uint64, tag = "1")]
    table: u64,
    #[prost(message, repeated, tag = "2")]
    from: Vec<Part>,
    #[prost(message, repeated, tag = "3")]
    to: Vec<Part>,
}

/// One of its tablets.
#[derive(Clone, PartialEq, Eq, Message)]
struct Part {
    #[prost(uint64, tag = "1")]
    tablet: u64,
    #[prost(bytes = "bytes", tag = "2")]
    start: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    end: Bytes,
    #[prost(string, tag = "4")]
    server: String,
    #[prost(uint64, tag = "5")]
    epoch: u64,
}

impl ReplacementRecord {
    fn of(replacement: &Replacement) -> Self {
        let part = |record: &TabletRecord| Part {
            tablet: record.tablet.0,
            start: record.range.start.clone(),
            end: record.range.end.clone(),
            server: record.server.as_ref().map(ServerId::to_string).unwrap_or_default(),
            epoch: record.epoch.0,
        };
        Self {
            table: replacement.first().table.0,
            from: replacement.from.iter().map(part).collect(),
            to: replacement.to.iter().map(part).collect(),
        }
    }

    /// None where it has no tablets.
    fn decode_from(bytes: Bytes) -> std::result::Result<Option<Replacement>, prost::DecodeError> {
        let Self { table, from, to } = Self::decode(bytes)?;
        let record = |part: Part| TabletRecord {
            tablet: TabletId(part.tablet),
            table: TableId(table),
            range: RowRange { start: part.start, end: part.end },
            epoch: Epoch(part.epoch),
            server: Some(ServerId(part.server)),
        };
        let [from, to] = [from, to].map(|parts| parts.into_iter().map(record).collect::<Vec<_>>());
        let is_whole = !from.is_empty() && !to.is_empty();
        Ok(is_whole.then_some(Replacement { from, to }))
    }
}

impl Master {
    /// Does `replacement`, whose tablets `cluster` knows.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::Error): it is undone, or is settled later.
    pub(crate) async fn replace(&self, cluster: &mut Cluster, replacement: Replacement) -> Result<()> {
        let intent = ReplacementRecord::of(&replacement).encode_to_vec().into();
        self.lock_service.put(&replacement.key(), intent, Expect::Absent).await?;
        let made = self.make_new(&replacement).await;
        self.settle(cluster, replacement).await?;
        made
    }

    /// Steps 2 and 3.
    async fn make_new(&self, replacement: &Replacement) -> Result<()> {
        let Replacement { from, to } = replacement;
        let (source, target) = (self.control(&from[0])?, self.control(&to[0])?);
        let new: Vec<Assignment> = to.iter().map(assignment_of).collect();
        match (from.as_slice(), new.as_slice()) {
            ([parent], [left, right]) => {
                source.split_tablet(parent.tablet, &[left.clone(), right.clone()]).await?;
            }
            ([left, right], [merged]) => {
                source.merge_tablets(&[left.tablet, right.tablet], merged).await?;
            }
            ([old], [moved]) => {
                // Most of it moves while writers go on.
                let hand_over = replacement.hand_over();
                source.offer_tablet(old.tablet, hand_over).await?;
                target.stage_tablet(hand_over).await?;
                source.send_tablet(old.tablet, hand_over).await?;
                target.receive_tablet(moved, hand_over).await?;
            }
            _ => unreachable!("there is no other kind"),
        }
        self.record(&to[..1]).await
    }

    /// Has METADATA, or for the root tablet the lock service, say what `records` say.
    pub(crate) async fn record(&self, records: &[TabletRecord]) -> Result<()> {
        match records {
            [root] if Level::of(root) == Level::Root => self.write_root(root).await,
            others => self.metadata.record(others).await,
        }
    }

    /// Finishes or undoes what a crash or a failure has left half-done.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::Error); it is to be done again before the tablets of any table change.
    pub(crate) async fn settle_replacements(&self, cluster: &mut Cluster) -> Result<()> {
        for level in [Level::Root, Level::Metadata, Level::Tables] {
            self.settle_replacements_of(cluster, level).await?;
        }
        Ok(())
    }

    /// The same for the tablets of one level alone, whose rows can be read.
    pub(crate) async fn settle_replacements_of(&self, cluster: &mut Cluster, level: Level) -> Result<()> {
        for record in self.lock_service.list(PREFIX).await? {
            let replacement = ReplacementRecord::decode_from(record.value)
                .map_err(|error| damaged(&record.key, &error.to_string()))?
                .ok_or_else(|| damaged(&record.key, "it lacks tablets"))?;
            if Level::of(replacement.first()) == level {
                self.settle(cluster, replacement).await?;
            }
        }
        Ok(())
    }

    /// Steps 4 to 8 of a replacement that is committed; removes the new tablets of one that is not.
    async fn settle(&self, cluster: &mut Cluster, replacement: Replacement) -> Result<()> {
        let is_settled = if self.is_committed(&replacement).await? {
            self.finish(cluster, &replacement).await?
        } else {
            self.abandon(&replacement).await?
        };
        if is_settled {
            self.lock_service.delete(&replacement.key(), Expect::Anything).await?;
        }
        Ok(())
    }

    async fn is_committed(&self, replacement: &Replacement) -> Result<bool> {
        let first = replacement.first();
        if Level::of(first) == Level::Root {
            return Ok(self.read_root().await?.tablet == first.tablet);
        }
        let there = self.read_metadata(RowRange::single(first.key().into())).await?;
        Ok(there.first().is_some_and(|record| record.tablet == first.tablet))
    }

    /// Whether nothing is left to be done, now that the new tablets serve.
    async fn finish(&self, cluster: &mut Cluster, replacement: &Replacement) -> Result<bool> {
        let Replacement { from, to } = replacement;
        let (source, target) = (self.control(&from[0]).ok(), self.control(&to[0]).ok());
        if to.len() > 1 {
            self.record(&to[1..]).await?;
        }
        self.metadata.remove(replacement.rows_to_remove().iter().map(TabletRecord::key)).await?;
        if let Some(source) = &source {
            for old in from {
                source.unload_tablet(old.tablet).await?;
            }
        }
        if let Some(target) = &target {
            for new in to {
                target.load_tablet(assignment_of(new)).await?;
            }
        }
        cluster.learn(Event::TabletsReplaced(replacement.clone()), Epoch::default());
        let numbers =
            |records: &[TabletRecord]| records.iter().map(|record| record.tablet.0).collect::<Vec<_>>();
        tracing::info!(from = ?numbers(from), to = ?numbers(to), server = ?to[0].server, "tablets took the place of others");
        let (Some(source), Some(_)) = (source, target) else { return Ok(false) };
        for old in from {
            source.drop_tablet(old.tablet).await?;
        }
        self.end_hand_over(replacement, &*source).await?;
        Ok(true)
    }

    /// Whether nothing is left to be done, now that the old tablets serve as before.
    async fn abandon(&self, replacement: &Replacement) -> Result<bool> {
        let Replacement { from, to } = replacement;
        let (source, target) = (self.control(&from[0]).ok(), self.control(&to[0]).ok());
        self.take_back(replacement).await?;
        if let Some(source) = &source {
            for old in from {
                source.resume_tablet(old.tablet).await?;
            }
            self.end_hand_over(replacement, &**source).await?;
        }
        tracing::warn!(tablet = from[0].tablet.0, "a split, move or merge of a tablet was undone");
        let Some(target) = target else { return Ok(false) };
        for new in to {
            target.drop_tablet(new.tablet).await?;
        }
        Ok(source.is_some())
    }

    /// Has METADATA's row of the first new tablet be what it was. A write of it that failed may be
    /// in a log still, which takes it up once its disk has space or which another server recovers:
    /// nobody may write to the old tablets before that can no more commit the new ones.
    async fn take_back(&self, replacement: &Replacement) -> Result<()> {
        let first = replacement.first();
        if Level::of(first) == Level::Root {
            return Ok(());
        }
        match replacement.from.iter().find(|old| old.key() == first.key()) {
            Some(old) => self.record(std::slice::from_ref(old)).await,
            None => self.metadata.remove([first.key()]).await,
        }
    }

    async fn end_hand_over(&self, replacement: &Replacement, source: &dyn TabletControl) -> Result<()> {
        if replacement.is_relocation() {
            source.end_hand_over(replacement.hand_over()).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tablet: u64, start: &'static str, end: &'static str) -> TabletRecord {
        TabletRecord {
            tablet: TabletId(tablet),
            table: TableId(2),
            range: RowRange { start: start.into(), end: end.into() },
            epoch: Epoch(9),
            server: Some(ServerId("a".to_owned())),
        }
    }

    #[test]
    fn children_take_the_rows_of_their_parent() {
        let split =
            Replacement::split(&record(3, "b", ""), &"m".into(), [TabletId(7), TabletId(8)], Epoch(10));
        let expected = [record(7, "b", "m"), record(8, "m", "")]
            .map(|record| TabletRecord { epoch: Epoch(10), ..record });
        assert_eq!(split.to, expected);
        assert_eq!(split.rows_to_remove(), []);
    }

    #[test]
    fn a_merged_tablet_has_the_second_ones_row_and_the_first_ones_goes() {
        let (left, right) = (record(3, "b", "m"), record(4, "m", "z"));
        let merge = Replacement::merge(&left, &right, TabletId(7), Epoch(10));
        assert_eq!(merge.to, [TabletRecord { epoch: Epoch(10), ..record(7, "b", "z") }]);
        assert_eq!(merge.rows_to_remove(), [left]);
    }

    #[test]
    fn a_replacement_survives_its_record() {
        let split =
            Replacement::split(&record(3, "b", ""), &"m".into(), [TabletId(7), TabletId(8)], Epoch(10));
        let moved =
            Replacement::relocation(&record(3, "b", ""), ServerId("b".to_owned()), TabletId(7), Epoch(10));
        assert!(moved.is_relocation() && !split.is_relocation());
        for replacement in [split, moved] {
            let bytes = ReplacementRecord::of(&replacement).encode_to_vec();
            assert_eq!(ReplacementRecord::decode_from(bytes.into()).unwrap(), Some(replacement));
        }
        assert_eq!(ReplacementRecord::decode_from(Bytes::new()).unwrap(), None);
    }
}
