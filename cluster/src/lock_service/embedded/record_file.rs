//! A record as a file.
//!
//! Little-endian:
//!
//! ```text
//! OFFSET  SIZE  FIELD
//!      0     8  magic "hayl-rec"
//!      8     4  format version: 1
//!     12     4  crc32c of all other bytes, in their order
//!     16     8  revision
//!     24     4  key length, k
//!     28     4  value length, v
//!     32     k  key, UTF-8
//!   32+k     v  value
//! ```
//!
//! The counter is such a file with the key `counter`, no value, and the
//! ceiling as its revision.

use bytes::Bytes;

use super::super::{Record, Revision, VALUE_BYTES_MAX};

const MAGIC: [u8; 8] = *b"hayl-rec";
const FORMAT_VERSION: u32 = 1;

const VERSION_OFFSET: usize = MAGIC.len();
const CRC_OFFSET: usize = VERSION_OFFSET + 4;
const REVISION_OFFSET: usize = CRC_OFFSET + 4;
const KEY_LEN_OFFSET: usize = REVISION_OFFSET + 8;
const VALUE_LEN_OFFSET: usize = KEY_LEN_OFFSET + 4;
const HEADER_BYTES: usize = VALUE_LEN_OFFSET + 4;
const _: () = assert!(HEADER_BYTES == 32);

/// A key's longest file name, bytes.
pub(super) const NAME_BYTES_MAX: usize = 255;
/// The longest file that can be a record, bytes.
pub(super) const FILE_BYTES_MAX: u64 = (HEADER_BYTES + NAME_BYTES_MAX + VALUE_BYTES_MAX) as u64;

/// The file's bytes.
///
/// REQUIRES: key and value keep to their bounds.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("records are bounded").to_le_bytes();
    let mut file = Vec::with_capacity(HEADER_BYTES + record.key.len() + record.value.len());
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    file.extend_from_slice(&record.revision.0.to_le_bytes());
    file.extend_from_slice(&len(record.key.as_bytes()));
    file.extend_from_slice(&len(&record.value));
    file.extend_from_slice(record.key.as_bytes());
    file.extend_from_slice(&record.value);
    let crc = checksum(&file);
    file[CRC_OFFSET..REVISION_OFFSET].copy_from_slice(&crc.to_le_bytes());
    file
}

/// The record in `file`, or what is wrong with it.
pub(super) fn decode(file: &Bytes) -> Result<Record, String> {
    if file.len() < HEADER_BYTES {
        return Err(format!("{} bytes are fewer than its header's {HEADER_BYTES}", file.len()));
    }
    if file[..VERSION_OFFSET] != MAGIC {
        return Err("it does not begin as a record does".to_owned());
    }
    let version = u32_at(file, VERSION_OFFSET);
    if version != FORMAT_VERSION {
        return Err(format!("its format version is {version}; this program knows {FORMAT_VERSION}"));
    }
    let (stored, found) = (u32_at(file, CRC_OFFSET), checksum(file));
    if stored != found {
        return Err(format!("its checksum is {stored:08x}, that of its bytes is {found:08x}"));
    }
    let key_end = HEADER_BYTES as u64 + u64::from(u32_at(file, KEY_LEN_OFFSET));
    let end = key_end + u64::from(u32_at(file, VALUE_LEN_OFFSET));
    if end != file.len() as u64 {
        return Err(format!("its lengths add up to {end} bytes, it has {}", file.len()));
    }
    let key_end = usize::try_from(key_end).expect("it is at most the file's length");
    let key = String::from_utf8(file[HEADER_BYTES..key_end].to_vec());
    let key = key.map_err(|_| "its key is not UTF-8".to_owned())?;
    let revision = u64::from_le_bytes(array_at(file, REVISION_OFFSET));
    Ok(Record { key, value: file.slice(key_end..), revision: Revision(revision) })
}

fn checksum(file: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&file[..CRC_OFFSET]), &file[REVISION_OFFSET..])
}

fn u32_at(file: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array_at(file, offset))
}

/// REQUIRES: the file has them.
fn array_at<const N: usize>(file: &[u8], offset: usize) -> [u8; N] {
    file[offset..offset + N].try_into().expect("the range is N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            key: "schema/projects/p/instances/i/tables/webtable".to_owned(),
            value: Bytes::from_static(b"contents anchor language"),
            revision: Revision(0x0102_0304_0506_0708),
        }
    }

    #[test]
    fn the_bytes_are_the_golden_ones() {
        let golden = include_bytes!("../../../tests/golden/record-1.bin");
        assert_eq!(encode(&record()), golden);
        assert_eq!(decode(&Bytes::from_static(golden)), Ok(record()));
    }

    #[test]
    fn any_changed_bit_and_any_cut_is_found() {
        let file = encode(&record());
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged.into()).is_err(), "bit {bit}");
        }
        for len in 0..file.len() {
            assert!(decode(&file[..len].to_vec().into()).is_err(), "{len} bytes");
        }
        assert!(decode(&[&file[..], b"x"].concat().into()).is_err());
    }

    #[test]
    fn lengths_that_lie_under_a_right_checksum_are_found() {
        let mut file = encode(&record());
        for offset in [KEY_LEN_OFFSET, VALUE_LEN_OFFSET] {
            file[offset..offset + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            let crc = checksum(&file);
            file[CRC_OFFSET..REVISION_OFFSET].copy_from_slice(&crc.to_le_bytes());
            assert!(decode(&file.clone().into()).unwrap_err().contains("lengths"));
        }
    }
}
