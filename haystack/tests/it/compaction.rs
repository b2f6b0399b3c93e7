//! Compaction: what it keeps and drops, that nobody notices it, and that a
//! failure or a power cut at any step leaves one volume or the other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use haystack::overseer::{BadNeedle, Overseer};
use haystack::photo_id::{PhotoKey, VolumeId};
use haystack::store::{Deleted, Store, Surroundings};
use haystack::{Error, PhotoId, PhotoSize};
use parking_lot::Mutex;
use vfs::simulated::{FaultPlan, Operation};
use vfs::{FileSystem, SimulatedFileSystem};

use crate::shelf::{
    DIR, INDEX, OPTIONS, Sizes, VOLUME, is_gone, is_whole, open, photo, read_file, surroundings,
};

const FIRST: VolumeId = VolumeId(1);

type Photos = Vec<(PhotoId, Sizes)>;

/// Six photos, of which those with odd numbers are deleted.
async fn half_garbage(store: &Store) -> (Photos, Vec<PhotoId>) {
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for seed in 0..6 {
        let id = store.append(&photo(seed)).await.unwrap();
        if seed % 2 == 0 {
            kept.push((id, photo(seed)));
        } else {
            assert_eq!(store.delete(&id).await.unwrap(), Deleted::Now);
            gone.push(id);
        }
    }
    (kept, gone)
}

async fn check(store: &Store, kept: &[(PhotoId, Sizes)], gone: &[PhotoId], context: &str) {
    for (id, sizes) in kept {
        assert!(is_whole(store, id, sizes).await, "{context}: {id} is lost");
    }
    for id in gone {
        assert!(is_gone(store, id).await, "{context}: {id} is back");
    }
}

#[tokio::test]
async fn garbage_goes_and_photos_stay() {
    let fs = SimulatedFileSystem::new();
    let store = Arc::new(open(&fs));
    let (kept, gone) = half_garbage(&store).await;
    let before = store.stats()[0].clone();
    assert!(before.garbage_bytes > 0);
    let compacted = store.compact_volume(FIRST).await.unwrap();
    assert_eq!(compacted.bytes_before, before.volume_bytes);
    let after = store.stats()[0].clone();
    assert_eq!((after.garbage_bytes, after.volume_bytes), (0, compacted.bytes_after));
    assert_eq!(after.volume_bytes, 64 + before.totals.live_bytes);
    assert_eq!(after.totals.photo_count, 3);
    check(&store, &kept, &gone, "compacted").await;
    let added = store.append(&photo(9)).await.unwrap();
    assert_eq!(added.volume, FIRST);
    store.close();
    drop(store);
    assert_eq!(fs.list(Path::new(DIR)).unwrap().len(), 3, "lock, volume and index are all there is");
    for keep_index in [true, false] {
        if !keep_index {
            fs.remove(Path::new(INDEX)).unwrap();
        }
        let store = open(&fs);
        check(&store, &kept, &gone, "opened again").await;
        assert!(is_whole(&store, &added, &photo(9)).await);
    }
}

#[tokio::test]
async fn a_needle_that_was_found_before_the_swap_is_read_after_it() {
    let fs = SimulatedFileSystem::new();
    let store = Arc::new(open(&fs));
    let (kept, _) = half_garbage(&store).await;
    let (id, sizes) = &kept[2];
    // Cold, so that the read waits its turn in a thread while the file changes.
    fs.set_faults(FaultPlan { cold: true, ..FaultPlan::default() });
    let reads: Vec<_> = (0..50)
        .map(|_| {
            let (store, id) = (Arc::clone(&store), *id);
            tokio::spawn(async move { store.read(&id, PhotoSize::Thumb).await })
        })
        .collect();
    store.compact_volume(FIRST).await.unwrap();
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap().unwrap().data, sizes[2].2);
    }
}

#[tokio::test]
async fn a_volume_that_was_sealed_at_its_size_takes_photos_again() {
    let fs = SimulatedFileSystem::new();
    let volumes = haystack::volume::VolumeOptions { volume_bytes_max: 1500, extent_bytes: 0 };
    let options = haystack::store::StoreOptions { volumes, ..OPTIONS };
    let store = Arc::new(crate::shelf::open_with(&fs, options).unwrap());
    half_garbage(&store).await;
    assert_eq!(store.stats()[0].state, "sealed");
    store.compact_volume(FIRST).await.unwrap();
    assert_eq!(store.stats()[0].state, "write-enabled");
    assert_eq!(store.append(&photo(9)).await.unwrap().volume, FIRST);
}

/// Keeps every tombstone while told to, and remembers bad needles.
#[derive(Debug, Default)]
struct Watcher {
    forgets: AtomicBool,
    bad: Mutex<Vec<(PhotoKey, PhotoSize)>>,
}

impl Overseer for Watcher {
    fn needle_is_bad(&self, needle: &BadNeedle) {
        self.bad.lock().push((needle.key, needle.size));
    }

    fn keeps_tombstone(&self, _volume: VolumeId, _key: PhotoKey) -> bool {
        !self.forgets.load(Ordering::Relaxed)
    }
}

fn open_watched(fs: &SimulatedFileSystem, watcher: &Arc<Watcher>) -> Arc<Store> {
    let overseer: Arc<dyn Overseer> = Arc::clone(watcher) as _;
    let surroundings = Surroundings { overseer, ..surroundings() };
    Arc::new(Store::open(Arc::new(fs.clone()), Path::new(DIR), OPTIONS, surroundings).unwrap())
}

#[tokio::test]
async fn tombstones_outlive_compactions_until_no_replica_needs_them() {
    let (fs, watcher) = (SimulatedFileSystem::new(), Arc::new(Watcher::default()));
    let store = open_watched(&fs, &watcher);
    let (kept, gone) = half_garbage(&store).await;
    for _ in 0..2 {
        store.compact_volume(FIRST).await.unwrap();
        assert_eq!(store.stats()[0].totals.tombstone_count, 3);
        assert_eq!(store.stats()[0].garbage_bytes, 0, "what a compaction keeps is no reason for another");
    }
    store.close();
    drop(store);
    let store = open_watched(&fs, &watcher);
    assert_eq!(store.stats()[0].totals.tombstone_count, 3);
    watcher.forgets.store(true, Ordering::Relaxed);
    store.compact_volume(FIRST).await.unwrap();
    assert_eq!(store.stats()[0].totals.tombstone_count, 0);
    check(&store, &kept, &gone, "without tombstones").await;
}

#[tokio::test]
async fn a_bad_needle_is_reported_by_scrub_and_read_and_never_compacted_away() {
    let (fs, watcher) = (SimulatedFileSystem::new(), Arc::new(Watcher::default()));
    let store = open_watched(&fs, &watcher);
    let (kept, _) = half_garbage(&store).await;
    let sound = store.scrub_volume(FIRST).await.unwrap();
    assert_eq!((sound.needle_count, sound.bad_count), (9, 0));
    assert_eq!(sound.bytes, store.stats()[0].totals.live_bytes);
    // In the data of the first photo's original.
    fs.flip_bit(Path::new(VOLUME), 64 + 40, 2);
    let scrubbed = store.scrub_volume(FIRST).await.unwrap();
    assert_eq!((scrubbed.needle_count, scrubbed.bad_count), (9, 1));
    let bad = (kept[0].0.key, PhotoSize::Original);
    assert_eq!((scrubbed.bad[0].key, scrubbed.bad[0].size), bad);
    assert!(matches!(store.read(&kept[0].0, PhotoSize::Original).await, Err(Error::Damaged { .. })));
    assert_eq!(*watcher.bad.lock(), [bad, bad]);
    let before = read_file(&fs, VOLUME);
    assert!(matches!(store.compact_volume(FIRST).await, Err(Error::Uncompactable { .. })));
    assert!(read_file(&fs, VOLUME) == before);
    // Its cookie stands in its other sizes.
    assert_eq!(store.delete(&kept[0].0).await.unwrap(), Deleted::Now);
    store.compact_volume(FIRST).await.unwrap();
    check(&store, &kept[1..], &[kept[0].0], "without the damaged photo").await;
    assert_eq!(store.scrub_volume(FIRST).await.unwrap().bad_count, 0);
}

#[tokio::test]
async fn a_failure_before_the_commit_changes_nothing() {
    for failing in [Operation::Read, Operation::Create, Operation::Write, Operation::Sync] {
        let fs = SimulatedFileSystem::new();
        let store = Arc::new(open(&fs));
        let (kept, gone) = half_garbage(&store).await;
        fs.set_faults(FaultPlan { failing: vec![failing], ..FaultPlan::default() });
        assert!(matches!(store.compact_volume(FIRST).await, Err(Error::Io(_))), "{failing:?}");
        fs.set_faults(FaultPlan::default());
        assert_eq!(store.stats()[0].state, "write-enabled");
        check(&store, &kept, &gone, "given up").await;
        store.compact_volume(FIRST).await.unwrap();
        check(&store, &kept, &gone, "tried again").await;
    }
}

#[tokio::test]
async fn a_failure_at_any_operation_loses_nothing() {
    let operations = async |fs: &SimulatedFileSystem| {
        let store = Arc::new(open(fs));
        let photos = half_garbage(&store).await;
        let begun = fs.operation_count();
        let outcome = store.compact_volume(FIRST).await;
        (store, photos, begun..fs.operation_count(), outcome)
    };
    let (_, _, range, outcome) = operations(&SimulatedFileSystem::new()).await;
    outcome.unwrap();
    assert!(range.clone().count() > 8, "{range:?}");
    for fail_at in range {
        let fs = SimulatedFileSystem::new();
        fs.set_faults(FaultPlan { fail_at: Some(fail_at), ..FaultPlan::default() });
        let (store, (kept, gone), _, outcome) = operations(&fs).await;
        let context = format!("operation {fail_at} failed, {outcome:?}");
        check(&store, &kept, &gone, &context).await;
        if store.stats()[0].state == "write-enabled" {
            let id = store.append(&photo(9)).await.unwrap();
            assert!(is_whole(&store, &id, &photo(9)).await, "{context}");
        }
        store.close();
        drop(store);
        for seed in 0..3 {
            let store = Arc::new(open(&fs.image(seed)));
            check(&store, &kept, &gone, &context).await;
            store.compact_volume(FIRST).await.unwrap();
            check(&store, &kept, &gone, &context).await;
        }
    }
}

#[tokio::test]
async fn a_disk_without_room_for_the_copy_leaves_the_volume_as_it_is() {
    let fs = SimulatedFileSystem::new();
    let store = Arc::new(open(&fs));
    let (kept, gone) = half_garbage(&store).await;
    store.append(&photo(8)).await.unwrap();
    let capacity_bytes = Some(read_file(&fs, VOLUME).len() as u64 + read_file(&fs, INDEX).len() as u64 + 300);
    fs.set_faults(FaultPlan { capacity_bytes, ..FaultPlan::default() });
    assert!(matches!(store.compact_volume(FIRST).await, Err(Error::DiskFull { .. })));
    check(&store, &kept, &gone, "without room").await;
    assert_eq!(store.delete(&kept[0].0).await.unwrap(), Deleted::Now, "deletes go on");
}

#[tokio::test]
async fn a_power_cut_at_any_operation_leaves_one_of_the_two_volumes() {
    let fs = SimulatedFileSystem::new();
    let store = Arc::new(open(&fs));
    let (kept, gone) = half_garbage(&store).await;
    let images = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&images);
    fs.watch(move |fs, number| {
        let cuts = (0..8).map(|seed| (format!("cut before operation {number}, seed {seed}"), fs.image(seed)));
        taken.lock().extend(cuts);
    });
    store.compact_volume(FIRST).await.unwrap();
    let added = store.append(&photo(7)).await.unwrap();
    store.close();
    drop(store);
    let images = std::mem::take(&mut *images.lock());
    assert!(images.len() > 80, "{} images", images.len());
    let mut lengths = std::collections::BTreeSet::new();
    for (context, fs) in &images {
        let store = Arc::new(open(fs));
        check(&store, &kept, &gone, context).await;
        lengths.insert(store.stats()[0].volume_bytes);
        assert!(
            fs.list(Path::new(DIR)).unwrap().iter().all(|name| !name.to_string_lossy().contains("compact")),
            "{context}: something is left behind"
        );
        // And the store goes on, compacts again, and all is there.
        let id = store.append(&photo(8)).await.unwrap();
        store.compact_volume(FIRST).await.unwrap();
        check(&store, &kept, &gone, context).await;
        assert!(is_whole(&store, &id, &photo(8)).await, "{context}");
        store.close();
    }
    assert!(lengths.len() >= 2, "old, new, and new with a photo: {lengths:?}");
    let store = open(&fs);
    assert!(is_whole(&store, &added, &photo(7)).await);
}
