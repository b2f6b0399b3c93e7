//! What stands in a segment of the commit log.
//!
//! A segment is a file of [frames](crate::frame), named by the epoch of the
//! engine's opening and a number. Its first frame describes it:
//!
//! ```text
//! OFFSET  SIZE  FIELD
//! 0       8     least sequence number that a record here can have
//! 8       8     epoch of the segment before, 0 if there was none
//! 16      8     number of the segment before, 0 if there was none
//! 24      8     where the segment before ends, in bytes
//! ```
//!
//! Each other frame is a group: the records that one write and one sync made
//! durable, one behind the other:
//!
//! ```text
//! OFFSET  SIZE  FIELD
//! 0       8     sequence number of the batch's first write
//! 8       4     writes in the batch, at least 1
//! 12      4     length of the batch, n
//! 16      n     the batch, as `batch.rs` lays it out
//! ```
//!
//! The file is longer than its frames: zeros follow, which are no frame.
//!
//! Integers are little-endian. A record is a whole batch, whatever the trees it
//! writes to. The frame's checksum covers the group, so that a group is read
//! whole or not at all; none of a torn one was acknowledged.
//!
//! That a segment says where its predecessor ends is what makes damage
//! visible: a predecessor must hold through exactly there, be it that a later
//! segment was begun because it was full, or by a recovery that found its tail
//! torn.

use crate::error::Damage;
use crate::file_id::FileId;
use crate::frame::Prelude;

/// The first bytes of a segment: magic and version.
pub(crate) const PRELUDE: Prelude = *b"HAYLOG\0\x01";

/// The extension of a segment's name.
pub(crate) const EXTENSION: &str = "log";

const FIRST_SEQUENCE_END: usize = 8;
const PREVIOUS_EPOCH_END: usize = FIRST_SEQUENCE_END + 8;
const PREVIOUS_NUMBER_END: usize = PREVIOUS_EPOCH_END + 8;
const PREVIOUS_END_END: usize = PREVIOUS_NUMBER_END + 8;
const DESCRIPTOR_BYTES: usize = PREVIOUS_END_END;
const _: () = assert!(DESCRIPTOR_BYTES == 32);

const RECORD_SEQUENCE_END: usize = 8;
const RECORD_COUNT_END: usize = RECORD_SEQUENCE_END + 4;
const RECORD_LENGTH_END: usize = RECORD_COUNT_END + 4;

/// Bytes of a record before its batch.
pub(crate) const RECORD_HEADER_BYTES: usize = RECORD_LENGTH_END;
const _: () = assert!(RECORD_HEADER_BYTES == 16);

/// A segment's first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// The least sequence number that a record of the segment can have.
    pub(crate) first_sequence: u64,
    /// The segment before and where it ends.
    pub(crate) previous: Option<(FileId, u64)>,
}

impl Descriptor {
    pub(crate) fn encode(&self) -> [u8; DESCRIPTOR_BYTES] {
        let (previous, end) = self.previous.unwrap_or_default();
        let mut bytes = [0; DESCRIPTOR_BYTES];
        bytes[..FIRST_SEQUENCE_END].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[FIRST_SEQUENCE_END..PREVIOUS_EPOCH_END].copy_from_slice(&previous.epoch.to_le_bytes());
        bytes[PREVIOUS_EPOCH_END..PREVIOUS_NUMBER_END].copy_from_slice(&previous.number.to_le_bytes());
        bytes[PREVIOUS_NUMBER_END..PREVIOUS_END_END].copy_from_slice(&end.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let bytes: &[u8; DESCRIPTOR_BYTES] =
            bytes.try_into().map_err(|_| Damage("a segment's description has the wrong length"))?;
        let previous =
            FileId { epoch: integer(bytes, PREVIOUS_EPOCH_END), number: integer(bytes, PREVIOUS_NUMBER_END) };
        let end = integer(bytes, PREVIOUS_END_END);
        Ok(Self {
            first_sequence: integer(bytes, FIRST_SEQUENCE_END),
            previous: (previous != FileId::default()).then_some((previous, end)),
        })
    }
}

fn integer(bytes: &[u8; DESCRIPTOR_BYTES], end: usize) -> u64 {
    u64::from_le_bytes(bytes[end - 8..end].try_into().expect("eight bytes"))
}

/// Appends the record of a batch to a group.
///
/// REQUIRES: the batch's length and count fit 32 bits.
pub(crate) fn encode_record(group: &mut Vec<u8>, first_sequence: u64, count: usize, batch: &[u8]) {
    let count = u32::try_from(count).expect("a batch has fewer writes than bytes");
    let length = u32::try_from(batch.len()).expect("the caller bounds batches");
    group.reserve(RECORD_HEADER_BYTES + batch.len());
    group.extend_from_slice(&first_sequence.to_le_bytes());
    group.extend_from_slice(&count.to_le_bytes());
    group.extend_from_slice(&length.to_le_bytes());
    group.extend_from_slice(batch);
}

/// A batch as it stands in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) first_sequence: u64,
    /// At least 1.
    pub(crate) count: u32,
    pub(crate) batch: &'a [u8],
}

impl Record<'_> {
    /// The sequence number of the batch's last write.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.count) - 1
    }
}

/// Takes a record from the front of `group`.
pub(crate) fn take_record<'a>(group: &mut &'a [u8]) -> Result<Record<'a>, Damage> {
    const CUT_OFF: Damage = Damage("a record is cut off");
    let (header, rest) = group.split_first_chunk::<RECORD_HEADER_BYTES>().ok_or(CUT_OFF)?;
    let (sequence, counts) = header.split_first_chunk::<8>().expect("16 bytes");
    let (count, length) = counts.split_first_chunk::<4>().expect("8 bytes");
    let length = u32::from_le_bytes(length.try_into().expect("4 bytes")) as usize;
    let (batch, rest) = rest.split_at_checked(length).ok_or(CUT_OFF)?;
    let record =
        Record { first_sequence: u64::from_le_bytes(*sequence), count: u32::from_le_bytes(*count), batch };
    if record.count == 0
        || record.first_sequence > crate::internal_key::SEQUENCE_MAX - u64::from(record.count)
    {
        return Err(Damage("a record's sequence numbers are out of range"));
    }
    *group = rest;
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_come_back() {
        for previous in [None, Some((FileId { epoch: 1, number: 2 }, 3))] {
            let descriptor = Descriptor { first_sequence: 9, previous };
            assert_eq!(Descriptor::decode(&descriptor.encode()), Ok(descriptor));
        }
        assert!(Descriptor::decode(&[0; 31]).is_err());
    }

    #[test]
    fn records_come_back_and_cut_ones_are_damage() {
        let mut group = Vec::new();
        encode_record(&mut group, 5, 2, b"batch");
        let one = group.len();
        encode_record(&mut group, 7, 1, b"");
        let mut rest = &group[..];
        let record = take_record(&mut rest).expect("holds");
        assert_eq!(
            (record, record.last_sequence()),
            (Record { first_sequence: 5, count: 2, batch: b"batch" }, 6)
        );
        assert_eq!(take_record(&mut rest).expect("holds").first_sequence, 7);
        assert!(rest.is_empty());
        for end in 0..one {
            assert!(take_record(&mut &group[..end]).is_err(), "{end}");
        }
        assert!(take_record(&mut &[0xff; 16][..]).is_err());
    }
}
