//! Reads the part of an SSTable that is within bounds: what lies outside is
//! another tree's, or nobody's.

use bytes::Bytes;

use crate::internal_key::{self, SEQUENCE_MAX, Trailer};
use crate::sstable::TableCursor;
use crate::{KeyRange, Result};

/// A cursor over the point entries of a table within bounds. Fresh, and after
/// a move that returned false, it stands nowhere.
#[derive(Debug)]
pub(crate) struct BoundedCursor {
    cursor: TableCursor,
    /// None where the table ends before its bounds do.
    bounds: Option<KeyRange>,
}

impl BoundedCursor {
    /// `cursor` within `bounds`, whose end is not open.
    pub(crate) fn new(cursor: TableCursor, bounds: Option<KeyRange>) -> Self {
        Self { cursor, bounds }
    }

    pub(crate) fn seek_to_first(&mut self) -> Result<bool> {
        let Some(bounds) = &self.bounds else { return self.cursor.seek_to_first() };
        let is_on = self.cursor.seek(&before(&bounds.start))?;
        Ok(is_on && self.is_before_end())
    }

    pub(crate) fn seek_to_last(&mut self) -> Result<bool> {
        let Some(bounds) = &self.bounds else { return self.cursor.seek_to_last() };
        let is_on = self.cursor.seek_before(&before(&bounds.end))?;
        Ok(is_on && self.is_behind_start())
    }

    /// Moves to the first entry at or after the encoded internal key.
    pub(crate) fn seek(&mut self, internal_key: &[u8]) -> Result<bool> {
        if let Some(bounds) = &self.bounds
            && *internal_key::user_key(internal_key) < *bounds.start
        {
            return self.seek_to_first();
        }
        Ok(self.cursor.seek(internal_key)? && self.is_before_end())
    }

    /// Moves to the last entry before the encoded internal key.
    pub(crate) fn seek_before(&mut self, internal_key: &[u8]) -> Result<bool> {
        if let Some(bounds) = &self.bounds
            && *internal_key::user_key(internal_key) >= *bounds.end
        {
            return self.seek_to_last();
        }
        Ok(self.cursor.seek_before(internal_key)? && self.is_behind_start())
    }

    /// REQUIRES: it stands on an entry.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<bool> {
        Ok(self.cursor.next()? && self.is_before_end())
    }

    /// REQUIRES: it stands on an entry.
    pub(crate) fn prev(&mut self) -> Result<bool> {
        Ok(self.cursor.prev()? && self.is_behind_start())
    }

    /// The current encoded internal key.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        self.cursor.key()
    }

    /// The current value.
    pub(crate) fn value(&self) -> &[u8] {
        self.cursor.value()
    }

    /// The current value, shared with its block.
    pub(crate) fn value_bytes(&self) -> Bytes {
        self.cursor.value_bytes()
    }

    #[inline]
    fn is_before_end(&self) -> bool {
        let ends = |bounds: &KeyRange| *internal_key::user_key(self.cursor.key()) >= *bounds.end;
        !self.bounds.as_ref().is_some_and(ends)
    }

    fn is_behind_start(&self) -> bool {
        let starts = |bounds: &KeyRange| *internal_key::user_key(self.cursor.key()) < *bounds.start;
        !self.bounds.as_ref().is_some_and(starts)
    }
}

/// The place before all versions of `user_key`.
fn before(user_key: &[u8]) -> Vec<u8> {
    let mut place = Vec::with_capacity(user_key.len() + internal_key::TRAILER_BYTES);
    internal_key::encode(&mut place, user_key, Trailer::seek(SEQUENCE_MAX));
    place
}
