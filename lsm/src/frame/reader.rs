//! Reads frames, torn and damaged ones told from those that hold.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    HEADER_BYTES, PAYLOAD_BYTES_MAX, PRELUDE_BYTES, Prelude, frame_at, holds, is_other_version, names,
    payload_bytes,
};
use crate::error::Damage;
use crate::file_id::FileId;
use crate::{Error, Result};

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
