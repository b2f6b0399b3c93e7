//! The power goes at every write, sync, creation and removal of a life with
//! appends, deletes, checkpoints and sealing; afterwards everything that was
//! acknowledged is there, and nothing that was deleted.

use haystack::PhotoId;
use haystack::store::{Deleted, Store, StoreOptions};
use haystack::volume::VolumeOptions;
use vfs::SimulatedFileSystem;
use vfs::simulated::FaultPlan;

use crate::shelf::{OPTIONS, Sizes, is_gone, is_whole, open_with, photo};

/// What was acknowledged before the power went.
#[derive(Default)]
struct Life {
    kept: Vec<(PhotoId, Sizes)>,
    gone: Vec<PhotoId>,
    /// Deletes that were not answered: either way is right.
    in_doubt: Vec<PhotoId>,
}

impl Life {
    async fn append(&mut self, store: &Store, seed: u8) -> Option<PhotoId> {
        let id = store.append(&photo(seed)).await.ok()?;
        self.kept.push((id, photo(seed)));
        Some(id)
    }

    async fn delete(&mut self, store: &Store, id: &PhotoId) {
        self.kept.retain(|(kept, _)| kept != id);
        match store.delete(id).await {
            Ok(Deleted::Now) => self.gone.push(*id),
            _ => self.in_doubt.push(*id),
        }
    }

    async fn check(&self, store: &Store, context: &str) {
        for (id, sizes) in &self.kept {
            assert!(is_whole(store, id, sizes).await, "{context}: {id} is not as acknowledged");
        }
        for id in &self.gone {
            assert!(is_gone(store, id).await, "{context}: {id} is back");
        }
        for id in &self.in_doubt {
            let size = haystack::PhotoSize::Original;
            assert!(store.read(id, size).await.is_ok(), "{context}: {id} is damaged");
        }
    }
}

/// Small volumes, so that several are sealed.
const SMALL: StoreOptions =
    StoreOptions { volumes: VolumeOptions { volume_bytes_max: 1200, extent_bytes: 0 }, ..OPTIONS };

/// The same with disk space that is reserved and given back.
const RESERVING: StoreOptions =
    StoreOptions { volumes: VolumeOptions { volume_bytes_max: 1200, extent_bytes: 4096 }, ..OPTIONS };

async fn live(fs: &SimulatedFileSystem, options: StoreOptions) -> Life {
    let mut life = Life::default();
    for round in 0..3 {
        // A store that does not open has nothing to say.
        let Ok(store) = open_with(fs, options) else { return life };
        let first = life.append(&store, round * 10).await;
        life.append(&store, round * 10 + 1).await;
        if let Some(id) = first {
            life.delete(&store, &id).await;
        }
        life.append(&store, round * 10 + 2).await;
        life.append(&store, round * 10 + 3).await;
        store.close();
    }
    life
}

#[tokio::test]
async fn whatever_was_acknowledged_survives_a_power_cut_at_any_operation() {
    for options in [SMALL, RESERVING] {
        let fs = SimulatedFileSystem::new();
        let whole = live(&fs, options).await;
        assert_eq!((whole.kept.len(), whole.gone.len(), whole.in_doubt.len()), (9, 3, 0));
        let operation_count = fs.operation_count();
        assert!(operation_count > 40, "{operation_count} operations");
        for cut_at in 0..operation_count {
            cut(cut_at, options).await;
        }
    }
}

/// Lives until the power goes in the operation `cut_at`, and looks at what a
/// store finds afterwards.
async fn cut(cut_at: u64, options: StoreOptions) {
    let fs = SimulatedFileSystem::new();
    fs.set_faults(FaultPlan { cut_at: Some(cut_at), ..FaultPlan::default() });
    let life = live(&fs, options).await;
    for seed in 0..6 {
        let context = format!("power cut at {cut_at}, seed {seed}, {:?}", options.volumes);
        let after = fs.power_cut(seed);
        let store = open_with(&after, options).unwrap();
        life.check(&store, &context).await;
        let added = store.append(&photo(99)).await.unwrap();
        store.close();
        drop(store);
        let store = open_with(&after, options).unwrap();
        life.check(&store, &context).await;
        assert!(is_whole(&store, &added, &photo(99)).await, "{context}: the store does not go on");
    }
}
