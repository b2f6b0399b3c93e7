//! Disks that fail or fill up while the store runs.

use haystack::store::Deleted;
use haystack::{Error, PhotoSize};
use vfs::SimulatedFileSystem;
use vfs::simulated::{FaultPlan, Operation};

use crate::shelf::{VOLUME, is_gone, is_whole, open, photo, read_file};

#[tokio::test]
async fn a_failed_sync_seals_the_volume_and_is_not_tried_again() {
    for failing in [Operation::Sync, Operation::Write] {
        let fs = SimulatedFileSystem::new();
        let store = open(&fs);
        let before = store.append(&photo(1)).await.unwrap();
        fs.set_faults(FaultPlan { failing: vec![failing], ..FaultPlan::default() });
        assert!(matches!(store.append(&photo(2)).await, Err(Error::Io(_))));
        fs.set_faults(FaultPlan::default());
        assert_eq!(store.stats()[0].state, "poisoned");
        let after = store.append(&photo(3)).await.unwrap();
        assert_ne!(after.volume, before.volume);
        assert!(matches!(store.delete(&before).await, Err(Error::Poisoned { .. })));
        assert!(is_whole(&store, &before, &photo(1)).await, "reads go on");
        store.close();
        drop(store);
        let store = open(&fs);
        assert!(is_whole(&store, &before, &photo(1)).await);
        assert!(is_whole(&store, &after, &photo(3)).await);
        assert_eq!(store.delete(&before).await.unwrap(), Deleted::Now);
    }
}

#[tokio::test]
async fn one_failed_write_costs_a_photo_another_volume_only() {
    let fs = SimulatedFileSystem::new();
    let store = open(&fs);
    let first = store.append(&photo(1)).await.unwrap();
    fs.set_faults(FaultPlan { fail_at: Some(fs.operation_count()), ..FaultPlan::default() });
    let second = store.append(&photo(2)).await.unwrap();
    assert_ne!(second.volume, first.volume);
    assert!(is_whole(&store, &second, &photo(2)).await);
}

#[tokio::test]
async fn a_full_disk_turns_photos_away_and_keeps_reads_and_deletes() {
    let fs = SimulatedFileSystem::new();
    let store = open(&fs);
    let (kept, gone) = (store.append(&photo(1)).await.unwrap(), store.append(&photo(2)).await.unwrap());
    let length = read_file(&fs, VOLUME).len();
    // Room for a tombstone and a part of a photo.
    let capacity_bytes = Some(length as u64 + 4096);
    fs.set_faults(FaultPlan { capacity_bytes, ..FaultPlan::default() });
    let large = vec![(PhotoSize::Original, photo(1)[0].1, vec![7; 100_000].into())];
    assert!(matches!(store.append(&large).await, Err(Error::DiskFull { .. })));
    assert!(is_whole(&store, &kept, &photo(1)).await);
    assert_eq!(store.delete(&gone).await.unwrap(), Deleted::Now);
    fs.set_faults(FaultPlan::default());
    let later = store.append(&large).await.unwrap();
    assert_eq!(later.volume, kept.volume, "the volume goes on once there is room");
    store.close();
    drop(store);
    let store = open(&fs);
    assert!(is_gone(&store, &gone).await);
    assert!(is_whole(&store, &kept, &photo(1)).await);
    assert!(is_whole(&store, &later, &large).await);
}

#[tokio::test]
async fn a_volume_that_cannot_be_created_is_tried_again_later() {
    let fs = SimulatedFileSystem::new();
    let store = open(&fs);
    fs.set_faults(FaultPlan { failing: vec![Operation::Sync], ..FaultPlan::default() });
    assert!(store.append(&photo(1)).await.is_err());
    fs.set_faults(FaultPlan::default());
    let id = store.append(&photo(1)).await.unwrap();
    assert!(is_whole(&store, &id, &photo(1)).await);
}
