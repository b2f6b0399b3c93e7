//! Stores over simulated files, and photos to put in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use haystack::care::CareOptions;
use haystack::media_type::MediaType;
use haystack::overseer::Alone;
use haystack::store::{Store, StoreOptions, Surroundings};
use haystack::volume::VolumeOptions;
use haystack::{PhotoId, PhotoSize, Result};
use vfs::{Access, FileSystem, SimulatedFileSystem};

pub type Sizes = Vec<(PhotoSize, MediaType, Bytes)>;

pub const DIR: &str = "/photos";
pub const VOLUME: &str = "/photos/00000001.volume";
pub const INDEX: &str = "/photos/00000001.index";

pub const OPTIONS: StoreOptions = StoreOptions {
    volumes: VolumeOptions { volume_bytes_max: 1 << 20, extent_bytes: 0 },
    care: CareOptions {
        compaction_garbage_percent: 0,
        compaction_bytes_per_second: 0,
        scrub_bytes_per_second: 0,
    },
    write_enabled_count: 1,
    disk_reserve_bytes: 0,
    blocking_read_count_max: 4,
};

/// Numbers that are the same in every run.
pub fn surroundings() -> Surroundings {
    let random = AtomicU64::new(1);
    Surroundings {
        now_ms: Arc::new(|| 1_800_000_000_000),
        random: Arc::new(move || random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)),
        overseer: Arc::new(Alone),
    }
}

pub fn open_with(fs: &SimulatedFileSystem, options: StoreOptions) -> Result<Store> {
    Store::open(Arc::new(fs.clone()), Path::new(DIR), options, surroundings())
}

pub fn open(fs: &SimulatedFileSystem) -> Store {
    open_with(fs, OPTIONS).unwrap()
}

/// A photo of three sizes whose bytes depend on `seed`.
pub fn photo(seed: u8) -> Sizes {
    let data =
        |length: usize| Bytes::from_iter((0..length).map(|at| at.to_le_bytes()[0].wrapping_mul(31) ^ seed));
    vec![
        (PhotoSize::Original, MediaType::Png, data(90 + usize::from(seed % 9))),
        (PhotoSize::Large, MediaType::Jpeg, data(50)),
        (PhotoSize::Thumb, MediaType::Jpeg, data(7)),
    ]
}

/// Whether every size of the photo reads as it was written.
pub async fn is_whole(store: &Store, id: &PhotoId, sizes: &Sizes) -> bool {
    for (size, media_type, data) in sizes {
        match store.read(id, *size).await {
            Ok(Some(needle)) if needle.data == *data && needle.media_type == *media_type => {}
            _ => return false,
        }
    }
    true
}

/// Whether no size of the photo can be read.
pub async fn is_gone(store: &Store, id: &PhotoId) -> bool {
    for size in PhotoSize::ALL {
        if !matches!(store.read(id, size).await, Ok(None)) {
            return false;
        }
    }
    true
}

pub fn read_file(fs: &SimulatedFileSystem, path: &str) -> Vec<u8> {
    let file = fs.open(Path::new(path), Access::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

pub fn write_file(fs: &SimulatedFileSystem, path: &str, bytes: &[u8]) {
    let file = fs.open(Path::new(path), Access::ReadWrite).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(&[std::io::IoSlice::new(bytes)], 0).unwrap();
    file.sync().unwrap();
}

pub fn remove_file(fs: &SimulatedFileSystem, path: &str) {
    fs.remove(&PathBuf::from(path)).unwrap();
    fs.sync_dir(Path::new(DIR)).unwrap();
}
