//! Disk space that volumes hold: whole extents, and room for deletes on a full disk.

use haystack::store::{Deleted, StoreOptions};
use haystack::volume::VolumeOptions;
use haystack::{Error, PhotoSize};
use std::path::Path;
use std::time::{Duration, Instant};
use vfs::simulated::FaultPlan;
use vfs::{FileSystem, SimulatedFileSystem};

use crate::shelf::{DIR, OPTIONS, VOLUME, is_gone, is_whole, open_with, photo, read_file};

const EXTENT_BYTES: u64 = 256 << 10;
const RESERVING: StoreOptions = StoreOptions {
    volumes: VolumeOptions { volume_bytes_max: 1 << 20, extent_bytes: EXTENT_BYTES },
    ..OPTIONS
};

fn limit(fs: &SimulatedFileSystem, available_bytes: u64) {
    let used_bytes = (1 << 40) - fs.available_bytes(Path::new(DIR)).unwrap();
    let capacity_bytes = Some(used_bytes + available_bytes);
    fs.set_faults(FaultPlan { capacity_bytes, ..FaultPlan::default() });
}

#[tokio::test]
async fn a_volume_holds_whole_extents_and_its_length_is_its_needles() {
    let fs = SimulatedFileSystem::new();
    let store = open_with(&fs, RESERVING).unwrap();
    let before = fs.available_bytes(Path::new(DIR)).unwrap();
    for seed in 0..4 {
        store.append(&photo(seed)).await.unwrap();
    }
    let taken = before - fs.available_bytes(Path::new(DIR)).unwrap();
    assert!((EXTENT_BYTES..EXTENT_BYTES + 4096).contains(&taken), "{taken} bytes");
    assert_eq!(read_file(&fs, VOLUME).len() as u64, store.stats()[0].volume_bytes);
}

#[tokio::test]
async fn a_volume_that_seals_gives_its_space_back() {
    let fs = SimulatedFileSystem::new();
    let volumes = VolumeOptions { volume_bytes_max: 1200, extent_bytes: EXTENT_BYTES };
    let store = open_with(&fs, StoreOptions { volumes, ..OPTIONS }).unwrap();
    let before = fs.available_bytes(Path::new(DIR)).unwrap();
    while store.stats().first().is_none_or(|volume| volume.state == "write-enabled") {
        store.append(&photo(1)).await.unwrap();
    }
    // What is left is room for deletes; the rest goes back just after the state changes.
    let begun = Instant::now();
    loop {
        let taken = before - fs.available_bytes(Path::new(DIR)).unwrap();
        if (64 << 10..80 << 10).contains(&taken) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{taken} bytes");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn deletes_go_on_when_not_a_byte_is_free() {
    let fs = SimulatedFileSystem::new();
    let store = open_with(&fs, RESERVING).unwrap();
    let mut ids = Vec::new();
    for _ in 0..400 {
        ids.push(store.append(&photo(3)).await.unwrap());
    }
    limit(&fs, 0);
    let large = vec![(PhotoSize::Original, photo(1)[0].1, vec![7; 500_000].into())];
    assert!(matches!(store.append(&large).await, Err(Error::DiskFull { .. })));
    assert_eq!(store.stats()[0].state, "full");
    for id in &ids {
        assert_eq!(store.delete(id).await.unwrap(), Deleted::Now);
        assert!(is_gone(&store, id).await);
    }
    limit(&fs, 1 << 30);
    let later = store.append(&large).await.unwrap();
    assert_eq!(later.volume, ids[0].volume, "the volume goes on once there is room");
    store.close();
    drop(store);
    let store = open_with(&fs.power_cut(1), RESERVING).unwrap();
    for id in &ids {
        assert!(is_gone(&store, id).await);
    }
    assert!(is_whole(&store, &later, &large).await);
}

#[tokio::test]
async fn less_than_an_extent_is_enough() {
    let fs = SimulatedFileSystem::new();
    let store = open_with(&fs, RESERVING).unwrap();
    store.append(&photo(1)).await.unwrap();
    limit(&fs, 100 << 10);
    // Beyond the first extent, and a second one does not fit.
    let large = vec![(PhotoSize::Original, photo(1)[0].1, vec![7; 200 << 10].into())];
    let id = store.append(&large).await.unwrap();
    assert!(is_whole(&store, &id, &large).await);
}
