//! A store against a model: appends, overwrites, deletes, compactions, crashes
//! and openings in any order, many at once. A failure prints its seed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use haystack::PhotoSize;
use haystack::compaction::CompactionTerms;
use haystack::media_type::MediaType;
use haystack::overseer::Alone;
use haystack::pace::{Pace, Stop};
use haystack::photo_id::{Cookie, PhotoKey, VolumeId};
use haystack::superblock::Superblock;
use haystack::volume::{Volume, VolumeOptions};
use haystack::writer::Purpose;
use vfs::{FileSystem, SimulatedFileSystem};

const OPTIONS: VolumeOptions = VolumeOptions { volume_bytes_max: 1 << 30, extent_bytes: 0 };
const PATH: &str = "/00000001.volume";
/// Tasks that write at once, each to keys of its own, so that each key's history is in order.
const WRITER_COUNT: u64 = 4;
const STEP_COUNT: usize = 30;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What a key was last known to be: the version of its photo, or deleted.
type Model = BTreeMap<u64, Option<u64>>;

fn sizes(key: u64, version: u64) -> Vec<(PhotoSize, MediaType, Bytes)> {
    let data =
        |length: u64| Bytes::from(format!("{key} {version} ").repeat(usize::try_from(length).unwrap()));
    vec![
        (PhotoSize::Original, MediaType::Jpeg, data(3 + version % 7)),
        (PhotoSize::Large, MediaType::Jpeg, data(2)),
        (PhotoSize::Thumb, MediaType::Jpeg, data(1)),
    ]
}

fn open(fs: &SimulatedFileSystem) -> Arc<Volume> {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    Arc::new(Volume::open(&fs, Path::new(PATH), OPTIONS, Arc::new(Alone)).unwrap().unwrap())
}

fn create(fs: &SimulatedFileSystem) -> Arc<Volume> {
    let fs: Arc<dyn FileSystem> = Arc::new(fs.clone());
    let superblock = Superblock { logical_volume: VolumeId(1), physical_volume: 1, created_ms: 0 };
    Arc::new(Volume::create(&fs, Path::new("/"), superblock, OPTIONS, Arc::new(Alone)).unwrap())
}

fn compact(volume: &Arc<Volume>, number: u64) -> tokio::task::JoinHandle<()> {
    let volume = Arc::clone(volume);
    let pace = Pace::new(0, Stop::default());
    let terms = CompactionTerms { physical_volume: 2 + number, now_ms: number, pace };
    tokio::task::spawn_blocking(move || _ = volume.compact(terms).unwrap())
}

fn check(volume: &Volume, models: &[Model], context: &str) {
    for (key, version) in models.iter().flatten() {
        let found = volume.locate(PhotoKey(*key), PhotoSize::Thumb);
        let Some(version) = version else {
            assert!(found.is_none(), "{context}: key {key} is back");
            continue;
        };
        for (size, _, data) in sizes(*key, *version) {
            let found = volume.locate(PhotoKey(*key), size);
            let found = found.unwrap_or_else(|| panic!("{context}: key {key} is lost"));
            assert_eq!(found.read().unwrap().data, data, "{context}: key {key}");
        }
    }
    let live = models.iter().flatten().filter(|(_, version)| version.is_some()).count();
    assert_eq!(volume.core().index().totals().photo_count, live, "{context}");
}

/// Writes new photos, writes some over, deletes some. A key that was deleted is
/// never used again, as no id is.
async fn write(volume: Arc<Volume>, mut model: Model, mut random: Random, share: u64) -> Model {
    for _ in 0..STEP_COUNT {
        let living: Vec<u64> =
            model.iter().filter(|(_, version)| version.is_some()).map(|(key, _)| *key).collect();
        let version = random.below(1 << 40);
        let some = |random: &mut Random| living[usize::try_from(random.below(living.len() as u64)).unwrap()];
        match random.below(4) {
            0 if !living.is_empty() => {
                let key = some(&mut random);
                volume.delete(PhotoKey(key), Cookie(key)).await.unwrap();
                model.insert(key, None);
            }
            choice => {
                let is_new = choice < 3 || living.is_empty();
                let key = if is_new { model.len() as u64 * WRITER_COUNT + share } else { some(&mut random) };
                volume
                    .append(PhotoKey(key), Cookie(key), &sizes(key, version), Purpose::Upload)
                    .await
                    .unwrap();
                model.insert(key, Some(version));
            }
        }
    }
    model
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compactions_under_overwrites_and_deletes_lose_nothing_and_bring_nothing_back() {
    for seed in 0..20 {
        let fs = SimulatedFileSystem::new();
        let mut random = Random(seed);
        let (mut volume, mut models) =
            (create(&fs), vec![Model::new(); usize::try_from(WRITER_COUNT).unwrap()]);
        for round in 0..6 {
            let compaction = compact(&volume, seed * 100 + round);
            let writers: Vec<_> = models
                .drain(..)
                .zip(0..)
                .map(|(model, share)| {
                    let random = Random(random.below(u64::MAX));
                    tokio::spawn(write(Arc::clone(&volume), model, random, share))
                })
                .collect();
            for writer in writers {
                models.push(writer.await.unwrap());
            }
            let context = format!("seed {seed}, round {round}");
            check(&volume, &models, &context);
            // Power may go while the compaction still runs.
            let image = fs.image(random.below(1000));
            check(&open(&image), &models, &format!("{context}, after a power cut"));
            compaction.await.unwrap();
            check(&volume, &models, &format!("{context}, compacted"));
            if random.below(2) == 0 {
                volume.close();
                drop(volume);
                volume = open(&fs);
                check(&volume, &models, &format!("{context}, opened again"));
            }
        }
    }
}
