//! Decoded blocks in memory, shared by all tables of an engine.
//!
//! Only what had to be decompressed lives here: blocks stored raw are slices
//! of the mapped file, which the system caches. Keyed by (cache file id,
//! offset); the ids are this cache's own and never come again in a process, so
//! that nothing has to be invalidated when a table goes: its blocks age out.
//!
//! Scan resistance is twofold: what `quick_cache` takes in has to be asked for
//! again before it is kept at the price of what was (Clock-PRO), and cursors
//! that read through [`crate::sstable::ReadMode::Scan`] put nothing in.
//!
//! The cache has what is left of the engine's memory budget: whoever else takes
//! anonymous memory reserves it here, and the cache shrinks by as much.
//!
//! A hit is a shared lock of a shard and a mark on the entry. There is no
//! housekeeping that readers would have to do now and then.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::read_counters::ReadCounters;
use crate::sstable::block::Block;

/// What an entry takes beside its block's bytes: key and block handle (64) in a slab of twice as many at
/// worst, with its links and marks (16), the hash table's slot (8), the ghost of another that went (24), the
/// bytes' shared header and the allocator's rounding (48).
const ENTRY_OVERHEAD_BYTES: usize = 240;

/// About what an entry takes, to choose the number of shards by: none so small that it lacks room for a
/// few of the largest blocks.
const ENTRY_BYTES_ESTIMATED: u64 = 32 << 10;

/// Where a block stands: the table's [`BlockCache::next_file_id`] and the block's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockKey {
    pub(crate) file_id: u64,
    pub(crate) offset: u64,
}

impl Hash for BlockKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // File ids are small and tables shorter than 2^40 bytes, so the two stay apart.
        state.write_u64(self.file_id.rotate_left(40) ^ self.offset);
    }
}

/// Spreads one number over 64 bits (the last steps of splitmix64): nobody
/// chooses block offsets to collide, so SipHash would be paid for nothing.
#[derive(Clone, Default)]
struct BlockKeyHasher(u64);

impl Hasher for BlockKeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let mut z = number;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = z ^ (z >> 31);
    }
}

/// Charges an entry with its true bytes.
#[derive(Clone)]
struct EntryBytes;

impl Weighter<BlockKey, Block> for EntryBytes {
    fn weight(&self, _key: &BlockKey, block: &Block) -> u64 {
        (block.bytes() + ENTRY_OVERHEAD_BYTES) as u64
    }
}

/// Decoded blocks, bounded in bytes.
pub(crate) struct BlockCache {
    blocks: Cache<BlockKey, Block, EntryBytes, BuildHasherDefault<BlockKeyHasher>>,
    next_file_id: AtomicU64,
    /// What blocks and reservations may take together.
    bytes_max: u64,
    /// What blocks may take whatever is reserved.
    blocks_bytes_min: u64,
    /// What may be kept of trees in memory, and what is: a part of what is reserved.
    kept_bytes_max: u64,
    kept_bytes: AtomicU64,
    reserved: Mutex<Room>,
    /// What the cache and the filters of all tables were asked.
    pub(crate) reads: ReadCounters,
    /// Bytes of blocks taken in so far.
    inserted_bytes: AtomicU64,
    /// Called each time as many blocks came in as the cache could hold four times, and so about as many went.
    on_churn: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// What is left for blocks.
#[derive(Debug)]
struct Room {
    reserved_bytes: u64,
    blocks_bytes_max: u64,
}

impl BlockCache {
    /// A cache that holds `bytes_max` bytes, overhead and reservations included, and whatever is reserved
    /// `blocks_bytes_min`; of them `kept_bytes_max` for blocks that stay.
    pub(crate) fn new(bytes_max: u64, blocks_bytes_min: u64, kept_bytes_max: u64) -> Self {
        let bytes_max = bytes_max.max(blocks_bytes_min);
        let entries = usize::try_from(bytes_max / ENTRY_BYTES_ESTIMATED).unwrap_or(usize::MAX);
        let hasher = BuildHasherDefault::default();
        let blocks = Cache::with(entries, bytes_max, EntryBytes, hasher, DefaultLifecycle::default());
        let reserved = Mutex::new(Room { reserved_bytes: 0, blocks_bytes_max: bytes_max });
        Self {
            blocks,
            next_file_id: AtomicU64::new(1),
            bytes_max,
            blocks_bytes_min,
            kept_bytes_max,
            kept_bytes: AtomicU64::new(0),
            reserved,
            reads: ReadCounters::default(),
            inserted_bytes: AtomicU64::new(0),
            on_churn: OnceLock::new(),
        }
    }

    /// Sets `bytes` aside for something else, at the price of blocks, until the reservation is dropped.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Reserved {
        self.change_reserved(|reserved| reserved.saturating_add(bytes as u64));
        Reserved { bytes, cache: Arc::clone(self) }
    }

    /// Sets `bytes` aside for blocks that stay, until [`BlockCache::release_kept`], if there is room for them.
    pub(crate) fn reserve_kept(&self, bytes: u64) -> bool {
        let with = |kept: u64| Some(kept.saturating_add(bytes)).filter(|kept| *kept <= self.kept_bytes_max);
        if self.kept_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_err() {
            return false;
        }
        self.change_reserved(|reserved| reserved.saturating_add(bytes));
        true
    }

    /// Whether there is room for `bytes` of blocks that stay.
    pub(crate) fn has_room_to_keep(&self, bytes: u64) -> bool {
        self.kept_bytes().saturating_add(bytes) <= self.kept_bytes_max
    }

    /// Gives back what was set aside for blocks that stayed.
    pub(crate) fn release_kept(&self, bytes: u64) {
        self.kept_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.change_reserved(|reserved| reserved.saturating_sub(bytes));
    }

    /// Bytes of blocks that stay.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.kept_bytes.load(Ordering::Relaxed)
    }

    fn change_reserved(&self, change: impl FnOnce(u64) -> u64) {
        let mut room = self.reserved.lock();
        room.reserved_bytes = change(room.reserved_bytes);
        // Resizing in steps, and back only two steps later, spares the cache what comes and goes.
        let step = (self.bytes_max / 64).max(1);
        let wanted = self.bytes_max.saturating_sub(room.reserved_bytes).max(self.blocks_bytes_min);
        if wanted < room.blocks_bytes_max || wanted / step >= room.blocks_bytes_max / step + 3 {
            room.blocks_bytes_max = (wanted / step * step).max(self.blocks_bytes_min);
            self.blocks.set_capacity(room.blocks_bytes_max);
        }
    }

    /// Bytes reserved, and bytes that blocks may take.
    pub(crate) fn room(&self) -> (u64, u64) {
        let room = self.reserved.lock();
        (room.reserved_bytes, room.blocks_bytes_max)
    }

    /// A number for a table that is opened, never given before.
    pub(crate) fn next_file_id(&self) -> u64 {
        self.next_file_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The block at `key`, if it is held.
    pub(crate) fn get(&self, key: BlockKey) -> Option<Block> {
        let block = self.blocks.get(&key);
        self.reads.block(block.is_some());
        block
    }

    /// Holds `block` from now on, at the price of others.
    pub(crate) fn insert(&self, key: BlockKey, block: Block) {
        let (bytes, churn_bytes) = (block.bytes() as u64, self.bytes_max.saturating_mul(4).max(1));
        self.blocks.insert(key, block);
        let before = self.inserted_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before / churn_bytes != (before + bytes) / churn_bytes
            && let Some(on_churn) = self.on_churn.get()
        {
            on_churn();
        }
    }

    /// Sets what is called each time all blocks came and went four times; once.
    pub(crate) fn set_on_churn(&self, on_churn: impl Fn() + Send + Sync + 'static) {
        _ = self.on_churn.set(Box::new(on_churn));
    }

    /// Bytes held, overhead included.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.weight()
    }
}

/// Memory set aside for something else than blocks while this lives.
#[derive(Debug)]
pub(crate) struct Reserved {
    bytes: usize,
    cache: Arc<BlockCache>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.cache.change_reserved(|reserved| reserved.saturating_sub(self.bytes as u64));
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockCache").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_what_is_not_reserved_down_to_their_minimum() {
        let cache = Arc::new(BlockCache::new(64 << 20, 4 << 20, 0));
        assert_eq!(cache.room(), (0, 64 << 20));
        let tables = cache.reserve(10 << 20);
        assert_eq!(cache.room(), (10 << 20, 54 << 20));
        let more = cache.reserve(1);
        assert_eq!(cache.room().1, 53 << 20);
        drop(more);
        assert_eq!(cache.room().1, 53 << 20, "not for so little");
        let far_too_much = cache.reserve(100 << 20);
        assert_eq!(cache.room(), (110 << 20, 4 << 20));
        drop((tables, far_too_much));
        assert_eq!(cache.room(), (0, 64 << 20));
        assert_eq!(cache.blocks.capacity(), 64 << 20);
    }
}
