//! Frames: checksummed pieces of a file that is only appended to, each one
//! written and synced before the next one is.
//!
//! The commit log and manifests are made of them. A file is a prelude, then
//! frames one behind the other:
//!
//! ```text
//! OFFSET  SIZE  FIELD
//! 0       7     magic, which says what kind of file this is
//! 7       1     format version
//!
//! 0       4     crc32 of the rest of the frame's header and the payload
//! 4       4     payload length, n
//! 8       8     epoch of the file's name
//! 16      8     number of the file's name
//! 24      8     offset of the frame in the file
//! 32      n     payload
//! ```
//!
//! Integers are little-endian.
//!
//! # Torn or damaged
//!
//! A power cut can tear the last frame only, since each one is durable before
//! the next is written. A frame names its file and its own offset, so that a
//! reader which meets bytes that are no frame can look for one further on:
//! where there is one, something that was durable is lost, and that is
//! [`crate::Error::Damaged`]. Where there is none, the tail was torn.
//!
//! That mistakes a bit that rots in the last frame for a torn tail. Of the log,
//! redo points tell in time whether it mattered. Of a manifest nothing else
//! does, so its small frames stand twice, and either will do.

mod reader;
mod writer;

pub(crate) use self::reader::FrameReader;
pub(crate) use self::writer::FrameWriter;
use crate::file_id::FileId;

/// Bytes before the first frame.
pub(crate) const PRELUDE_BYTES: usize = 8;

/// Bytes of a frame before its payload.
pub(crate) const HEADER_BYTES: usize = OFFSET_END;

const CRC_END: usize = 4;
const LENGTH_END: usize = CRC_END + 4;
const EPOCH_END: usize = LENGTH_END + 8;
const NUMBER_END: usize = EPOCH_END + 8;
const OFFSET_END: usize = NUMBER_END + 8;
const _: () = assert!(HEADER_BYTES == 32);

/// The longest payload. A frame is read into memory whole.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// Magic and version of a kind of file.
pub(crate) type Prelude = [u8; PRELUDE_BYTES];

/// The header of the frame with `payload` at `offset` of the file `id`.
///
/// # Panics
///
/// If `payload` is longer than [`PAYLOAD_BYTES_MAX`].
pub(crate) fn header(id: FileId, offset: u64, payload: &[u8]) -> [u8; HEADER_BYTES] {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "the caller bounds its frames");
    let mut header = [0; HEADER_BYTES];
    let length = u32::try_from(payload.len()).expect("bounded above");
    header[CRC_END..LENGTH_END].copy_from_slice(&length.to_le_bytes());
    header[LENGTH_END..EPOCH_END].copy_from_slice(&id.epoch.to_le_bytes());
    header[EPOCH_END..NUMBER_END].copy_from_slice(&id.number.to_le_bytes());
    header[NUMBER_END..OFFSET_END].copy_from_slice(&offset.to_le_bytes());
    let crc = checksum(&header, payload);
    header[..CRC_END].copy_from_slice(&crc.to_le_bytes());
    header
}

fn checksum(header: &[u8; HEADER_BYTES], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[CRC_END..]);
    crc.update(payload);
    crc.finalize()
}

/// Whether `found` has the magic of `preludes` and another version than theirs.
pub(crate) fn is_other_version(found: Prelude, preludes: &[Prelude]) -> bool {
    let magic = |prelude: &Prelude| prelude[..PRELUDE_BYTES - 1] == found[..PRELUDE_BYTES - 1];
    !preludes.contains(&found) && preludes.iter().any(magic) && found[PRELUDE_BYTES - 1] != 0
}

/// Whether `bytes`, which stand at `offset` of the file `id`, start with a frame that holds.
fn frame_at(bytes: &[u8], id: FileId, offset: u64) -> bool {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return false };
    // The names cost a comparison or two at most places; only what has them is summed.
    names(header, id, offset)
        && rest.get(..payload_bytes(header)).is_some_and(|payload| holds(header, payload))
}

fn field<const N: usize>(header: &[u8; HEADER_BYTES], end: usize) -> [u8; N] {
    header[end - N..end].try_into().expect("fields lie in the header")
}

fn names(header: &[u8; HEADER_BYTES], id: FileId, offset: u64) -> bool {
    u64::from_le_bytes(field(header, OFFSET_END)) == offset
        && u64::from_le_bytes(field(header, NUMBER_END)) == id.number
        && u64::from_le_bytes(field(header, EPOCH_END)) == id.epoch
}

fn payload_bytes(header: &[u8; HEADER_BYTES]) -> usize {
    u32::from_le_bytes(field(header, LENGTH_END)) as usize
}

fn holds(header: &[u8; HEADER_BYTES], payload: &[u8]) -> bool {
    u32::from_le_bytes(field(header, CRC_END)) == checksum(header, payload)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use vfs::{Access, FileSystem, RealFileSystem};

    use super::*;
    use crate::Error;

    const ID: FileId = FileId { epoch: 3, number: 9 };
    const PRELUDE: Prelude = *b"TESTING\x01";

    struct Fixture {
        _dir: tempfile::TempDir,
        path: PathBuf,
        /// Ends of the frames.
        ends: Vec<u64>,
    }

    impl Fixture {
        fn new(payloads: &[&[u8]]) -> Self {
            let dir = tempfile::tempdir().expect("temporary directory");
            let path = dir.path().join("frames");
            let file = RealFileSystem.create(&path).expect("created");
            let mut writer = FrameWriter::start(file, ID, PRELUDE, payloads[0]).expect("started");
            let mut ends = vec![writer.offset()];
            for payload in &payloads[1..] {
                writer.append(payload, &[]).expect("appended");
                ends.push(writer.offset());
            }
            Self { _dir: dir, path, ends }
        }

        fn edit(&self, change: impl FnOnce(&mut Vec<u8>)) {
            let mut bytes = std::fs::read(&self.path).expect("readable");
            change(&mut bytes);
            std::fs::write(&self.path, bytes).expect("writable");
        }

        /// The payloads that are read, whether the tail is torn, or where damage is.
        fn read(&self) -> Result<(Vec<Vec<u8>>, bool), u64> {
            let file = RealFileSystem.open(&self.path, Access::Read).expect("opened");
            let damaged = |error| match error {
                Error::Damaged { offset, .. } => offset,
                other => panic!("{other}"),
            };
            let reader = FrameReader::open(file, &self.path, ID, &[PRELUDE]).map_err(damaged)?;
            let Some(mut reader) = reader else { return Ok((Vec::new(), true)) };
            let mut payloads = Vec::new();
            while let Some(payload) = reader.next().map_err(damaged)? {
                payloads.push(payload.to_vec());
            }
            let torn = reader.offset() < reader.file_bytes();
            Ok((payloads, torn))
        }
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let fixture = Fixture::new(&[b"first", b"", b"third"]);
        assert_eq!(fixture.read(), Ok((vec![b"first".to_vec(), b"".to_vec(), b"third".to_vec()], false)));
    }

    #[test]
    fn a_torn_tail_ends_reading_at_every_length() {
        let fixture = Fixture::new(&[b"first", b"second", b"third"]);
        let whole = std::fs::read(&fixture.path).expect("readable");
        for len in 0..whole.len() {
            fixture.edit(|bytes| *bytes = whole[..len].to_vec());
            let (payloads, torn) = fixture.read().expect("a cut is no damage");
            let complete = fixture.ends.iter().filter(|end| **end <= len as u64).count();
            assert_eq!(payloads.len(), complete, "cut at {len}");
            let clean = len == PRELUDE_BYTES || fixture.ends.contains(&(len as u64));
            assert_eq!(torn, !clean, "cut at {len}");
        }
    }

    #[test]
    fn a_flipped_bit_before_another_frame_is_damage_and_in_the_last_one_a_torn_tail() {
        let fixture = Fixture::new(&[b"first", b"second", b"third"]);
        let whole = std::fs::read(&fixture.path).expect("readable");
        for at in 0..whole.len() {
            fixture.edit(|bytes| {
                *bytes = whole.clone();
                bytes[at] ^= 0x10;
            });
            let frame = fixture.ends.iter().filter(|end| **end <= at as u64).count();
            let start = if frame == 0 { PRELUDE_BYTES as u64 } else { fixture.ends[frame - 1] };
            match fixture.read() {
                Err(offset) if at < PRELUDE_BYTES => assert_eq!(offset, 0),
                Err(offset) => assert_eq!((offset, frame < 2), (start, true), "flip at {at}"),
                Ok((payloads, torn)) => {
                    assert_eq!((payloads.len(), torn, frame), (2, true, 2), "flip at {at}");
                }
            }
        }
    }

    #[test]
    fn a_frame_that_stands_twice_survives_any_flipped_bit_and_no_cut_before_its_first_is_whole() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("frames");
        let file = RealFileSystem.create(&path).expect("created");
        let mut writer = FrameWriter::start(file, ID, PRELUDE, b"first").expect("started");
        let start = writer.offset();
        writer.append_twice(b"second").expect("appended");
        let middle = writer.offset();
        writer.append_twice(b"third").expect("appended");
        let whole = std::fs::read(&path).expect("readable");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("writable");
            let file = RealFileSystem.open(&path, Access::Read).expect("opened");
            let mut reader = FrameReader::open(file, &path, ID, &[PRELUDE]).expect("holds").expect("holds");
            reader.next().expect("holds").expect("is there");
            let mut payloads = Vec::new();
            while let Some(payload) = reader.next_of_twins().expect("no damage") {
                payloads.push(payload.to_vec());
            }
            payloads
        };
        let second_twin = middle + (whole.len() as u64 - middle) / 2;
        for at in start..whole.len() as u64 {
            let mut bytes = whole.clone();
            bytes[usize::try_from(at).expect("small")] ^= 4;
            assert_eq!(read(&bytes), [&b"second"[..], b"third"], "flip at {at}");
            let cut = read(&whole[..usize::try_from(at).expect("small")]);
            let complete = [start + (middle - start) / 2, second_twin];
            assert_eq!(cut.len(), complete.iter().filter(|end| **end <= at).count(), "cut at {at}");
        }
    }

    #[test]
    fn frames_of_another_file_do_not_pass() {
        let fixture = Fixture::new(&[b"first", b"second"]);
        let file = RealFileSystem.open(&fixture.path, Access::Read).expect("opened");
        let other = FileId { number: 10, ..ID };
        let mut reader = FrameReader::open(file, &fixture.path, other, &[PRELUDE])
            .expect("readable")
            .expect("has a prelude");
        assert!(reader.next().expect("no frame of this file follows").is_none());
        assert_eq!(reader.offset(), PRELUDE_BYTES as u64);
    }
}
