//! A tablet: the rows of one table in one range, in one tree of the server's
//! engine for each locality group, and their changes in another if the table has a change stream.
//!
//! Rows change under three rules (DESIGN sections 2 and 4):
//!
//! - A plain mutation holds its row's lock shared, a read-modify-write holds it
//!   exclusive, until the write is applied to the memtable, not through the sync.
//! - Reads see what is durable. A read-modify-write reads what is applied, and
//!   its answer, 'not matched' too, waits until that is durable.
//! - A tablet that closes, makes room for others, or drops a range of rows, waits for
//!   the writes that are under way and keeps others out meanwhile: they hold its gate.
//!
//! Reads hold nothing. The tree of a closed tablet is dropped sooner or later,
//! and then holds nothing either, so whoever reads looks afterwards whether the
//! tablet is still open, and believes what it read only then.

mod applied;
mod figures;
mod groups;
mod moving;
mod streams;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use lsm::{Commit, Engine, Tree, WriteBatch};
use parking_lot::Mutex;
use row_api::data;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, RwLockReadGuard, oneshot};
use tokio::time::Instant;

use applied::Applied;
use groups::Groups;
use moving::Moving;

use crate::catalog::Catalog;
use crate::changes::{ChangeLog, Recorder};
use crate::check_and_mutate::CheckAndMutate;
use crate::clock::Clock;
use crate::control::Assignment;
use crate::error::{Error, Result};
use crate::group_trees::GroupTrees;
use crate::limits;
use crate::metadata;
use crate::mutation::RowMutations;
use crate::read_modify_write::ReadModifyWrite;
use crate::request_samples::RequestSamples;
use crate::row::Row;
use crate::row_locks::RowLocks;
use crate::row_scan::{self, RowScan, ScanOptions};
use crate::row_server::{ReadRequest, RowsOutcome};
use crate::row_set::{RowRange, RowSet};
use crate::schema::{FamilyId, TableSchema, TabletId};

/// Bytes in the log after which the rows of a request go on in a batch of their own.
const BATCH_BYTES: usize = 1 << 20;

/// Rows that part tablets are no longer than this, so that METADATA's keys have room for them.
const PART_ROW_BYTES_MAX: usize = limits::ROW_KEY_BYTES_MAX - metadata::KEY_OVERHEAD_BYTES;

/// Bytes of a memtable that may be left to be written out while writers wait.
const HELD_BYTES: u64 = 256 << 10;

/// Flushes before that at most: writers may be faster than the disk.
const FLUSHES_AHEAD_MAX: usize = 4;

/// A write waited in vain.
const STALLED: Error = Error::Busy { what: "writes come faster than the disk takes them" };

/// A write waited in vain for tablets that are to take the place of this one.
const HELD: Error = Error::Busy { what: "the row's tablet is being split, moved or merged" };

/// What the tablets of a server share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) engine: Engine,
    pub(crate) locks: Arc<RowLocks>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Clock,
    /// How long a write waits for flushes before it is turned away.
    pub(crate) stall_patience: Duration,
    /// Bytes between two samples of a tablet's rows.
    pub(crate) sample_bytes: u64,
}

/// A tablet that is served here.
pub(crate) struct Tablet {
    assignment: Assignment,
    groups: Arc<Groups>,
    /// How far cells are on their way from one group to another.
    moving: tokio::sync::Mutex<Moving>,
    /// Where changes are recorded, if they are; set under the gate.
    changes: ArcSwapOption<ChangeLog>,
    around: Surroundings,
    /// Held shared by each write until it is applied.
    gate: Arc<RwLock<()>>,
    /// The gate, while writers wait for tablets to take the place of others; since when, if it was open before.
    held: Mutex<Option<(OwnedRwLockWriteGuard<()>, Option<Instant>)>>,
    /// Set under the gate, once and for all.
    closed: AtomicBool,
    /// Rows read and written, for those who balance load.
    row_count: AtomicU64,
    /// Where of late.
    requests: RequestSamples,
}

impl Tablet {
    /// The same as [`Tablet::new`], to readers only until it is resumed.
    pub(crate) fn held(
        assignment: Assignment,
        tree: Tree,
        changes: Option<ChangeLog>,
        around: Surroundings,
    ) -> Self {
        let tablet = Self::new(assignment, tree, changes, around);
        let alone = Arc::clone(&tablet.gate).try_write_owned().expect("nobody else knows of it");
        *tablet.held.lock() = Some((alone, None));
        tablet
    }

    /// Serves `tree`, and those of its other locality groups, under `assignment`, with changes in `changes`.
    pub(crate) fn new(
        assignment: Assignment,
        tree: Tree,
        changes: Option<ChangeLog>,
        around: Surroundings,
    ) -> Self {
        let groups = Groups::open(&around, &assignment, tree);
        let (gate, held) = (Arc::default(), Mutex::default());
        let (closed, row_count) = (AtomicBool::new(false), AtomicU64::new(0));
        let none = ArcSwapOption::empty();
        let (requests, moving) = (RequestSamples::default(), tokio::sync::Mutex::default());
        let tablet = Self {
            assignment,
            groups,
            moving,
            changes: none,
            around,
            gate,
            held,
            closed,
            row_count,
            requests,
        };
        tablet.set_changes(changes);
        tablet
    }

    /// The tablet, its rows and its ownership.
    pub(crate) fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// Counts rows that were read or are to be written.
    pub(crate) fn count_rows(&self, count: u64) {
        self.row_count.fetch_add(count, Ordering::Relaxed);
    }

    fn row_count(&self) -> u64 {
        self.row_count.load(Ordering::Relaxed)
    }

    /// Notes a row that was asked for.
    pub(crate) fn note_request(&self, row: &[u8]) {
        self.requests.note(row);
    }

    /// A row inside the tablet before which about half of its requests are, if they are for more than a few rows.
    pub(crate) fn busy_middle(&self) -> Option<bytes::Bytes> {
        let middle = self.requests.middle().filter(|row| row.len() <= PART_ROW_BYTES_MAX)?;
        (self.assignment.range.contains(&middle) && middle != self.assignment.range.start).then_some(middle)
    }

    /// Serves nobody from now on; writes under way are applied when this returns.
    pub(crate) async fn close(&self) {
        let held = self.held.lock().take();
        let (_alone, since) = match held {
            Some(held) => held,
            None => (Arc::clone(&self.gate).write_owned().await, None),
        };
        self.stop();
        since.into_iter().for_each(|since| self.count_hold(since));
    }

    /// Serves nobody from now on, as a process that dies would: writes under way are not waited for.
    pub(crate) fn stop(&self) {
        self.closed.store(true, Ordering::Release);
        self.changes.load().iter().for_each(|log| log.tell());
    }

    /// Writes out what is in memory, so that little is left to be written while writers wait.
    pub(crate) fn flush_ahead(&self) -> Result<()> {
        for _ in 0..FLUSHES_AHEAD_MAX {
            let others_bytes = self.around.engine.stats().frozen_memtable_bytes;
            let (groups, changes) = (self.groups.trees(), self.changes.load());
            let changes = changes.as_ref().map(|log| log.tree());
            let trees: Vec<_> = groups.iter().map(|(_, tree)| tree).chain(changes).collect();
            if others_bytes == 0 && trees.iter().all(|tree| tree.stats().memtable_bytes <= HELD_BYTES) {
                break;
            }
            trees.into_iter().try_for_each(Tree::flush)?;
        }
        Ok(())
    }

    /// Waits for the writes under way and keeps others waiting, until [`Tablet::resume`] or [`Tablet::close`].
    pub(crate) async fn hold(&self) -> Result<()> {
        let alone = Arc::clone(&self.gate).write_owned().await;
        self.check_open()?;
        *self.held.lock() = Some((alone, Some(Instant::now())));
        Ok(())
    }

    /// Lets writers go on.
    pub(crate) fn resume(&self) {
        let held = self.held.lock().take();
        held.and_then(|(_, since)| since).into_iter().for_each(|since| self.count_hold(since));
    }

    fn count_hold(&self, since: Instant) {
        metrics::histogram!("hayloft_tablet_hold_seconds").record(since.elapsed());
        tracing::info!(tablet = self.id().0, elapsed = ?since.elapsed(), "writers of a tablet have waited");
    }

    /// Applies `row` and waits until it is durable.
    pub(crate) async fn mutate_row(&self, row: &RowMutations) -> Result<()> {
        let applied = {
            let (_gate, trees) = self.enter(row.row_key(), || row.families()).await?;
            let _lock = self.around.locks.shared(self.id().0, [row.row_key().as_ref()]).await;
            let mut batch = WriteBatch::new();
            let mut recorder = self.recorder();
            let now_us = (self.around.clock)();
            row.encode(&trees, now_us, &mut batch);
            recorder.note(row, now_us);
            self.apply(batch, recorder).await?
        };
        applied.durable().await
    }

    /// Applies `rows` in their order, each atomically, and waits until they are durable.
    pub(crate) async fn mutate_rows(&self, rows: &[RowMutations]) -> Result<Vec<RowsOutcome>> {
        let applied = {
            let (_gate, trees) = self.gate(|| rows.iter().flat_map(RowMutations::families)).await?;
            rows.first().into_iter().for_each(|row| self.note_request(row.row_key()));
            let keys = rows.iter().map(|row| row.row_key().as_ref());
            let _locks = self.around.locks.shared(self.id().0, keys).await;
            self.apply_rows(&trees, rows).await
        };
        let mut outcomes = Vec::with_capacity(applied.len());
        for (rows, applied) in applied {
            let result = match applied {
                Ok(applied) => applied.durable().await,
                Err(error) => Err(error),
            };
            outcomes.push(RowsOutcome { rows, result });
        }
        Ok(outcomes)
    }

    /// Applies `rows` in as few batches as [`BATCH_BYTES`] allows; each of them
    /// is followed by the rows that it holds.
    ///
    /// REQUIRES: the gate and the rows' locks are held.
    async fn apply_rows(
        &self,
        trees: &GroupTrees,
        rows: &[RowMutations],
    ) -> Vec<(std::ops::Range<usize>, Result<Applied>)> {
        let now_us = (self.around.clock)();
        let is_here = |place: usize| {
            rows.get(place).is_some_and(|row: &RowMutations| self.assignment.range.contains(row.row_key()))
        };
        let mut applied = Vec::new();
        let mut next = 0;
        while next < rows.len() {
            let first = next;
            if !is_here(next) {
                next += 1;
                applied.push((first..next, Err(self.not_served())));
                continue;
            }
            let mut batch = WriteBatch::with_capacity(batch_bytes(&rows[first..]));
            let mut recorder = self.recorder();
            while is_here(next) && (next == first || batch.bytes() < BATCH_BYTES) {
                rows[next].encode(trees, now_us, &mut batch);
                recorder.note(&rows[next], now_us);
                next += 1;
            }
            applied.push((first..next, self.apply(batch, recorder).await));
        }
        applied
    }

    /// Applies what `request` has for the case that its predicate finds, and
    /// waits until both what it saw and what it wrote are durable.
    pub(crate) async fn check_and_mutate(
        &self,
        schema: &Arc<TableSchema>,
        request: &CheckAndMutate,
    ) -> Result<bool> {
        let (matched, applied) = {
            let (_gate, trees) = self.enter(request.row_key(), || request.families()).await?;
            let _lock = self.around.locks.exclusive(self.id().0, request.row_key()).await;
            let now_us = (self.around.clock)();
            let snapshot = self.around.engine.applied_snapshot();
            let options = ScanOptions { now_us, ..ScanOptions::default() };
            let matched = request.matches(&trees, &snapshot, schema, &options)?;
            let applied = match request.mutations(matched) {
                Some(mutations) => {
                    let mut batch = WriteBatch::new();
                    let mut recorder = self.recorder();
                    mutations.encode(&trees, now_us, &mut batch);
                    recorder.note(mutations, now_us);
                    self.apply(batch, recorder).await?
                }
                None => Applied::new(self.around.engine.barrier(), None),
            };
            (matched, applied)
        };
        applied.durable().await?;
        Ok(matched)
    }

    /// Applies the rules of `request` and waits until the new cells are durable.
    pub(crate) async fn read_modify_write(
        &self,
        schema: &Arc<TableSchema>,
        request: &ReadModifyWrite,
    ) -> Result<data::Row> {
        let (row, applied) = {
            let (_gate, trees) = self.enter(request.row_key(), || request.families()).await?;
            let _lock = self.around.locks.exclusive(self.id().0, request.row_key()).await;
            let snapshot = self.around.engine.applied_snapshot();
            let mut batch = WriteBatch::new();
            let now_us = (self.around.clock)();
            let row = request.apply(&trees, &snapshot, schema, now_us, &mut batch)?;
            let mut recorder = self.recorder();
            recorder.note_cells(&row);
            (row, self.apply(batch, recorder).await?)
        };
        applied.durable().await?;
        Ok(row)
    }

    /// The row `row_key`, as it is durable now.
    pub(crate) fn read_row(&self, row_key: &[u8], request: &ReadRequest) -> Result<Option<Row>> {
        self.check_open()?;
        self.check_row(row_key)?;
        self.note_request(row_key);
        let (trees, snapshot) = self.view();
        let ReadRequest { schema, filter, options, .. } = request;
        let row = row_scan::read_row(&trees, &snapshot, schema, row_key, filter, options);
        self.check_open()?;
        row
    }

    /// Begins to read what is durable now.
    pub(crate) fn scan(&self, request: ReadRequest) -> Result<RowScan> {
        self.check_open()?;
        self.check_rows(&request.rows)?;
        let ReadRequest { schema, rows, filter, options } = request;
        let (trees, snapshot) = self.view();
        Ok(RowScan::new(&trees, &snapshot, &schema, rows, filter, options))
    }

    /// Removes the rows in `range` and waits until they are gone for good.
    pub(crate) async fn drop_row_range(&self, range: &RowRange) -> Result<()> {
        let Some(range) = self.assignment.range.intersection(range) else { return Ok(()) };
        if self.changes.load().is_some() {
            return self.drop_rows_one_by_one(range).await;
        }
        let keys = range.cell_keys();
        // The engine's range deletes have an end; no row key is as long as this one.
        let past_all_rows = [u8::MAX; limits::ROW_KEY_BYTES_MAX + 1];
        let end: &[u8] = if keys.end.is_empty() { &past_all_rows } else { &keys.end };
        let applied = {
            let _alone = self.gate.write().await;
            self.check_open()?;
            let mut batch = WriteBatch::new();
            self.groups.trees().each(|tree| batch.delete_range(tree, &keys.start, end));
            self.apply(batch, Recorder::none()).await?
        };
        applied.durable().await
    }

    /// Logs `batch` and applies it, with the changes that `recorder` took down,
    /// after a bounded wait where writes are stalled.
    ///
    /// REQUIRES: the gate is held.
    async fn apply(&self, mut batch: WriteBatch, recorder: Recorder) -> Result<Applied> {
        let deadline = Instant::now() + self.around.stall_patience;
        let Some(record) = recorder.into_record() else {
            return Ok(Applied::new(self.write(batch, deadline).await?, None));
        };
        let turn = tokio::time::timeout_at(deadline, record.log.turn()).await;
        let mut turn = turn.map_err(|_| STALLED)?;
        turn.add(&record.changes, (self.around.clock)(), &mut batch);
        let commit = self.write(batch, deadline).await?;
        turn.applied(commit.sequence());
        Ok(Applied::new(commit, Some(record.log)))
    }

    async fn write(&self, batch: WriteBatch, deadline: Instant) -> Result<Commit> {
        match self.try_write(batch)? {
            Ok(commit) => Ok(commit),
            // Rare, and large to hold.
            Err(refused) => Box::pin(self.write_in_time(refused, deadline)).await,
        }
    }

    async fn write_in_time(&self, mut batch: WriteBatch, deadline: Instant) -> Result<Commit> {
        loop {
            let (ready, writable) = oneshot::channel();
            // Whoever waited may have given up.
            self.around.engine.on_writable(&batch, move || _ = ready.send(()));
            if tokio::time::timeout_at(deadline, writable).await.is_err() {
                return Err(STALLED);
            }
            batch = match self.try_write(batch)? {
                Ok(commit) => return Ok(commit),
                Err(refused) => refused,
            };
        }
    }

    /// Logs and applies `batch`, or gives it back where that would block.
    fn try_write(&self, batch: WriteBatch) -> Result<std::result::Result<Commit, WriteBatch>> {
        match self.around.engine.try_write(batch) {
            // Nothing was logged: whoever serves the tablet next may be asked again.
            Err(lsm::Error::Closed) => Err(self.not_served()),
            outcome => Ok(outcome?),
        }
    }

    /// Keeps the tablet open, with `row` in it, while the guard lives, and gives the trees that `families` go to.
    async fn enter<F: Iterator<Item = FamilyId>>(
        &self,
        row: &[u8],
        families: impl Fn() -> F + Sync,
    ) -> Result<(RwLockReadGuard<'_, ()>, Arc<GroupTrees>)> {
        let entered = self.gate(families).await?;
        self.check_row(row)?;
        self.note_request(row);
        Ok(entered)
    }

    /// Keeps the tablet open while the guard lives, after a bounded wait where other tablets are to take its
    /// place: what became of that may not be known before a disk, or a server, is well again.
    async fn pass_gate(&self) -> Result<RwLockReadGuard<'_, ()>> {
        let gate = match self.gate.try_read() {
            Ok(gate) => gate,
            Err(_) => match tokio::time::timeout(self.around.stall_patience, self.gate.read()).await {
                Ok(gate) => gate,
                Err(_) => {
                    self.around.engine.check()?;
                    return Err(HELD);
                }
            },
        };
        self.check_open()?;
        Ok(gate)
    }

    /// Refuses where the tablet is closed.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(self.not_served()) } else { Ok(()) }
    }

    fn check_row(&self, row: &[u8]) -> Result<()> {
        if self.assignment.range.contains(row) { Ok(()) } else { Err(self.not_served()) }
    }

    /// Refuses rows that are not all the tablet's: an answer would look complete.
    fn check_rows(&self, rows: &RowSet) -> Result<()> {
        rows.ranges().iter().try_for_each(|range| self.check_range(range))
    }

    fn check_range(&self, rows: &RowRange) -> Result<()> {
        if self.assignment.range.intersection(rows).as_ref() == Some(rows) {
            Ok(())
        } else {
            Err(self.not_served())
        }
    }

    fn not_served(&self) -> Error {
        Error::NotServed { tablet: self.id() }
    }

    fn id(&self) -> TabletId {
        self.assignment.tablet
    }
}

impl fmt::Debug for Tablet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tablet").field("assignment", &self.assignment).finish_non_exhaustive()
    }
}

/// Bytes that the first of `rows` take together, as many as go into one batch.
fn batch_bytes(rows: &[RowMutations]) -> usize {
    let mut bytes = 0;
    for row in rows {
        bytes += row.bytes();
        if bytes >= BATCH_BYTES {
            break;
        }
    }
    bytes
}
