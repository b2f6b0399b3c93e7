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

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::error::Damage;
use crate::file_id::FileId;
use crate::{Error, Result};

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

/// Appends frames to a file that nobody else writes.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    file: Arc<dyn vfs::File>,
    id: FileId,
    /// Where the next frame goes.
    offset: u64,
}

impl FrameWriter {
    /// Starts the empty `file`, named `id`, with `prelude` and a first frame. Nothing is synced.
    pub(crate) fn start(
        file: Arc<dyn vfs::File>,
        id: FileId,
        prelude: Prelude,
        first: &[u8],
    ) -> Result<Self> {
        let offset = PRELUDE_BYTES as u64;
        let header = header(id, offset, first);
        file.write_all_at(&[IoSlice::new(&prelude), IoSlice::new(&header), IoSlice::new(first)], 0)?;
        Ok(Self { file, id, offset: offset + (HEADER_BYTES + first.len()) as u64 })
    }

    /// Appends a frame in one write, and `behind` it bytes that are no frame, to be overwritten.
    ///
    /// # Durability
    ///
    /// None before [`FrameWriter::sync`] returns.
    pub(crate) fn append(&mut self, payload: &[u8], behind: &[IoSlice<'_>]) -> Result<()> {
        let header = header(self.id, self.offset, payload);
        let mut slices: SmallVec<[IoSlice<'_>; 2]> = smallvec![IoSlice::new(&header), IoSlice::new(payload)];
        slices.extend_from_slice(behind);
        self.file.write_all_at(&slices, self.offset)?;
        self.offset += (HEADER_BYTES + payload.len()) as u64;
        Ok(())
    }

    /// Appends a frame twice, in one write, so that no flipped bit makes it look torn.
    ///
    /// # Durability
    ///
    /// None before [`FrameWriter::sync`] returns.
    pub(crate) fn append_twice(&mut self, payload: &[u8]) -> Result<()> {
        let frame_bytes = (HEADER_BYTES + payload.len()) as u64;
        let headers = [self.offset, self.offset + frame_bytes].map(|offset| header(self.id, offset, payload));
        let slices = [&headers[0][..], payload, &headers[1], payload].map(IoSlice::new);
        self.file.write_all_at(&slices, self.offset)?;
        self.offset += 2 * frame_bytes;
        Ok(())
    }

    /// Takes away what a failed append may have left, durably.
    pub(crate) fn cut_back(&self) -> Result<()> {
        self.file.set_len(self.offset)?;
        self.sync()
    }

    /// Makes what was appended durable.
    pub(crate) fn sync(&self) -> Result<()> {
        Ok(self.file.sync()?)
    }

    /// Where the next frame goes: past the last one.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }
}

/// What stands at an offset of a file.
enum Piece {
    Frame,
    End,
    Broken(&'static str),
}

/// Reads frames front to back.
#[derive(Debug)]
pub(crate) struct FrameReader {
    file: Arc<dyn vfs::File>,
    path: PathBuf,
    id: FileId,
    file_bytes: u64,
    prelude: Prelude,
    /// Past the last frame that held.
    offset: u64,
    payload: Vec<u8>,
}

impl FrameReader {
    /// A reader of `file`, named `path` and `id`, which has one of `preludes`,
    /// the versions of one kind of file. `None` where there is neither
    /// a prelude nor any frame: the file's creation was cut short.
    pub(crate) fn open(
        file: Arc<dyn vfs::File>,
        path: &Path,
        id: FileId,
        preludes: &[Prelude],
    ) -> Result<Option<Self>> {
        let file_bytes = file.len()?;
        if file_bytes < PRELUDE_BYTES as u64 {
            return Ok(None);
        }
        let mut found = [0; PRELUDE_BYTES];
        file.read_exact_at(&mut found, 0)?;
        let reader = Self {
            file,
            path: path.to_owned(),
            id,
            file_bytes,
            prelude: found,
            offset: PRELUDE_BYTES as u64,
            payload: Vec::new(),
        };
        if preludes.contains(&found) {
            return Ok(Some(reader));
        }
        if is_other_version(found, preludes) || reader.frame_after(0)?.is_some() {
            return Err(Damage("magic or version is not one this program knows").at(path, 0));
        }
        Ok(None)
    }

    /// A reader of a file that may be damaged anywhere, whatever its prelude.
    pub(crate) fn open_damaged(file: Arc<dyn vfs::File>, path: &Path, id: FileId) -> Result<Self> {
        let file_bytes = file.len()?;
        let mut prelude = [0; PRELUDE_BYTES];
        if file_bytes >= PRELUDE_BYTES as u64 {
            file.read_exact_at(&mut prelude, 0)?;
        }
        let offset = file_bytes.min(PRELUDE_BYTES as u64);
        Ok(Self { file, path: path.to_owned(), id, file_bytes, prelude, offset, payload: Vec::new() })
    }

    /// Goes on behind damage, at the next frame that holds; stays where there is none.
    pub(crate) fn skip_damage(&mut self) -> Result<()> {
        self.offset = self.frame_after(self.offset)?.unwrap_or(self.offset);
        Ok(())
    }

    /// The next frame's payload; `None` at the end, torn or clean.
    ///
    /// # Errors
    ///
    /// - [`Error::Damaged`]: a frame does not hold, and a later one does.
    /// - [`Error::Io`]
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>> {
        match self.read(self.offset)? {
            Piece::Frame => {
                self.offset += (HEADER_BYTES + self.payload.len()) as u64;
                Ok(Some(&self.payload))
            }
            Piece::End => Ok(None),
            Piece::Broken(what) => {
                if self.frame_after(self.offset)?.is_some() {
                    return Err(Damage(what).at(&self.path, self.offset));
                }
                Ok(None)
            }
        }
    }

    /// The payload of the next frame that was appended twice, as long as one of
    /// the two holds; `None` at the end, torn or clean.
    ///
    /// # Errors
    ///
    /// - [`Error::Damaged`]: neither holds, and a later frame does.
    /// - [`Error::Io`]
    pub(crate) fn next_of_twins(&mut self) -> Result<Option<&[u8]>> {
        match self.read(self.offset)? {
            Piece::Frame => {
                let end = self.offset + 2 * (HEADER_BYTES + self.payload.len()) as u64;
                // Its twin may be cut off.
                self.offset = end.min(self.file_bytes);
                Ok(Some(&self.payload))
            }
            Piece::End => Ok(None),
            Piece::Broken(what) => {
                let Some(twin) = self.frame_after(self.offset)? else { return Ok(None) };
                self.read(twin)?;
                let frame_bytes = (HEADER_BYTES + self.payload.len()) as u64;
                if twin != self.offset + frame_bytes {
                    return Err(Damage(what).at(&self.path, self.offset));
                }
                self.offset = twin + frame_bytes;
                Ok(Some(&self.payload))
            }
        }
    }

    /// The file's own prelude, which tells its version.
    pub(crate) fn prelude(&self) -> Prelude {
        self.prelude
    }

    /// The file's length.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Past the last frame that [`FrameReader::next`] returned.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The file, named for errors.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Damage in the frame that [`FrameReader::next`] returned last.
    pub(crate) fn damage(&self, damage: Damage) -> Error {
        damage.at(&self.path, self.offset - (HEADER_BYTES + self.payload.len()) as u64)
    }

    fn read(&mut self, offset: u64) -> Result<Piece> {
        let left = self.file_bytes - offset;
        if left == 0 {
            return Ok(Piece::End);
        }
        if left < HEADER_BYTES as u64 {
            return Ok(Piece::Broken("a frame's header is cut off"));
        }
        let mut header = [0; HEADER_BYTES];
        self.file.read_exact_at(&mut header, offset)?;
        if !names(&header, self.id, offset) {
            return Ok(Piece::Broken("a frame's header does not name this place"));
        }
        let length = payload_bytes(&header);
        if length > PAYLOAD_BYTES_MAX || length as u64 > left - HEADER_BYTES as u64 {
            return Ok(Piece::Broken("a frame is longer than its file"));
        }
        self.payload.resize(length, 0);
        self.file.read_exact_at(&mut self.payload, offset + HEADER_BYTES as u64)?;
        if !holds(&header, &self.payload) {
            return Ok(Piece::Broken("a frame's checksum does not hold"));
        }
        Ok(Piece::Frame)
    }

    /// Where the first frame that holds starts behind `offset`.
    fn frame_after(&self, offset: u64) -> Result<Option<u64>> {
        let start = offset + 1;
        let mut rest =
            vec![0; usize::try_from(self.file_bytes - start.min(self.file_bytes)).expect("fits memory")];
        self.file.read_exact_at(&mut rest, start)?;
        let mut starts = (0..rest.len()).map(|at| (at, start + at as u64));
        Ok(starts.find(|(at, start)| frame_at(&rest[*at..], self.id, *start)).map(|(_, start)| start))
    }
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
        fn read(&self) -> std::result::Result<(Vec<Vec<u8>>, bool), u64> {
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
            let torn = reader.offset() < reader.file_bytes;
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
