//! Appends frames.

use std::io::IoSlice;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::{HEADER_BYTES, PRELUDE_BYTES, Prelude, header};
use crate::Result;
use crate::file_id::FileId;

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
