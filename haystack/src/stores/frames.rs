//! Photos, keys and burials as bytes between processes. Every piece has a
//! checksum, so that what a network, a driver or a bug changed is refused.
//!
//! A frame is what a store has, or shall have, under one key:
//!
//! | OFFSET | SIZE | FIELD                                              |
//! |--------|------|----------------------------------------------------|
//! | 0      | 1    | kind: 1 photo, 2 absent, 3 damaged                 |
//! | 1      | 1    | needle count n, 0 to 5; 0 unless it is a photo      |
//! | 2      | 2    | reserved, zero                                     |
//! | 4      | 8    | key                                                |
//! | 12     | 8    | cookie; 0 unless it is a photo                     |
//! | 20     | 12 n | a head for each needle                             |
//! | 20+12n | 4    | crc32c of all before                               |
//! | 24+12n |      | the needles' data, one after the other             |
//!
//! A needle's head:
//!
//! | OFFSET | SIZE | FIELD                       |
//! |--------|------|-----------------------------|
//! | 0      | 1    | size, 1 to 5, rising         |
//! | 1      | 1    | media type                  |
//! | 2      | 2    | reserved, zero              |
//! | 4      | 4    | data size, bytes            |
//! | 8      | 4    | crc32c of the data          |
//!
//! A list is entries of one length and then the crc32c of all of them: a key of
//! 8 bytes and a byte that is 1 if it is buried; or a key and a cookie. A list
//! of keys alone has entries of 8 bytes. Little-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Burial, Found, PhotoNeedles};
use crate::index::KnownKey;
use crate::media_type::MediaType;
use crate::needle::DATA_BYTES_MAX;
use crate::photo_id::{Cookie, PhotoKey, PhotoSize};

const FIXED_BYTES: usize = 20;
const NEEDLE_HEAD_BYTES: usize = 12;
const CHECKSUM_BYTES: usize = 4;

const KIND_PHOTO: u8 = 1;
const KIND_ABSENT: u8 = 2;
const KIND_DAMAGED: u8 = 3;

const KNOWN_BYTES: usize = 9;
const BURIAL_BYTES: usize = 16;
const KEY_BYTES: usize = 8;

/// Bytes that are no frame or list: they were changed on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// They end too early, or go on too long.
    #[error("{found} bytes where {expected} are needed")]
    Length {
        /// Bytes there.
        found: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// A checksum is wrong.
    #[error("the checksum is wrong")]
    Checksum,
    /// A field holds what it never holds.
    #[error("the {field} is {found}")]
    Field {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: u64,
    },
}

/// The bytes of `found`, in pieces that share its data.
pub fn encode_frame(found: &Found, pieces: &mut Vec<Bytes>) {
    let (kind, key, cookie, sizes): (_, _, _, &[_]) = match found {
        Found::Photo(photo) => (KIND_PHOTO, photo.key, photo.cookie, &photo.sizes),
        Found::Absent(key) => (KIND_ABSENT, *key, Cookie(0), &[]),
        Found::Damaged(key) => (KIND_DAMAGED, *key, Cookie(0), &[]),
    };
    let mut head = BytesMut::with_capacity(FIXED_BYTES + NEEDLE_HEAD_BYTES * sizes.len() + CHECKSUM_BYTES);
    head.put_u8(kind);
    head.put_u8(u8::try_from(sizes.len()).expect("a photo has five sizes at most"));
    head.put_u16_le(0);
    head.put_u64_le(key.0);
    head.put_u64_le(cookie.0);
    for (size, media_type, data) in sizes {
        head.put_u8(u8::try_from(size.alternate_key()).expect("1 to 5"));
        head.put_u8(media_type.tag());
        head.put_u16_le(0);
        head.put_u32_le(u32::try_from(data.len()).expect("callers limit the data"));
        head.put_u32_le(crc32c::crc32c(data));
    }
    head.put_u32_le(crc32c::crc32c(&head));
    pieces.push(head.freeze());
    pieces.extend(sizes.iter().map(|(_, _, data)| data.clone()).filter(|data| !data.is_empty()));
}

/// Takes the frame at the front of `bytes`, and every needle's data with it.
///
/// # Errors
///
/// What is wrong with it; nothing after it can be taken either.
pub fn decode_frame(bytes: &mut Bytes) -> Result<Found, BadFrame> {
    let mut head = take_head(bytes)?;
    let kind = head.get_u8();
    let needle_count = head.get_u8();
    reserved(head.get_u16_le())?;
    let key = PhotoKey(head.get_u64_le());
    let cookie = Cookie(head.get_u64_le());
    let mut sizes: Vec<(PhotoSize, MediaType, Bytes)> = Vec::with_capacity(usize::from(needle_count));
    for _ in 0..needle_count {
        let tag = head.get_u8();
        let size = PhotoSize::from_alternate_key(tag.into()).ok_or(field("size", tag))?;
        if sizes.last().is_some_and(|(last, _, _)| *last >= size) {
            return Err(field("order of sizes", tag));
        }
        let tag = head.get_u8();
        let media_type = MediaType::from_tag(tag).ok_or(field("media type", tag))?;
        reserved(head.get_u16_le())?;
        let data_bytes = head.get_u32_le();
        if data_bytes > DATA_BYTES_MAX {
            return Err(BadFrame::Field { field: "data size", found: data_bytes.into() });
        }
        let data = take(bytes, data_bytes as usize)?;
        if crc32c::crc32c(&data) != head.get_u32_le() {
            return Err(BadFrame::Checksum);
        }
        sizes.push((size, media_type, data));
    }
    match kind {
        KIND_PHOTO if !sizes.is_empty() => Ok(Found::Photo(PhotoNeedles { key, cookie, sizes })),
        KIND_ABSENT if sizes.is_empty() => Ok(Found::Absent(key)),
        KIND_DAMAGED if sizes.is_empty() => Ok(Found::Damaged(key)),
        _ => Err(field("kind", kind)),
    }
}

/// The head of a frame, whose checksum is right.
fn take_head(bytes: &mut Bytes) -> Result<Bytes, BadFrame> {
    let needle_count = *bytes.get(1).ok_or(BadFrame::Length { found: bytes.len(), expected: FIXED_BYTES })?;
    if usize::from(needle_count) > PhotoSize::COUNT {
        return Err(field("needle count", needle_count));
    }
    let mut head = take(bytes, FIXED_BYTES + NEEDLE_HEAD_BYTES * usize::from(needle_count) + CHECKSUM_BYTES)?;
    let mut checksum = head.split_off(head.len() - CHECKSUM_BYTES);
    if checksum.get_u32_le() != crc32c::crc32c(&head) {
        return Err(BadFrame::Checksum);
    }
    Ok(head)
}

/// Takes every frame in `bytes`.
///
/// # Errors
///
/// As [`decode_frame`].
pub fn decode_frames(mut bytes: Bytes) -> Result<Vec<Found>, BadFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        frames.push(decode_frame(&mut bytes)?);
    }
    Ok(frames)
}

fn take(bytes: &mut Bytes, expected: usize) -> Result<Bytes, BadFrame> {
    if bytes.len() < expected {
        return Err(BadFrame::Length { found: bytes.len(), expected });
    }
    Ok(bytes.split_to(expected))
}

fn reserved(found: u16) -> Result<(), BadFrame> {
    if found == 0 { Ok(()) } else { Err(BadFrame::Field { field: "reserved field", found: found.into() }) }
}

fn field(field: &'static str, found: u8) -> BadFrame {
    BadFrame::Field { field, found: found.into() }
}

fn sealed(mut list: BytesMut) -> Bytes {
    list.put_u32_le(crc32c::crc32c(&list));
    list.freeze()
}

/// The entries of a list whose checksum is right.
fn entries(mut list: Bytes, entry_bytes: usize) -> Result<Bytes, BadFrame> {
    let whole = list.len() >= CHECKSUM_BYTES && (list.len() - CHECKSUM_BYTES).is_multiple_of(entry_bytes);
    if !whole {
        return Err(BadFrame::Length { found: list.len(), expected: entry_bytes });
    }
    let mut checksum = list.split_off(list.len() - CHECKSUM_BYTES);
    if checksum.get_u32_le() == crc32c::crc32c(&list) { Ok(list) } else { Err(BadFrame::Checksum) }
}

/// A list of what a replica knows.
pub fn encode_known(known: &[KnownKey]) -> Bytes {
    let mut list = BytesMut::with_capacity(known.len() * KNOWN_BYTES + CHECKSUM_BYTES);
    for known in known {
        list.put_u64_le(known.key.0);
        list.put_u8(known.buried.into());
    }
    sealed(list)
}

/// Takes a list of what a replica knows.
///
/// # Errors
///
/// What is wrong with it.
pub fn decode_known(list: Bytes) -> Result<Vec<KnownKey>, BadFrame> {
    let mut list = entries(list, KNOWN_BYTES)?;
    let mut known = Vec::with_capacity(list.len() / KNOWN_BYTES);
    while !list.is_empty() {
        let key = PhotoKey(list.get_u64_le());
        known.push(match list.get_u8() {
            0 => KnownKey { key, buried: false },
            1 => KnownKey { key, buried: true },
            other => return Err(field("state of a key", other)),
        });
    }
    Ok(known)
}

/// A list of photos that shall be deleted.
pub fn encode_burials(burials: &[Burial]) -> Bytes {
    let mut list = BytesMut::with_capacity(burials.len() * BURIAL_BYTES + CHECKSUM_BYTES);
    for burial in burials {
        list.put_u64_le(burial.key.0);
        list.put_u64_le(burial.cookie.0);
    }
    sealed(list)
}

/// Takes a list of photos that shall be deleted.
///
/// # Errors
///
/// What is wrong with it.
pub fn decode_burials(list: Bytes) -> Result<Vec<Burial>, BadFrame> {
    let mut list = entries(list, BURIAL_BYTES)?;
    let mut burials = Vec::with_capacity(list.len() / BURIAL_BYTES);
    while !list.is_empty() {
        let key = PhotoKey(list.get_u64_le());
        burials.push(Burial { key, cookie: Cookie(list.get_u64_le()) });
    }
    Ok(burials)
}

/// A list of keys.
pub fn encode_keys(keys: &[PhotoKey]) -> Bytes {
    let mut list = BytesMut::with_capacity(keys.len() * KEY_BYTES + CHECKSUM_BYTES);
    keys.iter().for_each(|key| list.put_u64_le(key.0));
    sealed(list)
}

/// Takes a list of keys.
///
/// # Errors
///
/// What is wrong with it.
pub fn decode_keys(list: Bytes) -> Result<Vec<PhotoKey>, BadFrame> {
    let mut list = entries(list, KEY_BYTES)?;
    let mut keys = Vec::with_capacity(list.len() / KEY_BYTES);
    while !list.is_empty() {
        keys.push(PhotoKey(list.get_u64_le()));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photo() -> Found {
        let sizes = vec![
            (PhotoSize::Original, MediaType::Png, Bytes::from_static(b"a large picture")),
            (PhotoSize::Thumb, MediaType::Jpeg, Bytes::from_static(b"small")),
        ];
        Found::Photo(PhotoNeedles { key: PhotoKey(7), cookie: Cookie(0x0102_0304_0506_0708), sizes })
    }

    fn bytes(frames: &[Found]) -> Bytes {
        let mut pieces = Vec::new();
        frames.iter().for_each(|frame| encode_frame(frame, &mut pieces));
        pieces.concat().into()
    }

    #[test]
    fn frames_survive_the_round_trip() {
        let frames = [photo(), Found::Absent(PhotoKey(8)), Found::Damaged(PhotoKey(9))];
        assert_eq!(decode_frames(bytes(&frames)).unwrap(), frames);
        assert_eq!(decode_frames(Bytes::new()).unwrap(), []);
    }

    #[test]
    fn the_bytes_are_pinned() {
        let expected = [
            &[1, 2, 0, 0][..],
            &7_u64.to_le_bytes(),
            &[8, 7, 6, 5, 4, 3, 2, 1],
            &[1, 3, 0, 0, 15, 0, 0, 0],
            &crc32c::crc32c(b"a large picture").to_le_bytes(),
            &[5, 2, 0, 0, 5, 0, 0, 0],
            &crc32c::crc32c(b"small").to_le_bytes(),
        ]
        .concat();
        let checksum = crc32c::crc32c(&expected).to_le_bytes();
        let expected = [&expected[..], &checksum, b"a large picture", b"small"].concat();
        assert_eq!(bytes(&[photo()]), expected);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let whole = bytes(&[photo()]);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_frames(flipped.into()).is_err(), "bit {bit}");
        }
        for length in 1..whole.len() {
            assert!(decode_frames(whole.slice(..length)).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn lists_survive_the_round_trip_and_no_other_length_is_one() {
        let known =
            [KnownKey { key: PhotoKey(1), buried: true }, KnownKey { key: PhotoKey(2), buried: false }];
        assert_eq!(decode_known(encode_known(&known)).unwrap(), known);
        let burials = [Burial { key: PhotoKey(3), cookie: Cookie(4) }];
        assert_eq!(decode_burials(encode_burials(&burials)).unwrap(), burials);
        let keys = [PhotoKey(5), PhotoKey(6)];
        assert_eq!(decode_keys(encode_keys(&keys)).unwrap(), keys);
        assert!(decode_keys(Bytes::from_static(b"abc")).is_err());
        assert!(decode_known(encode_keys(&keys)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_decoding_panic(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            let _ = decode_frames(bytes.clone());
            let _ = decode_known(bytes.clone());
            let _ = decode_burials(bytes.clone());
            let _ = decode_keys(bytes);
        }
    }
}
