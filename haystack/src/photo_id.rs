//! A photo's name: logical volume, key and cookie, as URLs carry it.
//!
//! The id is all that a read needs: no table stands between the URL and the
//! volume (Haystack 3.1). It is given out once and its bytes never change, so
//! the URL may be cached for ever. The cookie is random, so that knowing one
//! URL helps nobody to guess another (Haystack 3.4.1); it stands in the
//! needle and in the directory, not in a store's memory.
//!
//! | OFFSET | SIZE | FIELD          |
//! |--------|------|----------------|
//! | 0      | 4    | logical volume |
//! | 4      | 8    | key            |
//! | 12     | 8    | cookie         |
//!
//! Big-endian, then base64 with the URL alphabet of RFC 4648 section 5, without
//! padding: 27 characters. The two bits that are left over are zero, so a
//! photo has exactly one id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of a logical volume: the set of replicas that a photo is in.
/// A store holds one physical volume of each at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VolumeId(pub u32);

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A photo's number in its volume. Its upper 44 bits are the time of the upload
/// in ms since 1970, so that a read knows `Last-Modified` without a table and
/// keys of one volume lie close together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PhotoKey(pub u64);

impl PhotoKey {
    /// Bits below the time, which tell apart the uploads of one millisecond.
    const SEQUENCE_BITS: u32 = 20;

    /// The smallest key of the millisecond `now_ms`.
    pub fn first_at(now_ms: u64) -> Self {
        Self(now_ms << Self::SEQUENCE_BITS)
    }

    /// When the photo was uploaded, ms since 1970.
    pub fn uploaded_ms(self) -> u64 {
        self.0 >> Self::SEQUENCE_BITS
    }
}

/// The random number that makes an id unguessable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cookie(pub u64);

/// Which of a photo's sizes: the needle's alternate key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum PhotoSize {
    /// What was uploaded, but for metadata that was taken out.
    Original = 1,
    /// The largest derived size.
    Large = 2,
    /// For a page that shows one photo.
    Medium = 3,
    /// For a page that shows several.
    Small = 4,
    /// For a page that shows many.
    Thumb = 5,
}

impl PhotoSize {
    /// Sizes that a photo can have.
    pub const COUNT: usize = 5;
    /// Every size, largest first: the order of a photo's needles.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Original, Self::Large, Self::Medium, Self::Small, Self::Thumb];
    /// The sizes made at upload, largest first.
    pub const DERIVED: [Self; 4] = [Self::Large, Self::Medium, Self::Small, Self::Thumb];

    /// The size that URLs call `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.name() == name)
    }

    /// Its name in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Large => "large",
            Self::Medium => "medium",
            Self::Small => "small",
            Self::Thumb => "thumb",
        }
    }

    /// Its alternate key in needles.
    pub fn alternate_key(self) -> u32 {
        self as u32
    }

    /// The size with this alternate key.
    pub fn from_alternate_key(alternate_key: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.alternate_key() == alternate_key)
    }

    /// Its place in [`PhotoSize::ALL`].
    pub(crate) fn place(self) -> usize {
        self as usize - 1
    }
}

/// A photo's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhotoId {
    /// The logical volume that holds the photo.
    pub volume: VolumeId,
    /// The photo's number in it.
    pub key: PhotoKey,
    /// What makes the id unguessable.
    pub cookie: Cookie,
}

/// Text that is no photo id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a photo id")]
pub struct BadPhotoId;

const VOLUME_AT: usize = 0;
const KEY_AT: usize = VOLUME_AT + 4;
const COOKIE_AT: usize = KEY_AT + 8;
const ID_BYTES: usize = COOKIE_AT + 8;
const _: () = assert!(ID_BYTES == 20);

impl PhotoId {
    /// Characters of an id.
    pub const TEXT_BYTES: usize = (ID_BYTES * 8).div_ceil(6);

    /// The id as URLs carry it: [`PhotoId::TEXT_BYTES`] ASCII characters.
    pub fn encode(&self) -> [u8; Self::TEXT_BYTES] {
        let mut raw = [0; ID_BYTES];
        raw[VOLUME_AT..KEY_AT].copy_from_slice(&self.volume.0.to_be_bytes());
        raw[KEY_AT..COOKIE_AT].copy_from_slice(&self.key.0.to_be_bytes());
        raw[COOKIE_AT..].copy_from_slice(&self.cookie.0.to_be_bytes());
        let mut text = [0; Self::TEXT_BYTES];
        for (place, character) in text.iter_mut().enumerate() {
            let bit = place * 6;
            let pair = u16::from_be_bytes([raw[bit / 8], raw.get(bit / 8 + 1).copied().unwrap_or(0)]);
            *character = ALPHABET[usize::from(pair >> (10 - bit % 8) & 63)];
        }
        text
    }

    /// The photo that `text` names.
    ///
    /// # Errors
    ///
    /// [`BadPhotoId`] unless it is exactly what [`PhotoId::encode`] gives.
    pub fn decode(text: &[u8]) -> Result<Self, BadPhotoId> {
        if text.len() != Self::TEXT_BYTES {
            return Err(BadPhotoId);
        }
        let mut raw = [0; ID_BYTES];
        let (mut bits, mut bit_count, mut place) = (0_u32, 0, 0);
        for character in text {
            bits = (bits << 6 | u32::from(sextet(*character).ok_or(BadPhotoId)?)) & 0xffff;
            bit_count += 6;
            if bit_count >= 8 {
                bit_count -= 8;
                raw[place] = (bits >> bit_count & 0xff) as u8;
                place += 1;
            }
        }
        if bits & ((1 << bit_count) - 1) != 0 {
            return Err(BadPhotoId);
        }
        let [v0, v1, v2, v3, k0, k1, k2, k3, k4, k5, k6, k7, cookie @ ..] = raw;
        Ok(Self {
            volume: VolumeId(u32::from_be_bytes([v0, v1, v2, v3])),
            key: PhotoKey(u64::from_be_bytes([k0, k1, k2, k3, k4, k5, k6, k7])),
            cookie: Cookie(u64::from_be_bytes(cookie)),
        })
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn sextet(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

impl fmt::Display for PhotoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.encode()).expect("the alphabet is ASCII"))
    }
}

impl FromStr for PhotoId {
    type Err = BadPhotoId;

    fn from_str(text: &str) -> Result<Self, BadPhotoId> {
        Self::decode(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(volume: u32, key: u64, cookie: u64) -> PhotoId {
        PhotoId { volume: VolumeId(volume), key: PhotoKey(key), cookie: Cookie(cookie) }
    }

    #[test]
    fn an_id_survives_the_round_trip() {
        for id in [
            id(0, 0, 0),
            id(1, 2, 3),
            id(u32::MAX, u64::MAX, u64::MAX),
            id(7, 1 << 63, 0x0123_4567_89ab_cdef),
        ] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn the_text_is_pinned() {
        assert_eq!(id(1, 2, 3).to_string(), "AAAAAQAAAAAAAAACAAAAAAAAAAM");
        assert_eq!(id(0xffff_ffff, 0, 0xfbef_ff00_0000_0001).to_string(), "_____wAAAAAAAAAA--__AAAAAAE");
    }

    #[test]
    fn only_the_one_text_of_an_id_is_taken() {
        let text = id(1, 2, 3).to_string();
        for other in
            ["", "A", &text[1..], &format!("{text}A"), &text.replace('M', "N"), &text.replace('Q', "/")]
        {
            assert_eq!(other.parse::<PhotoId>(), Err(BadPhotoId), "{other}");
        }
    }

    #[test]
    fn a_key_tells_when_the_photo_was_uploaded() {
        let now_ms = 1_800_000_000_123;
        assert_eq!(PhotoKey(PhotoKey::first_at(now_ms).0 + 77).uploaded_ms(), now_ms);
    }
}
