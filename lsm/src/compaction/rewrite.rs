//! Writing again what is still seen.
//!
//! Snapshots cut a key's history into stripes: the versions above one snapshot
//! and up to the next. Of each stripe only the newest version is seen, by
//! anybody, ever; it survives, unless a range tombstone of the same stripe
//! covers it. A delete survives too, unless no snapshot needs it and no deeper
//! level holds what it hides. (LevelDB's rule, `db/db_impl.cc`, with range
//! tombstones as RocksDB's `compaction_iterator.cc` has them.) Where the newest
//! is a merge operand, the stripe is folded: see [`super::fold`].
//!
//! # Invariants
//!
//! - All versions of a user key go to one table, so that tables of a level are
//!   disjoint by user key.
//! - A range tombstone is cut at the ends of the tables it goes to.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;

use super::fold::{Folded, Ground, Run, ValueAt};
use crate::file_id::FileId;
use crate::internal_key::{self, Kind, Trailer};
use crate::iter::merge::MergingCursor;
use crate::merge_operator::TreeOperator;
use crate::range_tombstone::{FragmentedTombstones, RangeTombstone};
use crate::sstable::{READ_AHEAD_BYTES, TableWriter, WRITER_MEMORY_BYTES_MAX, fits_entry};
use crate::tables::Tables;
use crate::tables::table_ref::TableRef;
use crate::version::{Version, overlapping};
use crate::{Candidate, Decision, KeepDecision, KeyRange, Result, TreeFormat, TreeTuning};

/// After as many entries the engine is told how far the work is.
const ENTRIES_BETWEEN_REPORTS: u64 = 4096;

/// How far a rewrite is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Entries read.
    pub(crate) entry_count: u64,
    /// Bytes of tables written, roughly.
    pub(crate) written_bytes: u64,
}

/// Memory that a rewrite of as many sources takes.
pub(crate) fn buffer_bytes(source_count: usize, block_bytes: usize) -> usize {
    source_count * (READ_AHEAD_BYTES + 2 * block_bytes) + WRITER_MEMORY_BYTES_MAX
}

/// Tables that are not compacted: runs of sorted, disjoint ones, each with the
/// first of its tables that may hold the keys to come.
#[derive(Default)]
pub(crate) struct Others(Vec<(Vec<Arc<TableRef>>, usize)>);

impl Others {
    /// What of `version` is newer than `inputs`, the compacted tables of each level.
    pub(crate) fn newer(version: &Version, inputs: &[Vec<Arc<TableRef>>]) -> Self {
        let first = inputs.iter().position(|tables| !tables.is_empty()).unwrap_or(0);
        let is_input = |table: &Arc<TableRef>| inputs[0].iter().any(|input| input.id() == table.id());
        let l0 =
            version.level(0).iter().filter(|table| !is_input(table)).map(|table| vec![Arc::clone(table)]);
        let deeper = (1..first).map(|level| version.level(level).to_vec());
        Self(l0.chain(deeper).map(|tables| (tables, 0)).collect())
    }

    /// Whether one of them may hold `key`. REQUIRES: keys ascend from call to call.
    fn may_hold(&mut self, key: &[u8]) -> bool {
        self.0.iter_mut().any(|(tables, at)| {
            while tables.get(*at).is_some_and(|table| *table.key_range().end <= *key) {
                *at += 1;
            }
            tables.get(*at).is_some_and(|table| *table.key_range().start <= *key)
        })
    }

    fn may_hold_any(&self, range: &KeyRange) -> bool {
        self.0.iter().any(|(tables, _)| !overlapping(tables, range).is_empty())
    }
}

/// What is below a compaction's output: what a delete may still hide.
pub(crate) enum Below {
    /// Not known; deletes stay.
    Anything,
    Tables(Others),
}

impl Below {
    /// What is below `level` of `version`.
    pub(crate) fn levels(version: &Version, level: usize) -> Self {
        let deeper = version.deeper_levels()[level..].iter().filter(|tables| !tables.is_empty());
        Self::Tables(Others(deeper.map(|tables| (tables.clone(), 0)).collect()))
    }

    /// Whether `key` may be there. REQUIRES: keys ascend from call to call.
    fn may_hold(&mut self, key: &[u8]) -> bool {
        match self {
            Self::Anything => true,
            Self::Tables(tables) => tables.may_hold(key),
        }
    }

    fn may_hold_any(&self, range: &KeyRange) -> bool {
        match self {
            Self::Anything => true,
            Self::Tables(tables) => tables.may_hold_any(range),
        }
    }
}

/// A rewrite to be run.
pub(crate) struct Rewrite<'a> {
    pub(crate) tables: &'a Tables,
    pub(crate) format: &'a TreeFormat,
    pub(crate) tuning: TreeTuning,
    /// The level that the output is for.
    pub(crate) level: usize,
    /// The keys that are rewritten; of sources and tombstones.
    pub(crate) range: KeyRange,
    /// A table of the output is closed once it holds this many bytes.
    pub(crate) table_bytes: u64,
    /// Ascending.
    pub(crate) snapshots: Vec<u64>,
    pub(crate) below: Below,
    /// Tables that may hold newer versions.
    pub(crate) above: Others,
    pub(crate) operator: &'a TreeOperator,
    pub(crate) value_at: &'a ValueAt<'a>,
    pub(crate) keep_decision: Option<Box<dyn KeepDecision>>,
    /// Told now and then how far the work is; may take its time, and fails when the work is to end.
    pub(crate) report: &'a dyn Fn(Progress) -> Result<()>,
}

impl Rewrite<'_> {
    /// Writes what survives of `merged` and `tombstones`; the names of the
    /// tables are durable. After a failure nothing is left of them.
    pub(crate) fn run(
        mut self,
        mut merged: MergingCursor,
        tombstones: &FragmentedTombstones,
    ) -> Result<Vec<Arc<TableRef>>> {
        let mut output = Output {
            tables: self.tables,
            format: self.format,
            tuning: self.tuning,
            level: self.level,
            table_bytes: self.table_bytes,
            tombstones: self.surviving_tombstones(tombstones),
            start: self.range.start.clone(),
            end: self.range.end.clone(),
            finished_bytes: 0,
            open: None,
            key: Vec::new(),
            created: Vec::new(),
            finished: Vec::new(),
        };
        let written = self.copy(&mut merged, tombstones, &mut output);
        let written = written.and_then(|()| output.finish_last()).and_then(|()| self.tables.sync_names());
        match written {
            Ok(()) => Ok(output.finished),
            Err(error) => {
                output.finished.clear();
                output.created.iter().for_each(|id| self.tables.sweeper().remove(*id));
                Err(error)
            }
        }
    }

    fn copy(
        &mut self,
        merged: &mut MergingCursor,
        tombstones: &FragmentedTombstones,
        output: &mut Output<'_>,
    ) -> Result<()> {
        let mut user_key: Option<Vec<u8>> = None;
        // The stripe of the version before, of the same key.
        let mut newer_stripe = None;
        let mut entry_count = 0;
        if self.range.start.is_empty() {
            merged.seek_to_first()?;
        } else {
            let mut start = Vec::new();
            internal_key::encode(&mut start, &self.range.start, Trailer::seek(internal_key::SEQUENCE_MAX));
            merged.seek(&start)?;
        }
        while merged.is_valid() {
            entry_count += 1;
            if entry_count % ENTRIES_BETWEEN_REPORTS == 0 {
                (self.report)(Progress { entry_count, written_bytes: output.written_bytes() })?;
            }
            let (key, trailer) = internal_key::decode(merged.key()).expect("an internal key");
            if user_key.as_deref() != Some(key) {
                if !self.range.end.is_empty() && *key >= *self.range.end {
                    break;
                }
                let buffer = user_key.get_or_insert_default();
                buffer.clear();
                buffer.extend_from_slice(key);
                newer_stripe = None;
                output.begin_key(key)?;
            }
            let stripe = self.stripe(trailer.sequence());
            let is_newest = newer_stripe.replace(stripe) != Some(stripe);
            if is_newest {
                let deleted_at = self.deleted_at(tombstones, key, stripe);
                if trailer.sequence() < deleted_at {
                    // The range tombstone says it all.
                } else if trailer.kind() == Some(Kind::Merge) {
                    let key = user_key.as_deref().expect("it was just set");
                    self.fold(merged, key, stripe, deleted_at, output)?;
                    continue;
                } else {
                    match self.fate(key, trailer, stripe, merged.value()) {
                        Fate::Stays => output.add(merged.key(), merged.value())?,
                        fate => output.write_fate(key, trailer.sequence(), &fate)?,
                    }
                }
            }
            merged.next()?;
        }
        Ok(())
    }

    /// Writes what the operands of a stripe come to, the merge being on the
    /// newest of them; it is past those that were taken afterwards.
    fn fold(
        &mut self,
        merged: &mut MergingCursor,
        key: &[u8],
        stripe: usize,
        deleted_at: u64,
        output: &mut Output<'_>,
    ) -> Result<()> {
        let stripe_start = stripe.checked_sub(1).map_or(0, |older| self.snapshots[older]);
        let mut run = Run::take(merged, key, stripe_start, deleted_at)?;
        if run.ground == Ground::Beyond && !self.below.may_hold(key) {
            run.ground = Ground::Nothing;
        }
        let sequence = run.newest_sequence();
        match run.fold(self.operator.required()?, key, self.value_at)? {
            Folded::Value(value) => match self.fate(key, Trailer::new(sequence, Kind::Put), stripe, &value) {
                Fate::Stays => output.write(key, sequence, Kind::Put, &value),
                fate => output.write_fate(key, sequence, &fate),
            },
            Folded::Writes(writes) => {
                let mut writes = writes.into_iter();
                writes.try_for_each(|(sequence, kind, value)| output.write(key, sequence, kind, &value))
            }
        }
    }

    /// How many snapshots are older than `sequence`: versions with the same number are seen alike.
    fn stripe(&self, sequence: u64) -> usize {
        self.snapshots.partition_point(|snapshot| *snapshot < sequence)
    }

    /// The newest range tombstone that covers `key` up to the end of a stripe: its
    /// sequence number, 0 if there is none.
    fn deleted_at(&self, tombstones: &FragmentedTombstones, key: &[u8], stripe: usize) -> u64 {
        if tombstones.is_empty() {
            return 0;
        }
        let stripe_end = self.snapshots.get(stripe).copied().unwrap_or(u64::MAX);
        tombstones.covering_sequence(key, stripe_end).unwrap_or(0)
    }

    /// What becomes of the newest version in its stripe, a put or a delete.
    fn fate(&mut self, key: &[u8], trailer: Trailer, stripe: usize, value: &[u8]) -> Fate {
        let is_held = stripe < self.snapshots.len();
        let is_delete = trailer.kind() == Some(Kind::Delete);
        if !is_delete {
            let Some(keep) = self.keep_decision.as_mut().filter(|_| !is_held) else { return Fate::Stays };
            let is_newest = !self.above.may_hold(key);
            let candidate = Candidate { key, value, sequence: trailer.sequence(), is_newest };
            match keep.decide(&candidate) {
                Decision::Rewrite(value) if fits_entry(key, &value) => return Fate::BecomesPut(value),
                Decision::Keep | Decision::Rewrite(_) => return Fate::Stays,
                Decision::Drop => {}
            }
        }
        if stripe == 0 && !self.below.may_hold(key) {
            return Fate::Goes;
        }
        if is_delete { Fate::Stays } else { Fate::BecomesDelete }
    }

    fn surviving_tombstones(&self, tombstones: &FragmentedTombstones) -> FragmentedTombstones {
        let mut surviving = Vec::new();
        for fragment in tombstones.iter() {
            let range = KeyRange {
                start: Bytes::copy_from_slice(fragment.start),
                end: Bytes::copy_from_slice(fragment.end),
            };
            let hides_something = self.below.may_hold_any(&range);
            let mut newer_stripe = None;
            for &sequence in fragment.sequences {
                let stripe = self.stripe(sequence);
                if newer_stripe.replace(stripe) != Some(stripe) && (stripe > 0 || hides_something) {
                    let KeyRange { start, end } = range.clone();
                    surviving.push(RangeTombstone { start, end, sequence });
                }
            }
        }
        FragmentedTombstones::new(&surviving)
    }
}

enum Fate {
    Stays,
    Goes,
    BecomesDelete,
    BecomesPut(Bytes),
}

/// The tables that a rewrite writes.
struct Output<'a> {
    tables: &'a Tables,
    format: &'a TreeFormat,
    tuning: TreeTuning,
    level: usize,
    table_bytes: u64,
    tombstones: FragmentedTombstones,
    /// The first user key that the current table may hold.
    start: Bytes,
    /// Of all tables, the first user key that none may hold.
    end: Bytes,
    finished_bytes: u64,
    open: Option<(FileId, TableWriter)>,
    /// An internal key that no source has.
    key: Vec<u8>,
    /// Every file that was begun.
    created: Vec<FileId>,
    finished: Vec<Arc<TableRef>>,
}

impl Output<'_> {
    /// Says that the versions of another user key follow: here a table may end.
    fn begin_key(&mut self, user_key: &[u8]) -> Result<()> {
        match &self.open {
            Some((_, writer)) if writer.estimated_bytes() >= self.table_bytes => {
                self.finish(Bytes::copy_from_slice(user_key))
            }
            _ => Ok(()),
        }
    }

    fn add(&mut self, internal_key: &[u8], value: &[u8]) -> Result<()> {
        self.writer()?.add(internal_key, value)
    }

    /// Adds a write that no source has like this.
    fn write(&mut self, user_key: &[u8], sequence: u64, kind: Kind, value: &[u8]) -> Result<()> {
        let mut key = mem::take(&mut self.key);
        key.clear();
        internal_key::encode(&mut key, user_key, Trailer::new(sequence, kind));
        let added = self.add(&key, value);
        self.key = key;
        added
    }

    /// Adds what has become of a write, unless it stays as it is.
    fn write_fate(&mut self, user_key: &[u8], sequence: u64, fate: &Fate) -> Result<()> {
        match fate {
            Fate::Stays | Fate::Goes => Ok(()),
            Fate::BecomesDelete => self.write(user_key, sequence, Kind::Delete, &[]),
            Fate::BecomesPut(value) => self.write(user_key, sequence, Kind::Put, value),
        }
    }

    fn written_bytes(&self) -> u64 {
        self.finished_bytes + self.open.as_ref().map_or(0, |(_, writer)| writer.estimated_bytes())
    }

    fn writer(&mut self) -> Result<&mut TableWriter> {
        if self.open.is_none() {
            let (id, writer) = self.tables.create(self.format, self.tuning)?;
            self.created.push(id);
            self.open = Some((id, writer));
        }
        Ok(&mut self.open.as_mut().expect("it was just opened").1)
    }

    fn finish_last(&mut self) -> Result<()> {
        self.finish(self.end.clone())
    }

    /// Completes the current table, which holds keys before `end`, unless nothing is in it.
    fn finish(&mut self, end: Bytes) -> Result<()> {
        let range = KeyRange { start: mem::replace(&mut self.start, end.clone()), end };
        if !self.tombstones.is_empty() {
            let tombstones = self.tombstones.clipped(&range);
            if !tombstones.is_empty() {
                self.writer()?.set_range_tombstones(tombstones);
            }
        }
        if let Some((id, writer)) = self.open.take() {
            let table = self.tables.finish(id, writer, self.level)?;
            self.finished_bytes += table.record().file_bytes;
            self.finished.push(table);
        }
        Ok(())
    }
}
