//! The index at ten million needles: its memory, its lookups, and how long a
//! volume of that size takes to open. Prints what it measures:
//!
//! ```text
//! cargo test --release -p haystack --test it ten_million -- --ignored --nocapture
//! ```

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use haystack::group::Group;
use haystack::index::Index;
use haystack::index_file::{Content, IndexFile, IndexRecord};
use haystack::media_type::MediaType;
use haystack::needle::{EncodedNeedle, NeedleHeader, needle_bytes};
use haystack::overseer::Alone;
use haystack::photo_id::{Cookie, PhotoKey, PhotoSize, VolumeId};
use haystack::superblock::Superblock;
use haystack::volume::{Volume, VolumeOptions};
use vfs::{FileSystem, RealFileSystem};

const PHOTO_COUNT: u32 = 2_500_000;
const SIZES: [PhotoSize; 4] = PhotoSize::DERIVED;
const NEEDLE_COUNT: u32 = 4 * PHOTO_COUNT;

/// Uploads of some 300 a second: a key every few milliseconds.
fn key(number: u32) -> PhotoKey {
    PhotoKey::first_at(1_800_000_000_000 + u64::from(number) * 3 + u64::from(number % 3))
}

/// Bytes of data of a size: all photos together fit into one volume.
fn data_bytes(number: u32, size: PhotoSize) -> u32 {
    4096 / size.alternate_key().pow(2) + number % 97 * 8
}

/// Anonymous memory of this process, bytes.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

/// Processor time of this process so far, seconds: what else the machine does
/// takes none of it.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

fn records(number: u32, offset: &mut u64) -> Vec<IndexRecord> {
    let record = |(place, size): (usize, PhotoSize)| {
        let bytes = needle_bytes(data_bytes(number, size));
        let start = *offset;
        *offset += bytes;
        let continued = place + 1 < SIZES.len();
        let content = Content::Needle { key: key(number), alternate_key: size.alternate_key(), continued };
        IndexRecord { offset: start, bytes, content }
    };
    SIZES.into_iter().enumerate().map(record).collect()
}

#[test]
#[ignore = "takes seconds and a third of a gigabyte of disk; it measures"]
fn ten_million_needles_take_little_memory() {
    let before = resident_bytes();
    let begun = cpu_seconds();
    let (mut index, mut offset) = (Index::default(), 64);
    for number in 0..PHOTO_COUNT {
        let mut group = Group::at(offset);
        for (size, record) in SIZES.into_iter().zip(records(number, &mut offset)) {
            group.push(size, record.bytes);
        }
        index.insert(key(number), group);
    }
    let built = cpu_seconds() - begun;
    let needle_count = f64::from(NEEDLE_COUNT);
    let measured = (resident_bytes() - before) / needle_count;
    let counted = index.memory_bytes() as f64 / needle_count;
    let begun = cpu_seconds();
    let lookups = 2_000_000;
    let mut number = 1_u32;
    for _ in 0..lookups {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let key = key(number % PHOTO_COUNT);
        assert!(std::hint::black_box(index.get(std::hint::black_box(key))).is_some());
    }
    let lookup_ns = (cpu_seconds() - begun) * 1e9 / f64::from(lookups);
    println!(
        "ratio photos/index-memory: {measured:.2} bytes a needle of resident memory, {counted:.2} counted; \
         {lookup_ns:.0} ns of processor a lookup; built in {built:.1} s of processor"
    );
    assert!(measured <= 12.0, "{measured} bytes a needle");
    assert!((measured - counted).abs() < 1.5, "{counted} bytes are counted, {measured} measured");
}

#[test]
#[ignore = "takes seconds and a third of a gigabyte of disk; it measures"]
fn ten_million_needles_open_in_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let fs: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
    let superblock = Superblock { logical_volume: VolumeId(1), physical_volume: 7, created_ms: 0 };
    let path = dir.path().join("00000001.volume");
    let volume = fs.create(&path).unwrap();
    let mut index_file = IndexFile::create(&*fs, &path.with_extension("index"), &superblock).unwrap();
    let (mut offset, mut last) = (64, None);
    let mut batch = Vec::new();
    for number in 0..PHOTO_COUNT {
        batch.extend(records(number, &mut offset));
        if batch.len() >= 4096 || number + 1 == PHOTO_COUNT {
            index_file.append(&batch).unwrap();
            last = batch.pop();
            batch.clear();
        }
    }
    // Only the superblock and the last needle are there: the rest is a hole.
    volume.write_all_at(&[std::io::IoSlice::new(&superblock.encode())], 0).unwrap();
    let header = NeedleHeader {
        cookie: Cookie(1),
        key: key(PHOTO_COUNT - 1),
        alternate_key: SIZES[3].alternate_key(),
        deleted: false,
        continued: false,
        media_type: MediaType::Jpeg,
        data_bytes: 0,
    };
    let data = Bytes::from(vec![0; data_bytes(PHOTO_COUNT - 1, SIZES[3]) as usize]);
    let needle = EncodedNeedle::new(header, data, superblock.checksum_seed());
    volume.write_all_at(&needle.slices(), last.unwrap().offset).unwrap();
    drop((volume, index_file));

    let (begun, cpu_begun) = (Instant::now(), cpu_seconds());
    let options = VolumeOptions { volume_bytes_max: 16 << 30, extent_bytes: 0 };
    let volume = Volume::open(&fs, Path::new(&path), options, Arc::new(Alone)).unwrap().unwrap();
    let (opened, cpu) = (begun.elapsed(), cpu_seconds() - cpu_begun);
    assert_eq!(volume.core().index().totals().needle_count, NEEDLE_COUNT as usize);
    println!(
        "photos/open: {NEEDLE_COUNT} needles, {offset} bytes of volume, in {opened:.1?}, {cpu:.1} s of processor"
    );
    assert!(opened.as_secs() < 60);
}
