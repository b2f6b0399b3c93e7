//! The items, in shards by hash, within a number of bytes.
//!
//! Who uses it: the session, one [`Slot`] a key. A slot is a key's place under
//! its shard's lock: look at the item, change it, remove it, put one, lease the
//! key; commands are written in these terms. Read on in this order:
//!
//! - [`item`]: one item, in one allocation;
//! - [`slab`]: where items live;
//! - [`queues`]: which goes when memory is used up (S3-FIFO);
//! - [`expiry`]: which goes when;
//! - [`leases`]: who may fill a key that is not there;
//! - [`shard`]: the five together;
//! - [`slot`]: a key's place, the only way to an item;
//! - [`statistics`]: what is counted.
//!
//! Memory: every byte is charged, the allocator's overhead and the table's own
//! included, to one counter that all shards share. A put evicts from its own
//! shard until it fits; where that shard has nothing left,
//! [`ItemTable::relieve`] goes on with the others. So the counter may exceed its
//! limit by the values that are being put at this moment, which their
//! connections had in memory anyway.
//!
//! Time is given: seconds, the Unix epoch's, and 0 is never.

mod expiry;
mod item;
mod leases;
mod queues;
mod shard;
mod slab;
mod slot;
mod statistics;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use twox_hash::XxHash3_64;

pub(crate) use item::{Item, ItemBytes, KEY_BYTES_MAX, Restored, SharedBytes};
pub(crate) use leases::{FillCell, Holder, Offer};
pub(crate) use shard::NewItem;
pub(crate) use slot::{Fill, Slot};
pub use statistics::{Statistics, TableStatistics};

use crate::watch::Watchers;

use shard::{Dead, Shard};
use slot::Absence;

/// More memory than this gets another shard.
const SHARD_BYTES: u64 = 4 << 20;
const SHARD_COUNT_MAX: u64 = 256;

/// Keeps lease tokens apart from what else the seed decides.
const TOKEN_SALT: u64 = 0x6c65_6173_6573_2e2e;

/// Items that the reaper removes or looks at before it lets go of a shard's lock.
const REAP_ITEMS: usize = 256;

#[derive(Debug)]
pub(crate) struct ItemTable {
    shards: Box<[Mutex<Shard>]>,
    seed: u64,
    memory_bytes: AtomicU64,
    memory_bytes_max: AtomicU64,
    last_cas: AtomicU64,
    /// Tokens given out, in effect: a token of an earlier process is not one of ours.
    last_token: AtomicU64,
    /// Items of another generation are flushed.
    generation: AtomicU8,
    /// The second in which a delayed `flush_all` begins a new generation; 0 if none.
    flush_at: AtomicU32,
    relief_cursor: AtomicUsize,
    watchers: Arc<Watchers>,
}

/// How far a dump has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DumpCursor {
    shard_index: usize,
    place: usize,
}

impl ItemTable {
    /// A table of at most `memory_bytes_max`, whose hash nobody can predict who
    /// does not know `seed`.
    pub(crate) fn new(memory_bytes_max: u64, seed: u64, watchers: Arc<Watchers>) -> Self {
        let shard_count = (memory_bytes_max / SHARD_BYTES).clamp(1, SHARD_COUNT_MAX).next_power_of_two();
        Self {
            shards: (0..shard_count).map(|_| Mutex::new(Shard::new())).collect(),
            seed,
            memory_bytes: AtomicU64::new(0),
            memory_bytes_max: AtomicU64::new(memory_bytes_max),
            last_cas: AtomicU64::new(0),
            last_token: AtomicU64::new((seed ^ TOKEN_SALT) >> 2),
            generation: AtomicU8::new(0),
            flush_at: AtomicU32::new(0),
            relief_cursor: AtomicUsize::new(0),
            watchers,
        }
    }

    /// The slot of `key` at `now`, its shard locked until it is dropped. An item
    /// that expired or was flushed is removed first.
    pub(crate) fn slot<'t>(&'t self, key: &'t [u8], now: u32) -> Slot<'t> {
        let hash = XxHash3_64::oneshot_with_seed(self.seed, key);
        let (shard_index, hash) = self.split(hash);
        let mut shard = self.shards[shard_index].lock();
        let generation = self.generation.load(Ordering::Acquire);
        let mut place = shard.find(hash, key);
        let mut absence = Absence::Unknown;
        if let Some(found) = place
            && let Some(dead) = shard.dead(found, now, generation)
        {
            shard.bury(found, dead);
            self.charge(&mut shard);
            place = None;
            absence = match dead {
                Dead::Expired => Absence::Expired,
                Dead::Flushed => Absence::Flushed,
            };
        }
        let hidden = place.filter(|found| shard.item(*found).is_hidden());
        if hidden.is_some() {
            place = None;
        }
        Slot { table: self, shard, key, hash, place, hidden, absence, now, generation }
    }

    /// A number that was never an item's cas.
    fn next_cas(&self) -> u64 {
        self.last_cas.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The last cas given out.
    pub(crate) fn last_cas(&self) -> u64 {
        self.last_cas.load(Ordering::Relaxed)
    }

    /// Gives out no cas up to `cas` any more.
    pub(crate) fn raise_cas(&self, cas: u64) {
        self.last_cas.fetch_max(cas, Ordering::Relaxed);
    }

    /// Removes every item.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.clear();
            self.charge(&mut shard);
        }
    }

    /// A lease token that nobody has: more than 1, and of 62 bits, which every
    /// client's integers hold.
    fn next_token(&self) -> u64 {
        (self.last_token.fetch_add(1, Ordering::Relaxed) & (u64::MAX >> 2)).max(1) + 1
    }

    /// Evicts from any shard while the table is over its limit. To be called
    /// after a slot was put to and dropped.
    pub(crate) fn relieve(&self, now: u32) {
        let mut empty_count = 0;
        while self.is_over(0) && empty_count < self.shards.len() {
            let turn = self.relief_cursor.fetch_add(1, Ordering::Relaxed);
            let mut shard = self.shards[turn % self.shards.len()].lock();
            let evicted = shard.evict(now, self.generation.load(Ordering::Acquire), &self.watchers);
            empty_count = if evicted { 0 } else { empty_count + 1 };
            self.charge(&mut shard);
        }
    }

    /// Makes every item unseen at `at`, or now if that is not later than `now`;
    /// another delayed flush is forgotten.
    pub(crate) fn flush(&self, at: u32, now: u32) {
        if at > now {
            self.flush_at.store(at, Ordering::Release);
            return;
        }
        self.flush_at.store(0, Ordering::Release);
        self.begin_generation();
    }

    /// Does a delayed flush that has become due. To be called before commands
    /// are run at `now`.
    pub(crate) fn flush_if_due(&self, now: u32) {
        let at = self.flush_at.load(Ordering::Acquire);
        if at != 0
            && at <= now
            && self.flush_at.compare_exchange(at, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            self.begin_generation();
        }
    }

    /// The second of a flush that is still to come; 0 if none is.
    pub(crate) fn flush_at(&self) -> u32 {
        self.flush_at.load(Ordering::Acquire)
    }

    /// Numbers wrap after 256 flushes; an item that no sweep reached in all that
    /// time must not come back, and no token either.
    fn begin_generation(&self) {
        let before = self.generation.fetch_add(1, Ordering::AcqRel);
        self.next_cas();
        if before == u8::MAX {
            self.clear();
        }
    }

    /// Shards of the table.
    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Removes a few items of a shard that expired or were flushed; whether there
    /// may be more.
    pub(crate) fn reap(&self, shard_index: usize, now: u32) -> bool {
        let mut shard = self.shards[shard_index].lock();
        let generation = self.generation.load(Ordering::Acquire);
        shard.reap(now, generation, REAP_ITEMS);
        self.charge(&mut shard);
        !shard.is_reaped(now, generation)
    }

    /// Removes all items that expired or were flushed.
    pub(crate) fn reap_all(&self, now: u32) {
        for shard_index in 0..self.shard_count() {
            while self.reap(shard_index, now) {}
        }
    }

    /// Shows `show` the next items of a dump, of `place_count` places at most;
    /// whether there may be more. What changes meanwhile may be shown or not.
    pub(crate) fn dump(
        &self,
        cursor: &mut DumpCursor,
        now: u32,
        place_count: usize,
        mut show: impl FnMut(&Item),
    ) -> bool {
        let Some(shard) = self.shards.get(cursor.shard_index) else { return false };
        let shard = shard.lock();
        let generation = self.generation.load(Ordering::Acquire);
        let end = (cursor.place + place_count).min(shard.place_count());
        (cursor.place..end).filter_map(|place| shard.visible(place, now, generation)).for_each(&mut show);
        cursor.place = end;
        if end == shard.place_count() {
            *cursor = DumpCursor { shard_index: cursor.shard_index + 1, place: 0 };
        }
        cursor.shard_index < self.shards.len()
    }

    /// Sets the limit; a smaller one is reached by evicting at once.
    pub(crate) fn set_memory_bytes_max(&self, memory_bytes_max: u64, now: u32) {
        self.memory_bytes_max.store(memory_bytes_max, Ordering::Relaxed);
        self.relieve(now);
    }

    /// What the table holds at `now` and counted so far.
    pub(crate) fn statistics(&self, now: u32) -> TableStatistics {
        let mut total = TableStatistics {
            memory_bytes: self.memory_bytes.load(Ordering::Relaxed),
            memory_bytes_max: self.memory_bytes_max.load(Ordering::Relaxed),
            ..TableStatistics::default()
        };
        for shard in &self.shards {
            let shard = shard.lock();
            total.counts.add(&shard.statistics);
            total.item_count += shard.item_count() as u64;
            total.lease_count += shard.leases.len() as u64;
            total.oldest_age_s = total.oldest_age_s.max(u64::from(shard.oldest_age_s(now)));
        }
        total
    }

    /// Counts from nothing again.
    pub(crate) fn reset_statistics(&self) {
        for shard in &self.shards {
            shard.lock().statistics = Statistics::default();
        }
    }

    /// The shard from the high bits, the hash within it from the low ones.
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a hash")]
    fn split(&self, hash: u64) -> (usize, u32) {
        let shard_index = (hash >> 32) as usize & (self.shards.len() - 1);
        (shard_index, hash as u32)
    }

    fn is_over(&self, more_bytes: u64) -> bool {
        self.memory_bytes.load(Ordering::Relaxed) + more_bytes > self.memory_bytes_max.load(Ordering::Relaxed)
    }

    /// Brings the total up to date with what `shard` takes now.
    fn charge(&self, shard: &mut Shard) {
        let bytes = shard.memory_bytes();
        let charged = std::mem::replace(&mut shard.charged_bytes, bytes);
        if bytes > charged {
            self.memory_bytes.fetch_add(bytes - charged, Ordering::Relaxed);
        } else if bytes < charged {
            self.memory_bytes.fetch_sub(charged - bytes, Ordering::Relaxed);
        }
    }
}
