//! Some simulated stores and the coordinator over them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::simulated_store::SimulatedStore;
use crate::error::Result;
use crate::logical::ledger::{Debts, Ledger, Pages, VolumeRecord};
use crate::logical::{LogicalVolumes, Repair, ReplicaOptions};
use crate::media_type::MediaType;
use crate::photo_id::{PhotoSize, VolumeId};
use crate::store::Surroundings;
use crate::stores::VolumeStore;
use crate::stores::identity::StoreId;

/// Turns of the background work after which nothing must be left to do.
const TURN_COUNT_MAX: usize = 60;

/// A ledger in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryLedger {
    pages: Mutex<Pages>,
}

impl MemoryLedger {
    pub(super) fn lose_all(&self) {
        *self.pages.lock() = Pages::default();
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    fn is_ready(&self) -> bool {
        true
    }

    async fn load(&self) -> Result<Pages> {
        Ok(self.pages.lock().clone())
    }

    async fn put_volume(&self, volume: VolumeId, record: &VolumeRecord) -> Result<()> {
        tokio::task::yield_now().await;
        self.pages.lock().volumes.insert(volume, record.clone());
        Ok(())
    }

    async fn put_debts(&self, debts: &Debts) -> Result<()> {
        tokio::task::yield_now().await;
        let mut pages = self.pages.lock();
        for (of, debt) in debts {
            match debt.stores.is_empty() {
                true => drop(pages.debts.remove(of)),
                false => drop(pages.debts.insert(*of, debt.clone())),
            }
        }
        Ok(())
    }

    async fn put_store(&self, store: StoreId, read_only: bool) -> Result<()> {
        let mut pages = self.pages.lock();
        match read_only {
            true => pages.read_only_stores.insert(store),
            false => pages.read_only_stores.remove(&store),
        };
        Ok(())
    }
}

pub(super) type Sizes = Vec<(PhotoSize, MediaType, Bytes)>;

/// A photo whose bytes depend on `seed`.
pub(super) fn photo(seed: u64) -> Sizes {
    let data = |length: u64| Bytes::from_iter((0..length).map(|at| (at * 31 + seed).to_le_bytes()[0]));
    vec![
        (PhotoSize::Original, MediaType::Png, data(40 + seed % 9)),
        (PhotoSize::Thumb, MediaType::Jpeg, data(8)),
    ]
}

/// Stores and their coordinator. Its background work is done in the test's turns.
pub(super) struct World {
    pub(super) stores: Vec<Arc<SimulatedStore>>,
    pub(super) ledger: Arc<MemoryLedger>,
    pub(super) volumes: Arc<LogicalVolumes>,
    repairs: tokio::sync::mpsc::Receiver<Repair>,
    options: ReplicaOptions,
    surroundings: Surroundings,
    turn: usize,
}

impl World {
    pub(super) async fn new(store_count: usize, replica_count: usize) -> Self {
        let racks: Vec<String> = (0..store_count).map(|place| place.to_string()).collect();
        let racks: Vec<&str> = racks.iter().map(String::as_str).collect();
        Self::with_racks(&racks, replica_count).await
    }

    pub(super) async fn with_racks(racks: &[&str], replica_count: usize) -> Self {
        let stores: Vec<Arc<SimulatedStore>> = racks
            .iter()
            .enumerate()
            .map(|(place, rack)| Arc::new(SimulatedStore::new(place, rack)))
            .collect();
        let (started, random) = (Instant::now(), AtomicU64::new(1));
        let surroundings = Surroundings {
            now_ms: Arc::new(move || {
                1_800_000_000_000 + u64::try_from(started.elapsed().as_millis()).unwrap()
            }),
            random: Arc::new(move || random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)),
            ..Surroundings::default()
        };
        let options = ReplicaOptions { replica_count, ..ReplicaOptions::default() };
        let ledger = Arc::new(MemoryLedger::default());
        let (volumes, repairs) = coordinator(&stores, &ledger, options, &surroundings);
        let mut world = Self { stores, ledger, volumes, repairs, options, surroundings, turn: 0 };
        world.begin().await;
        world
    }

    async fn begin(&mut self) {
        self.probe().await;
        Arc::clone(&self.volumes).load().await;
    }

    /// The coordinator is begun anew and knows only what is written down.
    pub(super) async fn restart(&mut self) {
        (self.volumes, self.repairs) =
            coordinator(&self.stores, &self.ledger, self.options, &self.surroundings);
        self.begin().await;
    }

    pub(super) async fn probe(&mut self) {
        self.turn += 1;
        for place in 0..self.stores.len() {
            self.volumes.probe(place, self.turn).await;
        }
    }

    pub(super) fn compare_period(&self) -> std::time::Duration {
        self.options.compare_period
    }

    /// One turn of all background work; whether there may be more to do.
    pub(super) async fn tick(&mut self) -> bool {
        self.probe().await;
        self.volumes.settle_once().await;
        let mut busy = self.volumes.mend_once().await;
        while let Ok(repair) = self.repairs.try_recv() {
            self.volumes.repair(repair).await;
            busy = true;
        }
        busy
    }

    /// Turns until nothing is left to do.
    pub(super) async fn converge(&mut self) {
        self.tick().await;
        self.tick().await;
        for _ in 0..TURN_COUNT_MAX {
            if !self.tick().await {
                return;
            }
        }
        panic!("the background work does not end: {:?}", self.volumes.status());
    }
}

fn coordinator(
    stores: &[Arc<SimulatedStore>],
    ledger: &Arc<MemoryLedger>,
    options: ReplicaOptions,
    surroundings: &Surroundings,
) -> (Arc<LogicalVolumes>, tokio::sync::mpsc::Receiver<Repair>) {
    let stores =
        stores.iter().map(|store| (store.name(), Arc::clone(store) as Arc<dyn VolumeStore>)).collect();
    let ledger = Arc::clone(ledger) as Arc<dyn Ledger>;
    let volumes = Arc::new(LogicalVolumes::new(stores, ledger, options, surroundings.clone()));
    let repairs = volumes.waiting_repairs.lock().take().expect("nobody started it");
    (volumes, repairs)
}
