//! Data blocks of a table that stay in memory, decoded: those of trees that are
//! kept there (the paper, section 6, in-memory locality groups).
//!
//! A block is taken in when it is read first, while there is room in the budget
//! of all such blocks, and then stays as long as the table is open. A table
//! that is not kept pays a flag that is looked at.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use super::block::Block;
use crate::block_cache::BlockCache;

/// What a block takes beside its bytes: its slot, the bytes' shared header and the allocator's rounding.
const OVERHEAD_BYTES: u64 = 144;

/// The data blocks of one table, by their ordinals.
#[derive(Debug)]
pub(super) struct KeptBlocks {
    block_count: u64,
    cache: Arc<BlockCache>,
    is_on: AtomicBool,
    slots: ArcSwapOption<Slots>,
}

#[derive(Debug)]
struct Slots {
    blocks: Box<[OnceLock<Block>]>,
    bytes: AtomicU64,
    cache: Arc<BlockCache>,
}

impl KeptBlocks {
    /// None of `block_count` blocks; the budget is that of `cache`.
    pub(super) fn new(block_count: u64, cache: &Arc<BlockCache>) -> Self {
        Self {
            block_count,
            cache: Arc::clone(cache),
            is_on: AtomicBool::new(false),
            slots: ArcSwapOption::empty(),
        }
    }

    /// Takes blocks in from now on, or lets go of them.
    pub(super) fn set(&self, is_on: bool) {
        if self.is_on.swap(is_on, Ordering::AcqRel) == is_on {
            return;
        }
        let slots = is_on.then(|| {
            let blocks = (0..self.block_count).map(|_| OnceLock::new()).collect();
            Arc::new(Slots { blocks, bytes: AtomicU64::new(0), cache: Arc::clone(&self.cache) })
        });
        self.slots.store(slots);
    }

    /// Whether blocks are taken in.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Whether blocks are taken in, and there is room for one that takes so many bytes in the file.
    #[inline]
    pub(super) fn takes(&self, stored_bytes: u32) -> bool {
        /// As much as blocks usually shrink at best.
        const RATIO: u64 = 4;
        self.is_on() && self.cache.has_room_to_keep(u64::from(stored_bytes) * RATIO)
    }

    /// The block, if it is here.
    pub(super) fn get(&self, ordinal: u64) -> Option<Block> {
        self.slots.load().as_ref()?.slot(ordinal)?.get().cloned()
    }

    /// Takes `block` in, in memory of its own, if there is room; the block as it is here.
    pub(super) fn keep(&self, ordinal: u64, block: &Block) -> Option<Block> {
        let slots = self.slots.load();
        let slots = slots.as_ref()?;
        let slot = slots.slot(ordinal)?;
        let bytes = block.bytes() as u64 + OVERHEAD_BYTES;
        if !slots.cache.reserve_kept(bytes) {
            return None;
        }
        if slot.set(block.detached()).is_ok() {
            slots.bytes.fetch_add(bytes, Ordering::Relaxed);
        } else {
            // Somebody else was faster.
            slots.cache.release_kept(bytes);
        }
        slot.get().cloned()
    }
}

impl Slots {
    fn slot(&self, ordinal: u64) -> Option<&OnceLock<Block>> {
        self.blocks.get(usize::try_from(ordinal).ok()?)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.cache.release_kept(*self.bytes.get_mut());
    }
}
