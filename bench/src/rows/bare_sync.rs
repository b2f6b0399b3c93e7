//! What a durable write costs at the least: a file, a write and a sync.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::load::Load;
use super::table::VALUE_BYTES;
use crate::Outcome;
use crate::measure::Worker;

/// Bytes that stand in the file from the start: a sync of a file that grows
/// costs several times as much.
const FILE_BYTES: usize = 64 << 20;

/// A file that is written a value at a time, each synced.
pub(crate) struct BareSync {
    file: File,
    offset: usize,
    value: Vec<u8>,
}

impl BareSync {
    /// Writes all of `file`, which is new.
    pub(crate) fn new(file: File) -> Outcome<Self> {
        file.write_all_at(&vec![7; FILE_BYTES], 0)?;
        file.sync_all()?;
        Ok(Self { file, offset: 0, value: vec![8; VALUE_BYTES] })
    }

    fn step(&mut self) -> Outcome<u64> {
        if self.offset + VALUE_BYTES > FILE_BYTES {
            self.offset = 0;
        }
        self.file.write_all_at(&self.value, self.offset as u64)?;
        self.file.sync_data()?;
        self.offset += VALUE_BYTES;
        Ok(1)
    }
}

/// Either, so that both are sides of one comparison.
pub(crate) enum LoadOrSync {
    Load(Box<Load>),
    Sync(BareSync),
}

impl Worker for LoadOrSync {
    async fn step(&mut self) -> Outcome<u64> {
        match self {
            Self::Load(load) => load.step().await,
            Self::Sync(sync) => tokio::task::block_in_place(|| sync.step()),
        }
    }
}
