//! Reads a table in order, in both directions.
//!
//! A position is a place in the index and a cursor in that data block. Blocks
//! come through the map, or, for compactions, by positional reads of large
//! pieces, so that a compaction neither faults pages in one by one nor pushes
//! hot blocks out of the cache.

use std::sync::Arc;

use bytes::Bytes;

use super::block::Block;
use super::block_cursor::BlockCursor;
use super::block_index::{DataBlock, IndexPosition};
use super::table::decode_block;
use super::{Blocking, Table};
use crate::error::Damage;
use crate::{Result, internal_key};

/// Bytes that a compaction's cursor reads at once.
pub(crate) const READ_AHEAD_BYTES: usize = 256 << 10;

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
pub(crate) struct TableCursor {
    table: Arc<Table>,
    mode: ReadMode,
    blocking: Blocking,
    /// Where the current block stands in the index.
    position: Option<IndexPosition>,
    /// The current block's offset in the file.
    offset: u64,
    /// Over the current block; none until the first one is read.
    block: Option<BlockCursor>,
    read_ahead: ReadAhead,
}

impl TableCursor {
    pub(super) fn new(table: Arc<Table>, mode: ReadMode) -> Self {
        Self {
            table,
            mode,
            blocking: Blocking::Allowed,
            position: None,
            offset: 0,
            block: None,
            read_ahead: ReadAhead::default(),
        }
    }

    /// Whether moves from now on may wait for the disk. Once they may not, it has to be sought first.
    pub(crate) fn set_blocking(&mut self, blocking: Blocking) {
        self.blocking = blocking;
    }

    /// Whether it stands on an entry.
    pub(crate) fn is_valid(&self) -> bool {
        self.position.is_some() && self.block.as_ref().is_some_and(BlockCursor::is_valid)
    }

    /// Moves to the first entry; false if there is none.
    pub(crate) fn seek_to_first(&mut self) -> Result<bool> {
        let position = self.table.index_first(self.blocking);
        self.enter(position, BlockCursor::seek_to_first)?;
        self.go_forward()
    }

    /// Moves to the last entry; false if there is none.
    pub(crate) fn seek_to_last(&mut self) -> Result<bool> {
        let position = self.table.index_last(self.blocking);
        self.enter(position, BlockCursor::seek_to_last)?;
        self.go_backward()
    }

    /// Moves to the first entry at or after the encoded internal key; false if there is none.
    pub(crate) fn seek(&mut self, internal_key: &[u8]) -> Result<bool> {
        let position = self.table.index_seek(internal_key, self.blocking);
        self.enter(position, |block| block.seek(internal_key))?;
        self.go_forward()
    }

    /// Moves to the last entry before the encoded internal key; false if there is none.
    pub(crate) fn seek_before(&mut self, internal_key: &[u8]) -> Result<bool> {
        match self.table.index_seek(internal_key, self.blocking) {
            Ok(None) => return self.seek_to_last(),
            position => self.enter(position, |block| block.seek_before(internal_key))?,
        }
        self.go_backward()
    }

    /// Moves to the next entry; false at the end. REQUIRES: it stands on one.
    pub(crate) fn next(&mut self) -> Result<bool> {
        self.step(BlockCursor::next)?;
        self.go_forward()
    }

    /// Moves to the entry before; false at the start. REQUIRES: it stands on one.
    pub(crate) fn prev(&mut self) -> Result<bool> {
        self.step(BlockCursor::prev)?;
        self.go_backward()
    }

    /// Whether the entry before the current one is at hand, and of another user key. Panics unless the cursor
    /// stands on an entry.
    #[inline]
    pub(crate) fn is_newest_of_key(&self) -> bool {
        self.current().is_newest_of_key()
    }

    /// The current encoded internal key. Panics unless the cursor stands on an entry.
    pub(crate) fn key(&self) -> &[u8] {
        self.current().key()
    }

    /// The current value. Panics unless the cursor stands on an entry.
    pub(crate) fn value(&self) -> &[u8] {
        self.current().value()
    }

    /// The current value, shared with its block. Panics unless the cursor stands on an entry.
    pub(crate) fn value_bytes(&self) -> Bytes {
        self.current().value_bytes()
    }

    fn current(&self) -> &BlockCursor {
        assert!(self.position.is_some(), "the cursor stands on no entry");
        self.block.as_ref().expect("a position comes with a block")
    }

    /// Leaves blocks behind that are done until the cursor stands on an entry or past the last one.
    fn go_forward(&mut self) -> Result<bool> {
        while let Some(position) = self.position {
            if self.is_valid() {
                return self.check_kind();
            }
            let next = self.table.index_next(position, self.blocking);
            self.enter(next, BlockCursor::seek_to_first)?;
        }
        Ok(false)
    }

    fn go_backward(&mut self) -> Result<bool> {
        while let Some(position) = self.position {
            if self.is_valid() {
                return self.check_kind();
            }
            let previous = self.table.index_prev(position, self.blocking);
            self.enter(previous, BlockCursor::seek_to_last)?;
        }
        Ok(false)
    }

    /// Reads the block at `position` and moves in it.
    fn enter(
        &mut self,
        position: Result<Option<IndexPosition>>,
        seek: impl FnOnce(&mut BlockCursor) -> Result<bool, Damage>,
    ) -> Result<()> {
        self.position = None;
        let Some(position) = position? else { return Ok(()) };
        let data_block = self.table.index_entry(position, self.blocking)?;
        let block = self.read_block(data_block)?;
        self.offset = data_block.handle.offset;
        match &mut self.block {
            Some(cursor) => cursor.set_block(block),
            none => *none = Some(BlockCursor::new(block)),
        }
        self.position = Some(position);
        self.step(seek)
    }

    /// Moves within the current block.
    fn step(&mut self, step: impl FnOnce(&mut BlockCursor) -> Result<bool, Damage>) -> Result<()> {
        assert!(self.position.is_some(), "the cursor stands on no entry");
        let cursor = self.block.as_mut().expect("a position comes with a block");
        if let Err(damage) = step(cursor) {
            self.position = None;
            return Err(self.table.damaged(damage, self.offset));
        }
        Ok(())
    }

    fn check_kind(&mut self) -> Result<bool> {
        let kind = self.table.point_kind(internal_key::trailer(self.current().key()), self.offset);
        if kind.is_err() {
            self.position = None;
        }
        kind.map(|_| true)
    }

    fn read_block(&mut self, data_block: DataBlock) -> Result<Block> {
        if self.mode != ReadMode::Compaction {
            return self.table.read_block(data_block, self.mode, self.blocking);
        }
        let damaged = |damage: Damage| self.table.damaged(damage, data_block.handle.offset);
        let (file, blocks_end) = self.table.file();
        let range = data_block.handle.range(blocks_end).map_err(damaged)?;
        let sealed = self.read_ahead.read(file, range, blocks_end)?;
        decode_block(&sealed, data_block).map_err(damaged)
    }
}

/// A piece of a file, read at once.
#[derive(Debug, Default)]
struct ReadAhead {
    start: usize,
    piece: Bytes,
}

impl ReadAhead {
    /// The bytes in `range`; reads on up to `end` where they are not at hand.
    fn read(&mut self, file: &dyn vfs::File, range: std::ops::Range<usize>, end: usize) -> Result<Bytes> {
        if range.start < self.start || range.end > self.start + self.piece.len() {
            let piece_end = range.end.max(end.min(range.start.saturating_add(READ_AHEAD_BYTES)));
            let mut piece = vec![0; piece_end - range.start];
            file.read_exact_at(&mut piece, range.start as u64)?;
            self.start = range.start;
            self.piece = piece.into();
        }
        Ok(self.piece.slice(range.start - self.start..range.end - self.start))
    }
}
