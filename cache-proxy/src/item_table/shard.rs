//! One shard: an index by hash, the items, and what orders their end.
//!
//! Invariants, between calls:
//!
//! - each place that is not free is in the index once, in one queue, and in one
//!   expiry bucket if its item expires;
//! - `item_bytes` is the sum of the items' [`Item::memory_bytes`];
//! - `hidden_count` of the items are hidden: deleted ones that are kept as
//!   stale values, and marks that an origin has no such thing.

use hashbrown::HashTable;

use super::expiry::ExpiryBuckets;
use super::item::{Item, ItemBytes, NOWHERE, Place, Restored, state};
use super::leases::Leases;
use super::queues::Queues;
use super::slab::Slab;
use super::statistics::Statistics;
use crate::protocol::admin::stream;
use crate::watch::{ShownKey, Watchers};

/// Why an item that is in the table is not to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dead {
    Expired,
    Flushed,
}

/// What an item is made of; the rest follows from where it goes.
#[derive(Debug)]
pub(crate) struct NewItem {
    /// Key, value and end.
    pub(crate) bytes: ItemBytes,
    /// Length of the key.
    pub(crate) key_bytes: u8,
    /// Bits that mean something to clients only.
    pub(crate) client_flags: u32,
    /// The second it expires in; 0 for never.
    pub(crate) expires_at: u32,
    /// Whether the key came base64-encoded.
    pub(crate) binary_key: bool,
}

impl NewItem {
    /// An item of `key` without a value.
    ///
    /// REQUIRES: `key` has at most 250 bytes.
    pub(crate) fn empty(key: &[u8], expires_at: u32) -> Self {
        Self {
            bytes: ItemBytes::copy(key, &[]),
            key_bytes: u8::try_from(key.len()).expect("keys are checked"),
            client_flags: 0,
            expires_at,
            binary_key: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Shard {
    index: HashTable<Place>,
    slab: Slab,
    queues: Queues,
    expiry: ExpiryBuckets,
    pub(super) leases: Leases,
    item_count: usize,
    hidden_count: usize,
    item_bytes: u64,
    /// What of this shard the table's total contains.
    pub(super) charged_bytes: u64,
    /// The generation that the shard holds no older item than, and how far a
    /// sweep for the current one has come.
    swept_generation: u8,
    sweep_cursor: usize,
    pub(super) statistics: Statistics,
}

impl Shard {
    pub(super) fn new() -> Self {
        Self {
            index: HashTable::new(),
            slab: Slab::new(),
            queues: Queues::new(),
            expiry: ExpiryBuckets::default(),
            leases: Leases::default(),
            item_count: 0,
            hidden_count: 0,
            item_bytes: 0,
            charged_bytes: 0,
            swept_generation: 0,
            sweep_cursor: 0,
            statistics: Statistics::default(),
        }
    }

    /// Items that ordinary commands see.
    pub(super) fn item_count(&self) -> usize {
        self.item_count - self.hidden_count
    }

    /// Bytes of memory that the shard takes.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.item_bytes
            + self.slab.spare_bytes(self.item_count)
            + self.index.allocation_size() as u64
            + self.queues.ghost_bytes()
            + self.expiry.memory_bytes()
            + self.leases.memory_bytes()
    }

    pub(super) fn item(&self, place: Place) -> &Item {
        self.slab.get(place)
    }

    pub(super) fn item_mut(&mut self, place: Place) -> &mut Item {
        self.slab.get_mut(place)
    }

    pub(super) fn find(&self, hash: u32, key: &[u8]) -> Option<Place> {
        let slab = &self.slab;
        let same = |place: &Place| {
            let item = slab.get(*place);
            item.hash == hash && item.key() == key
        };
        self.index.find(index_hash(hash), same).copied()
    }

    /// Whether the item at `place` is there only because nobody noticed its end.
    pub(super) fn dead(&self, place: Place, now: u32, generation: u8) -> Option<Dead> {
        let item = self.slab.get(place);
        if item.generation != generation {
            Some(Dead::Flushed)
        } else if item.expires_at != 0 && item.expires_at <= now {
            Some(Dead::Expired)
        } else {
            None
        }
    }

    pub(super) fn insert(&mut self, hash: u32, new: NewItem, cas: u64, now: u32, generation: u8) -> Place {
        let NewItem { bytes, key_bytes, client_flags, expires_at, binary_key } = new;
        let place = self.slab.insert(Item {
            bytes,
            cas,
            client_flags,
            expires_at,
            accessed_at: now,
            hash,
            previous: NOWHERE,
            next: NOWHERE,
            expiry_position: 0,
            generation,
            key_bytes,
            state: if binary_key { state::BINARY_KEY } else { 0 },
        });
        self.item_bytes += self.slab.get(place).memory_bytes();
        self.item_count += 1;
        self.queues.insert(&mut self.slab, place);
        self.expiry.insert(&mut self.slab, place);
        let slab = &self.slab;
        self.index.insert_unique(index_hash(hash), place, |place| index_hash(slab.get(*place).hash));
        self.statistics.total_items += 1;
        place
    }

    /// Replaces the item at `place`, which keeps its place in the queues:
    /// another write counts as another access.
    pub(super) fn replace(
        &mut self,
        place: Place,
        new: NewItem,
        cas: u64,
        now: u32,
        generation: u8,
    ) -> ItemBytes {
        let NewItem { bytes, key_bytes, client_flags, expires_at, binary_key } = new;
        self.set_expiry(place, expires_at);
        let item = self.slab.get_mut(place);
        self.hidden_count -= usize::from(item.is_hidden());
        item.bump();
        item.accessed_at = now;
        let kept = item.state & (state::ACCESS_MASK | state::MAIN);
        item.state = if binary_key { kept | state::BINARY_KEY } else { kept };
        (item.cas, item.client_flags) = (cas, client_flags);
        (item.generation, item.key_bytes) = (generation, key_bytes);
        self.statistics.total_items += 1;
        self.rewrite(place, bytes)
    }

    /// Gives the item at `place` other bytes behind the same key.
    pub(super) fn rewrite(&mut self, place: Place, bytes: ItemBytes) -> ItemBytes {
        let item = self.slab.get_mut(place);
        let old_memory_bytes = item.memory_bytes();
        let old_bytes = std::mem::replace(&mut item.bytes, bytes);
        self.item_bytes = self.item_bytes - old_memory_bytes + item.memory_bytes();
        self.queues.resize(&self.slab, place, old_memory_bytes);
        old_bytes
    }

    /// Hides the item at `place` as `mark` says, until `expires_at`.
    pub(super) fn hide(&mut self, place: Place, mark: u16, expires_at: u32) {
        self.set_expiry(place, expires_at);
        let item = self.slab.get_mut(place);
        self.hidden_count += usize::from(!item.is_hidden());
        // Hidden items are the first to go when they reach their queue's end.
        item.state = item.state & !state::ACCESS_MASK | mark;
    }

    /// Gives the item at `place` back what it was before a restart.
    pub(super) fn restore(&mut self, place: Place, restored: &Restored) {
        if restored.in_main {
            self.queues.promote(&mut self.slab, place);
        }
        let item = self.slab.get_mut(place);
        let marks = [(state::STALE, restored.is_stale), (state::FETCHED, restored.is_fetched)];
        item.state = item.state & !state::ACCESS_MASK | u16::from(restored.access_count) & state::ACCESS_MASK;
        item.state |= marks.into_iter().filter(|(_, is_so)| *is_so).fold(0, |all, (mark, _)| all | mark);
        item.accessed_at = restored.accessed_at;
    }

    pub(super) fn set_expiry(&mut self, place: Place, expires_at: u32) {
        if self.slab.get(place).expires_at == expires_at {
            return;
        }
        self.expiry.remove(&mut self.slab, place);
        self.slab.get_mut(place).expires_at = expires_at;
        self.expiry.insert(&mut self.slab, place);
    }

    pub(super) fn remove(&mut self, place: Place) -> ItemBytes {
        self.queues.remove(&mut self.slab, place);
        self.forget(place)
    }

    /// Removes an item that is dead, and counts it.
    pub(super) fn bury(&mut self, place: Place, dead: Dead) {
        let item = self.slab.get(place);
        if !item.is_hidden() {
            self.statistics.reclaimed += 1;
            self.statistics.expired_unfetched += u64::from(dead == Dead::Expired && !item.is_fetched());
        }
        self.remove(place);
    }

    /// Evicts one item; false if there is none.
    pub(super) fn evict(&mut self, now: u32, generation: u8, watchers: &Watchers) -> bool {
        let Some(place) = self.queues.evict(&mut self.slab, self.item_count) else { return false };
        let dead = self.dead(place, now, generation);
        let item = self.slab.get(place);
        let counts = &mut self.statistics;
        if watchers.want(stream::EVICTIONS) {
            tell_eviction(item, now, watchers);
        }
        if item.is_hidden() {
            // Nobody misses it.
        } else if dead.is_some() {
            counts.reclaimed += 1;
        } else {
            counts.evictions += 1;
            counts.evicted_unfetched += u64::from(!item.is_fetched());
            counts.evicted_nonzero += u64::from(item.expires_at != 0);
            counts.evicted_time = u64::from(now.saturating_sub(item.accessed_at));
        }
        self.forget(place);
        true
    }

    /// Seconds since the last access of the item that has waited longest.
    pub(super) fn oldest_age_s(&self, now: u32) -> u32 {
        self.queues.oldest().map_or(0, |place| now.saturating_sub(self.slab.get(place).accessed_at))
    }

    /// Removes items that expired, and those of earlier generations, looking at
    /// no more than `item_count_max`.
    pub(super) fn reap(&mut self, now: u32, generation: u8, item_count_max: usize) {
        self.leases.purge(now, item_count_max);
        let mut reaped = 0;
        for _ in 0..item_count_max {
            let Some(place) = self.expiry.due(now) else { break };
            reaped += u64::from(!self.slab.get(place).is_hidden());
            self.bury(place, Dead::Expired);
        }
        if self.swept_generation != generation {
            reaped += self.sweep(generation, item_count_max);
        }
        self.statistics.crawler_reclaimed += reaped;
    }

    /// Whether [`Shard::reap`] has nothing to do now.
    pub(super) fn is_reaped(&self, now: u32, generation: u8) -> bool {
        self.swept_generation == generation && self.expiry.due(now).is_none()
    }

    /// Places there are, of items and free.
    pub(super) fn place_count(&self) -> usize {
        self.slab.place_count()
    }

    /// The item at the place of this number, if there is one to be seen.
    pub(super) fn visible(&self, place: usize, now: u32, generation: u8) -> Option<&Item> {
        let place = Place::try_from(place).ok().filter(|place| !self.slab.is_free(*place))?;
        let is_visible = self.dead(place, now, generation).is_none() && !self.item(place).is_hidden();
        is_visible.then(|| self.item(place))
    }

    /// Removes every item.
    pub(super) fn clear(&mut self) {
        let (statistics, charged_bytes) = (self.statistics, self.charged_bytes);
        *self = Self { statistics, charged_bytes, ..Self::new() };
    }

    /// Asserts the invariants.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let places = (0..self.slab.place_count()).map(|place| Place::try_from(place).unwrap());
        let live_places: Vec<Place> = places.filter(|place| !self.slab.is_free(*place)).collect();
        let bytes: u64 = live_places.iter().map(|place| self.slab.get(*place).memory_bytes()).sum();
        let count = live_places.len();
        assert_eq!((count, bytes), (self.item_count, self.item_bytes));
        let hidden = live_places.iter().filter(|place| self.slab.get(**place).is_hidden());
        assert_eq!(hidden.count(), self.hidden_count);
        assert_eq!(self.index.len(), self.item_count);
        assert_eq!(self.queues.check(&self.slab), (self.item_count, self.item_bytes));
    }

    fn sweep(&mut self, generation: u8, place_count_max: usize) -> u64 {
        let mut swept = 0;
        let end = self.slab.place_count();
        for _ in 0..place_count_max {
            if self.sweep_cursor >= end {
                (self.sweep_cursor, self.swept_generation) = (0, generation);
                break;
            }
            let place = Place::try_from(self.sweep_cursor).expect("a place of the slab");
            self.sweep_cursor += 1;
            if !self.slab.is_free(place) && self.slab.get(place).generation != generation {
                swept += u64::from(!self.slab.get(place).is_hidden());
                self.bury(place, Dead::Flushed);
            }
        }
        swept
    }

    /// Removes an item that is in no queue any more.
    fn forget(&mut self, place: Place) -> ItemBytes {
        let hash = self.slab.get(place).hash;
        if let Ok(entry) = self.index.find_entry(index_hash(hash), |candidate| *candidate == place) {
            entry.remove();
        }
        self.expiry.remove(&mut self.slab, place);
        self.hidden_count -= usize::from(self.slab.get(place).is_hidden());
        self.item_bytes -= self.slab.get(place).memory_bytes();
        self.item_count -= 1;
        self.slab.remove(place)
    }
}

#[cold]
fn tell_eviction(item: &Item, now: u32, watchers: &Watchers) {
    let ttl = match item.expires_at() {
        0 => -1,
        expires_at => i64::from(expires_at) - i64::from(now),
    };
    watchers.tell(
        stream::EVICTIONS,
        format_args!(
            "type=eviction key={} fetch={} ttl={ttl} la={} clsid=1 size={}",
            ShownKey(item.key()),
            if item.is_fetched() { "yes" } else { "no" },
            now.saturating_sub(item.accessed_at()),
            item.memory_bytes()
        ),
    );
}

/// The index takes a place from the low bits and a tag from the high ones.
pub(super) fn index_hash(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
