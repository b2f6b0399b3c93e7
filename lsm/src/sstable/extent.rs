//! How much of a table lies in a range, and where, by its index alone.

use std::sync::Arc;

use super::Table;
use super::block_index::DataBlock;
use super::format::BLOCK_TRAILER_BYTES;
use super::miss::Blocking;
use crate::internal_key::{self, SEQUENCE_MAX, TRAILER_BYTES, Trailer};
use crate::{KeyRange, Result};

impl Table {
    /// Bytes of the file that hold keys of `range`: those of their data blocks,
    /// with a share of what stands beside the data.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Damaged`].
    pub(crate) fn approximate_bytes(self: &Arc<Self>, range: &KeyRange) -> Result<u64> {
        let Some(last) = self.index_last(Blocking::Allowed)? else {
            // Range tombstones alone.
            return Ok(self.file_bytes());
        };
        let data_end = end_of(self.index_entry(last, Blocking::Allowed)?);
        let start = self.offset_of(&range.start, data_end)?;
        let end = if range.end.is_empty() { data_end } else { self.offset_of(&range.end, data_end)? };
        Ok(self.share_of(end.saturating_sub(start), data_end))
    }

    /// Tells `emit` how much of the table lies in `range` and where: a key (an internal one) at or after each
    /// stretch of `step` bytes or more, and before the next one.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Damaged`].
    pub(crate) fn weigh(
        self: &Arc<Self>,
        range: &KeyRange,
        step: u64,
        emit: &mut dyn FnMut(&[u8], u64),
    ) -> Result<()> {
        let Some(last) = self.index_last(Blocking::Allowed)? else { return Ok(()) };
        let data_end = end_of(self.index_entry(last, Blocking::Allowed)?);
        let mut position = self.index_seek(&place_before(&range.start), Blocking::Allowed)?;
        let mut bytes = 0;
        while let Some(at) = position {
            let separator = self.index_separator(at)?;
            let block = self.index_entry(at, Blocking::Allowed)?;
            bytes += u64::from(block.handle.stored_bytes) + BLOCK_TRAILER_BYTES as u64;
            position = self.index_next(at, Blocking::Allowed)?;
            let is_last = position.is_none() || !range.contains(internal_key::user_key(&separator));
            if bytes >= step || is_last {
                emit(&separator, self.share_of(bytes, data_end));
                bytes = 0;
            }
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// The offset of the first data block that may hold keys at or after `user_key`.
    fn offset_of(self: &Arc<Self>, user_key: &[u8], data_end: u64) -> Result<u64> {
        match self.index_seek(&place_before(user_key), Blocking::Allowed)? {
            Some(position) => Ok(self.index_entry(position, Blocking::Allowed)?.handle.offset),
            None => Ok(data_end),
        }
    }

    /// What so many bytes of data blocks are of the file.
    fn share_of(&self, bytes: u64, data_end: u64) -> u64 {
        let share = u128::from(bytes) * u128::from(self.file_bytes()) / u128::from(data_end.max(1));
        u64::try_from(share).unwrap_or(u64::MAX).min(self.file_bytes())
    }
}

fn end_of(block: DataBlock) -> u64 {
    block.handle.offset.saturating_add(u64::from(block.handle.stored_bytes) + BLOCK_TRAILER_BYTES as u64)
}

/// The place before all versions of `user_key`.
fn place_before(user_key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(user_key.len() + TRAILER_BYTES);
    internal_key::encode(&mut place, user_key, Trailer::seek(SEQUENCE_MAX));
    place
}
