//! Whatever fails and is repaired, in whatever order: an acknowledged photo can
//! be read all the time, a deleted one never again, and in the end all replicas
//! have the same.

use std::collections::{BTreeMap, BTreeSet};

use super::simulated_store::Fault;
use super::world::{World, photo};
use crate::photo_id::{PhotoId, PhotoSize};
use crate::store::Deleted;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

/// What clients were told.
#[derive(Default)]
struct Told {
    /// Photos, by their key, with the seed of their bytes.
    stored: BTreeMap<u64, (PhotoId, u64)>,
    deleted: Vec<PhotoId>,
}

struct Run {
    seed: u64,
    world: World,
    random: Random,
    told: Told,
    replica_count: usize,
}

impl Run {
    async fn step(&mut self) {
        match self.random.below(16) {
            0..=4 => self.upload().await,
            5..=6 => self.delete().await,
            7..=8 => self.fault(),
            9..=10 => {
                let place = self.random.below(self.world.stores.len());
                self.world.stores[place].set_fault(Fault::None);
            }
            11..=12 => drop(self.world.tick().await),
            13 => self.world.restart().await,
            14 => self.lose().await,
            _ => self.damage().await,
        }
    }

    async fn upload(&mut self) {
        let seed = self.random.next();
        if let Ok(id) = self.world.volumes.append(&photo(seed)).await {
            assert!(
                self.told.stored.insert(id.key.0, (id, seed)).is_none(),
                "seed {}: a key came twice",
                self.seed
            );
        }
    }

    async fn delete(&mut self) {
        let Some((key, id)) = self.some_photo() else { return };
        self.told.stored.remove(&key);
        match self.world.volumes.delete(&id).await {
            Ok(Deleted::Now) => self.told.deleted.push(id),
            Ok(other) => panic!("seed {}: deleting a photo gave {other:?}", self.seed),
            // It may be gone or not.
            Err(_) => {}
        }
    }

    fn some_photo(&mut self) -> Option<(u64, PhotoId)> {
        let count = self.told.stored.len();
        let nth = if count == 0 { return None } else { self.random.below(count) };
        self.told.stored.iter().nth(nth).map(|(key, (id, _))| (*key, *id))
    }

    /// One replica of each photo stays in reach.
    fn fault(&mut self) {
        let faulty = self.world.stores.iter().filter(|store| store.fault() != Fault::None).count();
        let place = self.random.below(self.world.stores.len());
        let store = &self.world.stores[place];
        if store.fault() == Fault::None && faulty + 1 >= self.replica_count {
            return;
        }
        let faults = [Fault::Down, Fault::Silent, Fault::DoneButFailed, Fault::Poisoned, Fault::Full];
        match self.random.below(faults.len() + 1) {
            5 => store.fail_after(self.random.next() % 30),
            fault => store.set_fault(faults[fault]),
        }
    }

    /// A store, or a volume of it, is lost while all others are whole.
    async fn lose(&mut self) {
        self.world.stores.iter().for_each(|store| store.set_fault(Fault::None));
        self.world.converge().await;
        let place = self.random.below(self.world.stores.len());
        let store = &self.world.stores[place];
        let volumes = store.volumes();
        match self.random.below(2) {
            0 => store.wipe(),
            _ if volumes.is_empty() => {}
            _ => store.lose(volumes[self.random.below(volumes.len())]),
        }
        self.world.probe().await;
        // The new replica's first steps, and then a failure in the middle of them.
        self.world.stores[place].fail_after(self.random.next() % 40);
        self.check().await;
        self.world.tick().await;
        self.check().await;
        self.world.stores[place].set_fault(Fault::None);
        self.world.converge().await;
    }

    async fn damage(&mut self) {
        self.world.stores.iter().for_each(|store| store.set_fault(Fault::None));
        self.world.converge().await;
        let place = self.random.below(self.world.stores.len());
        if let Some((_, id)) = self.some_photo() {
            self.world.stores[place].damage(id.volume, id.key);
            self.check().await;
            // Whoever reads it at that store has it repaired.
            for _ in 0..self.world.stores.len() {
                assert!(self.world.volumes.read(&id, PhotoSize::Thumb).await.unwrap().is_some());
            }
            self.world.converge().await;
            assert!(!self.world.stores[place].is_damaged(id.volume, id.key), "seed {}", self.seed);
        }
    }

    async fn check(&self) {
        for (id, seed) in self.told.stored.values() {
            let read = self.world.volumes.read(id, PhotoSize::Original).await;
            let whole = matches!(&read, Ok(Some(needle)) if needle.data == photo(*seed)[0].2);
            assert!(whole, "seed {}: {id:?} reads {read:?}\n{:?}", self.seed, self.world.volumes.status());
        }
        for id in &self.told.deleted {
            let read = self.world.volumes.read(id, PhotoSize::Original).await;
            assert!(!matches!(read, Ok(Some(_))), "seed {}: {id:?} is back", self.seed);
        }
    }

    async fn check_replicas(&mut self) {
        self.world.stores.iter().for_each(|store| store.set_fault(Fault::None));
        self.world.converge().await;
        tokio::time::advance(self.world.compare_period()).await;
        self.world.converge().await;
        self.check().await;
        let status = self.world.volumes.status();
        for volume in &status.volumes {
            let whole = volume.writable && volume.debt_count == 0 && volume.refill.is_none();
            assert!(whole, "seed {}: {volume:?}", self.seed);
            let having = self.world.stores.iter().filter(|store| store.holds(volume.volume));
            let contents: BTreeSet<_> = having.clone().map(|store| store.live_keys(volume.volume)).collect();
            assert_eq!(
                (having.count(), contents.len()),
                (self.replica_count, 1),
                "seed {}: {volume:?}",
                self.seed
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_stays_and_what_was_deleted_is_gone() {
    let seed_count =
        std::env::var("HAYLOFT_TEST_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(40);
    for seed in 0..seed_count {
        let mut random = Random(seed);
        let replica_count = 2 + random.below(2);
        let store_count = replica_count + random.below(3);
        let world = World::new(store_count, replica_count).await;
        let mut run = Run { seed, world, random, told: Told::default(), replica_count };
        for _ in 0..60 {
            run.step().await;
            run.check().await;
        }
        run.check_replicas().await;
    }
}
