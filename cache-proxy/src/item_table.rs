//! The items, in shards by hash, within a number of bytes.
//!
//! Who uses it: the session, one [`Slot`] a key. A slot is a key's place under
//! its shard's lock: look at the item, change it, remove it, put one; commands
//! are written in these terms, and a lease's state would stand beside the item
//! in the same way. Read on in this order:
//!
//! - [`item`]: one item, in one allocation;
//! - [`slab`]: where items live;
//! - [`queues`]: which goes when memory is used up (S3-FIFO);
//! - [`expiry`]: which goes when;
//! - [`shard`]: the four together;
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
mod queues;
mod shard;
mod slab;
mod statistics;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use twox_hash::XxHash3_64;

pub(crate) use item::{Item, ItemBytes, KEY_BYTES_MAX, SharedBytes};
pub(crate) use shard::NewItem;
pub use statistics::{Statistics, TableStatistics};

use item::{Place, state};
use shard::{Dead, Shard};

/// More memory than this gets another shard.
const SHARD_BYTES: u64 = 4 << 20;
const SHARD_COUNT_MAX: u64 = 256;

/// Items that the reaper removes or looks at before it lets go of a shard's lock.
const REAP_ITEMS: usize = 256;

#[derive(Debug)]
pub(crate) struct ItemTable {
    shards: Box<[Mutex<Shard>]>,
    seed: u64,
    memory_bytes: AtomicU64,
    memory_bytes_max: AtomicU64,
    last_cas: AtomicU64,
    /// Items of another generation are flushed.
    generation: AtomicU16,
    /// The second in which a delayed `flush_all` begins a new generation; 0 if none.
    flush_at: AtomicU32,
    relief_cursor: AtomicUsize,
}

impl ItemTable {
    /// A table of at most `memory_bytes_max`, whose hash nobody can predict who
    /// does not know `seed`.
    pub(crate) fn new(memory_bytes_max: u64, seed: u64) -> Self {
        let shard_count = (memory_bytes_max / SHARD_BYTES).clamp(1, SHARD_COUNT_MAX).next_power_of_two();
        Self {
            shards: (0..shard_count).map(|_| Mutex::new(Shard::new())).collect(),
            seed,
            memory_bytes: AtomicU64::new(0),
            memory_bytes_max: AtomicU64::new(memory_bytes_max),
            last_cas: AtomicU64::new(0),
            generation: AtomicU16::new(0),
            flush_at: AtomicU32::new(0),
            relief_cursor: AtomicUsize::new(0),
        }
    }

    /// The slot of `key` at `now`, its shard locked until it is dropped. An item
    /// that expired or was flushed is removed first.
    pub(crate) fn slot(&self, key: &[u8], now: u32) -> Slot<'_> {
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
        Slot { table: self, shard, hash, place, absence, now, generation }
    }

    /// A number that was never an item's cas.
    fn next_cas(&self) -> u64 {
        self.last_cas.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Evicts from any shard while the table is over its limit. To be called
    /// after a slot was put to and dropped.
    pub(crate) fn relieve(&self, now: u32) {
        let mut empty_count = 0;
        while self.is_over(0) && empty_count < self.shards.len() {
            let turn = self.relief_cursor.fetch_add(1, Ordering::Relaxed);
            let mut shard = self.shards[turn % self.shards.len()].lock();
            let evicted = shard.evict(now, self.generation.load(Ordering::Acquire));
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

    /// Numbers wrap after 65,536 flushes; an item that no sweep reached in all
    /// that time must not come back.
    fn begin_generation(&self) {
        let before = self.generation.fetch_add(1, Ordering::AcqRel);
        self.next_cas();
        if before == u16::MAX {
            for shard in &self.shards {
                let mut shard = shard.lock();
                shard.clear();
                self.charge(&mut shard);
            }
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

/// Why a slot has no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Absence {
    Unknown,
    Expired,
    Flushed,
}

/// A key's place in the table, its shard locked.
#[derive(Debug)]
pub(crate) struct Slot<'t> {
    table: &'t ItemTable,
    shard: MutexGuard<'t, Shard>,
    hash: u32,
    place: Option<Place>,
    absence: Absence,
    now: u32,
    generation: u16,
}

impl Slot<'_> {
    /// The live item.
    pub(crate) fn item(&self) -> Option<&Item> {
        self.place.map(|place| self.shard.item(place))
    }

    /// The live item, marked as read now, and counted as got.
    pub(crate) fn get(&mut self) -> Option<&Item> {
        let counts = &mut self.shard.statistics;
        counts.cmd_get += 1;
        let Some(place) = self.place else {
            counts.get_misses += 1;
            match self.absence {
                Absence::Unknown => {}
                Absence::Expired => counts.get_expired += 1,
                Absence::Flushed => counts.get_flushed += 1,
            }
            return None;
        };
        counts.get_hits += 1;
        let now = self.now;
        let item = self.shard.item_mut(place);
        item.access(now);
        Some(item)
    }

    /// Marks the item as read now.
    pub(crate) fn access(&mut self) {
        if let Some(place) = self.place {
            let now = self.now;
            self.shard.item_mut(place).access(now);
        }
    }

    /// Counts an access for eviction, though nobody read the item.
    pub(crate) fn bump(&mut self) {
        if let Some(place) = self.place {
            self.shard.item_mut(place).bump();
        }
    }

    /// Gives the item another time to expire; 0 is never.
    pub(crate) fn set_expiry(&mut self, expires_at: u32) {
        if let Some(place) = self.place {
            self.shard.set_expiry(place, expires_at);
            self.table.charge(&mut self.shard);
        }
    }

    /// Marks the item as stale, or as not.
    pub(crate) fn mark_stale(&mut self, stale: bool) {
        self.set_state(state::STALE, stale);
    }

    /// Notes whether somebody was told to refill the item.
    pub(crate) fn mark_token_sent(&mut self, sent: bool) {
        self.set_state(state::TOKEN_SENT, sent);
    }

    /// Gives the item `cas`, or a new one.
    pub(crate) fn renew_cas(&mut self, cas: Option<u64>) -> u64 {
        let cas = cas.unwrap_or_else(|| self.table.next_cas());
        if let Some(place) = self.place {
            self.shard.item_mut(place).cas = cas;
        }
        cas
    }

    fn set_state(&mut self, bit: u8, on: bool) {
        if let Some(place) = self.place {
            let item = self.shard.item_mut(place);
            item.state = if on { item.state | bit } else { item.state & !bit };
        }
    }

    /// Stores `new` in place of the item, if there is one, and returns its cas:
    /// `cas` if that is given. Evicts first what has to make room.
    pub(crate) fn put(&mut self, new: NewItem, cas: Option<u64>) -> u64 {
        let cas = cas.unwrap_or_else(|| self.table.next_cas());
        let (table, now, generation) = (self.table, self.now, self.generation);
        let old_bytes = self.item().map_or(0, Item::memory_bytes);
        let more_bytes = (new.bytes.memory_bytes() + size_of::<Item>() as u64).saturating_sub(old_bytes);
        if table.is_over(more_bytes) {
            while table.is_over(more_bytes) && self.shard.evict(now, generation) {
                table.charge(&mut self.shard);
            }
            if self.place.is_some() {
                // It may have been its own turn.
                let key = &new.bytes.as_slice()[..usize::from(new.key_bytes)];
                self.place = self.shard.find(self.hash, key);
            }
        }
        match self.place {
            Some(place) => drop(self.shard.replace(place, new, cas, now, generation)),
            None => self.place = Some(self.shard.insert(self.hash, new, cas, now, generation)),
        }
        table.charge(&mut self.shard);
        cas
    }

    /// Gives the item another value and `cas`, or a new one; all else stays, its
    /// marks too.
    ///
    /// REQUIRES: `bytes` begin with the item's key and are no more than it had.
    pub(crate) fn rewrite(&mut self, bytes: ItemBytes, cas: Option<u64>) -> u64 {
        if let Some(place) = self.place {
            self.shard.rewrite(place, bytes);
            self.table.charge(&mut self.shard);
        }
        self.renew_cas(cas)
    }

    /// Removes the item; false if there was none.
    pub(crate) fn remove(&mut self) -> bool {
        let Some(place) = self.place.take() else { return false };
        self.shard.remove(place);
        self.table.charge(&mut self.shard);
        true
    }

    /// The counts of the slot's shard.
    pub(crate) fn counts(&mut self) -> &mut Statistics {
        &mut self.shard.statistics
    }
}
