//! The needle: one size of one photo as it lies in a volume (Haystack, figure 5
//! and table 1).
//!
//! | OFFSET | SIZE | FIELD                                               |
//! |--------|------|-----------------------------------------------------|
//! | 0      | 4    | header magic, `HAYn`                                |
//! | 4      | 8    | cookie                                              |
//! | 12     | 8    | key                                                 |
//! | 20     | 4    | alternate key: the size, 1 to 5; 0 in a tombstone    |
//! | 24     | 1    | flags: 1 deleted, 2 continued                       |
//! | 25     | 1    | media type                                          |
//! | 26     | 2    | reserved, zero                                      |
//! | 28     | 4    | data size n, bytes                                  |
//! | 32     | n    | data                                                |
//! | 32 + n | 4    | footer magic, `nYAH`                                |
//! | 36 + n | 4    | crc32c of bytes 0 to 36 + n, begun at the volume's seed |
//! | 40 + n | 0-7  | padding, zero, to a multiple of 8                   |
//!
//! Little-endian. Departures from the paper:
//!
//! - A delete is a needle of its own, a tombstone, instead of a flag set in
//!   place: a flag cannot be covered by the checksum without two writes that
//!   a power cut can part, and a tombstone goes through the same group commit.
//! - `continued` says that the next needle belongs to the same photo and the
//!   same multi-write. Recovery drops an unfinished photo at the tail whole.
//! - The checksum covers the header too, and begins at a seed made from the
//!   physical volume's random id. A needle that lies in another volume's file,
//!   or inside a photo somebody uploaded, is no needle here.
//!
//! Nothing of a needle is believed before its checksum is right; its size
//! alone is used, within bounds, to find the checksum.

use std::io::IoSlice;

use bytes::Bytes;

use crate::media_type::MediaType;
use crate::photo_id::{Cookie, PhotoKey};

const HEADER_MAGIC: [u8; 4] = *b"HAYn";
const FOOTER_MAGIC: [u8; 4] = *b"nYAH";

const HEADER_MAGIC_AT: usize = 0;
const COOKIE_AT: usize = HEADER_MAGIC_AT + 4;
const KEY_AT: usize = COOKIE_AT + 8;
const ALTERNATE_KEY_AT: usize = KEY_AT + 8;
const FLAGS_AT: usize = ALTERNATE_KEY_AT + 4;
const MEDIA_TYPE_AT: usize = FLAGS_AT + 1;
const RESERVED_AT: usize = MEDIA_TYPE_AT + 1;
const DATA_SIZE_AT: usize = RESERVED_AT + 2;
/// Bytes before a needle's data.
pub const HEADER_BYTES: usize = DATA_SIZE_AT + 4;
const FOOTER_BYTES: usize = 8;
const _: () = assert!(HEADER_BYTES == 32);

/// Needles start and end at multiples of this.
pub const NEEDLE_ALIGNMENT: u64 = 8;

/// The largest data of one needle, bytes. Larger claims are damage.
pub const DATA_BYTES_MAX: u32 = 64 << 20;

const FLAG_DELETED: u8 = 1;
const FLAG_CONTINUED: u8 = 2;

/// Why bytes are no needle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeedleDamage {
    /// The file or buffer ends inside the needle.
    #[error("{found} bytes where a needle needs {expected}")]
    Short {
        /// Bytes there.
        found: u64,
        /// Bytes needed.
        expected: u64,
    },
    /// The first bytes are not a needle's.
    #[error("no needle starts here: found {found:02x?}")]
    HeaderMagic {
        /// The bytes there.
        found: [u8; 4],
    },
    /// The data size is beyond what is ever written.
    #[error("the data size is {found}, more than {DATA_BYTES_MAX}")]
    DataSize {
        /// The size there.
        found: u32,
    },
    /// The checksum is wrong.
    #[error("the checksum is {found:08x} where the bytes make {expected:08x}")]
    Checksum {
        /// The checksum there.
        found: u32,
        /// The checksum of the bytes.
        expected: u32,
    },
    /// A field holds what no needle holds.
    #[error("the {field} is {found:#x}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// Its value.
        found: u32,
    },
    /// A sound needle, but not the one that the index says lies here.
    #[error("the needle of another photo lies here")]
    OtherNeedle,
}

/// A needle without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedleHeader {
    /// The photo's cookie.
    pub cookie: Cookie,
    /// The photo's key.
    pub key: PhotoKey,
    /// The photo's size; 0 in a tombstone, which deletes all of them.
    pub alternate_key: u32,
    /// Whether this is a tombstone.
    pub deleted: bool,
    /// Whether the next needle belongs to the same photo and multi-write.
    pub continued: bool,
    /// What the data is.
    pub media_type: MediaType,
    /// Bytes of data.
    pub data_bytes: u32,
}

impl NeedleHeader {
    /// Bytes that the needle takes in the volume, padding included.
    pub fn needle_bytes(&self) -> u64 {
        needle_bytes(self.data_bytes)
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[HEADER_MAGIC_AT..COOKIE_AT].copy_from_slice(&HEADER_MAGIC);
        header[COOKIE_AT..KEY_AT].copy_from_slice(&self.cookie.0.to_le_bytes());
        header[KEY_AT..ALTERNATE_KEY_AT].copy_from_slice(&self.key.0.to_le_bytes());
        header[ALTERNATE_KEY_AT..FLAGS_AT].copy_from_slice(&self.alternate_key.to_le_bytes());
        header[FLAGS_AT] =
            (u8::from(self.deleted) * FLAG_DELETED) | (u8::from(self.continued) * FLAG_CONTINUED);
        header[MEDIA_TYPE_AT] = self.media_type.tag();
        header[DATA_SIZE_AT..HEADER_BYTES].copy_from_slice(&self.data_bytes.to_le_bytes());
        header
    }

    /// Takes a header whose checksum is known to be right.
    fn decode(header: &[u8; HEADER_BYTES]) -> Result<Self, NeedleDamage> {
        let flags = header[FLAGS_AT];
        if flags & !(FLAG_DELETED | FLAG_CONTINUED) != 0 {
            return Err(NeedleDamage::Field { field: "flag byte", found: flags.into() });
        }
        let tag = header[MEDIA_TYPE_AT];
        let media_type =
            MediaType::from_tag(tag).ok_or(NeedleDamage::Field { field: "media type", found: tag.into() })?;
        let reserved = u16::from_le_bytes([header[RESERVED_AT], header[RESERVED_AT + 1]]);
        if reserved != 0 {
            return Err(NeedleDamage::Field { field: "reserved field", found: reserved.into() });
        }
        Ok(Self {
            cookie: Cookie(u64_at(header, COOKIE_AT)),
            key: PhotoKey(u64_at(header, KEY_AT)),
            alternate_key: u32_at(header, ALTERNATE_KEY_AT),
            deleted: flags & FLAG_DELETED != 0,
            continued: flags & FLAG_CONTINUED != 0,
            media_type,
            data_bytes: u32_at(header, DATA_SIZE_AT),
        })
    }
}

/// Bytes that a needle with `data_bytes` of data takes in the volume.
pub fn needle_bytes(data_bytes: u32) -> u64 {
    (u64::from(data_bytes) + (HEADER_BYTES + FOOTER_BYTES) as u64).next_multiple_of(NEEDLE_ALIGNMENT)
}

/// Bytes of the needle that starts with `prefix`, which holds at least
/// [`HEADER_BYTES`] bytes. Nothing has been verified yet.
///
/// # Errors
///
/// No needle starts like this.
pub fn claimed_needle_bytes(prefix: &[u8]) -> Result<u64, NeedleDamage> {
    let Some(header) = prefix.first_chunk::<HEADER_BYTES>() else {
        return Err(NeedleDamage::Short { found: prefix.len() as u64, expected: HEADER_BYTES as u64 });
    };
    if header[..COOKIE_AT] != HEADER_MAGIC {
        return Err(NeedleDamage::HeaderMagic { found: [header[0], header[1], header[2], header[3]] });
    }
    let data_bytes = u32_at(header, DATA_SIZE_AT);
    if data_bytes > DATA_BYTES_MAX {
        return Err(NeedleDamage::DataSize { found: data_bytes });
    }
    Ok(needle_bytes(data_bytes))
}

/// A needle whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needle<'a> {
    /// Everything but the data.
    pub header: NeedleHeader,
    /// The data.
    pub data: &'a [u8],
}

impl<'a> Needle<'a> {
    /// Takes the needle that fills `bytes` exactly, padding included.
    ///
    /// # Errors
    ///
    /// What is wrong with it; nothing of it may be used.
    pub fn decode(bytes: &'a [u8], seed: u32) -> Result<Self, NeedleDamage> {
        let expected = claimed_needle_bytes(bytes)?;
        if bytes.len() as u64 != expected {
            return Err(NeedleDamage::Short { found: bytes.len() as u64, expected });
        }
        let header = bytes.first_chunk::<HEADER_BYTES>().expect("its size was taken from it");
        let data_end = HEADER_BYTES + u32_at(header, DATA_SIZE_AT) as usize;
        let (covered, rest) = bytes.split_at(data_end + FOOTER_MAGIC.len());
        let checksum = u32_at(rest, 0);
        let expected = crc32c::crc32c_append(seed, covered);
        if checksum != expected {
            return Err(NeedleDamage::Checksum { found: checksum, expected });
        }
        let footer = u32_at(covered, data_end);
        if footer != u32::from_le_bytes(FOOTER_MAGIC) {
            return Err(NeedleDamage::Field { field: "footer magic", found: footer });
        }
        if let Some(padding) = rest[4..].iter().find(|byte| **byte != 0) {
            return Err(NeedleDamage::Field { field: "padding", found: (*padding).into() });
        }
        let header = NeedleHeader::decode(header)?;
        Ok(Self { header, data: &bytes[HEADER_BYTES..data_end] })
    }
}

/// Binds the needle that fills `bytes`, which is sound, to another volume: its
/// checksum begins at `seed` from now on.
pub(crate) fn rebind(bytes: &mut [u8], seed: u32) {
    let checksum_at = HEADER_BYTES + u32_at(bytes, DATA_SIZE_AT) as usize + FOOTER_MAGIC.len();
    let checksum = crc32c::crc32c_append(seed, &bytes[..checksum_at]);
    bytes[checksum_at..checksum_at + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// A needle ready to be written: its data is shared, not copied.
#[derive(Clone, Debug)]
pub struct EncodedNeedle {
    /// What it says of itself.
    pub header: NeedleHeader,
    head: [u8; HEADER_BYTES],
    data: Bytes,
    tail: [u8; FOOTER_BYTES + 7],
    tail_bytes: usize,
}

impl EncodedNeedle {
    /// Encodes `data` under `header`, whose data size is set from it.
    ///
    /// # Panics
    ///
    /// If `data` is larger than [`DATA_BYTES_MAX`].
    pub fn new(header: NeedleHeader, data: Bytes, seed: u32) -> Self {
        let data_bytes = u32::try_from(data.len()).ok().filter(|bytes| *bytes <= DATA_BYTES_MAX);
        let header = NeedleHeader { data_bytes: data_bytes.expect("callers limit the data"), ..header };
        let mut tail = [0; FOOTER_BYTES + 7];
        tail[..4].copy_from_slice(&FOOTER_MAGIC);
        let unpadded = HEADER_BYTES + data.len() + FOOTER_BYTES;
        let tail_bytes = FOOTER_BYTES + unpadded.next_multiple_of(8) - unpadded;
        let mut needle = Self { header, head: header.encode(), data, tail, tail_bytes };
        needle.bind(seed);
        needle
    }

    /// Binds it to the volume whose checksums begin at `seed`.
    pub(crate) fn bind(&mut self, seed: u32) {
        let checksum = crc32c::crc32c_append(crc32c::crc32c_append(seed, &self.head), &self.data);
        let checksum = crc32c::crc32c_append(checksum, &FOOTER_MAGIC);
        self.tail[4..FOOTER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The needle's bytes, in order.
    pub fn slices(&self) -> [IoSlice<'_>; 3] {
        [IoSlice::new(&self.head), IoSlice::new(&self.data), IoSlice::new(&self.tail[..self.tail_bytes])]
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u32 = 0x1234_5678;

    fn header(data_bytes: u32) -> NeedleHeader {
        NeedleHeader {
            cookie: Cookie(0x1111_2222_3333_4444),
            key: PhotoKey(0x5555_6666_7777_8888),
            alternate_key: 2,
            deleted: false,
            continued: true,
            media_type: MediaType::Jpeg,
            data_bytes,
        }
    }

    fn encode(data: &'static [u8]) -> Vec<u8> {
        let encoded = EncodedNeedle::new(header(0), Bytes::from_static(data), SEED);
        encoded.slices().iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn the_bytes_are_pinned() {
        let golden = include_bytes!("../tests/golden/needle.bin");
        assert_eq!(encode(b"hayloft needle"), golden);
        let needle = Needle::decode(golden, SEED).unwrap();
        assert_eq!(needle.header, header(14));
        assert_eq!(needle.data, b"hayloft needle");
    }

    #[test]
    fn every_length_is_padded_to_eight_and_comes_back() {
        for length in 0..40 {
            let data = &b"0123456789012345678901234567890123456789"[..length];
            let bytes = encode(data);
            assert_eq!(bytes.len() % 8, 0);
            assert_eq!(bytes.len() as u64, needle_bytes(u32::try_from(length).unwrap()));
            assert_eq!(Needle::decode(&bytes, SEED).unwrap().data, data);
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let bytes = encode(b"some data of a photo");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Needle::decode(&flipped, SEED).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_seen() {
        let bytes = encode(b"some data of a photo");
        for length in 0..bytes.len() {
            assert!(Needle::decode(&bytes[..length], SEED).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_needle_of_another_volume_is_none_here() {
        assert!(matches!(Needle::decode(&encode(b"x"), SEED + 1), Err(NeedleDamage::Checksum { .. })));
    }

    #[test]
    fn a_needle_that_is_bound_to_another_volume_is_one_there_only() {
        let mut bytes = encode(b"some data");
        rebind(&mut bytes, SEED + 1);
        assert_eq!(Needle::decode(&bytes, SEED + 1).unwrap().data, b"some data");
        assert!(Needle::decode(&bytes, SEED).is_err());
    }

    #[test]
    fn a_size_beyond_the_limit_is_damage() {
        let mut bytes = encode(b"x");
        bytes[DATA_SIZE_AT..HEADER_BYTES].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Needle::decode(&bytes, SEED), Err(NeedleDamage::DataSize { found: u32::MAX }));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(mut bytes: Vec<u8>, magic: bool) {
            if magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&HEADER_MAGIC);
            }
            let _ = Needle::decode(&bytes, SEED);
        }
    }
}
