//! A tablet server: one engine, and the tablets that the master had it load.
//!
//! It holds its lock in the lock service from opening to closing, and the
//! lock's epoch is the epoch of its engine. Requests and scans at once are
//! bounded; one over the bound is turned away at once, so that it can go on
//! elsewhere or later, and never waits in a queue.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::lock_service::{LockService, LockSession};
use cluster::{Epoch, ServerId};
use lsm::Engine;
use metrics::Gauge;
use parking_lot::{Mutex, RwLock};
use row_api::data;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use crate::aggregate::CellAggregates;
use crate::catalog::Catalog;
use crate::changes::{ChangeLog, TabletChanges, TabletReader};
use crate::check_and_mutate::CheckAndMutate;
use crate::checkpoints::Checkpoints;
use crate::clock::Clock;
use crate::control::{Assignment, CheckpointId, HandOver, Health, SplitProposal, TabletControl, TabletStats};
use crate::error::{Error, Result};
use crate::hand_overs::HandOvers;
use crate::mutation::RowMutations;
use crate::read_modify_write::ReadModifyWrite;
use crate::row::Row;
use crate::row_locks::RowLocks;
use crate::row_scan::{RowScan, ScanBatch};
use crate::row_server::{ReadRequest, RowSample, RowServer, RowsOutcome, TabletScan};
use crate::row_set::RowRange;
use crate::schema::{TableSchema, TabletId};
use crate::tablet::{Surroundings, Tablet, tree_format};
use crate::tablet_trees::{change_tree_id, counterpart, part_of, tree_id, trees_of, unmergeable};

/// A step of a scan up to this size runs where it is asked for; a larger one on
/// a thread that may wait for the disk.
pub(crate) const INLINE_STEP_BYTES: usize = 64 << 10;

/// A tablet larger than this is split, unless a server is told otherwise: ten
/// gigabytes then make some twenty or forty tablets.
pub const TABLET_BYTES_MAX: u64 = 512 << 20;

/// What a tablet server is told when it opens.
#[derive(Clone, Debug)]
pub struct TabletServerOptions {
    /// The server's name, the same each time it opens its directory.
    pub id: ServerId,
    /// The directory of its engine.
    pub dir: PathBuf,
    /// How tablets are handed over: the same for all servers of a process.
    pub hand_overs: HandOvers,
    /// The directory of checkpoints, on the same file system; other servers may have the same.
    pub checkpoint_dir: PathBuf,
    /// Its engine's tunables; the merge operator of tablets is added.
    pub engine: lsm::Options,
    /// Row requests at once, scans aside; at least 1.
    pub request_count_max: usize,
    /// Scans at once; each may hold a few megabytes; at least 1.
    pub scan_count_max: usize,
    /// Change streams open at once; each may hold a megabyte, or one change; at least 1.
    pub change_stream_count_max: usize,
    /// How long a write waits while flushes catch up, before it is turned away.
    pub stall_patience: Duration,
    /// Bytes between two of the row keys that a tablet gives as samples of its
    /// rows; at least 1. Clients make as many parts of a table of them.
    pub sample_bytes: u64,
    /// A tablet that holds more bytes than this is to be split in two. Fewer
    /// make more tablets, each with a memtable and files of its own.
    pub tablet_bytes_max: u64,
}

impl TabletServerOptions {
    /// The defaults for the server `id` in `dir`, with checkpoints beside it.
    pub fn new(id: ServerId, dir: PathBuf) -> Self {
        Self {
            id,
            hand_overs: HandOvers::default(),
            checkpoint_dir: dir.with_file_name("checkpoints"),
            dir,
            engine: lsm::Options::default(),
            request_count_max: 10_000,
            scan_count_max: 256,
            change_stream_count_max: 1_000,
            stall_patience: Duration::from_secs(5),
            sample_bytes: 64 << 20,
            tablet_bytes_max: TABLET_BYTES_MAX,
        }
    }
}

/// An open tablet server.
pub struct TabletServer {
    id: ServerId,
    epoch: Epoch,
    /// None once the lock is lost.
    session: Mutex<Option<Box<dyn LockSession>>>,
    hand_overs: HandOvers,
    around: Surroundings,
    tablets: RwLock<HashMap<TabletId, Arc<Tablet>>>,
    tablet_count: Gauge,
    tablet_bytes_max: u64,
    checkpoints: Checkpoints,
    requests: Semaphore,
    scans: Arc<Semaphore>,
    change_streams: Arc<Semaphore>,
}

impl TabletServer {
    /// Takes the server's lock and opens its engine, recovering what its log
    /// holds. It serves no tablet until the master has it load one.
    ///
    /// # Errors
    ///
    /// - [`Error::Lock`]: another process is this server.
    /// - [`Error::Storage`]: its directory cannot be opened or recovered.
    pub async fn open(
        options: TabletServerOptions,
        fs: Arc<dyn vfs::FileSystem>,
        lock_service: &dyn LockService,
        catalog: Arc<Catalog>,
        clock: Clock,
    ) -> Result<Arc<Self>> {
        let session = lock_service.lock(&format!("servers/{}", options.id)).await?;
        let epoch = session.epoch();
        let checkpoints = Checkpoints::new(Arc::clone(&fs), options.checkpoint_dir);
        let (dir, mut tunables) = (options.dir, options.engine);
        tunables.merge_operators.push(Arc::new(CellAggregates));
        let engine = blocking(move || Ok(Engine::open(fs, &dir, epoch.0, tunables)?)).await?;
        let around = Surroundings {
            engine,
            locks: Arc::new(RowLocks::new()),
            catalog,
            clock,
            stall_patience: options.stall_patience,
            sample_bytes: options.sample_bytes.max(1),
        };
        Ok(Arc::new(Self {
            tablet_count: metrics::gauge!("hayloft_tablets", "server" => options.id.to_string()),
            id: options.id,
            epoch,
            session: Mutex::new(Some(session)),
            hand_overs: options.hand_overs,
            around,
            tablets: RwLock::default(),
            tablet_bytes_max: options.tablet_bytes_max,
            checkpoints,
            requests: Semaphore::new(options.request_count_max),
            scans: Arc::new(Semaphore::new(options.scan_count_max)),
            change_streams: Arc::new(Semaphore::new(options.change_stream_count_max)),
        }))
    }

    /// The epoch of this opening.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The engine, for its figures.
    pub fn engine(&self) -> &Engine {
        &self.around.engine
    }

    /// Figures of the tablets that are served, in order of their numbers.
    pub fn stats(&self) -> Vec<TabletStats> {
        let unmergeable = unmergeable(&self.around.engine);
        let figures = |(id, tablet): (&TabletId, &Arc<Tablet>)| tablet.stats(!unmergeable.contains(id));
        let mut stats: Vec<_> = self.tablets.read().iter().map(figures).collect();
        stats.sort_unstable_by_key(|stats| stats.assignment.tablet);
        stats
    }

    /// Stops serving and closes the engine, its log synced. Its doors are to be
    /// closed and drained before; a request that comes later is refused.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`]: the last sync failed; what was acknowledged is durable.
    pub async fn close(&self) -> Result<()> {
        let tablets = std::mem::take(&mut *self.tablets.write());
        self.tablet_count.set(0.0);
        for tablet in tablets.into_values() {
            tablet.close().await;
        }
        let engine = self.around.engine.clone();
        blocking(move || Ok(engine.close()?)).await
    }

    /// Ends the server where it stands, as the death of its process would, and
    /// loses its lock: requests under way fail, what is acknowledged is in its log.
    pub async fn kill(&self) {
        for tablet in std::mem::take(&mut *self.tablets.write()).into_values() {
            tablet.stop();
        }
        self.tablet_count.set(0.0);
        let engine = self.around.engine.clone();
        let closed = blocking(move || Ok(engine.close()?)).await;
        if let Err(error) = closed {
            tracing::warn!(server = %self.id, error = &error as &dyn std::error::Error, "a server ends after a failure");
        }
        *self.session.lock() = None;
    }

    fn tablet(&self, id: TabletId) -> Result<Arc<Tablet>> {
        self.tablets.read().get(&id).cloned().ok_or(Error::NotServed { tablet: id })
    }

    /// The tablet for a request that reads or writes so many of its rows.
    fn tablet_for(&self, id: TabletId, row_count: usize) -> Result<Arc<Tablet>> {
        let tablet = self.tablet(id)?;
        tablet.count_rows(row_count as u64);
        Ok(tablet)
    }

    fn admit(&self) -> Result<SemaphorePermit<'_>> {
        self.requests
            .try_acquire()
            .map_err(|_| Error::Busy { what: "the server has too many requests at once" })
    }

    fn admit_scan(&self) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.scans).try_acquire_owned();
        permit.map_err(|_| Error::Busy { what: "the server has too many scans at once" })
    }

    /// Serves `tree` under `assignment`, and no longer under an earlier one.
    async fn serve(&self, assignment: Assignment, tree: lsm::Tree) -> Result<()> {
        self.stop_serving(assignment.tablet).await;
        let changes = self.open_changes(assignment.tablet).await?;
        self.begin_serving(Tablet::new(assignment, tree, changes, self.around.clone()));
        Ok(())
    }

    /// Serves the tablet that was made under `assignment`, to readers.
    async fn serve_held(&self, assignment: &Assignment) -> Result<()> {
        let tree = self.find_tree(assignment.tablet)?;
        let changes = self.open_changes(assignment.tablet).await?;
        self.begin_serving(Tablet::held(assignment.clone(), tree, changes, self.around.clone()));
        Ok(())
    }

    fn begin_serving(&self, tablet: Tablet) {
        self.tablets.write().insert(tablet.assignment().tablet, Arc::new(tablet));
        self.tablet_count.increment(1.0);
    }

    async fn open_changes(&self, tablet: TabletId) -> Result<Option<ChangeLog>> {
        let engine = self.around.engine.clone();
        if engine.tree(change_tree_id(tablet)).is_none() {
            return Ok(None);
        }
        blocking(move || ChangeLog::open(&engine, tablet)).await
    }

    /// Has the tablet record its changes or not, as its table says now.
    async fn settle_changes(&self, assignment: &Assignment) -> Result<()> {
        match self.around.catalog.by_id(assignment.table) {
            Some(table) => {
                self.keep_changes(assignment.tablet, table.schema().change_retention_us.is_some()).await
            }
            // It is told once the table is known.
            None => Ok(()),
        }
    }

    /// Deletes changes that are older than their tables keep them; to be called each minute or so.
    pub async fn trim_changes(&self) {
        let tablets: Vec<_> = self.tablets.read().values().cloned().collect();
        for tablet in tablets {
            match tablet.trim_changes().await {
                Ok(()) | Err(Error::NotServed { .. }) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(tablet = tablet.assignment().tablet.0, error, "cannot trim a change log");
                }
            }
        }
    }

    fn find_tree(&self, tablet: TabletId) -> Result<lsm::Tree> {
        let missing = || Error::DataMissing { tablet, server: self.id.to_string() };
        self.around.engine.tree(tree_id(tablet)).ok_or_else(missing)
    }

    /// Does `make` while writers of `tablets` are held; if it fails, they go on.
    async fn while_held<T: Send + 'static>(
        &self,
        tablets: &[Arc<Tablet>],
        make: impl FnOnce(&Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        for tablet in tablets {
            tablet.hold().await.inspect_err(|_| resume(tablets))?;
        }
        let engine = self.around.engine.clone();
        blocking(move || make(&engine)).await.inspect_err(|_| resume(tablets))
    }

    async fn stop_serving(&self, tablet: TabletId) {
        let served = self.tablets.write().remove(&tablet);
        if let Some(served) = served {
            self.tablet_count.decrement(1.0);
            served.close().await;
        }
    }

    fn serves(&self, assignment: &Assignment) -> bool {
        self.tablets.read().get(&assignment.tablet).is_some_and(|tablet| tablet.assignment() == assignment)
    }
}

#[async_trait]
impl TabletControl for TabletServer {
    fn id(&self) -> &ServerId {
        &self.id
    }

    async fn tablets(&self) -> Result<Vec<TabletStats>> {
        Ok(self.stats())
    }

    async fn create_tablet(&self, assignment: Assignment) -> Result<()> {
        if self.serves(&assignment) {
            return Ok(());
        }
        let (engine, id) = (self.around.engine.clone(), tree_id(assignment.tablet));
        let tree = blocking(move || match engine.tree(id) {
            Some(tree) => Ok(tree),
            None => Ok(engine.create_tree(id, tree_format())?),
        });
        let tree = tree.await?;
        self.serve(assignment, tree).await
    }

    async fn load_tablet(&self, assignment: Assignment) -> Result<()> {
        if self.serves(&assignment) {
            self.resume_tablet(assignment.tablet).await?;
        } else {
            let tree = self.find_tree(assignment.tablet)?;
            self.serve(assignment.clone(), tree).await?;
        }
        // The stream may have been enabled or disabled while nobody could write to the tablet.
        self.settle_changes(&assignment).await
    }

    async fn unload_tablet(&self, tablet: TabletId) -> Result<()> {
        self.stop_serving(tablet).await;
        Ok(())
    }

    async fn drop_tablet(&self, tablet: TabletId) -> Result<()> {
        self.stop_serving(tablet).await;
        let engine = self.around.engine.clone();
        let drop_all =
            move || trees_of(&engine, tablet).into_iter().try_for_each(|tree| engine.drop_tree(tree));
        blocking(move || Ok(drop_all()?)).await
    }

    async fn keep_changes(&self, tablet: TabletId, kept: bool) -> Result<()> {
        let served = self.tablet(tablet)?;
        if kept {
            return served.keep_changes().await;
        }
        served.forget_changes().await
    }

    async fn drop_row_range(&self, tablet: TabletId, range: RowRange) -> Result<()> {
        self.tablet(tablet)?.drop_row_range(&range).await
    }

    async fn splits_due(&self) -> Result<Vec<SplitProposal>> {
        let bytes_max = self.tablet_bytes_max;
        let tablets: Vec<_> = self.tablets.read().values().cloned().collect();
        blocking(move || Ok(tablets.iter().filter_map(|tablet| tablet.split_due(bytes_max)).collect())).await
    }

    async fn split_by_size(&self, tablet: TabletId) -> Result<Option<SplitProposal>> {
        let Ok(tablet) = self.tablet(tablet) else { return Ok(None) };
        blocking(move || Ok(tablet.split_due(0))).await
    }

    async fn split_by_load(&self, tablet: TabletId) -> Result<Option<SplitProposal>> {
        let row = self.tablet(tablet).ok().and_then(|tablet| tablet.busy_middle());
        Ok(row.map(|row| SplitProposal { tablet, row }))
    }

    async fn flush_tablet(&self, tablet: TabletId) -> Result<()> {
        match self.tablet(tablet) {
            Ok(tablet) => blocking(move || tablet.flush_ahead()).await,
            // One that is recovered and not served: nobody waits.
            Err(_) => Ok(()),
        }
    }

    async fn split_tablet(&self, parent: TabletId, children: &[Assignment; 2]) -> Result<()> {
        if children.iter().all(|child| self.serves(child)) {
            return Ok(());
        }
        let parts = children.clone().map(|child| (child.tablet, child.range));
        let fork = move |engine: &Engine| {
            for tree in trees_of(engine, parent) {
                let forks =
                    parts.each_ref().map(|(child, rows)| (counterpart(tree, *child), part_of(tree, rows)));
                engine.fork_tree(tree, &forks)?;
            }
            Ok(())
        };
        self.while_held(&[self.tablet(parent)?], fork).await?;
        for child in children {
            self.serve_held(child).await?;
        }
        Ok(())
    }

    async fn merge_tablets(&self, parents: &[TabletId; 2], child: &Assignment) -> Result<()> {
        if self.serves(child) {
            return Ok(());
        }
        let tablets = [self.tablet(parents[0])?, self.tablet(parents[1])?];
        let rows = tablets.each_ref().map(|tablet| tablet.assignment().range.clone());
        let (parents, united) = (*parents, child.tablet);
        let unite = move |engine: &Engine| {
            for tree in trees_of(engine, parents[0]) {
                let parts = [0, 1].map(|side| (counterpart(tree, parents[side]), part_of(tree, &rows[side])));
                engine.unite_trees(counterpart(tree, united), &parts)?;
            }
            Ok(())
        };
        self.while_held(&tablets, unite).await?;
        self.serve_held(child).await
    }

    async fn offer_tablet(&self, tablet: TabletId, hand_over: HandOver) -> Result<()> {
        self.find_tree(tablet)?;
        self.flush_tablet(tablet).await?;
        let (engine, hand_overs) = (self.around.engine.clone(), self.hand_overs.clone());
        blocking(move || hand_overs.offer(hand_over, &engine, tablet)).await
    }

    async fn stage_tablet(&self, hand_over: HandOver) -> Result<()> {
        let (engine, hand_overs) = (self.around.engine.clone(), self.hand_overs.clone());
        blocking(move || hand_overs.stage(hand_over, &engine)).await
    }

    async fn send_tablet(&self, tablet: TabletId, hand_over: HandOver) -> Result<()> {
        self.find_tree(tablet)?;
        let hand_overs = self.hand_overs.clone();
        // One that is recovered is not served.
        let served: Vec<_> = self.tablet(tablet).into_iter().collect();
        self.while_held(&served, move |engine| hand_overs.offer(hand_over, engine, tablet)).await
    }

    async fn receive_tablet(&self, assignment: &Assignment, hand_over: HandOver) -> Result<()> {
        if self.serves(assignment) {
            return Ok(());
        }
        let (engine, hand_overs, to) =
            (self.around.engine.clone(), self.hand_overs.clone(), assignment.tablet);
        blocking(move || hand_overs.take(hand_over, &engine, to)).await?;
        self.serve_held(assignment).await
    }

    async fn end_hand_over(&self, hand_over: HandOver) -> Result<()> {
        let hand_overs = self.hand_overs.clone();
        let end = move || {
            hand_overs.end(hand_over);
            Ok(())
        };
        blocking(end).await
    }

    async fn resume_tablet(&self, tablet: TabletId) -> Result<()> {
        if let Ok(tablet) = self.tablet(tablet) {
            tablet.resume();
        }
        Ok(())
    }

    async fn write_checkpoint(&self, id: CheckpointId, tablets: &[TabletId]) -> Result<u64> {
        for tablet in tablets {
            self.find_tree(*tablet)?;
        }
        let (checkpoints, tablets) = (self.checkpoints.clone(), tablets.to_vec());
        let engine = self.around.engine.clone();
        blocking(move || {
            checkpoints.write(id, &engine, &tablets)?;
            checkpoints.table_bytes(id)
        })
        .await
    }

    async fn checkpoints(&self) -> Result<Vec<CheckpointId>> {
        let checkpoints = self.checkpoints.clone();
        blocking(move || checkpoints.list()).await
    }

    async fn drop_checkpoint(&self, id: CheckpointId) -> Result<()> {
        let checkpoints = self.checkpoints.clone();
        blocking(move || checkpoints.remove(id)).await
    }

    async fn restore_tablet(&self, assignment: Assignment, id: CheckpointId, from: TabletId) -> Result<()> {
        if self.serves(&assignment) {
            return Ok(());
        }
        let (engine, checkpoints) = (self.around.engine.clone(), self.checkpoints.clone());
        let to = assignment.tablet;
        blocking(move || checkpoints.restore(id, from, &engine, to)).await?;
        let tree = self.find_tree(to)?;
        self.serve(assignment, tree).await
    }

    fn health(&self) -> Health {
        match self.around.engine.check() {
            _ if self.session.lock().is_none() => Health::Gone,
            // A full disk is no better anywhere else.
            Ok(()) | Err(lsm::Error::DiskFull) => Health::Well,
            Err(_) => Health::ReadOnly,
        }
    }
}

fn resume(tablets: &[Arc<Tablet>]) {
    tablets.iter().for_each(|tablet| tablet.resume());
}

#[async_trait]
impl RowServer for TabletServer {
    async fn mutate_row(&self, tablet: TabletId, row: &RowMutations) -> Result<()> {
        let _permit = self.admit()?;
        self.tablet_for(tablet, 1)?.mutate_row(row).await
    }

    async fn mutate_rows(&self, tablet: TabletId, rows: &[RowMutations]) -> Result<Vec<RowsOutcome>> {
        let _permit = self.admit()?;
        self.tablet_for(tablet, rows.len())?.mutate_rows(rows).await
    }

    async fn check_and_mutate(
        &self,
        tablet: TabletId,
        schema: &Arc<TableSchema>,
        request: &CheckAndMutate,
    ) -> Result<bool> {
        let _permit = self.admit()?;
        self.tablet_for(tablet, 1)?.check_and_mutate(schema, request).await
    }

    async fn read_modify_write(
        &self,
        tablet: TabletId,
        schema: &Arc<TableSchema>,
        request: &ReadModifyWrite,
    ) -> Result<data::Row> {
        let _permit = self.admit()?;
        self.tablet_for(tablet, 1)?.read_modify_write(schema, request).await
    }

    async fn read_row(&self, tablet: TabletId, row_key: &[u8], request: &ReadRequest) -> Result<Option<Row>> {
        let _permit = self.admit()?;
        self.tablet_for(tablet, 1)?.read_row(row_key, request)
    }

    async fn scan(&self, tablet: TabletId, request: ReadRequest) -> Result<Box<dyn TabletScan>> {
        let permit = self.admit_scan()?;
        let tablet = self.tablet(tablet)?;
        let scan = tablet.scan(request)?;
        Ok(Box::new(LocalScan { scan: Some(scan), tablet, _permit: permit }))
    }

    async fn read_changes(&self, tablet: TabletId, rows: &RowRange) -> Result<Box<dyn TabletChanges>> {
        let permit = Arc::clone(&self.change_streams).try_acquire_owned();
        let permit =
            permit.map_err(|_| Error::Busy { what: "the server has too many change streams at once" })?;
        let tablet = self.tablet(tablet)?;
        let log = tablet.change_log(rows)?;
        Ok(Box::new(TabletReader::new(tablet, log, permit)))
    }

    async fn sample(&self, tablet: TabletId, rows: &RowRange) -> Result<Vec<RowSample>> {
        let _permit = self.admit()?;
        let (tablet, rows) = (self.tablet(tablet)?, rows.clone());
        blocking(move || tablet.sample(&rows)).await
    }
}

impl fmt::Debug for TabletServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TabletServer")
            .field("id", &self.id)
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}

struct LocalScan {
    /// Away only while a step runs, and for good if that step was given up.
    scan: Option<RowScan>,
    tablet: Arc<Tablet>,
    _permit: OwnedSemaphorePermit,
}

#[async_trait]
impl TabletScan for LocalScan {
    async fn next_rows(&mut self, budget_bytes: usize) -> Result<ScanBatch> {
        let mut scan = self.scan.take().ok_or(Error::Busy { what: "an earlier step was given up" })?;
        let (scan, batch) = if budget_bytes <= INLINE_STEP_BYTES {
            let batch = scan.next_rows(budget_bytes);
            (scan, batch)
        } else {
            let step = move || {
                let batch = scan.next_rows(budget_bytes);
                Ok((scan, batch))
            };
            blocking(step).await?
        };
        self.scan = Some(scan);
        // The tree of a tablet that was closed meanwhile may have been read half empty.
        self.tablet.check_open()?;
        let batch = batch?;
        self.tablet.count_rows(batch.seen.row_count);
        batch.rows.first().into_iter().for_each(|row| self.tablet.note_request(&row.key));
        Ok(batch)
    }
}

/// Runs `work` on a thread that may wait for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Busy { what: "the server is stopping" }),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cluster::lock_service::embedded::EmbeddedLockService;
    use vfs::{FileSystem, SimulatedFileSystem};

    use super::*;

    #[tokio::test]
    async fn a_request_over_the_bound_is_turned_away_at_once() {
        let fs: Arc<dyn FileSystem> = Arc::new(SimulatedFileSystem::new());
        let dir = Path::new("/data");
        fs.create_dir_all(dir).unwrap();
        let lock_service = EmbeddedLockService::open(Arc::clone(&fs), &dir.join("lock")).unwrap();
        let id = ServerId("tablet-server-1".to_owned());
        let options =
            TabletServerOptions { request_count_max: 1, ..TabletServerOptions::new(id, dir.join("tablets")) };
        let (catalog, clock) = (Arc::new(Catalog::new()), crate::clock::system_clock());
        let server = TabletServer::open(options, fs, &lock_service, catalog, clock).await.unwrap();
        let under_way = server.admit().unwrap();
        let rows = RowRange::default();
        let sample = || server.sample(TabletId(1), &rows);
        assert!(matches!(sample().await, Err(Error::Busy { .. })));
        drop(under_way);
        assert!(matches!(sample().await, Err(Error::NotServed { .. })));
        server.close().await.unwrap();
    }
}
