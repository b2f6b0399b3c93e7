//! What a read lacks that was not permitted to wait for the disk.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::Table;
use super::block_index::DataBlock;
use super::format::{BLOCK_TRAILER_BYTES, BlockHandle};
use crate::Result;

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocking {
    Allowed,
    /// It fails with [`crate::Error::WouldBlock`] instead.
    Forbidden,
}

/// A block of an SSTable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MissedBlock {
    Data(DataBlock),
    IndexPartition(BlockHandle),
}

impl MissedBlock {
    pub(super) fn handle(self) -> BlockHandle {
        match self {
            Self::Data(data_block) => data_block.handle,
            Self::IndexPartition(handle) => handle,
        }
    }
}

/// A block that is not in memory, which a read without permission to block
/// needs to go on. Cheap to clone; keeps its file.
#[derive(Clone)]
pub struct Miss {
    table: Arc<Table>,
    block: MissedBlock,
}

impl Miss {
    pub(super) fn new(table: Arc<Table>, block: MissedBlock) -> Self {
        Self { table, block }
    }

    /// The file that the block is in.
    pub fn file(&self) -> &Path {
        self.table.path()
    }

    /// Where in the file it starts.
    pub fn offset(&self) -> u64 {
        self.block.handle().offset
    }

    /// Bytes that it takes there.
    pub fn bytes(&self) -> u64 {
        u64::from(self.block.handle().stored_bytes) + BLOCK_TRAILER_BYTES as u64
    }

    /// Reads the block into the block cache, waiting for the disk: then the read
    /// that lacked it can be tried again, and gets on unless the block is gone
    /// again before that. Whoever must get on permits the read itself to block.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Damaged`], [`crate::Error::Io`]
    pub fn fetch(&self) -> Result<()> {
        self.table.fetch(self.block)
    }
}

impl fmt::Debug for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, offset, bytes) = (self.file(), self.offset(), self.bytes());
        f.debug_struct("Miss").field("file", &file).field("offset", &offset).field("bytes", &bytes).finish()
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at offset {} of {}", self.bytes(), self.offset(), self.file().display())
    }
}
