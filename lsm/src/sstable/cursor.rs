//! Reading a table in order.

use std::sync::Arc;

use bytes::Bytes;

use super::Table;
use crate::Result;

/// Where a cursor takes blocks from and what it leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadMode {
    /// Mapped file and block cache, which is filled.
    Hot,
    /// Mapped file and block cache, which is not filled.
    Scan,
    /// Positional reads of large pieces ahead, past the block cache.
    Compaction,
}

/// A cursor over the point entries of a table by internal key. Owns what it
/// reads from: `Send + 'static`. Fresh, it stands nowhere: seek first. After
/// an error it stands nowhere.
#[derive(Debug)]
pub(crate) struct TableCursor {}

impl TableCursor {
    pub(crate) fn new(table: Arc<Table>, mode: ReadMode) -> Self {
        unimplemented!()
    }
    /// Whether it stands on an entry.
    pub(crate) fn is_valid(&self) -> bool {
        unimplemented!()
    }
    /// Moves to the first entry; false if there is none.
    pub(crate) fn seek_to_first(&mut self) -> Result<bool> {
        unimplemented!()
    }
    /// Moves to the last entry; false if there is none.
    pub(crate) fn seek_to_last(&mut self) -> Result<bool> {
        unimplemented!()
    }
    /// Moves to the first entry at or after the encoded internal key; false if there is none.
    pub(crate) fn seek(&mut self, internal_key: &[u8]) -> Result<bool> {
        unimplemented!()
    }
    /// Moves to the last entry before the encoded internal key; false if there is none.
    pub(crate) fn seek_before(&mut self, internal_key: &[u8]) -> Result<bool> {
        unimplemented!()
    }
    /// Moves to the next entry; false at the end. REQUIRES: it stands on one.
    pub(crate) fn next(&mut self) -> Result<bool> {
        unimplemented!()
    }
    /// Moves to the entry before; false at the start. REQUIRES: it stands on one.
    pub(crate) fn prev(&mut self) -> Result<bool> {
        unimplemented!()
    }
    /// The current encoded internal key, of a known kind. Panics unless the cursor stands on an entry.
    pub(crate) fn key(&self) -> &[u8] {
        unimplemented!()
    }
    /// The current value. Panics unless the cursor stands on an entry.
    pub(crate) fn value(&self) -> &[u8] {
        unimplemented!()
    }
    /// The current value, shared with its block. Panics unless the cursor stands on an entry.
    pub(crate) fn value_bytes(&self) -> Bytes {
        unimplemented!()
    }
}
