//! An open table: its parts in memory, its data blocks behind them.
//!
//! The file is mapped. Index partitions and data blocks stored raw are read in
//! place; compressed data blocks are decoded into the block cache. The top of
//! the index, filters and range tombstones live in anonymous memory, which
//! [`Table::memory_bytes`] charges. An open table keeps its file alive through
//! the map, whatever happens to the name.
//!
//! Touching the map may wait for the disk. A read that must not takes each
//! block from the block cache, or reads it into that if the system has it in
//! memory: so what it stands on stays, and needs asking once.
//!
//! Every block's checksum is verified before it is decoded: compressed ones
//! each time they are, raw ones the first time after the table was opened,
//! which a bitmap remembers.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::block::Block;
use super::block_index::{self, BlockIndex, DataBlock, IndexError, IndexFile, IndexPosition};
use super::filter::{self, Filter, FilterHash};
use super::format::{self, BLOCK_TRAILER_BYTES, BlockHandle, FOOTER_BYTES, Footer};
use super::kept_blocks::KeptBlocks;
use super::miss::{Miss, MissedBlock};
use super::{Blocking, Compression, Properties, ReadMode, TableCursor};
use crate::block_cache::{BlockCache, BlockKey, Reserved};
use crate::error::Damage;
use crate::internal_key::{self, Kind, LookupKey, Trailer};
use crate::range_tombstone::FragmentedTombstones;
use crate::{Error, Result};

/// Bytes of a data block in the file, usually; no more than one is left of the room for those that stay.
const USUAL_BLOCK_BYTES: u32 = 8 << 10;

/// The newest write of a key that a table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The write's sequence number.
    pub(crate) sequence: u64,
    /// Put, delete or merge.
    pub(crate) kind: Kind,
    /// The value or operand, shared with its block.
    pub(crate) value: Bytes,
}

/// An open table.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    file: Arc<dyn vfs::File>,
    /// The mapped file without its footer.
    blocks: Bytes,
    footer: Footer,
    properties: Properties,
    index: BlockIndex,
    /// None where there are no point entries.
    filter: Option<Filter>,
    tombstones: Arc<FragmentedTombstones>,
    cache: Arc<BlockCache>,
    cache_file_id: u64,
    /// A bit for each data block stored raw whose checksum held.
    verified: Box<[AtomicU64]>,
    /// Data blocks that stay in memory.
    kept: KeptBlocks,
    /// Of the memory budget, what the open table takes.
    reserved: Option<Reserved>,
}

impl Table {
    /// Opens the table in `file`, whose name `path` is for errors: reads and verifies footer, properties,
    /// top index, filters and range tombstones, and maps the rest.
    ///
    /// REQUIRES: the file is complete, and nobody changes or cuts it any more.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], [`Error::Io`].
    pub(crate) fn open(file: Arc<dyn vfs::File>, path: &Path, cache: Arc<BlockCache>) -> Result<Arc<Self>> {
        let map = file.map()?;
        let Some((_, footer_bytes)) = map.split_last_chunk::<FOOTER_BYTES>() else {
            return Err(Damage("this is no SSTable: it is too short for a footer").at(path, 0));
        };
        let blocks = map.slice(..map.len() - FOOTER_BYTES);
        let footer = Footer::decode(footer_bytes).map_err(|damage| damage.at(path, blocks.len() as u64))?;
        let parts = Parts { path, blocks: &blocks };
        let properties = parts.part(footer.properties, |block| Properties::decode(&block, footer.version))?;
        if properties.data_block_count > (blocks.len() / BLOCK_TRAILER_BYTES) as u64 {
            return Err(Damage("more data blocks are claimed than fit").at(path, footer.properties.offset));
        }
        let top = parts.part(footer.index, |block| Block::new(Bytes::copy_from_slice(&block)))?;
        let index = BlockIndex::new(top, footer.index_levels, footer.index.offset)
            .map_err(|error| index_error(path, error))?;
        let filter = parts.filter(&footer, &properties)?;
        let tombstones = match footer.tombstones.is_absent() {
            true => FragmentedTombstones::default(),
            false => parts.part(footer.tombstones, |block| FragmentedTombstones::decode(&block))?,
        };
        let verified = (0..properties.data_block_count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let cache_file_id = cache.next_file_id();
        let kept = KeptBlocks::new(properties.data_block_count, &cache);
        let mut table = Self {
            path: path.to_owned(),
            tombstones: Arc::new(tombstones),
            file,
            blocks,
            footer,
            properties,
            index,
            filter,
            cache,
            cache_file_id,
            verified,
            kept,
            reserved: None,
        };
        table.reserved = Some(table.cache.reserve(table.memory_bytes()));
        Ok(Arc::new(table))
    }

    /// Figures and bounds.
    pub(crate) fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The file's length in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        (self.blocks.len() + FOOTER_BYTES) as u64
    }

    /// Anonymous memory that the open table takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.path.as_os_str().len()
            + self.index.memory_bytes(self.properties.data_block_count)
            + self.filter.as_ref().map_or(0, Filter::memory_bytes)
            + self.tombstones.memory_bytes()
            + self.properties.key_range.start.len()
            + self.properties.key_range.end.len()
            + size_of_val(&*self.verified)
    }

    /// The table's range tombstones. No filter speaks for them: ask them even
    /// where [`Table::get`] finds nothing.
    pub(crate) fn range_tombstones(&self) -> &Arc<FragmentedTombstones> {
        &self.tombstones
    }

    /// Whether there may be point entries here with the filter key of `key`,
    /// which `hash` was made of. Says nothing about range tombstones.
    pub(crate) fn may_contain(&self, key: &[u8], hash: FilterHash) -> bool {
        let Some(filter) = &self.filter else { return false };
        let may_contain = filter.may_contain(key, hash);
        self.cache.reads.filter(may_contain);
        may_contain
    }

    /// The newest put, delete or merge of the key at or below its sequence, filters
    /// asked first. Range tombstones are not looked at.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], [`Error::WouldBlock`].
    pub(crate) fn get(self: &Arc<Self>, key: &LookupKey, blocking: Blocking) -> Result<Option<Found>> {
        if !self.may_contain(key.user_key(), key.filter_hash()) {
            return Ok(None);
        }
        // A separator that is not its block's last key has another user key than the block behind it,
        // so one block tells.
        let Some(position) = self.index_seek(key.encoded(), blocking)? else { return Ok(None) };
        let data_block = self.index_entry(position, blocking)?;
        let block = self.read_block(data_block, ReadMode::Hot, blocking)?;
        let found = block
            .find(key.encoded(), key.key_hash())
            .map_err(|damage| self.damaged(damage, data_block.handle.offset))?;
        let Some((trailer, value)) = found else { return Ok(None) };
        let kind = self.point_kind(trailer, data_block.handle.offset)?;
        Ok(Some(Found { sequence: trailer.sequence(), kind, value }))
    }

    /// Shows `take` the puts, deletes and merges of the key at or below its
    /// sequence, newest first, until it breaks; filters are asked first.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], [`Error::WouldBlock`].
    pub(crate) fn visit(
        self: &Arc<Self>,
        key: &LookupKey,
        blocking: Blocking,
        take: &mut dyn FnMut(Found) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        if !self.may_contain(key.user_key(), key.filter_hash()) {
            return Ok(ControlFlow::Continue(()));
        }
        let mut cursor = self.cursor(ReadMode::Hot);
        cursor.set_blocking(blocking);
        let mut is_on = cursor.seek(key.encoded())?;
        while is_on {
            let (user_key, trailer) = internal_key::decode(cursor.key()).expect("an internal key");
            let Some(kind) = trailer.kind().filter(|_| user_key == key.user_key()) else { break };
            let found = Found { sequence: trailer.sequence(), kind, value: cursor.value_bytes() };
            if take(found).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            is_on = cursor.next()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A cursor over the point entries.
    pub(crate) fn cursor(self: &Arc<Self>, mode: ReadMode) -> TableCursor {
        TableCursor::new(Arc::clone(self), mode)
    }

    /// Put, delete or merge: what data blocks hold.
    pub(super) fn point_kind(&self, trailer: Trailer, offset: u64) -> Result<Kind> {
        match trailer.kind() {
            Some(kind @ (Kind::Put | Kind::Delete | Kind::Merge)) => Ok(kind),
            _ => Err(self.damaged(Damage("a key is of no kind that stands in a data block"), offset)),
        }
    }

    pub(super) fn damaged(&self, damage: Damage, offset: u64) -> Error {
        damage.at(&self.path, offset)
    }

    /// Keeps data blocks in memory from now on, as they are read and while there is room, or lets go of them.
    pub(crate) fn set_kept(&self, is_kept: bool) {
        self.kept.set(is_kept);
    }

    /// Whether there is room for more blocks that are to be kept.
    pub(crate) fn keeps_more(&self) -> bool {
        self.kept.takes(USUAL_BLOCK_BYTES)
    }

    /// The data block, verified and decoded, through the map where that may be touched.
    pub(super) fn read_block(
        self: &Arc<Self>,
        data_block: DataBlock,
        mode: ReadMode,
        blocking: Blocking,
    ) -> Result<Block> {
        if !self.kept.is_on() {
            return self.read_unkept_block(data_block, mode, blocking);
        }
        if let Some(block) = self.kept.get(data_block.ordinal) {
            return Ok(block);
        }
        if !self.kept.takes(data_block.handle.stored_bytes) {
            return self.read_unkept_block(data_block, mode, blocking);
        }
        // What stays does not go to the cache, too.
        let block = self.read_unkept_block(data_block, ReadMode::Scan, blocking)?;
        Ok(self.kept.keep(data_block.ordinal, &block).unwrap_or(block))
    }

    fn read_unkept_block(
        self: &Arc<Self>,
        data_block: DataBlock,
        mode: ReadMode,
        blocking: Blocking,
    ) -> Result<Block> {
        if blocking == Blocking::Forbidden {
            return self.resident_block(MissedBlock::Data(data_block), mode);
        }
        let offset = data_block.handle.offset;
        let at = |damage: Damage| self.damaged(damage, offset);
        if data_block.compression == Compression::Raw {
            return self.read_raw_block(data_block).map_err(at);
        }
        let key = BlockKey { file_id: self.cache_file_id, offset };
        if let Some(block) = self.cache.get(key) {
            return Ok(block);
        }
        let sealed = self.sealed(data_block.handle).map_err(at)?;
        let block = decode_block(&sealed, data_block).map_err(at)?;
        if mode == ReadMode::Hot {
            self.cache.insert(key, block.clone());
        }
        Ok(block)
    }

    /// A block from the cache, or from what the system has in memory of the file.
    fn resident_block(self: &Arc<Self>, wanted: MissedBlock, mode: ReadMode) -> Result<Block> {
        if let Some(block) = self.cache.get(self.cache_key(wanted)) {
            return Ok(block);
        }
        let mut sealed = vec![0; self.sealed_bytes(wanted)?];
        if !self.file.try_read_exact_at(&mut sealed, wanted.handle().offset)? {
            return Err(Error::WouldBlock(Miss::new(Arc::clone(self), wanted)));
        }
        self.take_in(wanted, &sealed.into(), mode)
    }

    /// Reads a block that a read without permission to block lacked into the
    /// cache, whatever it takes.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`], [`Error::Io`].
    pub(super) fn fetch(&self, missed: MissedBlock) -> Result<()> {
        let mut sealed = vec![0; self.sealed_bytes(missed)?];
        self.file.read_exact_at(&mut sealed, missed.handle().offset)?;
        self.take_in(missed, &sealed.into(), ReadMode::Hot).map(|_| ())
    }

    /// Bytes of a block with its trailer.
    fn sealed_bytes(&self, wanted: MissedBlock) -> Result<usize> {
        let handle = wanted.handle();
        let range = handle.range(self.blocks.len()).map_err(|damage| self.damaged(damage, handle.offset))?;
        Ok(range.len())
    }

    /// Decodes what was read of the file, and leaves it in the cache unless `mode` spares that.
    fn take_in(&self, wanted: MissedBlock, sealed: &Bytes, mode: ReadMode) -> Result<Block> {
        let decoded = match wanted {
            MissedBlock::Data(data_block) => decode_block(sealed, data_block),
            MissedBlock::IndexPartition(_) => block_index::decode_partition(sealed),
        };
        let block = decoded.map_err(|damage| self.damaged(damage, wanted.handle().offset))?;
        if mode == ReadMode::Hot {
            self.cache.insert(self.cache_key(wanted), block.clone());
        }
        Ok(block)
    }

    fn cache_key(&self, wanted: MissedBlock) -> BlockKey {
        BlockKey { file_id: self.cache_file_id, offset: wanted.handle().offset }
    }

    /// The file's name when it was opened.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn read_raw_block(&self, data_block: DataBlock) -> Result<Block, Damage> {
        let ordinal = usize::try_from(data_block.ordinal).unwrap_or(usize::MAX);
        let word =
            self.verified.get(ordinal / 64).ok_or(Damage("a data block's ordinal is above their count"))?;
        let bit = 1 << (ordinal % 64);
        if word.load(Ordering::Relaxed) & bit == 0 {
            let block = decode_block(&self.sealed(data_block.handle)?, data_block)?;
            word.fetch_or(bit, Ordering::Relaxed);
            return Ok(block);
        }
        let sealed = data_block.handle.range(self.blocks.len())?;
        Block::new(self.blocks.slice(sealed.start..sealed.end - BLOCK_TRAILER_BYTES))
    }

    fn sealed(&self, handle: BlockHandle) -> Result<Bytes, Damage> {
        Ok(self.blocks.slice(handle.range(self.blocks.len())?))
    }

    /// The file, for cursors that read past the map, and where its blocks end.
    pub(super) fn file(&self) -> (&dyn vfs::File, usize) {
        (&*self.file, self.blocks.len())
    }

    /// Where the properties block stands, for what contradicts it.
    pub(super) fn properties_offset(&self) -> u64 {
        self.footer.properties.offset
    }

    pub(super) fn index_seek(
        self: &Arc<Self>,
        target: &[u8],
        blocking: Blocking,
    ) -> Result<Option<IndexPosition>> {
        self.ask_index(blocking, |index, file| index.seek(file, target))
    }

    pub(super) fn index_first(self: &Arc<Self>, blocking: Blocking) -> Result<Option<IndexPosition>> {
        self.ask_index(blocking, BlockIndex::first)
    }

    pub(super) fn index_last(self: &Arc<Self>, blocking: Blocking) -> Result<Option<IndexPosition>> {
        self.ask_index(blocking, BlockIndex::last)
    }

    pub(super) fn index_next(
        self: &Arc<Self>,
        position: IndexPosition,
        blocking: Blocking,
    ) -> Result<Option<IndexPosition>> {
        self.ask_index(blocking, |index, file| index.next(file, position))
    }

    pub(super) fn index_prev(
        self: &Arc<Self>,
        position: IndexPosition,
        blocking: Blocking,
    ) -> Result<Option<IndexPosition>> {
        self.ask_index(blocking, |index, file| index.prev(file, position))
    }

    pub(super) fn index_entry(
        self: &Arc<Self>,
        position: IndexPosition,
        blocking: Blocking,
    ) -> Result<DataBlock> {
        self.ask_index(blocking, |index, file| index.entry(file, position))
    }

    pub(super) fn index_separator(self: &Arc<Self>, position: IndexPosition) -> Result<Bytes> {
        self.ask_index(Blocking::Allowed, |index, file| index.separator(file, position))
    }

    #[inline]
    fn ask_index<T>(
        self: &Arc<Self>,
        blocking: Blocking,
        ask: impl FnOnce(&BlockIndex, &IndexFile<'_>) -> Result<T, IndexError>,
    ) -> Result<T> {
        let resident = |handle| self.resident_block(MissedBlock::IndexPartition(handle), ReadMode::Hot);
        let read: Option<&dyn Fn(BlockHandle) -> Result<Block>> = match blocking {
            Blocking::Allowed => None,
            Blocking::Forbidden => Some(&resident),
        };
        let file = IndexFile { blocks: &self.blocks, top_offset: self.footer.index.offset, read };
        ask(&self.index, &file).map_err(|error| index_error(&self.path, error))
    }
}

fn index_error(path: &Path, error: IndexError) -> Error {
    match error {
        IndexError::Damaged(damage, offset) => damage.at(path, offset),
        IndexError::Unread(error) => error,
    }
}

/// Verifies and decodes a data block as it stands on disk.
pub(super) fn decode_block(sealed: &Bytes, data_block: DataBlock) -> Result<Block, Damage> {
    format::verify(sealed)?;
    let (block, compression) = format::unseal(sealed)?;
    if compression != data_block.compression {
        return Err(Damage("a block is not compressed as the index says"));
    }
    Block::new(block)
}

/// The parts of a table that is being opened.
struct Parts<'a> {
    path: &'a Path,
    blocks: &'a Bytes,
}

impl Parts<'_> {
    /// Verifies the block at `handle` and decodes what it holds.
    fn part<T>(&self, handle: BlockHandle, decode: impl FnOnce(Bytes) -> Result<T, Damage>) -> Result<T> {
        let decoded = handle.range(self.blocks.len()).and_then(|range| {
            let sealed = self.blocks.slice(range);
            format::verify(&sealed)?;
            decode(format::unseal(&sealed)?.0)
        });
        decoded.map_err(|damage| damage.at(self.path, handle.offset))
    }

    fn filter(&self, footer: &Footer, properties: &Properties) -> Result<Option<Filter>> {
        if footer.filter.is_absent() {
            return match properties.entry_count {
                0 => Ok(None),
                _ => {
                    Err(Damage("a table with entries has no filter").at(self.path, footer.properties.offset))
                }
            };
        }
        let (kind, index) = self.part(footer.filter, |block| filter::decode_index(&block))?;
        let mut partitions = Vec::with_capacity(index.len());
        for (last_key, handle) in index {
            partitions.push((last_key, self.part(handle, |block| filter::Partition::decode(kind, &block))?));
        }
        Ok(Some(Filter::new(properties.filter_key, partitions)))
    }
}
