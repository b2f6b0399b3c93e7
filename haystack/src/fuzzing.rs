//! The decoders of this crate's formats, for `haystack/fuzz`: each takes any
//! bytes and must return, whatever they are, without having allocated much more.
//! Checksums are put right first, since a fuzzer would never get past them.

#[cfg(test)]
mod replay;

use std::io::IoSlice;
use std::path::Path;

use bytes::Bytes;
use vfs::{FileSystem, SimulatedFileSystem};

use crate::http::multipart::{Multipart, Step};
use crate::imaging::decode::decode;
use crate::index_file::IndexRecord;
use crate::media_type::MediaType;
use crate::needle::{self, HEADER_BYTES, NEEDLE_ALIGNMENT, Needle, claimed_needle_bytes};
use crate::photo_id::{PhotoId, VolumeId};
use crate::recovery::{Recovered, recover};
use crate::scanner::Scanner;
use crate::superblock::{SUPERBLOCK_BYTES, Superblock};

/// Takes any bytes, and returns.
pub type Decoder = fn(&[u8]);

/// Each decoder and the name of its fuzz target.
pub const TARGETS: [(&str, Decoder); 7] = [
    ("image_header", image_header),
    ("index_file", index_file),
    ("multipart", multipart),
    ("needle", needle),
    ("photo_id", photo_id),
    ("superblock", superblock),
    ("volume", volume),
];

const SUPERBLOCK: Superblock =
    Superblock { logical_volume: VolumeId(1), physical_volume: 7, created_ms: 1_800_000_000_000 };

/// Pixels of the images that are decoded, at most.
const PIXEL_COUNT_MAX: u64 = 64 << 10;

/// A form, in pieces of as many bytes as the first byte says.
pub fn multipart(bytes: &[u8]) {
    let Some((&piece_bytes, body)) = bytes.split_first() else { return };
    let mut form = Multipart::new("multipart/form-data; boundary=B").expect("it names a boundary");
    let mut pieces = body.chunks(usize::from(piece_bytes).max(1));
    let mut data_bytes = 0;
    loop {
        match form.step() {
            Ok(Step::More) => match pieces.next() {
                Some(piece) => form.push(Bytes::copy_from_slice(piece)),
                None => return,
            },
            Ok(Step::Data(data)) => {
                assert!(!data.is_empty(), "a step takes something");
                data_bytes += data.len();
                assert!(data_bytes <= body.len());
            }
            Ok(Step::Part(_) | Step::PartEnd) => {}
            Ok(Step::End) | Err(_) => return,
        }
    }
}

/// One needle.
pub fn needle(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let seed = SUPERBLOCK.checksum_seed();
    if claimed_needle_bytes(&bytes) == Ok(bytes.len() as u64) {
        needle::rebind(&mut bytes, seed);
    }
    if let Ok(found) = Needle::decode(&bytes, seed) {
        assert_eq!(found.header.needle_bytes(), bytes.len() as u64);
        assert_eq!(found.data.len(), found.header.data_bytes as usize);
    }
}

/// A superblock.
pub fn superblock(bytes: &[u8]) {
    let Some(first) = bytes.first_chunk::<SUPERBLOCK_BYTES>() else { return };
    let mut bytes = *first;
    let (covered, checksum) = bytes.split_at_mut(SUPERBLOCK_BYTES - 4);
    checksum.copy_from_slice(&crc32c::crc32c(covered).to_le_bytes());
    if let Ok(superblock) = Superblock::decode(&bytes) {
        assert_eq!(superblock.encode(), bytes);
    }
}

/// Records of an index file.
pub fn index_file(bytes: &[u8]) {
    let seed = SUPERBLOCK.checksum_seed();
    for record in bytes.as_chunks().0 {
        let mut record = *record;
        IndexRecord::put_checksum(&mut record, seed);
        if let Some(decoded) = IndexRecord::decode(&record, seed) {
            assert!(decoded.end() > decoded.offset);
        }
    }
}

/// A photo id as a URL has it.
pub fn photo_id(bytes: &[u8]) {
    if let Ok(id) = PhotoId::decode(bytes) {
        assert_eq!(id.encode(), bytes);
    }
}

/// What may be an image: the first byte says of which kind.
pub fn image_header(bytes: &[u8]) {
    let Some((kind, image)) = bytes.split_first() else { return };
    let media_type =
        [MediaType::Jpeg, MediaType::Png, MediaType::Webp, MediaType::Gif][usize::from(*kind % 4)];
    if let Ok(picture) = decode(image, media_type, PIXEL_COUNT_MAX) {
        let (width, height) = picture.shown_size();
        assert!(u64::from(width) * u64::from(height) <= PIXEL_COUNT_MAX);
    }
}

/// What lies behind the superblock of a volume that is opened, twice: the second
/// time finds what the first one has left.
pub fn volume(bytes: &[u8]) {
    let fs = SimulatedFileSystem::new();
    let (path, index_path) = (Path::new("/1.volume"), Path::new("/1.index"));
    let file = fs.create(path).expect("nothing fails here");
    let mut body = bytes.to_vec();
    put_checksums(&mut body);
    let slices = [IoSlice::new(&SUPERBLOCK.encode()), IoSlice::new(&body)].map(|slice| slice.to_vec());
    file.write_all_at(&[IoSlice::new(&slices.concat())], 0).expect("nothing fails here");
    let open = || recover(&fs, &file, index_path, &SUPERBLOCK).expect("damage is no failure");
    let Recovered { index, tail_offset, .. } = open();
    assert_eq!(file.len().expect("nothing fails here"), tail_offset);
    let again = open();
    assert_eq!((again.index.totals(), again.tail_offset), (index.totals(), tail_offset));
    assert_eq!((again.cut_bytes, again.orphan_count), (0, 0));
    fs.remove(index_path).expect("it was created");
    let without_index = open();
    assert_eq!((without_index.index.totals(), without_index.tail_offset), (index.totals(), tail_offset));
    let mut scanner = Scanner::new(file, SUPERBLOCK.checksum_seed(), tail_offset);
    for (key, group) in index
        .keys_after(None, usize::MAX)
        .into_iter()
        .filter_map(|known| Some((known.key, index.get(known.key)?)))
    {
        for location in group.sizes().filter_map(|size| group.locate(size)) {
            assert!(location.offset + location.needle_bytes <= tail_offset, "{key:?}");
            let _ = scanner.needle_at(location.offset).expect("nothing fails here");
        }
    }
}

/// Makes what claims to be a needle one, so that more than the first bytes are looked at.
fn put_checksums(body: &mut [u8]) {
    let mut at = 0;
    while at + HEADER_BYTES <= body.len() {
        let claimed = claimed_needle_bytes(&body[at..]).ok().and_then(|bytes| usize::try_from(bytes).ok());
        match claimed.filter(|claimed| at + claimed <= body.len()) {
            Some(claimed) => {
                needle::rebind(&mut body[at..at + claimed], SUPERBLOCK.checksum_seed());
                at += claimed;
            }
            None => at += usize::try_from(NEEDLE_ALIGNMENT).expect("small"),
        }
    }
}
