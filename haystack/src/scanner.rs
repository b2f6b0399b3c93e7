//! Reads the needles of a volume one after the other, and finds the next one
//! behind damage.
//!
//! Recovery, compaction and inspection read a volume this way. A needle is
//! believed once its checksum is right, as everywhere.

use std::sync::Arc;

use vfs::File;

use crate::error::Result;
use crate::index_file::{Content, IndexRecord};
use crate::needle::{HEADER_BYTES, NEEDLE_ALIGNMENT, Needle, NeedleDamage, claimed_needle_bytes};
use crate::photo_id::PhotoSize;

/// Bytes read at a time, unless a needle is larger.
const WINDOW_BYTES: u64 = 1 << 20;

/// Reads needles one after the other through a window on the file.
#[derive(Debug)]
pub(crate) struct Scanner {
    file: Arc<dyn File>,
    seed: u32,
    end: u64,
    window: Vec<u8>,
    window_offset: u64,
}

impl Scanner {
    /// Of the first `end` bytes of `file`.
    pub(crate) fn new(file: Arc<dyn File>, seed: u32, end: u64) -> Self {
        Self { file, seed, end, window: Vec::new(), window_offset: 0 }
    }

    /// Looks as far as `end` from now on, which is not before where it looked so far.
    pub(crate) fn set_end(&mut self, end: u64) {
        self.end = end;
    }

    /// What lies at `offset`; none where no needle follows any more.
    pub(crate) fn next(&mut self, offset: u64) -> Result<Option<IndexRecord>> {
        if let Ok(record) = self.needle_at(offset)? {
            return Ok(Some(record));
        }
        let mut candidate = offset + NEEDLE_ALIGNMENT;
        while candidate + HEADER_BYTES as u64 <= self.end {
            if self.needle_at(candidate)?.is_ok() {
                return Ok(Some(IndexRecord { offset, bytes: candidate - offset, content: Content::Damage }));
            }
            candidate += NEEDLE_ALIGNMENT;
        }
        Ok(None)
    }

    /// The needle at `offset`, verified, or what is wrong there.
    pub(crate) fn needle_at(
        &mut self,
        offset: u64,
    ) -> Result<std::result::Result<IndexRecord, NeedleDamage>> {
        let left = self.end.saturating_sub(offset);
        if left < HEADER_BYTES as u64 {
            return Ok(Err(NeedleDamage::Short { found: left, expected: HEADER_BYTES as u64 }));
        }
        let claimed = match claimed_needle_bytes(self.bytes(offset, HEADER_BYTES as u64)?) {
            Ok(claimed) if claimed <= left => claimed,
            Ok(expected) => return Ok(Err(NeedleDamage::Short { found: left, expected })),
            Err(damage) => return Ok(Err(damage)),
        };
        let seed = self.seed;
        let bytes = self.bytes(offset, claimed)?;
        Ok(Needle::decode(bytes, seed).and_then(|needle| {
            let header = &needle.header;
            if !header.deleted && PhotoSize::from_alternate_key(header.alternate_key).is_none() {
                return Err(NeedleDamage::Field { field: "alternate key", found: header.alternate_key });
            }
            Ok(IndexRecord::of(header, offset))
        }))
    }

    /// The `length` bytes at `offset`, which end before the file does.
    pub(crate) fn bytes(&mut self, offset: u64, length: u64) -> Result<&[u8]> {
        let window_end = self.window_offset + self.window.len() as u64;
        if offset < self.window_offset || offset + length > window_end {
            let size = length.max(WINDOW_BYTES).min(self.end - offset);
            self.window.resize(usize::try_from(size).expect("a needle or a window"), 0);
            self.file.read_exact_at(&mut self.window, offset)?;
            self.window_offset = offset;
        }
        let start = usize::try_from(offset - self.window_offset).expect("within the window");
        Ok(&self.window[start..start + usize::try_from(length).expect("within the window")])
    }
}
