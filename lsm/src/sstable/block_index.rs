//! The index of a table: which data block may hold a key.
//!
//! A small index is one block; a large one is cut into partitions as it is
//! written, each a block, with a top index over them, so that neither writing
//! nor opening a table holds more of it than the top. Index blocks are stored
//! raw and have a restart at each entry: they are read in place, in the mapped
//! file, and searched by digests of their keys, which are made when a block is
//! first used.
//!
//! An entry's key is an internal key at or after all of its block and before
//! all of the next one. Its value, for a data block:
//!
//! ```text
//! SIZE    FIELD
//! varint  offset of the block
//! varint  stored bytes
//! varint  ordinal of the block among the data blocks, from 0
//! 1       compression: 1 raw, 2 LZ4; the same as in the block's trailer
//! ```
//!
//! and for a partition, in the top index, the first two of these.

use std::cmp::Ordering;
use std::ops::{Deref, Range};
use std::sync::OnceLock;

use bytes::Bytes;

use super::Compression;
use super::block::Block;
use super::block_builder::BlockBuilder;
use super::format::{self, BlockHandle};
use super::key_digests::KeyDigests;
use crate::error::Damage;
use crate::{Error, internal_key, varint};

/// Where a data block is and how it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataBlock {
    pub(crate) handle: BlockHandle,
    /// Its place among the data blocks, from 0.
    pub(crate) ordinal: u64,
    pub(crate) compression: Compression,
}

impl DataBlock {
    fn encode(self, buffer: &mut Vec<u8>) {
        encode_handle(buffer, self.handle);
        varint::encode(buffer, self.ordinal);
        buffer.push(self.compression.tag());
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let handle = take_handle(&mut bytes)?;
        let ordinal = varint::take(&mut bytes)?;
        let [tag] = bytes else { return None };
        Some(Self { handle, ordinal, compression: Compression::from_tag(*tag)? })
    }
}

fn encode_handle(buffer: &mut Vec<u8>, handle: BlockHandle) {
    varint::encode(buffer, handle.offset);
    varint::encode(buffer, handle.stored_bytes.into());
}

fn take_handle(bytes: &mut &[u8]) -> Option<BlockHandle> {
    Some(BlockHandle { offset: varint::take(bytes)?, stored_bytes: varint::take(bytes)?.try_into().ok()? })
}

/// Builds an index while the data blocks are written.
#[derive(Debug)]
pub(crate) struct BlockIndexBuilder {
    partition_bytes: usize,
    current: BlockBuilder,
    top: BlockBuilder,
    value: Vec<u8>,
}

impl BlockIndexBuilder {
    /// A builder that closes partitions at `partition_bytes`.
    pub(crate) fn new(partition_bytes: usize) -> Self {
        Self { partition_bytes, current: BlockBuilder::new(1), top: BlockBuilder::new(1), value: Vec::new() }
    }

    /// Adds a data block whose keys are at or before `separator`.
    pub(crate) fn add(&mut self, separator: &[u8], block: DataBlock) {
        self.value.clear();
        block.encode(&mut self.value);
        self.current.add(separator, &self.value);
    }

    /// Whether the current partition has to be written now.
    pub(crate) fn is_partition_full(&self) -> bool {
        self.current.bytes() >= self.partition_bytes
    }

    /// Whether the index has more than one level so far.
    pub(crate) fn is_partitioned(&self) -> bool {
        self.top.entry_count() > 0
    }

    /// Entries of the current partition.
    pub(crate) fn pending_count(&self) -> usize {
        self.current.entry_count()
    }

    /// The current partition's block, to be written; then comes [`BlockIndexBuilder::partition_written`].
    pub(crate) fn finish_partition(&mut self) -> &[u8] {
        self.current.finish()
    }

    /// The current partition stands at `handle`; the next one begins.
    pub(crate) fn partition_written(&mut self, handle: BlockHandle) {
        self.value.clear();
        encode_handle(&mut self.value, handle);
        self.top.add(self.current.last_key(), &self.value);
        self.current.reset();
    }

    /// The top index; the last partition is written by now if there is more than one.
    pub(crate) fn finish_top(&mut self) -> &[u8] {
        if self.is_partitioned() { self.top.finish() } else { self.current.finish() }
    }

    /// Bytes of index that are not written yet.
    pub(crate) fn bytes(&self) -> usize {
        self.current.bytes() + self.top.bytes()
    }
}

/// A data block's place in an index. Compares like the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IndexPosition {
    partition: usize,
    entry: usize,
}

/// The index of an open table.
#[derive(Debug)]
pub(crate) struct BlockIndex {
    /// Of two levels the upper one; with one level none.
    top: Option<IndexBlock>,
    /// Each verified when it is first used; with one level the only one, and at once.
    partitions: Box<[OnceLock<IndexBlock>]>,
    top_bytes: usize,
}

/// A block of an index, every entry a restart.
#[derive(Debug)]
struct IndexBlock {
    block: Block,
    digests: KeyDigests,
}

/// Why the index does not answer.
#[derive(Debug)]
pub(crate) enum IndexError {
    /// What is wrong and in which block of the file: an offset.
    Damaged(Damage, u64),
    /// A partition could not be read.
    Unread(Error),
}

type Result<T> = std::result::Result<T, IndexError>;

impl BlockIndex {
    /// The index with this top block, which is in anonymous memory. `offset` is where it stands.
    pub(crate) fn new(top: Block, levels: u8, offset: u64) -> Result<Self> {
        check_whole(&top).map_err(|damage| IndexError::Damaged(damage, offset))?;
        let top_bytes = top.bytes();
        let top = IndexBlock::new(top);
        if levels == 1 {
            return Ok(Self { top: None, partitions: Box::new([OnceLock::from(top)]), top_bytes });
        }
        let partitions = (0..top.block.restart_count()).map(|_| OnceLock::new()).collect();
        Ok(Self { top: Some(top), partitions, top_bytes })
    }

    /// Anonymous memory it takes once every partition is in use.
    pub(crate) fn memory_bytes(&self, data_block_count: u64) -> usize {
        let top = self.top.as_ref().map_or(0, |top| top.block.restart_count());
        let keys = top.saturating_add(usize::try_from(data_block_count).unwrap_or(usize::MAX));
        size_of_val(&*self.partitions) + self.top_bytes + keys.saturating_mul(KeyDigests::BYTES_PER_KEY)
    }

    /// The first block that may hold keys at or after `target`.
    pub(crate) fn seek(&self, file: &IndexFile<'_>, target: &[u8]) -> Result<Option<IndexPosition>> {
        let partition = match &self.top {
            None => 0,
            Some(top) => top.search(target).map_err(|damage| IndexError::Damaged(damage, file.top_offset))?,
        };
        if partition == self.partitions.len() {
            return Ok(None);
        }
        let block = self.partition(file, partition)?;
        let entry = block.search(target).map_err(|damage| self.damaged(file, partition, damage))?;
        if entry < block.restart_count() {
            return Ok(Some(IndexPosition { partition, entry }));
        }
        // A partition's key in the top index is its own last one.
        match self.top {
            None => Ok(None),
            Some(_) => Err(self.damaged(file, partition, Damage("an index partition is too short"))),
        }
    }

    /// The first block.
    pub(crate) fn first(&self, file: &IndexFile<'_>) -> Result<Option<IndexPosition>> {
        self.forward(file, 0, 0)
    }

    /// The last block.
    pub(crate) fn last(&self, file: &IndexFile<'_>) -> Result<Option<IndexPosition>> {
        self.backward(file, self.partitions.len())
    }

    /// The block after `position`.
    pub(crate) fn next(
        &self,
        file: &IndexFile<'_>,
        position: IndexPosition,
    ) -> Result<Option<IndexPosition>> {
        self.forward(file, position.partition, position.entry + 1)
    }

    /// The block before `position`.
    pub(crate) fn prev(
        &self,
        file: &IndexFile<'_>,
        position: IndexPosition,
    ) -> Result<Option<IndexPosition>> {
        match position.entry.checked_sub(1) {
            Some(entry) => Ok(Some(IndexPosition { entry, ..position })),
            None => self.backward(file, position.partition),
        }
    }

    /// Where the block at `position` is.
    pub(crate) fn entry(&self, file: &IndexFile<'_>, position: IndexPosition) -> Result<DataBlock> {
        let damaged = |damage| self.damaged(file, position.partition, damage);
        let block = self.partition(file, position.partition)?;
        let (_, value) = block.whole_entry(position.entry).map_err(damaged)?;
        DataBlock::decode(value).ok_or(Damage("an index entry does not decode")).map_err(damaged)
    }

    /// The key that separates the block at `position` from the next one.
    pub(crate) fn separator(&self, file: &IndexFile<'_>, position: IndexPosition) -> Result<Bytes> {
        let block = self.partition(file, position.partition)?;
        let (key, _) = block
            .whole_entry(position.entry)
            .map_err(|damage| self.damaged(file, position.partition, damage))?;
        Ok(Bytes::copy_from_slice(key))
    }

    fn forward(&self, file: &IndexFile<'_>, partition: usize, entry: usize) -> Result<Option<IndexPosition>> {
        let mut position = IndexPosition { partition, entry };
        while position.partition < self.partitions.len() {
            if position.entry < self.partition(file, position.partition)?.restart_count() {
                return Ok(Some(position));
            }
            position = IndexPosition { partition: position.partition + 1, entry: 0 };
        }
        Ok(None)
    }

    fn backward(&self, file: &IndexFile<'_>, partitions: usize) -> Result<Option<IndexPosition>> {
        for partition in (0..partitions).rev() {
            if let Some(entry) = self.partition(file, partition)?.restart_count().checked_sub(1) {
                return Ok(Some(IndexPosition { partition, entry }));
            }
        }
        Ok(None)
    }

    /// A partition, verified if this is its first use.
    fn partition(&self, file: &IndexFile<'_>, partition: usize) -> Result<Partition<'_>> {
        // Of one level, the only one is in anonymous memory; others are where the file says.
        if (file.read.is_none() || self.top.is_none())
            && let Some(block) = self.partitions[partition].get()
        {
            return Ok(Partition::Mapped(block));
        }
        let handle = self
            .partition_handle(partition)
            .map_err(|damage| IndexError::Damaged(damage, file.top_offset))?;
        if let Some(read) = file.read {
            let digests = self.partitions[partition].get().map(|mapped| &mapped.digests);
            return read(handle).map(|block| Partition::Read(block, digests)).map_err(IndexError::Unread);
        }
        let block = file.mapped(handle).map_err(|damage| IndexError::Damaged(damage, handle.offset))?;
        Ok(Partition::Mapped(self.partitions[partition].get_or_init(|| block)))
    }

    fn partition_handle(&self, partition: usize) -> std::result::Result<BlockHandle, Damage> {
        let top = self.top.as_ref().ok_or(Damage("an index of one level has no partitions"))?;
        let (_, mut value) = top.block.whole_entry(partition)?;
        let handle = take_handle(&mut value).filter(|_| value.is_empty());
        handle.ok_or(Damage("an entry of the top index does not decode"))
    }

    /// `damage`, found in a partition.
    fn damaged(&self, file: &IndexFile<'_>, partition: usize, damage: Damage) -> IndexError {
        let offset = self.partition_handle(partition).map_or(file.top_offset, |handle| handle.offset);
        IndexError::Damaged(damage, offset)
    }
}

/// A partition that is looked into.
enum Partition<'a> {
    Mapped(&'a IndexBlock),
    /// With digests once it was mapped, too.
    Read(Block, Option<&'a KeyDigests>),
}

impl Partition<'_> {
    /// The first entry whose key is at or after `target`; the count if there is none.
    fn search(&self, target: &[u8]) -> std::result::Result<usize, Damage> {
        match self {
            Self::Mapped(block) => block.search(target),
            Self::Read(block, Some(digests)) => search_by(digests, block, target),
            Self::Read(block, None) => search(block, 0..block.restart_count(), target),
        }
    }
}

impl Deref for Partition<'_> {
    type Target = Block;

    fn deref(&self) -> &Block {
        match self {
            Self::Mapped(mapped) => &mapped.block,
            Self::Read(block, _) => block,
        }
    }
}

impl IndexBlock {
    /// REQUIRES: [`check_whole`] passed `block`.
    fn new(block: Block) -> Self {
        let user_key = |at| block.whole_entry(at).map_or(&[][..], |(key, _)| internal_key::user_key(key));
        let digests = KeyDigests::new((0..block.restart_count()).map(user_key));
        Self { block, digests }
    }

    fn search(&self, target: &[u8]) -> std::result::Result<usize, Damage> {
        search_by(&self.digests, &self.block, target)
    }
}

/// As [`search`], among all entries, whose keys have these digests.
fn search_by(digests: &KeyDigests, block: &Block, target: &[u8]) -> std::result::Result<usize, Damage> {
    search(block, digests.candidates(internal_key::user_key(target)), target)
}

/// The first of `entries` whose key is at or after `target`; their end if there is none.
fn search(block: &Block, entries: Range<usize>, target: &[u8]) -> std::result::Result<usize, Damage> {
    let Range { start: mut low, end: mut high } = entries;
    while low < high {
        let middle = low + (high - low) / 2;
        if internal_key::compare(block.whole_entry(middle)?.0, target) == Ordering::Less {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// The file of a table, as far as its index needs it.
#[derive(Clone, Copy)]
pub(crate) struct IndexFile<'a> {
    /// The file without its footer.
    pub(crate) blocks: &'a Bytes,
    /// Where the top index stands.
    pub(crate) top_offset: u64,
    /// Reads a partition where touching the mapped file will not do.
    pub(crate) read: Option<&'a dyn Fn(BlockHandle) -> crate::Result<Block>>,
}

impl IndexFile<'_> {
    fn mapped(&self, handle: BlockHandle) -> std::result::Result<IndexBlock, Damage> {
        decode_partition(&self.blocks.slice(handle.range(self.blocks.len())?)).map(IndexBlock::new)
    }
}

/// Verifies and decodes a partition as it stands on disk.
pub(crate) fn decode_partition(sealed: &Bytes) -> std::result::Result<Block, Damage> {
    format::verify(sealed)?;
    let block = Block::new(format::unseal(sealed)?.0)?;
    check_whole(&block)?;
    Ok(block)
}

/// Refuses index blocks that are not one restart an entry from end to end: entries between restarts would
/// not be seen.
fn check_whole(block: &Block) -> std::result::Result<(), Damage> {
    if block.is_all_whole()? { Ok(()) } else { Err(Damage("an index block's restarts are not its entries")) }
}
