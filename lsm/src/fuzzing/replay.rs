//! The fuzz targets without a fuzzer: what the encoders make, what a fuzzer once
//! found, and mutations of both, the same in every run.
//!
//! `HAYLOFT_TEST_SEEDS=200` runs two hundred times as many mutations. What a
//! fuzzer found is in `fuzz/seeds`, a directory a target.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Decoder, TARGETS};
use crate::commit_log::segment::encode_record;
use crate::internal_key::Kind;
use crate::range_tombstone::{FragmentedTombstones, RangeTombstone};
use crate::sstable::block_builder::BlockBuilder;
use crate::sstable::block_index::{BlockIndexBuilder, DataBlock};
use crate::sstable::filter::{FilterBuilder, key_hash};
use crate::sstable::format::{BlockHandle, BlockSealer, FOOTER_BYTES};
use crate::sstable::testing::{Random, key, random_entries, write_table};
use crate::sstable::{Compression, TableOptions};
use crate::{FilterKey, FilterKind, TreeId, WriteBatch, internal_key, varint};

/// Mutations of each target's inputs, by default.
const MUTATIONS: usize = 20_000;

fn seed_factor() -> usize {
    let given = std::env::var("HAYLOFT_TEST_SEEDS").ok();
    given.map_or(1, |given| given.parse().expect("HAYLOFT_TEST_SEEDS is a number"))
}

/// Bytes that the target decodes, made by the encoders.
fn samples(target: &str) -> Vec<Vec<u8>> {
    let mut random = Random::new(5);
    let random = &mut random;
    match target {
        "batch" => vec![batch().encoded().to_vec()],
        "block" => [1, 4, 16].map(|interval| block(random, interval)).to_vec(),
        "block_envelope" => [Compression::Raw, Compression::Lz4].map(|wish| envelope(random, wish)).to_vec(),
        "block_index" => block_indexes(),
        "filter" => [
            filters(FilterKind::Bloom, FilterKey::WholeKey),
            filters(FilterKind::BlockedBloom, FilterKey::ThroughTerminator([0, 1])),
        ]
        .concat(),
        "footer_and_properties" => footer_and_properties(random),
        "damaged_log" | "frames" => (0..4).map(|_| (0..200).map(|_| random.byte() % 60).collect()).collect(),
        "log_segment" => {
            let golden = payloads(include_bytes!("../../tests/golden/commit-log-v1"));
            let mut group = Vec::new();
            encode_record(&mut group, 5, batch().len(), batch().encoded());
            encode_record(&mut group, 9, batch().len(), batch().encoded());
            [golden, vec![group]].concat()
        }
        "manifest" => {
            let (v1, v2): (&[u8], &[u8]) = (
                include_bytes!("../../tests/golden/manifest-v1"),
                include_bytes!("../../tests/golden/manifest-v2"),
            );
            [payloads(v1), payloads(v2)].concat()
        }
        "range_tombstones" => vec![tombstones()],
        "varints" => {
            let mut bytes = Vec::new();
            for shift in 0..64 {
                varint::encode(&mut bytes, u64::MAX >> shift);
            }
            vec![bytes]
        }
        _ => panic!("{target} has no samples"),
    }
}

fn batch() -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(TreeId(1), b"key", b"value");
    batch.merge(TreeId(300), b"counter", b"1");
    batch.delete(TreeId(1 << 40), b"");
    batch.delete_range(TreeId(1), b"a", b"b");
    batch
}

fn block(random: &mut Random, restart_interval: usize) -> Vec<u8> {
    let mut builder = BlockBuilder::new(restart_interval);
    let is_tagged = restart_interval > 1;
    for (key, value) in random_entries(random, 20) {
        builder.add(&key, &value);
        if is_tagged {
            builder.tag(key_hash(internal_key::user_key(&key)));
        }
    }
    builder.finish().to_vec()
}

fn envelope(random: &mut Random, wish: Compression) -> Vec<u8> {
    let mut output = Vec::new();
    BlockSealer::new().seal(&[block(random, 16), vec![7; 200]].concat(), wish, &mut output);
    output
}

/// An index of one level, and the top of one of two.
fn block_indexes() -> Vec<Vec<u8>> {
    let index = |partition_bytes| {
        let mut builder = BlockIndexBuilder::new(partition_bytes);
        for number in 0..20_u8 {
            let handle = BlockHandle { offset: 100 * u64::from(number), stored_bytes: 95 };
            let block = DataBlock { handle, ordinal: number.into(), compression: Compression::Raw };
            builder.add(&key(&[b'a' + number], 9, Kind::Put), block);
            if builder.is_partition_full() {
                builder.finish_partition();
                builder.partition_written(handle);
            }
        }
        builder.finish_top().to_vec()
    };
    vec![index(usize::MAX), index(60)]
}

fn filters(kind: FilterKind, rule: FilterKey) -> Vec<Vec<u8>> {
    let mut builder = FilterBuilder::new(kind, rule);
    for row in 0..50 {
        builder.add(format!("{row:03}\0\u{1}cell").as_bytes());
    }
    let partition = builder.finish_partition().expect("keys were added");
    builder.partition_written(BlockHandle { offset: 77, stored_bytes: 99 });
    vec![partition, builder.finish_index().expect("there is a partition")]
}

fn footer_and_properties(random: &mut Random) -> Vec<Vec<u8>> {
    let fs = vfs::SimulatedFileSystem::new();
    let entries = random_entries(random, 50);
    let finished = write_table(&fs, Path::new("/table"), &TableOptions::default(), &entries, &[]);
    let mut footer = vec![0; FOOTER_BYTES];
    finished.file.read_exact_at(&mut footer, finished.file_bytes - FOOTER_BYTES as u64).expect("it has one");
    let mut properties = Vec::new();
    finished.properties.encode(&mut properties);
    vec![footer, properties]
}

fn tombstones() -> Vec<u8> {
    let tombstone = |start: &'static [u8], end: &'static [u8], sequence| RangeTombstone {
        start: Bytes::from_static(start),
        end: Bytes::from_static(end),
        sequence,
    };
    let all = [tombstone(b"a", b"m", 5), tombstone(b"c", b"z", 9), tombstone(b"c", b"d", 2)];
    let mut bytes = Vec::new();
    FragmentedTombstones::new(&all).encode(&mut bytes);
    bytes
}

/// The payloads of the frames in a file.
fn payloads(file: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &file[crate::frame::PRELUDE_BYTES..];
    let mut payloads = Vec::new();
    while let Some((header, behind)) = rest.split_first_chunk::<{ crate::frame::HEADER_BYTES }>() {
        let length = u32::from_le_bytes(header[4..8].try_into().expect("four bytes")) as usize;
        let (payload, behind) = behind.split_at(length);
        payloads.push(payload.to_vec());
        rest = behind;
    }
    payloads
}

/// What a fuzzer found for the target, in the order of the files' names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("listed").path()).collect();
    paths.sort_unstable();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

/// One or a few changes: bits, bytes, whole numbers, pieces that go, come twice or come from `other`.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let length = random.below(bytes.len() - at + 1).min(1 + random.below(40));
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..at + length)),
            2 => {
                let piece = bytes[at..at + length].to_vec();
                bytes.splice(at..at, piece);
            }
            3 => {
                let from = random.below(other.len() + 1);
                let piece = other[from..].iter().copied().take(length);
                bytes.splice(at..at, piece);
            }
            4 => {
                let extreme = [0, 1, 0x7f, 0x80, u64::from(u32::MAX), 1 << 31, u64::MAX][random.below(7)];
                let width = [1, 4, 8][random.below(3)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&extreme.to_le_bytes()[..width]);
            }
            5 => bytes.insert(at, random.byte()),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
}

fn run(target: &str, decode: Decoder, bytes: &[u8]) {
    if catch_unwind(|| decode(bytes)).is_err() {
        panic!("{target} panics on {} bytes: {}", bytes.len(), bytes.escape_ascii());
    }
}

#[test]
fn no_decoder_panics_on_what_fuzzers_found_nor_on_mutations() {
    for (target, decode) in TARGETS {
        let inputs = [samples(target), seeds(target)].concat();
        inputs.iter().for_each(|input| run(target, decode, input));
        let mut random = Random::new(17);
        for _ in 0..MUTATIONS * seed_factor() {
            let other = random.below(inputs.len());
            let mut bytes = inputs[random.below(inputs.len())].clone();
            mutate(&mut random, &mut bytes, &inputs[other]);
            run(target, decode, &bytes);
        }
    }
}

#[test]
fn no_decoder_panics_on_random_bytes() {
    let mut random = Random::new(17);
    for round in 0..20_000 {
        // Small numbers are likelier to look like lengths and counts.
        let bound = [4, 16, 256][round % 3];
        let bytes: Vec<u8> =
            (0..random.below(120)).map(|_| u8::try_from(random.below(bound)).expect("below 256")).collect();
        for (target, decode) in TARGETS {
            run(target, decode, &bytes);
        }
    }
}

#[test]
#[ignore = "gives a fuzzer the encoders' samples to begin with, in fuzz/corpus"]
fn samples_are_written_for_a_fuzzer() {
    for (target, _) in TARGETS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&dir).expect("created");
        for (number, sample) in samples(target).iter().enumerate() {
            std::fs::write(dir.join(format!("sample-{number}")), sample).expect("written");
        }
    }
}
