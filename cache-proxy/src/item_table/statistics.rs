//! What a shard counts. Plain numbers under the shard's lock: counting costs
//! nothing that the lock did not already cost.

/// Counts since the start or the last `stats reset`. The names are memcached's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Keys asked for by get and its kin.
    pub cmd_get: u64,
    /// Values stored or tried to be.
    pub cmd_set: u64,
    /// Keys touched or tried to be, gat included.
    pub cmd_touch: u64,
    /// Keys found.
    pub get_hits: u64,
    /// Keys not found.
    pub get_misses: u64,
    /// Keys not found because they had expired.
    pub get_expired: u64,
    /// Keys not found because they had been flushed.
    pub get_flushed: u64,
    /// Deletes of keys that were there.
    pub delete_hits: u64,
    /// Deletes of keys that were not.
    pub delete_misses: u64,
    /// Increments of keys that were there.
    pub incr_hits: u64,
    /// Increments of keys that were not.
    pub incr_misses: u64,
    /// Decrements of keys that were there.
    pub decr_hits: u64,
    /// Decrements of keys that were not.
    pub decr_misses: u64,
    /// Compare-and-set that stored.
    pub cas_hits: u64,
    /// Compare-and-set of keys that were not there.
    pub cas_misses: u64,
    /// Compare-and-set of keys that had changed.
    pub cas_badval: u64,
    /// Touches of keys that were there.
    pub touch_hits: u64,
    /// Touches of keys that were not.
    pub touch_misses: u64,
    /// Items stored, ever.
    pub total_items: u64,
    /// Items evicted to make room.
    pub evictions: u64,
    /// Items evicted that nobody had read.
    pub evicted_unfetched: u64,
    /// Items evicted that had a time to expire.
    pub evicted_nonzero: u64,
    /// Expired or flushed items removed.
    pub reclaimed: u64,
    /// Expired items removed that nobody had read.
    pub expired_unfetched: u64,
    /// Expired or flushed items that the reaper removed.
    pub crawler_reclaimed: u64,
    /// Lease tokens given out.
    pub lease_tokens: u64,
    /// Readers told to wait because somebody else fills the key.
    pub lease_waits: u64,
    /// Of these and those with a token, the ones that got a stale value.
    pub lease_stale_hits: u64,
    /// Values stored under a token.
    pub lease_fills: u64,
    /// Values not stored because the token was void.
    pub lease_refusals: u64,
    /// Seconds since its last access of the item evicted last.
    pub evicted_time: u64,
}

impl Statistics {
    /// Adds another shard's counts.
    pub(super) fn add(&mut self, other: &Self) {
        self.cmd_get += other.cmd_get;
        self.cmd_set += other.cmd_set;
        self.cmd_touch += other.cmd_touch;
        self.get_hits += other.get_hits;
        self.get_misses += other.get_misses;
        self.get_expired += other.get_expired;
        self.get_flushed += other.get_flushed;
        self.delete_hits += other.delete_hits;
        self.delete_misses += other.delete_misses;
        self.incr_hits += other.incr_hits;
        self.incr_misses += other.incr_misses;
        self.decr_hits += other.decr_hits;
        self.decr_misses += other.decr_misses;
        self.cas_hits += other.cas_hits;
        self.cas_misses += other.cas_misses;
        self.cas_badval += other.cas_badval;
        self.touch_hits += other.touch_hits;
        self.touch_misses += other.touch_misses;
        self.total_items += other.total_items;
        self.evictions += other.evictions;
        self.evicted_unfetched += other.evicted_unfetched;
        self.evicted_nonzero += other.evicted_nonzero;
        self.reclaimed += other.reclaimed;
        self.expired_unfetched += other.expired_unfetched;
        self.crawler_reclaimed += other.crawler_reclaimed;
        self.lease_tokens += other.lease_tokens;
        self.lease_waits += other.lease_waits;
        self.lease_stale_hits += other.lease_stale_hits;
        self.lease_fills += other.lease_fills;
        self.lease_refusals += other.lease_refusals;
        self.evicted_time = self.evicted_time.max(other.evicted_time);
    }
}

/// What a table holds now, and what it counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStatistics {
    /// Counts.
    pub counts: Statistics,
    /// Items now; expired ones that nobody has noticed yet are among them.
    pub item_count: u64,
    /// Keys that are leased, held off or marked remote.
    pub lease_count: u64,
    /// Bytes of memory that items and table take.
    pub memory_bytes: u64,
    /// What `memory_bytes` may be.
    pub memory_bytes_max: u64,
    /// Seconds since its last access of the item that would be evicted next, roughly.
    pub oldest_age_s: u64,
}
