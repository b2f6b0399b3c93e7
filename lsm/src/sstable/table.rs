//! An open table.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{FilterHash, Properties, ReadMode, TableCursor};
use crate::block_cache::BlockCache;
use crate::internal_key::{Kind, LookupKey};
use crate::range_tombstone::FragmentedTombstones;
use crate::{KeyRange, Result};

/// The newest write of a key that a table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The write's sequence number.
    pub(crate) sequence: u64,
    /// Put or delete.
    pub(crate) kind: Kind,
    /// The value, shared with its block.
    pub(crate) value: Bytes,
}

/// An open table.
#[derive(Debug)]
pub(crate) struct Table {}

impl Table {
    /// Opens the table in `file`, whose name `path` is for errors: reads and verifies footer, properties,
    /// top index, filters and range tombstones, and maps the rest.
    ///
    /// REQUIRES: the file is complete, and nobody changes or cuts it any more.
    pub(crate) fn open(file: Arc<dyn vfs::File>, path: &Path, cache: Arc<BlockCache>) -> Result<Arc<Self>> {
        unimplemented!()
    }
    /// Figures and bounds.
    pub(crate) fn properties(&self) -> &Properties {
        unimplemented!()
    }
    /// The file's length in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        unimplemented!()
    }
    /// Anonymous memory that the open table takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        unimplemented!()
    }
    /// The table's range tombstones. No filter speaks for them: ask them even
    /// where [`Table::get`] finds nothing.
    pub(crate) fn range_tombstones(&self) -> &Arc<FragmentedTombstones> {
        unimplemented!()
    }
    /// Whether point entries under this filter key may be here; true where the filter cannot tell.
    /// Says nothing about range tombstones.
    pub(crate) fn may_contain(&self, filter_key: &[u8], hash: FilterHash) -> bool {
        unimplemented!()
    }
    /// The newest put or delete of the key at or below its sequence, filters
    /// asked first. Range tombstones are not looked at.
    pub(crate) fn get(&self, key: &LookupKey) -> Result<Option<Found>> {
        unimplemented!()
    }
    /// A cursor over the point entries.
    pub(crate) fn cursor(self: &Arc<Self>, mode: ReadMode) -> TableCursor {
        TableCursor::new(Arc::clone(self), mode)
    }
    /// Stored bytes of the data blocks that hold keys of `range`, roughly.
    pub(crate) fn approximate_bytes(&self, range: &KeyRange) -> Result<u64> {
        unimplemented!()
    }
}
