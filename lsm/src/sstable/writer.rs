//! Writes a table front to back, as a flush or a compaction feeds it.
//!
//! Memory is bounded whatever the table's size: a data block, an index
//! partition, the hashes of a filter partition and a write buffer; what grows
//! with the table is the top of the index and of the filters, and its range
//! tombstones. The layout is in `format.rs`.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::block_builder::BlockBuilder;
use super::block_index::{BlockIndexBuilder, DataBlock};
use super::filter::FilterBuilder;
use super::format::{
    BLOCK_BYTES_MAX, BLOCK_TRAILER_BYTES, BlockHandle, BlockSealer, FOOTER_BYTES, Footer, FormatVersion,
};
use super::{Compression, Properties};
use crate::internal_key::{self, Kind};
use crate::range_tombstone::FragmentedTombstones;
use crate::{Error, FilterKey, FilterKind, KeyRange, Result};

/// The most bytes of a user key and its value together.
pub(crate) const ENTRY_BYTES_MAX: usize = BLOCK_BYTES_MAX / 2;
/// Whether a user key and its value together are short enough for a table.
pub(crate) fn fits_entry(user_key: &[u8], value: &[u8]) -> bool {
    user_key.len() + internal_key::TRAILER_BYTES + value.len() <= ENTRY_BYTES_MAX
}

/// Entries from one whole key in a data block to the next.
const RESTART_INTERVAL: usize = 8;
/// Memory that a writer of the engine's usual sizes takes: the hashes of a filter
/// partition and the partition, the write buffer, blocks and index partition.
pub(crate) const WRITER_MEMORY_BYTES_MAX: usize = 2 << 20;
/// Bytes collected before they go to the file.
const WRITE_BYTES: usize = 256 << 10;

/// How a table is written. Readers need none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableOptions {
    /// How data blocks are stored.
    pub(crate) compression: Compression,
    /// How the filters are made.
    pub(crate) filter_kind: FilterKind,
    /// What the filters are built over.
    pub(crate) filter_key: FilterKey,
    /// A data block is closed once it holds this many bytes: small ones make point reads cheap, large ones
    /// compress better. 64 bytes to 16 MiB.
    pub(crate) block_bytes: usize,
    /// An index partition is closed once it holds this many bytes. 64 bytes to 16 MiB.
    pub(crate) index_partition_bytes: usize,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            compression: Compression::Lz4,
            filter_kind: FilterKind::default(),
            filter_key: FilterKey::WholeKey,
            block_bytes: 4 << 10,
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

/// Writes one table. Dropping it unfinished leaves the file to its caller.
#[derive(Debug)]
pub(crate) struct TableWriter {
    path: PathBuf,
    options: TableOptions,
    output: Output,
    data: BlockBuilder,
    index: BlockIndexBuilder,
    filter: FilterBuilder,
    /// The last complete data block, whose separator waits for the key behind it.
    unindexed: Option<DataBlock>,
    separator: Vec<u8>,
    tombstones: FragmentedTombstones,
    properties: Properties,
}

impl TableWriter {
    /// Creates the file at `path`, which must not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: a file that was there is untouched.
    ///
    /// # Panics
    ///
    /// If a size in `options` is out of its range.
    pub(crate) fn create(fs: &dyn vfs::FileSystem, path: &Path, options: TableOptions) -> Result<Self> {
        for bytes in [options.block_bytes, options.index_partition_bytes] {
            assert!((64..=16 << 20).contains(&bytes), "a block of {bytes} bytes is out of range");
        }
        Ok(Self {
            path: path.to_owned(),
            output: Output::new(fs.create(path)?),
            data: BlockBuilder::new(RESTART_INTERVAL),
            index: BlockIndexBuilder::new(options.index_partition_bytes),
            filter: FilterBuilder::new(options.filter_kind, options.filter_key),
            unindexed: None,
            separator: Vec::new(),
            tombstones: FragmentedTombstones::default(),
            properties: Properties {
                key_range: KeyRange::default(),
                entry_count: 0,
                tombstone_count: 0,
                merge_count: 0,
                range_tombstone_count: 0,
                raw_bytes: 0,
                data_bytes: 0,
                data_block_count: 0,
                sequence_min: u64::MAX,
                sequence_max: 0,
                filter_key: options.filter_key,
            },
            options,
        })
    }

    /// Adds a put, a delete or a merge operand. Keys (encoded internal keys) come in ascending order.
    ///
    /// # Errors
    ///
    /// - [`Error::EntryTooLarge`], [`Error::OutOfOrder`]: the entry was not added. A key that is no internal
    ///   key of one of these counts as out of order.
    /// - [`Error::Io`]: the file is of no use any more.
    pub(crate) fn add(&mut self, internal_key: &[u8], value: &[u8]) -> Result<()> {
        let bytes = internal_key.len() + value.len();
        if bytes > ENTRY_BYTES_MAX {
            return Err(Error::EntryTooLarge { bytes, bytes_max: ENTRY_BYTES_MAX });
        }
        let is_first = self.properties.entry_count == 0;
        let (user_key, sequence, kind) = match internal_key::decode(internal_key) {
            Some((user_key, trailer))
                if is_first || internal_key::compare(self.data.last_key(), internal_key).is_lt() =>
            {
                (user_key, trailer.sequence(), trailer.kind())
            }
            _ => return Err(self.out_of_order()),
        };
        match kind {
            Some(Kind::Put) => {}
            Some(Kind::Delete) => self.properties.tombstone_count += 1,
            Some(Kind::Merge) => self.properties.merge_count += 1,
            Some(Kind::RangeDelete) | None => return Err(self.out_of_order()),
        }
        self.index_last_block(Some(internal_key))?;
        if self.filter.is_partition_full_for(user_key) {
            self.write_filter_partition()?;
        }
        let key_hash = self.filter.add(user_key);
        if is_first {
            self.properties.key_range.start = Bytes::copy_from_slice(user_key);
        }
        self.properties.entry_count += 1;
        self.properties.raw_bytes += bytes as u64;
        self.see_sequences(sequence, sequence);
        self.data.add(internal_key, value);
        self.data.tag(key_hash);
        if self.data.bytes() >= self.options.block_bytes { self.write_data_block() } else { Ok(()) }
    }

    /// The table's range tombstones, at any time before [`TableWriter::finish`]; replaces what was set.
    pub(crate) fn set_range_tombstones(&mut self, tombstones: FragmentedTombstones) {
        self.tombstones = tombstones;
    }

    /// Bytes the file would have if it were finished now, roughly.
    pub(crate) fn estimated_bytes(&self) -> u64 {
        let pending =
            self.data.bytes() + self.index.bytes() + self.filter.bytes() + self.tombstones.memory_bytes();
        self.output.offset + pending as u64
    }

    /// Writes the rest and syncs the file; the caller syncs the directory.
    ///
    /// # Durability
    ///
    /// The file's bytes are durable when this returns; its name may not be.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the file is of no use any more.
    pub(crate) fn finish(mut self) -> Result<FinishedTable> {
        if self.data.entry_count() > 0 {
            self.write_data_block()?;
        }
        self.index_last_block(None)?;
        self.write_filter_partition()?;
        let filter = match self.filter.finish_index() {
            Some(index) => self.output.write_block(&index, Compression::Raw)?.0,
            None => BlockHandle::default(),
        };
        let tombstones = self.write_range_tombstones()?;
        let index_levels = if self.index.is_partitioned() { 2 } else { 1 };
        if self.index.is_partitioned() && self.index.pending_count() > 0 {
            self.write_index_partition()?;
        }
        let index = self.output.write_block(self.index.finish_top(), Compression::Raw)?.0;
        self.finish_properties();
        let mut block = Vec::new();
        self.properties.encode(&mut block);
        let properties = self.output.write_block(&block, Compression::Raw)?.0;
        let footer =
            Footer { version: FormatVersion::NEWEST, properties, index, filter, tombstones, index_levels };
        let (file, file_bytes) = self.output.finish(&footer)?;
        Ok(FinishedTable { file, file_bytes, properties: self.properties })
    }

    fn out_of_order(&self) -> Error {
        Error::OutOfOrder { file: self.path.clone() }
    }

    fn see_sequences(&mut self, least: u64, greatest: u64) {
        self.properties.sequence_min = self.properties.sequence_min.min(least);
        self.properties.sequence_max = self.properties.sequence_max.max(greatest);
    }

    fn write_data_block(&mut self) -> Result<()> {
        let (handle, compression) = self.output.write_block(self.data.finish(), self.options.compression)?;
        self.data.reset();
        let ordinal = self.properties.data_block_count;
        self.unindexed = Some(DataBlock { handle, ordinal, compression });
        self.properties.data_block_count += 1;
        self.properties.data_bytes += u64::from(handle.stored_bytes);
        Ok(())
    }

    /// Indexes the last complete data block, if that is still to be done,
    /// under a key before `next`, the first one behind it.
    fn index_last_block(&mut self, next: Option<&[u8]>) -> Result<()> {
        let Some(block) = self.unindexed.take() else { return Ok(()) };
        self.separator.clear();
        self.separator.extend_from_slice(self.data.last_key());
        if let Some(next) = next {
            internal_key::shorten_to_separator(&mut self.separator, next);
        }
        self.index.add(&self.separator, block);
        if self.index.is_partition_full() { self.write_index_partition() } else { Ok(()) }
    }

    fn write_index_partition(&mut self) -> Result<()> {
        let (handle, _) = self.output.write_block(self.index.finish_partition(), Compression::Raw)?;
        self.index.partition_written(handle);
        Ok(())
    }

    fn write_filter_partition(&mut self) -> Result<()> {
        if let Some(block) = self.filter.finish_partition() {
            let (handle, _) = self.output.write_block(&block, Compression::Raw)?;
            self.filter.partition_written(handle);
        }
        Ok(())
    }

    fn write_range_tombstones(&mut self) -> Result<BlockHandle> {
        if self.tombstones.is_empty() {
            return Ok(BlockHandle::default());
        }
        let mut block = Vec::new();
        self.tombstones.encode(&mut block);
        if block.len() > BLOCK_BYTES_MAX {
            return Err(Error::EntryTooLarge { bytes: block.len(), bytes_max: BLOCK_BYTES_MAX });
        }
        Ok(self.output.write_block(&block, self.options.compression)?.0)
    }

    fn finish_properties(&mut self) {
        if self.properties.entry_count > 0 {
            let largest = internal_key::user_key(self.data.last_key());
            self.properties.key_range.end = [largest, &[0]].concat().into();
        }
        for sequence in self.tombstones.iter().flat_map(|fragment| fragment.sequences) {
            self.properties.range_tombstone_count += 1;
            self.properties.sequence_min = self.properties.sequence_min.min(*sequence);
            self.properties.sequence_max = self.properties.sequence_max.max(*sequence);
        }
        if let Some(deleted) = self.tombstones.key_range() {
            let range = &mut self.properties.key_range;
            if self.properties.entry_count == 0 || deleted.start < range.start {
                range.start = deleted.start;
            }
            if deleted.end > range.end {
                range.end = deleted.end;
            }
        }
        if self.properties.sequence_min > self.properties.sequence_max {
            self.properties.sequence_min = 0;
        }
    }
}

/// The file's end, with what is still to be written.
#[derive(Debug)]
struct Output {
    file: Arc<dyn vfs::File>,
    sealer: BlockSealer,
    buffer: Vec<u8>,
    /// Of the end, buffer included.
    offset: u64,
}

impl Output {
    fn new(file: Arc<dyn vfs::File>) -> Self {
        Self { file, sealer: BlockSealer::new(), buffer: Vec::new(), offset: 0 }
    }

    fn write_block(&mut self, block: &[u8], wish: Compression) -> Result<(BlockHandle, Compression)> {
        let offset = self.offset;
        let (stored_bytes, compression) = self.sealer.seal(block, wish, &mut self.buffer);
        self.offset += u64::from(stored_bytes) + BLOCK_TRAILER_BYTES as u64;
        if self.buffer.len() >= WRITE_BYTES {
            self.write_buffer()?;
        }
        Ok((BlockHandle { offset, stored_bytes }, compression))
    }

    fn write_buffer(&mut self) -> Result<()> {
        let written = self.offset - self.buffer.len() as u64;
        self.file.write_all_at(&[IoSlice::new(&self.buffer)], written)?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self, footer: &Footer) -> Result<(Arc<dyn vfs::File>, u64)> {
        self.buffer.extend_from_slice(&footer.encode());
        self.offset += FOOTER_BYTES as u64;
        self.write_buffer()?;
        self.file.sync()?;
        Ok((self.file, self.offset))
    }
}
