//! Bits that flip and files that are cut: noticed, never served.

use std::path::Path;

use haystack::photo_id::VolumeId;
use haystack::{Error, PhotoId, PhotoSize};
use vfs::{Access, FileSystem, SimulatedFileSystem};

use crate::shelf::{
    INDEX, Sizes, VOLUME, is_gone, is_whole, open, photo, read_file, remove_file, write_file,
};

/// Three photos, the second one deleted.
async fn three_photos(fs: &SimulatedFileSystem) -> Vec<(PhotoId, Sizes)> {
    let store = open(fs);
    let mut photos = Vec::new();
    for seed in 1..4 {
        photos.push((store.append(&photo(seed)).await.unwrap(), photo(seed)));
    }
    store.delete(&photos[1].0).await.unwrap();
    store.close();
    photos
}

#[tokio::test]
async fn no_flipped_bit_of_a_volume_is_served() {
    let fs = SimulatedFileSystem::new();
    let photos = three_photos(&fs).await;
    let sound = read_file(&fs, VOLUME);
    for at in 0..sound.len() {
        for keep_index in [true, false] {
            let fs = fs.power_cut(1);
            if !keep_index {
                remove_file(&fs, INDEX);
            }
            fs.flip_bit(Path::new(VOLUME), at as u64, u32::try_from(at % 8).unwrap());
            let store = open(&fs);
            let mut unread = 0;
            for (id, sizes) in [&photos[0], &photos[2]] {
                for (size, _, data) in sizes {
                    match store.read(id, *size).await {
                        Ok(Some(needle)) if needle.data == *data => {}
                        // The size next to it stands in for one whose needle was lost with the index.
                        Ok(Some(needle)) => {
                            assert!(!keep_index, "byte {at}");
                            assert!(sizes.iter().any(|(_, _, other)| needle.data == *other), "byte {at}");
                            unread += 1;
                        }
                        Ok(None) => {
                            assert!(!keep_index, "byte {at}: a photo is denied");
                            unread += 1;
                        }
                        Err(_) => unread += 1,
                    }
                }
            }
            let in_superblock = at < 64;
            assert!(unread <= if in_superblock { 6 } else { 3 }, "byte {at}: {unread} sizes are gone");
        }
    }
}

#[tokio::test]
async fn damage_in_the_middle_is_skipped_and_nothing_follows_it_in_that_volume() {
    let fs = SimulatedFileSystem::new();
    let photos = three_photos(&fs).await;
    remove_file(&fs, INDEX);
    // In the data of the first photo's large size, behind the original's needle.
    fs.flip_bit(Path::new(VOLUME), 64 + 136 + 40, 3);
    for _ in 0..2 {
        let store = open(&fs);
        let (id, sizes) = &photos[0];
        assert!(store.read(id, PhotoSize::Original).await.unwrap().is_some());
        assert!(matches!(store.read(id, PhotoSize::Large).await, Err(Error::Damaged { .. })));
        assert_eq!(store.read(id, PhotoSize::Thumb).await.unwrap().unwrap().data, sizes[2].2);
        assert!(is_whole(&store, &photos[2].0, &photos[2].1).await);
        assert!(is_gone(&store, &photos[1].0).await);
        assert_eq!(store.stats()[0].state, "sealed");
        assert_ne!(store.append(&photo(9)).await.unwrap().volume, id.volume);
        store.close();
    }
}

#[tokio::test]
async fn a_damaged_last_needle_that_the_index_knows_is_not_cut_off() {
    let fs = SimulatedFileSystem::new();
    let store = open(&fs);
    let id = store.append(&photo(1)).await.unwrap();
    store.close();
    drop(store);
    let length = read_file(&fs, VOLUME).len();
    fs.flip_bit(Path::new(VOLUME), length as u64 - 20, 0);
    let store = open(&fs);
    assert!(matches!(store.read(&id, PhotoSize::Thumb).await, Err(Error::Damaged { .. })));
    assert!(store.read(&id, PhotoSize::Original).await.unwrap().is_some());
    assert_eq!(read_file(&fs, VOLUME).len(), length);
}

#[tokio::test]
async fn a_volume_cut_anywhere_keeps_its_whole_photos_and_goes_on() {
    let fs = SimulatedFileSystem::new();
    let store = open(&fs);
    let mut photos = Vec::new();
    let mut ends = Vec::new();
    for seed in 1..4 {
        photos.push((store.append(&photo(seed)).await.unwrap(), photo(seed)));
        ends.push(store.stats()[0].volume_bytes);
    }
    store.close();
    drop(store);
    for length in 64..=read_file(&fs, VOLUME).len() as u64 {
        for keep_index in [true, false] {
            let fs = fs.power_cut(1);
            if !keep_index {
                remove_file(&fs, INDEX);
            }
            let volume = fs.open(Path::new(VOLUME), Access::ReadWrite).unwrap();
            volume.set_len(length).unwrap();
            volume.sync().unwrap();
            let store = open(&fs);
            let kept = store.stats()[0].volume_bytes;
            assert_eq!(read_file(&fs, VOLUME).len() as u64, kept, "garbage is left behind the tail");
            let added = store.append(&photo(7)).await.unwrap();
            store.close();
            drop(store);
            let store = open(&fs);
            assert!(is_whole(&store, &added, &photo(7)).await);
            assert_eq!(store.stats()[0].state, "write-enabled", "a torn tail is no damage");
            for ((id, sizes), end) in photos.iter().zip(&ends) {
                if *end <= length {
                    assert!(is_whole(&store, id, sizes).await, "cut at {length}");
                } else if id.key != added.key {
                    assert!(is_gone(&store, id).await, "cut at {length}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_volume_without_a_superblock_is_not_served_and_not_reused() {
    let fs = SimulatedFileSystem::new();
    let photos = three_photos(&fs).await;
    fs.flip_bit(Path::new(VOLUME), 20, 0);
    let store = open(&fs);
    assert!(matches!(store.read(&photos[0].0, PhotoSize::Thumb).await, Err(Error::VolumeIll { .. })));
    assert_eq!(store.append(&photo(5)).await.unwrap().volume, VolumeId(2));
}

#[tokio::test]
async fn an_index_file_of_another_volume_is_not_believed() {
    let (one, other) = (SimulatedFileSystem::new(), SimulatedFileSystem::new());
    let photos = three_photos(&one).await;
    // Another physical volume, by another random number.
    open(&other).append(&photo(9)).await.unwrap();
    let mut foreign = read_file(&other, INDEX);
    foreign[16] ^= 1;
    write_file(&one, INDEX, &foreign);
    let store = open(&one);
    assert!(is_whole(&store, &photos[0].0, &photos[0].1).await);
    assert!(is_gone(&store, &photos[1].0).await);
}
