//! Leases inside the process: for whoever reads an origin into the cache, or
//! writes through it. The clients' own leases are commands of the session.
//!
//! A reader asks [`Cache::look_up`] and gets the value; or a [`FillLease`], the
//! right and duty to read the origin and fill the key; or a [`FillWait`],
//! because somebody else does that now. [`Cache::get_or_fill`] is all three in
//! one, for a single key; who has many keys looks all of them up, reads what it
//! has leases for at once, fills it, and only then waits for the rest: a holder
//! who waits before it fills could wait for itself.
//!
//! A writer takes a [`WriteLease`] before it writes to the origin, and stores
//! what it wrote when the origin has it. Of two writers at once neither stores:
//! nobody but the origin knows which was last. Until then readers get the old
//! value, if that is cached, or wait for the writer as for a fill.
//!
//! Whoever hears that a key's origin changed calls [`Cache::invalidate`]; then
//! no value that was read before is stored after it, whether one was cached or
//! not. Dropping a lease gives it back: waiters ask again at once. Nothing here
//! sleeps or polls; the entries stand in the item table, beside the items
//! (`item_table/leases.rs` has the rules).
//!
//! A remote marker (Nishtala et al., NSDI 2013, section 4.2) says that this
//! region's origin may lag behind: a reader who misses sees it in its lease and
//! goes to the master's. For clients of the protocol it is an item like any
//! other, set before the write under a key of their own choice.

#[cfg(test)]
mod model;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use crate::item_table::{Fill, FillCell, Holder, Item, ItemBytes, KEY_BYTES_MAX, NewItem, Offer};
use crate::server::Cache;

/// How long a reader waits for somebody else's fill before it reads the origin
/// itself: what mcrouter's ten retries come to, from 2 ms doubling to 500 ms.
pub const HOT_MISS_WAIT_MAX: Duration = Duration::from_millis(1510);

/// A key of the cache: 1 to 250 bytes, any bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey<'k>(&'k [u8]);

impl<'k> CacheKey<'k> {
    /// `bytes` as a key; none if they are none, or more than 250.
    pub fn new(bytes: &'k [u8]) -> Option<Self> {
        (1..=KEY_BYTES_MAX).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &'k [u8] {
        self.0
    }
}

/// A value, and what stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedValue {
    /// The value's bytes.
    pub value: Bytes,
    /// Bits that mean something to clients only.
    pub client_flags: u32,
    /// The second of the Unix epoch that it expires in; 0 for never.
    pub expires_at: u32,
    /// What `cas` compares with; 0 before it is stored.
    pub cas: u64,
}

impl CachedValue {
    pub(crate) fn of(item: &Item) -> Self {
        let (wire_value, shared) = item.wire_value();
        let value_bytes = wire_value.len() - 2;
        let value = match shared {
            None => Bytes::copy_from_slice(&wire_value[..value_bytes]),
            Some(shared) => {
                let start = shared.len() - wire_value.len();
                Bytes::from_owner(SharedValue(Arc::clone(shared))).slice(start..start + value_bytes)
            }
        };
        Self { value, client_flags: item.client_flags(), expires_at: item.expires_at(), cas: item.cas() }
    }

    fn new_item(&self, key: &[u8]) -> NewItem {
        NewItem {
            bytes: ItemBytes::copy(key, &[&self.value]),
            key_bytes: u8::try_from(key.len()).expect("a CacheKey's"),
            client_flags: self.client_flags,
            expires_at: self.expires_at,
            binary_key: false,
        }
    }
}

struct SharedValue(crate::item_table::SharedBytes);

impl AsRef<[u8]> for SharedValue {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What an origin has, or that it has nothing, which is worth remembering too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A value.
    Value(CachedValue),
    /// There is no such thing, and that is to be believed up to this second.
    Absent {
        /// Of the Unix epoch.
        expires_at: u32,
    },
}

/// What a reader finds.
#[derive(Debug)]
pub enum Lookup {
    /// It is cached.
    Found(Found),
    /// The reader is to fill the key.
    Lease(FillLease),
    /// Somebody else fills it.
    Wait(FillWait),
}

/// The right to fill a key with what is read from its origin from now on.
#[derive(Debug)]
pub struct FillLease {
    cache: Cache,
    key: Box<[u8]>,
    token: u64,
    stale: Option<CachedValue>,
    is_remote: bool,
    is_done: bool,
}

impl FillLease {
    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// An older value, for those whom it serves.
    pub fn stale(&self) -> Option<&CachedValue> {
        self.stale.as_ref()
    }

    /// Whether this region's origin may lag behind, and the master's is to be read.
    pub fn is_remote(&self) -> bool {
        self.is_remote
    }

    /// Stores `found`, unless the key changed since the lease began; whether it
    /// did. Those who wait get it.
    pub fn fill(mut self, found: &Found) -> bool {
        self.is_done = true;
        self.cache.fill(&self.key, self.token, found)
    }
}

impl Drop for FillLease {
    fn drop(&mut self) {
        if !self.is_done {
            self.cache.give_back(&self.key, self.token);
        }
    }
}

/// A wait for somebody else's fill.
#[derive(Debug)]
pub struct FillWait {
    cell: Arc<FillCell>,
    notified: OwnedNotified,
    stale: Option<CachedValue>,
}

/// How a wait ended.
#[derive(Debug)]
pub enum Waited {
    /// The fill came.
    Found(Found),
    /// The holder gave up, or the key changed: look it up again.
    LookUpAgain,
    /// Time is up.
    TimedOut,
}

impl FillWait {
    /// An older value, for those whom it serves.
    pub fn stale(&self) -> Option<&CachedValue> {
        self.stale.as_ref()
    }

    /// Waits for the fill until `deadline`.
    ///
    /// # Cancel safety
    ///
    /// Dropping it gives up the wait and nothing else.
    pub async fn wait(self, deadline: Instant) -> Waited {
        if tokio::time::timeout_at(deadline, self.notified).await.is_err() {
            return Waited::TimedOut;
        }
        self.cell.found().map_or(Waited::LookUpAgain, |found| Waited::Found(found.clone()))
    }
}

/// A write to a key's origin that has begun. Dropping it means that nobody knows
/// whether the origin changed: the key is invalidated.
#[derive(Debug)]
pub struct WriteLease {
    cache: Cache,
    key: Box<[u8]>,
    token: u64,
    is_finished: bool,
}

impl WriteLease {
    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The origin has `found` now: stores it, unless somebody else changed the
    /// key meanwhile; then nothing stays cached. Whether it was stored.
    pub fn finish(mut self, found: &Found) -> bool {
        self.is_finished = self.cache.fill(&self.key, self.token, found);
        self.is_finished
    }

    /// The origin did not change: what is cached stays.
    pub fn abandon(mut self) {
        self.is_finished = true;
        self.cache.give_back(&self.key, self.token);
    }
}

impl Drop for WriteLease {
    fn drop(&mut self) {
        if !self.is_finished {
            self.cache.invalidate_bytes(&self.key);
        }
    }
}

impl Cache {
    /// The cached value of `key`, or who is to read it from its origin.
    pub fn look_up(&self, key: CacheKey<'_>) -> Lookup {
        let mut slot = self.shared.table.slot(key.0, self.clock.now_s());
        if let Some(expires_at) = slot.absent_until() {
            slot.counts().cmd_get += 1;
            slot.counts().get_hits += 1;
            return Lookup::Found(Found::Absent { expires_at });
        }
        if let Some(item) = slot.get().filter(|item| !item.is_stale()) {
            return Lookup::Found(Found::Value(CachedValue::of(item)));
        }
        let stale = slot.stale_item().map(CachedValue::of);
        match slot.offer(Holder::Process) {
            Offer::Token(token) => {
                let (key, is_remote) = (key.0.into(), slot.is_remote());
                Lookup::Lease(FillLease { cache: self.clone(), key, token, stale, is_remote, is_done: false })
            }
            Offer::Wait => {
                let cell = slot.waiters();
                // Before the slot's lock goes: no end of the lease is missed.
                let notified = cell.notified();
                Lookup::Wait(FillWait { cell, notified, stale })
            }
        }
    }

    /// The value of `key`, from the cache or by `read`, which only one of those
    /// who ask at once runs; it runs again only for those who waited in vain for
    /// [`HOT_MISS_WAIT_MAX`].
    ///
    /// # Errors
    ///
    /// `read`'s own; nothing was stored.
    pub async fn get_or_fill<E, R>(&self, key: CacheKey<'_>, read: impl Fn() -> R) -> Result<Found, E>
    where
        R: Future<Output = Result<Found, E>>,
    {
        let deadline = Instant::now() + HOT_MISS_WAIT_MAX;
        loop {
            match self.look_up(key) {
                Lookup::Found(found) => return Ok(found),
                Lookup::Lease(lease) => {
                    let found = read().await?;
                    lease.fill(&found);
                    return Ok(found);
                }
                Lookup::Wait(wait) => match wait.wait(deadline).await {
                    Waited::Found(found) => return Ok(found),
                    Waited::LookUpAgain => {}
                    Waited::TimedOut => return read().await,
                },
            }
        }
    }

    /// Begins a write of `key`'s origin: every lease of the key is void.
    pub fn begin_write(&self, key: CacheKey<'_>) -> WriteLease {
        let token = self.shared.table.slot(key.0, self.clock.now_s()).take_over();
        WriteLease { cache: self.clone(), key: key.0.into(), token, is_finished: false }
    }

    /// The origin of `key` changed: its value is stale, and every lease of the
    /// key void. Whether a value was cached.
    pub fn invalidate(&self, key: CacheKey<'_>) -> bool {
        self.invalidate_bytes(key.0)
    }

    /// Has nobody fill `key`, or add to it, for so many seconds.
    pub fn hold_off(&self, key: CacheKey<'_>, seconds: u32) {
        let now = self.clock.now_s();
        self.shared.table.slot(key.0, now).hold_off(now.saturating_add(seconds));
    }

    /// Tells those who are to fill `key` in so many seconds that another
    /// region's origin has the truth.
    pub fn mark_remote(&self, key: CacheKey<'_>, seconds: u32) {
        let now = self.clock.now_s();
        self.shared.table.slot(key.0, now).mark_remote(now.saturating_add(seconds));
    }

    fn invalidate_bytes(&self, key: &[u8]) -> bool {
        let stale_s = self.shared.options.stale_seconds();
        self.shared.table.slot(key, self.clock.now_s()).delete(stale_s)
    }

    fn give_back(&self, key: &[u8], token: u64) {
        self.shared.table.slot(key, self.clock.now_s()).come_back(token);
    }

    fn fill(&self, key: &[u8], token: u64, found: &Found) -> bool {
        let now = self.clock.now_s();
        let mut slot = self.shared.table.slot(key, now);
        let filled = match found {
            Found::Value(CachedValue { value, client_flags, .. })
                if self.shared.exceeds_item_limit(key.len(), value.len(), *client_flags) =>
            {
                slot.pass_on(token, found);
                false
            }
            Found::Value(value) => slot.fill(token, value.new_item(key)) == Fill::Stored,
            Found::Absent { expires_at } => slot.fill_absent(token, *expires_at),
        };
        drop(slot);
        self.shared.table.relieve(now);
        filled
    }
}
