//! Writing a table.

use std::path::Path;
use std::sync::Arc;

use super::{Compression, Properties};
use crate::range_tombstone::FragmentedTombstones;
use crate::{FilterKey, Result};

/// How a table is written. Readers need none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableOptions {
    /// How data blocks are stored.
    pub(crate) compression: Compression,
    /// What the filters are built over.
    pub(crate) filter_key: FilterKey,
    /// A data block is closed once it holds this many bytes: small ones make point reads cheap, large ones
    /// compress better. 256 bytes to 4 MiB.
    pub(crate) block_bytes: usize,
    /// An index partition is closed once it holds this many bytes. 256 bytes to 4 MiB.
    pub(crate) index_partition_bytes: usize,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Lz4,
            filter_key: FilterKey::WholeKey,
            block_bytes: 8 << 10,
            index_partition_bytes: 32 << 10,
        }
    }
}

/// A table that is complete and durable; its name is so once its directory is synced.
#[derive(Debug)]
pub(crate) struct FinishedTable {
    /// The file, for reading.
    pub(crate) file: Arc<dyn vfs::File>,
    /// Its length.
    pub(crate) file_bytes: u64,
    /// Its figures and bounds.
    pub(crate) properties: Properties,
}

/// Writes one table, front to back, in bounded memory.
#[derive(Debug)]
pub(crate) struct TableWriter {}

impl TableWriter {
    /// Creates the file at `path`, which must not exist. Dropping the writer leaves the file to its caller.
    pub(crate) fn create(fs: &dyn vfs::FileSystem, path: &Path, options: TableOptions) -> Result<Self> {
        unimplemented!()
    }
    /// Adds a put or a delete. Keys (encoded internal keys) come in ascending order.
    pub(crate) fn add(&mut self, internal_key: &[u8], value: &[u8]) -> Result<()> {
        unimplemented!()
    }
    /// The table's range tombstones, at any time before [`TableWriter::finish`]; replaces what was set.
    pub(crate) fn set_range_tombstones(&mut self, tombstones: FragmentedTombstones) {
        unimplemented!()
    }
    /// Bytes the file would have if it were finished now, roughly.
    pub(crate) fn estimated_bytes(&self) -> u64 {
        unimplemented!()
    }
    /// Point entries so far.
    pub(crate) fn entry_count(&self) -> u64 {
        unimplemented!()
    }
    /// Writes the rest and syncs the file; the caller syncs the directory.
    pub(crate) fn finish(self) -> Result<FinishedTable> {
        unimplemented!()
    }
}
