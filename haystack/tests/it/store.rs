//! What a store promises while nothing fails.

use std::sync::Arc;

use haystack::photo_id::{Cookie, VolumeId};
use haystack::store::{Deleted, StoreOptions};
use haystack::volume::VolumeOptions;
use haystack::{Error, PhotoId, PhotoSize};
use vfs::SimulatedFileSystem;
use vfs::simulated::FaultPlan;

use crate::shelf::{
    INDEX, OPTIONS, is_gone, is_whole, open, open_with, photo, read_file, remove_file, write_file,
};

#[tokio::test]
async fn a_photo_reads_as_written_by_its_cookie_only() {
    let fs = SimulatedFileSystem::new();
    let store = open(&fs);
    let id = store.append(&photo(1)).await.unwrap();
    assert!(is_whole(&store, &id, &photo(1)).await);
    let guessed = PhotoId { cookie: Cookie(id.cookie.0 ^ 1), ..id };
    assert!(is_gone(&store, &guessed).await);
    assert_eq!(store.delete(&guessed).await.unwrap(), Deleted::WrongCookie);
    assert!(is_whole(&store, &id, &photo(1)).await);
    assert!(is_gone(&store, &PhotoId { volume: VolumeId(9), ..id }).await);
}

#[tokio::test]
async fn a_size_that_was_not_stored_is_the_next_larger_derived_one() {
    let fs = SimulatedFileSystem::new();
    let store = open(&fs);
    let id = store.append(&photo(1)).await.unwrap();
    let medium = store.read(&id, PhotoSize::Medium).await.unwrap().unwrap();
    assert_eq!(medium.data, photo(1)[1].2);
    let lone = store.append(&photo(2)[..1]).await.unwrap();
    assert!(store.read(&lone, PhotoSize::Original).await.unwrap().is_some());
    assert!(store.read(&lone, PhotoSize::Thumb).await.unwrap().is_none());
}

#[tokio::test]
async fn deletes_are_for_good_and_deleting_again_is_no_error() {
    let fs = SimulatedFileSystem::new();
    let store = open(&fs);
    let (kept, gone) = (store.append(&photo(1)).await.unwrap(), store.append(&photo(2)).await.unwrap());
    assert_eq!(store.delete(&gone).await.unwrap(), Deleted::Now);
    assert_eq!(store.delete(&gone).await.unwrap(), Deleted::Absent);
    store.close();
    drop(store);
    let store = open(&fs);
    assert!(is_gone(&store, &gone).await);
    assert!(is_whole(&store, &kept, &photo(1)).await);
}

#[tokio::test]
async fn a_cold_read_waits_for_the_disk_and_is_the_same() {
    let fs = SimulatedFileSystem::new();
    let store = open(&fs);
    let id = store.append(&photo(1)).await.unwrap();
    fs.set_faults(FaultPlan { cold: true, ..FaultPlan::default() });
    assert!(is_whole(&store, &id, &photo(1)).await);
    assert_eq!(store.delete(&id).await.unwrap(), Deleted::Now);
}

#[tokio::test]
async fn keys_rise_over_restarts_even_if_the_clock_stands_still() {
    let fs = SimulatedFileSystem::new();
    let mut keys = Vec::new();
    for seed in 0..3 {
        let store = open(&fs);
        let id = store.append(&photo(seed)).await.unwrap();
        keys.push(id.key);
        store.delete(&id).await.unwrap();
    }
    assert!(keys.is_sorted_by(|first, second| first < second), "{keys:?}");
}

#[tokio::test]
async fn an_index_file_that_is_missing_stale_or_damaged_costs_nothing() {
    let fs = SimulatedFileSystem::new();
    let store = open(&fs);
    let first = store.append(&photo(1)).await.unwrap();
    store.close();
    drop(store);
    let stale = read_file(&fs, INDEX);
    let store = open(&fs);
    let second = store.append(&photo(2)).await.unwrap();
    store.delete(&first).await.unwrap();
    store.close();
    drop(store);
    let fresh = read_file(&fs, INDEX);
    assert!(fresh.len() > stale.len());

    let check = async |fs: &SimulatedFileSystem| {
        let store = open(fs);
        assert!(is_gone(&store, &first).await);
        assert!(is_whole(&store, &second, &photo(2)).await);
        store.close();
        drop(store);
        assert_eq!(read_file(fs, INDEX), fresh, "the index file is complete again");
    };
    check(&fs).await;
    remove_file(&fs, INDEX);
    check(&fs).await;
    write_file(&fs, INDEX, &stale);
    check(&fs).await;
    for at in 0..fresh.len() {
        let mut damaged = fresh.clone();
        damaged[at] ^= 1 << (at % 8);
        write_file(&fs, INDEX, &damaged);
        check(&fs).await;
        write_file(&fs, INDEX, &fresh[..at]);
        check(&fs).await;
    }
}

#[tokio::test]
async fn a_volume_seals_at_its_size_and_the_next_one_takes_over() {
    let fs = SimulatedFileSystem::new();
    let options =
        StoreOptions { volumes: VolumeOptions { volume_bytes_max: 700, extent_bytes: 0 }, ..OPTIONS };
    let store = open_with(&fs, options).unwrap();
    let mut ids = Vec::new();
    for seed in 0..9 {
        ids.push(store.append(&photo(seed)).await.unwrap());
    }
    assert!(store.stats().len() > 2);
    assert_eq!(store.stats()[0].state, "sealed");
    assert_eq!(store.delete(&ids[0]).await.unwrap(), Deleted::Now);
    store.close();
    drop(store);
    let store = open_with(&fs, options).unwrap();
    assert!(is_gone(&store, &ids[0]).await);
    for (seed, id) in (0..).zip(&ids).skip(1) {
        assert!(is_whole(&store, id, &photo(seed)).await, "photo {seed}");
    }
}

#[tokio::test]
async fn photos_spread_over_the_write_enabled_volumes() {
    let fs = SimulatedFileSystem::new();
    let store = open_with(&fs, StoreOptions { write_enabled_count: 3, ..OPTIONS }).unwrap();
    for seed in 0..12 {
        store.append(&photo(seed)).await.unwrap();
    }
    let counts: Vec<usize> = store.stats().iter().map(|volume| volume.totals.photo_count).collect();
    assert_eq!(counts.len(), 3);
    assert!(counts.iter().all(|count| *count > 1), "{counts:?}");
}

#[tokio::test]
async fn many_photos_at_once_are_each_durable_when_answered() {
    let fs = SimulatedFileSystem::new();
    let store = Arc::new(open(&fs));
    let tasks: Vec<_> = (0..200_u8)
        .map(|seed| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { (seed, store.append(&photo(seed)).await.unwrap()) })
        })
        .collect();
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await.unwrap());
    }
    let after = open(&fs.power_cut(1));
    for (seed, id) in &ids {
        assert!(is_whole(&after, id, &photo(*seed)).await, "photo {seed}");
    }
}

#[tokio::test]
async fn a_directory_has_one_store_at_a_time() {
    let fs = SimulatedFileSystem::new();
    let store = open(&fs);
    assert!(matches!(open_with(&fs, OPTIONS), Err(Error::InUse { .. })));
    drop(store);
    assert!(open_with(&fs, OPTIONS).is_ok());
}
