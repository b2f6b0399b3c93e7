//! A tablet's change tree: the places of its changes, and who waits for them.
//!
//! A batch that changes rows takes its turn, gets its changes' places, adds them
//! to itself and is applied before the next one has its turn. So places are in
//! the order of the engine's sequence numbers: what is durable is always the
//! changes up to some place, and whoever reads what is durable skips nothing.
//! Each of a row's changes comes behind those that were applied before it.
//!
//! The tree holds one more entry, before all changes: when it was made. What is
//! older than the table keeps is deleted by a range delete now and then, which
//! makes compactions of it due, and dropped by any that come by; so is what the
//! tablet has inherited of rows that are another's now.

use std::fmt;
use std::sync::Arc;

use lsm::{Candidate, Decision, Engine, KeepDecision, KeyRange, Snapshot, Tree, TreeFormat, WriteBatch};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{MutexGuard, watch};

use super::change::{KEY_BYTES, StoredRow};
use super::{Change, ChangeBatch, ChangePosition, ChangeProgress};
use crate::catalog::Catalog;
use crate::clock::{self, Clock};
use crate::error::{Error, Result};
use crate::row_set::RowRange;
use crate::schema::{TableId, TabletId};
use crate::tablet_trees::change_tree_id;

/// The entry that tells when the tree was made; sorts before any change.
const SINCE_KEY: &[u8] = &[0];

/// What is too old is deleted once it reaches over so much of the time that the table keeps.
const TRIM_FRACTION: u64 = 32;

/// How many times its budget a step may look at without finding a change that is new.
const LOOK_FACTOR: usize = 8;

/// The change tree of a tablet that is served.
pub(crate) struct ChangeLog {
    tree: Tree,
    tablet: TabletId,
    /// Changes from then on are in it, µs.
    since_us: u64,
    /// Held from giving out places until the batch is applied.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// Told whenever there may be more to read.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    /// Later changes get later places.
    last: ChangePosition,
    /// A batch has places and is not applied yet.
    is_writing: bool,
    /// Of the last batch that was applied.
    sequence: u64,
    /// Changes before this time are deleted.
    trimmed_us: u64,
}

/// The turn of one batch.
pub(crate) struct Turn<'a> {
    log: &'a ChangeLog,
    _turn: MutexGuard<'a, ()>,
}

impl ChangeLog {
    /// Makes the change tree of `tablet` if there is none, durably. May wait for the disk.
    pub(crate) fn create(engine: &Engine, tablet: TabletId, now_us: i64) -> Result<()> {
        let id = change_tree_id(tablet);
        if engine.tree(id).is_none() {
            engine.create_tree(id, TreeFormat::default())?;
        }
        let tree = engine.tree(id).ok_or(lsm::Error::NoSuchTree(id))?;
        if since(&tree, &engine.applied_snapshot())?.is_none() {
            let mut batch = WriteBatch::new();
            batch.put(id, SINCE_KEY, &clock::unsigned(now_us).to_be_bytes());
            engine.write(batch)?.wait()?;
        }
        Ok(())
    }

    /// Opens the change tree of `tablet`, if it has one. May wait for the disk.
    pub(crate) fn open(engine: &Engine, tablet: TabletId) -> Result<Option<Self>> {
        let Some(tree) = engine.tree(change_tree_id(tablet)) else { return Ok(None) };
        let snapshot = engine.applied_snapshot();
        // Without it the tree's creation was not finished, and nobody wrote to it.
        let Some(since_us) = since(&tree, &snapshot)? else { return Ok(None) };
        let mut entries = tree.iter(&snapshot, KeyRange::default());
        let last = if entries.prev()? { ChangePosition::decode(entries.key()) } else { None };
        // What was inherited has places that others gave.
        let last = ChangePosition::end_of_time(last.map_or(since_us, |last| last.commit_us));
        let state = State { last, is_writing: false, sequence: 0, trimmed_us: 0 };
        let (changed, _) = watch::channel(());
        Ok(Some(Self {
            tree,
            tablet,
            since_us,
            turn: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
            changed,
        }))
    }

    /// Has compactions drop what is too old for the table, and what is not of `rows`.
    pub(crate) fn set_keep_decision(
        &self,
        catalog: Arc<Catalog>,
        clock: Clock,
        table: TableId,
        rows: RowRange,
    ) {
        self.tree.set_keep_decision(Arc::new(move || {
            let retention_us = catalog.by_id(table).and_then(|table| table.schema().change_retention_us);
            let cutoff_us = retention_us.map_or(0, |kept| clock::unsigned(clock()).saturating_sub(kept));
            Box::new(Kept { cutoff_us, rows: rows.clone() })
        }));
    }

    /// The tree.
    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Waits for the turn of a batch.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn { _turn: self.turn.lock().await, log: self }
    }

    /// Tells whoever waits that there may be more to read.
    pub(crate) fn tell(&self) {
        self.changed.send_replace(());
    }

    /// Is told from now on.
    pub(crate) fn listen(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Changes behind `progress` at `snapshot`, about `budget_bytes` of them,
    /// for a table that keeps them for `retention_us`. May wait for the disk.
    ///
    /// # Errors
    ///
    /// [`Error::ChangesGone`], [`Error::Storage`], [`Error::CorruptChange`].
    pub(crate) fn read(
        &self,
        snapshot: &Snapshot,
        progress: &ChangeProgress,
        budget_bytes: usize,
        now_us: u64,
        retention_us: u64,
    ) -> Result<ChangeBatch> {
        let kept_since_us = self.since_us.max(now_us.saturating_sub(retention_us));
        if progress.as_of_us() < kept_since_us {
            return Err(Error::ChangesGone { as_of_us: progress.as_of_us(), kept_since_us });
        }
        let watermark_us = self.watermark(snapshot, now_us);
        let from = progress.from();
        let range = KeyRange { start: from.encode().to_vec().into(), end: KeyRange::default().end };
        let mut entries = self.tree.iter(snapshot, range);
        let mut batch = ChangeBatch { reached: from, as_of_us: from.commit_us, ..ChangeBatch::default() };
        let (mut taken_bytes, mut seen_bytes) = (0, 0);
        while taken_bytes < budget_bytes && seen_bytes < budget_bytes.saturating_mul(LOOK_FACTOR) {
            if !entries.next()? {
                batch.is_all = true;
                batch.as_of_us = watermark_us.unwrap_or(batch.as_of_us).max(batch.as_of_us);
                break;
            }
            let value = entries.value_bytes();
            seen_bytes += KEY_BYTES + value.len();
            let change = Change::decode(entries.key(), value)?;
            batch.reached = change.position.next();
            batch.as_of_us = change.position.commit_us;
            if progress.is_new(&change.row_key, change.position) {
                taken_bytes += KEY_BYTES + entries.value().len();
                batch.changes.push(change);
            }
        }
        Ok(batch)
    }

    /// The time, µs, before which nothing is committed any more that is not at
    /// `snapshot`, where that can be told.
    fn watermark(&self, snapshot: &Snapshot, now_us: u64) -> Option<u64> {
        let mut state = self.state.lock();
        if state.is_writing || state.sequence > snapshot.sequence() {
            return None;
        }
        state.last = state.last.max(ChangePosition::end_of_time(now_us.saturating_sub(1)));
        Some(now_us.max(state.last.commit_us))
    }

    /// Adds to `batch` what removes all there is, so that the tree is as if it had just been made.
    pub(crate) fn clear(&self, batch: &mut WriteBatch) {
        let past_all_keys = [u8::MAX; KEY_BYTES + 1];
        batch.delete_range(self.tree.id(), &[], &past_all_keys);
    }

    /// What deletes the changes that are older than `cutoff_us`, if they are
    /// worth it. May wait for the disk.
    pub(crate) fn trim(&self, snapshot: &Snapshot, cutoff_us: u64, retention_us: u64) -> Result<WriteBatch> {
        let mut batch = WriteBatch::new();
        let trimmed_us = self.state.lock().trimmed_us.max(self.since_us);
        if cutoff_us <= trimmed_us.saturating_add(retention_us / TRIM_FRACTION) {
            return Ok(batch);
        }
        let [start, end] =
            [ChangePosition::default(), ChangePosition::at_time(cutoff_us)].map(ChangePosition::encode);
        let range = KeyRange { start: start.to_vec().into(), end: end.to_vec().into() };
        if self.tree.iter(snapshot, range).next()? {
            batch.delete_range(self.tree.id(), &start, &end);
        }
        self.state.lock().trimmed_us = cutoff_us;
        Ok(batch)
    }
}

impl Turn<'_> {
    /// Adds `changes` to `batch`, in places of their own; they are committed at `now_us` or later.
    pub(crate) fn add(&mut self, changes: &[Vec<u8>], now_us: i64, batch: &mut WriteBatch) {
        let mut state = self.log.state.lock();
        state.is_writing = true;
        for change in changes {
            state.last = state.last.next_commit(clock::unsigned(now_us), self.log.tablet);
            batch.put(self.log.tree.id(), &state.last.encode(), change);
        }
    }

    /// Ends the turn: the batch was applied, up to `sequence`.
    pub(crate) fn applied(self, sequence: u64) {
        self.log.state.lock().sequence = sequence;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.log.state.lock().is_writing = false;
    }
}

impl fmt::Debug for ChangeLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeLog")
            .field("tree", &self.tree)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// When `tree` was made, µs.
fn since(tree: &Tree, snapshot: &Snapshot) -> Result<Option<u64>> {
    let value = tree.get(snapshot, SINCE_KEY)?;
    Ok(value.and_then(|value| Some(u64::from_be_bytes(value.as_ref().try_into().ok()?))))
}

/// Judges the changes that a compaction meets.
struct Kept {
    cutoff_us: u64,
    rows: RowRange,
}

impl KeepDecision for Kept {
    fn decide(&mut self, candidate: &Candidate<'_>) -> Decision {
        // What cannot be read is kept, for whoever repairs it.
        let Some(position) = ChangePosition::decode(candidate.key) else { return Decision::Keep };
        if position.commit_us < self.cutoff_us {
            return Decision::Drop;
        }
        match StoredRow::decode(candidate.value) {
            Ok(stored) if !self.rows.contains(&stored.row_key) => Decision::Drop,
            _ => Decision::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vfs::{FileSystem, SimulatedFileSystem};

    use super::*;
    use crate::changes::Segment;
    use crate::changes::change::StoredChange;

    const TABLET: TabletId = TabletId(7);
    const RETENTION_US: u64 = 1_000;

    fn engine() -> Engine {
        let fs: Arc<dyn FileSystem> = Arc::new(SimulatedFileSystem::new());
        Engine::open(fs, Path::new("/data"), 1, lsm::Options::default()).unwrap()
    }

    /// A log that was made at the time `now_us`.
    fn log(engine: &Engine, now_us: i64) -> ChangeLog {
        ChangeLog::create(engine, TABLET, now_us).unwrap();
        ChangeLog::open(engine, TABLET).unwrap().unwrap()
    }

    fn change(row: &'static str) -> Vec<u8> {
        StoredChange { row_key: row.into(), mutations: vec![] }.encode_to_vec()
    }

    /// Commits changes of `rows` at `now_us`, durably.
    async fn write(engine: &Engine, log: &ChangeLog, rows: &[&'static str], now_us: i64) {
        let mut batch = WriteBatch::new();
        let mut turn = log.turn().await;
        let changes: Vec<_> = rows.iter().map(|row| change(row)).collect();
        turn.add(&changes, now_us, &mut batch);
        let commit = engine.write(batch).unwrap();
        turn.applied(commit.sequence());
        commit.wait().unwrap();
    }

    fn progress(start: &'static str, end: &'static str, time_us: u64) -> ChangeProgress {
        let rows = RowRange { start: start.into(), end: end.into() };
        ChangeProgress::new(vec![Segment::starting(rows, time_us)]).unwrap()
    }

    fn read(engine: &Engine, log: &ChangeLog, progress: &ChangeProgress, now_us: u64) -> Result<ChangeBatch> {
        log.read(&engine.snapshot(), progress, 1 << 20, now_us, RETENTION_US)
    }

    fn rows(batch: &ChangeBatch) -> Vec<&[u8]> {
        batch.changes.iter().map(|change| change.row_key.as_ref()).collect()
    }

    #[tokio::test]
    async fn changes_of_a_partition_come_in_order_and_once() {
        let engine = engine();
        let log = log(&engine, 10);
        write(&engine, &log, &["a", "m", "b"], 20).await;
        // The clock may go back; commits do not.
        write(&engine, &log, &["a"], 15).await;
        let mut reader = progress("a", "m", 10);
        let batch = read(&engine, &log, &reader, 30).unwrap();
        assert_eq!(rows(&batch), [b"a", b"b", b"a"]);
        assert!(
            batch.changes.is_sorted_by_key(|change| change.position)
                && batch.changes[2].position.commit_us == 20
        );
        assert!(batch.is_all && batch.as_of_us >= 30);
        reader.advance(batch.reached, batch.as_of_us);
        assert!(rows(&read(&engine, &log, &reader, 31).unwrap()).is_empty());
        // Whatever is committed after a reader was told that there was nothing comes behind that.
        write(&engine, &log, &["c"], 5).await;
        let batch = read(&engine, &log, &reader, 40).unwrap();
        assert_eq!(rows(&batch), [b"c"]);
        assert!(batch.changes[0].position.commit_us >= 29);
    }

    #[tokio::test]
    async fn a_reopened_log_goes_on_behind_what_it_holds() {
        let engine = engine();
        let first = log(&engine, 10);
        write(&engine, &first, &["a"], 50).await;
        let mut reader = progress("", "", 10);
        let batch = read(&engine, &first, &reader, 50).unwrap();
        reader.advance(batch.reached, batch.as_of_us);
        let reopened = log(&engine, 99);
        assert_eq!(reopened.since_us, 10);
        write(&engine, &reopened, &["b"], 20).await;
        assert_eq!(rows(&read(&engine, &reopened, &reader, 50).unwrap()), [b"b"]);
    }

    #[tokio::test]
    async fn nothing_is_said_to_be_read_up_to_now_while_a_batch_has_its_turn() {
        let engine = engine();
        let log = log(&engine, 10);
        let mut turn = log.turn().await;
        turn.add(&[change("a")], 20, &mut WriteBatch::new());
        assert_eq!(read(&engine, &log, &progress("", "", 10), 30).unwrap().as_of_us, 10);
        drop(turn);
        assert!(read(&engine, &log, &progress("", "", 10), 30).unwrap().as_of_us >= 30);
    }

    #[tokio::test]
    async fn what_is_older_than_the_table_keeps_is_refused_and_goes() {
        let engine = engine();
        let log = log(&engine, 100);
        write(&engine, &log, &["a"], 200).await;
        write(&engine, &log, &["b"], 1_500).await;
        let refused = |start_us, now_us| {
            let refused = read(&engine, &log, &progress("", "", start_us), now_us);
            matches!(refused, Err(Error::ChangesGone { .. }))
        };
        assert!(refused(99, 200) && !refused(100, 200));
        assert!(refused(999, 2_000) && !refused(1_000, 2_000));
        let trim = |cutoff_us| log.trim(&engine.snapshot(), cutoff_us, RETENTION_US).unwrap();
        assert!(trim(110).is_empty(), "too little to be worth it");
        engine.write(trim(1_000)).unwrap().wait().unwrap();
        assert!(trim(1_010).is_empty());
        let batch = log.read(&engine.snapshot(), &progress("", "", 100), 1 << 20, 2_000, 10_000).unwrap();
        assert_eq!(rows(&batch), [b"b"]);
        assert!(ChangeLog::open(&engine, TABLET).unwrap().is_some());

        let mut batch = WriteBatch::new();
        log.clear(&mut batch);
        engine.write(batch).unwrap().wait().unwrap();
        assert!(ChangeLog::open(&engine, TABLET).unwrap().is_none());
        ChangeLog::create(&engine, TABLET, 3_000).unwrap();
        assert_eq!(ChangeLog::open(&engine, TABLET).unwrap().unwrap().since_us, 3_000);
    }

    #[test]
    fn compactions_keep_what_is_young_and_of_the_tablet() {
        let mut kept = Kept { cutoff_us: 100, rows: RowRange { start: "m".into(), end: "".into() } };
        let at = |commit_us| ChangePosition::at_time(commit_us).encode().to_vec();
        let mut is_kept = |key: &[u8], value: &[u8]| {
            let candidate = Candidate { key, value, sequence: 1, is_newest: true };
            matches!(kept.decide(&candidate), Decision::Keep)
        };
        assert!(is_kept(&at(100), &change("m")));
        assert!(!is_kept(&at(99), &change("m")));
        assert!(!is_kept(&at(100), &change("a")));
        assert!(is_kept(SINCE_KEY, b"whatever") && is_kept(&at(100), b"\xff"));
    }
}
