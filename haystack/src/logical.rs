//! Logical volumes: the same photos in physical volumes of several stores
//! (Haystack 3.2 and 4.3).
//!
//! [`LogicalVolumes`] coordinates them. One process does that, the one whose
//! tables the directory lives in; stores know nothing of each other.
//!
//! - [`health`], [`placement`], [`catalog`]: how stores do, where replicas go, and
//!   what follows from it, as functions of the state.
//! - [`ledger`]: what is written down; [`table_ledger`]: in a Bigtable table.
//! - [`write`](mod@write), [`read`](mod@read), [`delete`]: photos.
//! - [`pitchfork`]: probes of the stores.
//! - [`level`], [`healing`]: replicas made equal, and made anew.
//! - [`status`]: what operators see, and what they can change.
//!
//! The rules that keep photos:
//!
//! - A photo is acknowledged when every replica of its volume has it, synced.
//! - If one fails, the photo goes to another volume. What was written of it gets
//!   a tombstone at every replica, and until they have it the volume takes no
//!   photos: nobody was told of that id.
//! - A delete is acknowledged when each replica has the tombstone, or when it is
//!   written down which have not (a [debt](ledger::Debt)). A photo in debt is
//!   gone for readers whatever a replica still has.
//! - Tombstones win in every store, in whatever order things come. So two replicas
//!   become equal by giving each other the photos and tombstones they lack, and
//!   no order of deletes, copies and crashes brings a photo back.
//! - A replica that lacks photos says so itself (`filling`) until it is complete,
//!   and a store that was wiped has another number: neither is read.

pub mod catalog;
pub mod delete;
pub mod healing;
pub mod health;
pub mod ledger;
pub mod level;
pub mod pitchfork;
pub mod placement;
pub mod read;
pub mod status;
pub mod table_ledger;
pub mod write;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use cluster::Shutdown;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc};

use crate::error::{Error, Result};
use crate::photo_id::{PhotoKey, VolumeId};
use crate::store::Surroundings;
use crate::stores::VolumeStore;
use catalog::{Catalog, Replica};
use health::{Condition, Sight};
use ledger::Ledger;
use status::Progress;

/// Needles that wait for a repair; more are found again by later reads.
const REPAIR_COUNT_MAX: usize = 1024;

/// How replicas are kept. Each field may change between two starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaOptions {
    /// Replicas of a new volume, 1 to 9. Volumes keep the count they were made with.
    pub replica_count: usize,
    /// Volumes that take photos at once, at least.
    pub write_enabled_count: usize,
    /// Time for a write at one store, beside a second for each 4 MiB.
    pub write_patience: Duration,
    /// Time for a read at one store.
    pub read_patience: Duration,
    /// After that time another store is asked as well.
    pub hedge_delay: Duration,
    /// Time between two probes of a store.
    pub probe_period: Duration,
    /// Time for a probe.
    pub probe_patience: Duration,
    /// Time after which the replicas of a store that is away are made elsewhere.
    pub replace_after: Duration,
    /// Time between two comparisons of a volume's replicas.
    pub compare_period: Duration,
    /// Bytes of photos copied between stores in a second.
    pub copy_bytes_per_s: u64,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self {
            replica_count: 3,
            write_enabled_count: 1,
            write_patience: Duration::from_secs(3),
            read_patience: Duration::from_secs(5),
            hedge_delay: Duration::from_millis(100),
            probe_period: Duration::from_secs(1),
            probe_patience: Duration::from_secs(2),
            replace_after: Duration::from_secs(600),
            compare_period: Duration::from_secs(600),
            copy_bytes_per_s: 64 << 20,
        }
    }
}

/// A needle at one store that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Repair {
    volume: VolumeId,
    key: PhotoKey,
    place: usize,
}

/// The coordinator of logical volumes.
#[derive(Debug)]
pub struct LogicalVolumes {
    options: ReplicaOptions,
    surroundings: Surroundings,
    catalog: RwLock<Catalog>,
    ledger: Arc<dyn Ledger>,
    /// Held while a volume is created, so that waiters share it.
    creating: tokio::sync::Mutex<()>,
    /// Held by writes and deletes while they run, so that whoever changes the
    /// replicas of a volume knows when all of them see it.
    members: tokio::sync::RwLock<()>,
    turn: AtomicUsize,
    last_key: AtomicU64,
    /// Photos that some replicas have already and others will have soon.
    in_flight: Mutex<HashSet<PhotoKey>>,
    repairs: mpsc::Sender<Repair>,
    /// The other end of `repairs`, until [`LogicalVolumes::start`].
    waiting_repairs: Mutex<Option<mpsc::Receiver<Repair>>>,
    /// A store came back, or a write failed: debts are to be paid.
    settle: Notify,
    progress: Mutex<Progress>,
}

impl LogicalVolumes {
    /// Volumes on `stores`, given with their addresses. Nothing is asked before
    /// [`LogicalVolumes::start`].
    pub fn new(
        stores: Vec<(String, Arc<dyn VolumeStore>)>,
        ledger: Arc<dyn Ledger>,
        options: ReplicaOptions,
        surroundings: Surroundings,
    ) -> Self {
        let (repairs, waiting_repairs) = mpsc::channel(REPAIR_COUNT_MAX);
        let now_ms = (surroundings.now_ms)();
        Self {
            options,
            catalog: RwLock::new(Catalog::new(stores, options.replica_count, now_ms)),
            surroundings,
            ledger,
            creating: tokio::sync::Mutex::new(()),
            members: tokio::sync::RwLock::new(()),
            turn: AtomicUsize::new(0),
            last_key: AtomicU64::new(0),
            in_flight: Mutex::new(HashSet::new()),
            repairs,
            waiting_repairs: Mutex::new(Some(waiting_repairs)),
            settle: Notify::new(),
            progress: Mutex::new(Progress::default()),
        }
    }

    /// Probes, loads and heals until `shutdown` begins. Starting twice is
    /// starting once.
    pub fn start(self: &Arc<Self>, shutdown: &Shutdown) {
        let Some(repairs) = self.waiting_repairs.lock().take() else { return };
        let store_count = self.catalog.read().stores.len();
        for place in 0..store_count {
            self.run(shutdown, |volumes| async move { volumes.probe_always(place).await });
        }
        self.run(shutdown, |volumes| async move { volumes.load().await });
        self.run(shutdown, |volumes| async move { volumes.settle_always().await });
        self.run(shutdown, |volumes| async move { volumes.mend_always().await });
        self.run(shutdown, |volumes| async move { volumes.repair_always(repairs).await });
    }

    fn run<F>(self: &Arc<Self>, shutdown: &Shutdown, task: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (task, stop) = (task(Arc::clone(self)), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.begun() => {}
                () = task => {}
            }
        });
    }

    /// Reads what is written down, as soon as the ledger answers.
    async fn load(self: Arc<Self>) {
        loop {
            match self.ledger.load().await {
                Ok(pages) => {
                    self.catalog.write().load(pages);
                    self.settle.notify_one();
                    tracing::info!("the logical volumes are known");
                    return;
                }
                Err(error) => tracing::warn!(%error, "the logical volumes cannot be read yet"),
            }
            tokio::time::sleep(self.options.probe_period).await;
        }
    }

    /// Whether photos are taken, as far as the ledger goes.
    pub fn is_ready(&self) -> bool {
        self.catalog.read().loaded && self.ledger.is_ready()
    }

    /// Whether every store has answered a probe, or failed one.
    pub fn has_heard(&self) -> bool {
        let catalog = self.catalog.read();
        catalog.stores.iter().all(|entry| entry.health.condition() != Condition::Unknown)
    }

    fn now_ms(&self) -> u64 {
        (self.surroundings.now_ms)()
    }

    /// What `call` to `replica`'s store gives within `patience`; a store that is
    /// away or slow becomes doubtful.
    async fn ask<T>(
        &self,
        replica: &Replica,
        patience: Duration,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let outcome = match tokio::time::timeout(patience, call).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let store = self.catalog.read().stores[replica.place].address.as_str().into();
                Err(Error::StoreAway { store, found: format!("no answer within {patience:?}") })
            }
        };
        if let Err(error @ (Error::StoreAway { .. } | Error::StoreRefused { .. })) = &outcome {
            self.note(replica.place, Sight::RequestFailed(error.to_string()));
        }
        outcome
    }

    fn note(&self, place: usize, sight: Sight) {
        let now_ms = self.now_ms();
        let mut catalog = self.catalog.write();
        if catalog.take_failure(place, sight, now_ms) {
            let entry = &catalog.stores[place];
            let (address, complaint) = (&entry.address, entry.health.complaint());
            tracing::warn!(
                address,
                condition = entry.health.condition().name(),
                complaint,
                "a store is not well"
            );
        }
    }
}
