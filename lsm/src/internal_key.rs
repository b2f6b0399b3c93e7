//! Internal keys: a user key with the sequence number and the kind of a write.
//!
//! Every memtable, SSTable and merging cursor orders its entries by internal
//! key, so that all versions of a user key stand together, the newest first.
//! The scheme is LevelDB's (`db/dbformat.h`); nothing departs from it but the
//! tags, of which zero is none.
//!
//! ```text
//! OFFSET  SIZE  FIELD
//! 0       n     user key
//! n       8     trailer, little-endian: sequence << 8 | kind
//! ```
//!
//! # Order
//!
//! User key ascending by bytes, then trailer descending: a later write sorts
//! before an earlier one. The concatenation is not ordered by `memcmp`, since a
//! user key may be a prefix of another one: use [`compare`].

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::FilterKey;
use crate::sstable::filter::FilterHash;

/// The greatest sequence number: 56 bits.
pub(crate) const SEQUENCE_MAX: u64 = (1 << 56) - 1;

/// Bytes of an encoded internal key past its user key.
pub(crate) const TRAILER_BYTES: usize = 8;

/// The tag that sorts before every kind of the same user key and sequence. It
/// stands in keys that are sought, and in those that separate blocks.
const KIND_SEEK: u64 = 0xff;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Sets a value.
    Put = 1,
    /// Removes the value.
    Delete = 2,
    /// Removes the values of a range of user keys: the key is its start, the value its end.
    RangeDelete = 3,
    /// Changes the value: an operand that the tree's merge operator applies to what it was.
    Merge = 4,
}

impl Kind {
    /// The kind with this tag, if there is one.
    pub(crate) fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Put),
            2 => Some(Self::Delete),
            3 => Some(Self::RangeDelete),
            4 => Some(Self::Merge),
            _ => None,
        }
    }
}

/// The sequence number and kind of a write, as they stand behind its user key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer(u64);

impl Trailer {
    /// The trailer of a write.
    ///
    /// # Panics
    ///
    /// If `sequence` is above [`SEQUENCE_MAX`].
    pub(crate) fn new(sequence: u64, kind: Kind) -> Self {
        assert!(sequence <= SEQUENCE_MAX, "sequence numbers have 56 bits");
        Self(sequence << 8 | kind as u64)
    }

    /// What sorts before every write at or below `sequence` and after all newer ones.
    pub(crate) fn seek(sequence: u64) -> Self {
        Self(sequence.min(SEQUENCE_MAX) << 8 | KIND_SEEK)
    }

    /// The write's sequence number.
    pub(crate) fn sequence(self) -> u64 {
        self.0 >> 8
    }

    /// The write's kind; none for what [`Trailer::seek`] made, and for damage.
    pub(crate) fn kind(self) -> Option<Kind> {
        Kind::from_tag(self.0.to_le_bytes()[0])
    }

    /// The trailer's bytes.
    pub(crate) fn encode(self) -> [u8; TRAILER_BYTES] {
        self.0.to_le_bytes()
    }
}

/// Appends the internal key of `user_key` and `trailer` to `buffer`.
pub(crate) fn encode(buffer: &mut Vec<u8>, user_key: &[u8], trailer: Trailer) {
    buffer.extend_from_slice(user_key);
    buffer.extend_from_slice(&trailer.encode());
}

/// The user key and the trailer of an encoded internal key; `None` where it is too short for one.
#[inline]
pub(crate) fn decode(encoded: &[u8]) -> Option<(&[u8], Trailer)> {
    let (user_key, trailer) = encoded.split_last_chunk::<TRAILER_BYTES>()?;
    Some((user_key, Trailer(u64::from_le_bytes(*trailer))))
}

/// The user key of an encoded internal key.
///
/// # Panics
///
/// If `encoded` is shorter than a trailer, which no cursor hands out.
#[inline]
pub(crate) fn user_key(encoded: &[u8]) -> &[u8] {
    &encoded[..encoded.len() - TRAILER_BYTES]
}

/// The trailer of an encoded internal key.
///
/// # Panics
///
/// If `encoded` is shorter than a trailer, which no cursor hands out.
#[inline]
pub(crate) fn trailer(encoded: &[u8]) -> Trailer {
    decode(encoded).expect("an internal key ends in a trailer").1
}

/// The order of two encoded internal keys. What is too short for a trailer sorts first.
#[inline]
pub(crate) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    match (decode(a), decode(b)) {
        (Some((a, a_trailer)), Some((b, b_trailer))) => a.cmp(b).then(b_trailer.0.cmp(&a_trailer.0)),
        _ => a.len().cmp(&b.len()),
    }
}

/// A user key to be looked up in many places at one sequence number: encoded
/// and hashed once. Short keys take no allocation.
#[derive(Clone, Debug)]
pub(crate) struct LookupKey {
    encoded: SmallVec<[u8; 64]>,
    filter_hash: FilterHash,
    key_hash: u64,
}

impl LookupKey {
    /// Looks for the newest write of `user_key` at or below `sequence`, in
    /// tables whose filters follow `filter_key`.
    pub(crate) fn new(user_key: &[u8], sequence: u64, filter_key: FilterKey) -> Self {
        let mut encoded = SmallVec::with_capacity(user_key.len() + TRAILER_BYTES);
        encoded.extend_from_slice(user_key);
        encoded.extend_from_slice(&Trailer::seek(sequence).encode());
        let filter_hash = FilterHash::of_key(user_key, filter_key);
        Self { encoded, filter_hash, key_hash: filter_hash.whole_key_hash(user_key) }
    }

    /// The user key.
    pub(crate) fn user_key(&self) -> &[u8] {
        user_key(&self.encoded)
    }

    /// The sequence number to read at.
    pub(crate) fn sequence(&self) -> u64 {
        trailer(&self.encoded).sequence()
    }

    /// The internal key that sorts just before the writes looked for.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The hash to ask filters with.
    pub(crate) fn filter_hash(&self) -> FilterHash {
        self.filter_hash
    }

    /// The hash of the user key, which data blocks are searched by.
    pub(crate) fn key_hash(&self) -> u64 {
        self.key_hash
    }
}

/// Replaces the internal key in `buffer`, the last one of a block, by a short
/// one that is no less than it and less than `next`, the first one of the
/// following block; keeps it where no shorter one exists.
pub(crate) fn shorten_to_separator(buffer: &mut Vec<u8>, next: &[u8]) {
    let last = user_key(buffer);
    let next = user_key(next);
    let shared = last.iter().zip(next).take_while(|(a, b)| a == b).count();
    // Only bytes past a proper difference can go: "ab1" < "ac" <= "ac2".
    if shared + 1 >= last.len() || shared >= next.len() {
        return;
    }
    let bumped = last[shared] + 1;
    if bumped < next[shared] || (bumped == next[shared] && shared + 1 < next.len()) {
        buffer.truncate(shared);
        buffer.push(bumped);
        buffer.extend_from_slice(&Trailer::seek(SEQUENCE_MAX).encode());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(user_key: &[u8], sequence: u64, kind: Kind) -> Vec<u8> {
        let mut buffer = Vec::new();
        encode(&mut buffer, user_key, Trailer::new(sequence, kind));
        buffer
    }

    #[test]
    fn bytes_are_the_user_key_and_a_little_endian_trailer() {
        assert_eq!(encoded(b"ab", 0x01_0203_0405_0607, Kind::Delete), b"ab\x02\x07\x06\x05\x04\x03\x02\x01");
    }

    #[test]
    fn newer_writes_of_a_key_come_first_and_prefixes_before_longer_keys() {
        let ordered = [
            encoded(b"", 1, Kind::Put),
            encoded(b"a", SEQUENCE_MAX, Kind::Put),
            encoded(b"a", 9, Kind::Delete),
            encoded(b"a", 9, Kind::Put),
            encoded(b"a", 0, Kind::Put),
            encoded(b"a\0", 7, Kind::Put),
            encoded(b"a\xff\xff\xff\xff\xff\xff\xff\xff\xff", 7, Kind::Put),
            encoded(b"b", 8, Kind::Put),
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn a_sought_key_sorts_between_newer_writes_and_its_own_sequence() {
        let sought = LookupKey::new(b"k", 5, FilterKey::WholeKey);
        assert_eq!(sought.sequence(), 5);
        assert_eq!(sought.user_key(), b"k");
        assert_eq!(compare(sought.encoded(), &encoded(b"k", 5, Kind::RangeDelete)), Ordering::Less);
        assert_eq!(compare(sought.encoded(), &encoded(b"k", 6, Kind::Put)), Ordering::Greater);
    }

    #[test]
    fn unknown_tags_and_short_keys_are_no_writes() {
        assert_eq!(decode(&[1; 7]), None);
        for tag in [0_u8, 5, 0xff] {
            let (_, trailer) = decode(&[tag, 0, 0, 0, 0, 0, 0, 0]).expect("long enough");
            assert_eq!(trailer.kind(), None);
        }
    }

    #[test]
    fn separators_stand_between_their_neighbours_and_are_no_longer_than_the_first() {
        let keys: [&[u8]; 12] = [
            b"",
            b"a",
            b"a\0",
            b"ab",
            b"abc",
            b"abd",
            b"abdz",
            b"abf",
            b"ac",
            b"b\xff\xff",
            b"c",
            b"\xff\xff",
        ];
        for pair in 0..keys.len() {
            for next in pair + 1..keys.len() {
                let last = encoded(keys[pair], 3, Kind::Put);
                let next = encoded(keys[next], 9, Kind::Put);
                let mut separator = last.clone();
                shorten_to_separator(&mut separator, &next);
                assert_ne!(compare(&separator, &last), Ordering::Less, "{last:?} {next:?}");
                assert_eq!(compare(&separator, &next), Ordering::Less, "{last:?} {next:?}");
                assert!(separator.len() <= last.len());
            }
        }
    }
}
