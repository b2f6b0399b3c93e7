//! The fuzz targets without a fuzzer: what the encoders make, what a fuzzer once
//! found, and mutations of both, the same in every run.
//!
//! `HAYLOFT_TEST_SEEDS=200` runs two hundred times as many mutations. What a
//! fuzzer found is in `fuzz/seeds`, a directory a target.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Decoder, SUPERBLOCK, TARGETS};
use crate::media_type::MediaType;
use crate::needle::{EncodedNeedle, NeedleHeader};
use crate::photo_id::{Cookie, PhotoId, PhotoKey, VolumeId};

/// Mutations of each target's inputs, by default.
const MUTATIONS: usize = 3_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }
}

fn encoded(alternate_key: u32, deleted: bool, continued: bool, key: u64) -> Vec<u8> {
    let header = NeedleHeader {
        cookie: Cookie(9),
        key: PhotoKey(key),
        alternate_key,
        deleted,
        continued,
        media_type: MediaType::Jpeg,
        data_bytes: 0,
    };
    let data = Bytes::from(vec![7; if deleted { 0 } else { 20 + alternate_key as usize }]);
    let needle = EncodedNeedle::new(header, data, SUPERBLOCK.checksum_seed());
    needle.slices().iter().flat_map(|slice| slice.to_vec()).collect()
}

/// Bytes that the target decodes, made by the encoders.
fn samples(target: &str) -> Vec<Vec<u8>> {
    match target {
        "image_header" => vec![
            vec![0, 0xff, 0xd8, 0xff, 0xe0, 0, 16],
            b"\x01\x89PNG\r\n\x1a\n".to_vec(),
            b"\x03GIF89a\x01\0\x01\0".to_vec(),
        ],
        "index_file" => vec![include_bytes!("../../tests/golden/index_file.bin")[32..].to_vec()],
        "multipart" => vec![
            b"\x05--B\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\none\r\n--\r\n--B--\r\n".to_vec(),
            b"\x40--B\r\ncontent-disposition: form-data; name=b; filename*=UTF-8''x%20y.jpg\r\n\r\n\r\n\r\n--B\r\n\
              Content-Disposition: form-data; name=\"c\"; filename=\"\\\"\"\r\n\r\n\r\n--B--".to_vec(),
        ],
        "needle" => {
            vec![include_bytes!("../../tests/golden/needle.bin").to_vec(), encoded(0, true, false, 5)]
        }
        "photo_id" => {
            let id = PhotoId { volume: VolumeId(1), key: PhotoKey(2), cookie: Cookie(3) };
            vec![id.encode().to_vec()]
        }
        "superblock" => vec![include_bytes!("../../tests/golden/superblock.bin").to_vec()],
        "volume" => vec![
            [encoded(1, false, true, 5), encoded(2, false, true, 5), encoded(5, false, false, 5)].concat(),
            [encoded(1, false, false, 5), encoded(0, true, false, 5), encoded(1, false, false, 6)].concat(),
            [
                encoded(2, false, false, 8),
                vec![0; 64],
                encoded(3, false, true, 8),
                encoded(4, false, false, 9),
            ]
            .concat(),
        ],
        _ => panic!("{target} has no samples"),
    }
}

/// What a fuzzer found for the target, in the order of the files' names.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("listed").path()).collect();
    paths.sort_unstable();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

/// One or a few changes: bits, bytes, pieces that go, come twice or come from `other`.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let length = random.below(bytes.len() - at + 1).min(1 + random.below(40));
        match random.below(6) {
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
    let factor = std::env::var("HAYLOFT_TEST_SEEDS").ok();
    let factor: usize = factor.map_or(1, |given| given.parse().expect("HAYLOFT_TEST_SEEDS is a number"));
    for (target, decode) in TARGETS {
        let inputs = [samples(target), seeds(target)].concat();
        inputs.iter().for_each(|input| run(target, decode, input));
        let mut random = Random(17);
        for _ in 0..MUTATIONS * factor {
            let other = random.below(inputs.len());
            let mut bytes = inputs[random.below(inputs.len())].clone();
            mutate(&mut random, &mut bytes, &inputs[other]);
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
