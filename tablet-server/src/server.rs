//! A tablet server: one engine, and the tablets that the master had it load.
//!
//! It holds its lock in the lock service from opening to closing, and the
//! lock's epoch is the epoch of its engine. Requests and scans at once are
//! bounded; one over the bound is turned away at once, so that it can go on
//! elsewhere or later, and never waits in a queue.

mod control_calls;
mod row_calls;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::lock_service::{LockService, LockSession};
use cluster::{Epoch, ServerId};
use lsm::Engine;
use metrics::Gauge;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use crate::aggregate::CellAggregates;
use crate::catalog::Catalog;
use crate::changes::ChangeLog;
use crate::checkpoints::Checkpoints;
use crate::clock::Clock;
use crate::control::{Assignment, TabletControl, TabletStats};
use crate::error::{Error, Result};
use crate::hand_overs::HandOvers;
use crate::row_locks::RowLocks;
use crate::schema::TabletId;
use crate::tablet::{Surroundings, Tablet};
use crate::tablet_trees::{change_tree_id, tree_id, unmergeable};

/// A step of a scan up to this size runs where it is asked for, without a change of threads: it takes some
/// hundred microseconds, for which others wait.
pub(crate) const INLINE_STEP_BYTES: usize = 128 << 10;

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

fn resume(tablets: &[Arc<Tablet>]) {
    tablets.iter().for_each(|tablet| tablet.resume());
}

impl fmt::Debug for TabletServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TabletServer")
            .field("id", &self.id)
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
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
    use crate::row_server::RowServer;
    use crate::row_set::RowRange;

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
