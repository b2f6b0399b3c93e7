//! A key's place in the table, its shard locked.
//!
//! Every change of an item goes through here, and each voids the key's lease in
//! the same step: no caller can forget it. Only [`Slot::fill`] stores under a
//! token, and [`Slot::touch`]-like changes, of expiry and marks of access, leave
//! the value as it is and the lease with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;

use super::ItemTable;
use super::item::{Item, ItemBytes, Place, Restored, state};
use super::leases::{FillCell, Holder, LeaseKey, Offer};
use super::shard::{NewItem, Shard};
use super::statistics::Statistics;
use crate::lease::{CachedValue, Found};

/// Leases take no more than this part of a shard's share of memory.
const LEASE_SHARE: u64 = 8;

/// Why a slot has no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    Unknown,
    Expired,
    Flushed,
}

/// A key's place in the table, its shard locked.
#[derive(Debug)]
pub(crate) struct Slot<'t> {
    pub(super) table: &'t ItemTable,
    pub(super) shard: MutexGuard<'t, Shard>,
    pub(super) key: &'t [u8],
    pub(super) hash: u32,
    /// The item, if it is to be seen.
    pub(super) place: Option<Place>,
    /// The item, if it is hidden.
    pub(super) hidden: Option<Place>,
    pub(super) absence: Absence,
    pub(super) now: u32,
    pub(super) generation: u8,
}

/// What became of a value that came with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// It is the key's value now.
    Stored,
    /// The token is void, but a newer value is there.
    Superseded,
    /// The token is void; it took the place of an older stale value.
    StoredStale,
    /// The token is void; nothing was stored.
    Refused,
}

impl<'t> Slot<'t> {
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
        self.void_lease();
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

    fn set_state(&mut self, bit: u16, on: bool) {
        if let Some(place) = self.place {
            let item = self.shard.item_mut(place);
            item.state = if on { item.state | bit } else { item.state & !bit };
        }
    }

    /// Stores `new` in place of the item, if there is one, and returns its cas:
    /// `cas` if that is given. Evicts first what has to make room.
    pub(crate) fn put(&mut self, new: NewItem, cas: Option<u64>) -> u64 {
        self.void_lease();
        self.end_hold_off();
        self.store(new, cas)
    }

    fn store(&mut self, new: NewItem, cas: Option<u64>) -> u64 {
        let cas = cas.unwrap_or_else(|| self.table.next_cas());
        let (table, now, generation) = (self.table, self.now, self.generation);
        let old = self.place.or(self.hidden);
        let old_bytes = old.map_or(0, |place| self.shard.item(place).memory_bytes());
        let more_bytes = (new.bytes.memory_bytes() + size_of::<Item>() as u64).saturating_sub(old_bytes);
        if table.is_over(more_bytes) {
            while table.is_over(more_bytes) && self.shard.evict(now, generation, &table.watchers) {
                table.charge(&mut self.shard);
            }
            if old.is_some() {
                // It may have been its own turn.
                let place = self.shard.find(self.hash, self.key);
                (self.place, self.hidden) = if self.hidden.is_some() { (None, place) } else { (place, None) };
            }
        }
        self.place = Some(match self.place.or(self.hidden.take()) {
            Some(place) => {
                drop(self.shard.replace(place, new, cas, now, generation));
                place
            }
            None => self.shard.insert(self.hash, new, cas, now, generation),
        });
        table.charge(&mut self.shard);
        cas
    }

    /// Gives the item another value and `cas`, or a new one; all else stays, its
    /// marks too.
    ///
    /// REQUIRES: `bytes` begin with the item's key and are no more than it had.
    pub(crate) fn rewrite(&mut self, bytes: ItemBytes, cas: Option<u64>) -> u64 {
        self.void_lease();
        if let Some(place) = self.place {
            self.shard.rewrite(place, bytes);
            self.table.charge(&mut self.shard);
        }
        self.renew_cas(cas)
    }

    /// Gives the item back what it was before a restart.
    pub(crate) fn restore(&mut self, restored: &Restored) {
        if let Some(place) = self.place {
            self.shard.restore(place, restored);
        }
    }

    /// Removes the item, a hidden one too; false if there was none to be seen.
    pub(crate) fn remove(&mut self) -> bool {
        self.void_lease();
        let found = self.place.is_some();
        if let Some(place) = self.place.take().or(self.hidden.take()) {
            self.shard.remove(place);
            self.table.charge(&mut self.shard);
        }
        found
    }

    /// Removes the item, but keeps its value for `stale_s` for those who take a
    /// stale one; false if there was none.
    pub(crate) fn delete(&mut self, stale_s: u32) -> bool {
        if stale_s == 0 {
            return self.remove();
        }
        self.void_lease();
        if self.absent_until().is_some() {
            // Of what is not there nothing stays.
            return self.remove();
        }
        let Some(place) = self.place.take() else { return false };
        let end = self.now.saturating_add(stale_s);
        let expires_at = match self.shard.item(place).expires_at() {
            0 => end,
            expires_at => expires_at.min(end),
        };
        self.shard.hide(place, state::DELETED, expires_at);
        self.table.charge(&mut self.shard);
        self.hidden = Some(place);
        true
    }

    /// The second up to which the key's origin is known to have no such thing.
    pub(crate) fn absent_until(&self) -> Option<u32> {
        let item = self.hidden.map(|place| self.shard.item(place))?;
        item.is_absent().then_some(item.expires_at())
    }

    /// A value for those who take a stale one: it was marked so, or deleted.
    pub(crate) fn stale_item(&self) -> Option<&Item> {
        let item = self.place.or(self.hidden).map(|place| self.shard.item(place))?;
        (item.is_stale() || item.is_deleted()).then_some(item)
    }

    /// Offers the key to somebody who found no value, or a stale one.
    pub(crate) fn offer(&mut self, holder: Holder) -> Offer {
        let has_stale = self.stale_item().is_some();
        let (key, now, token) = (self.lease_key(), self.now, self.table.next_token());
        let offer = self.shard.leases.offer(key, holder, now, token);
        let counts = &mut self.shard.statistics;
        match offer {
            Offer::Token(_) => counts.lease_tokens += 1,
            Offer::Wait => counts.lease_waits += 1,
        }
        counts.lease_stale_hits += u64::from(has_stale);
        self.bound_leases();
        offer
    }

    /// A token for a writer of the key; every other one is void.
    pub(crate) fn take_over(&mut self) -> u64 {
        let token = self.table.next_token();
        let (key, now) = (self.lease_key(), self.now);
        self.shard.leases.take_over(key, now, token);
        self.bound_leases();
        token
    }

    /// What the key's other readers wait on.
    pub(crate) fn waiters(&mut self) -> Arc<FillCell> {
        let key = self.lease_key();
        self.shard.leases.waiters(key)
    }

    /// Whether a value that comes with `token` may be stored.
    pub(crate) fn is_token_valid(&self, token: u64) -> bool {
        self.shard.leases.is_valid(self.lease_key(), token)
    }

    /// Stores `new`, which was read by the holder of `token`, if nothing changed
    /// the key since.
    pub(crate) fn fill(&mut self, token: u64, new: NewItem) -> Fill {
        if self.is_token_valid(token) {
            self.store(new, None);
            let is_awaited = self.shard.leases.is_awaited(self.lease_key());
            let found = self.item().filter(|_| is_awaited).map(|item| Found::Value(CachedValue::of(item)));
            self.come_back_with(token, found);
            self.shard.statistics.lease_fills += 1;
            return Fill::Stored;
        }
        self.come_back(token);
        self.shard.statistics.lease_refusals += 1;
        if self.stale_item().is_some() {
            self.put_stale(new);
            return Fill::StoredStale;
        }
        if self.place.is_some() { Fill::Superseded } else { Fill::Refused }
    }

    /// Notes that the origin has no such thing up to `expires_at`, as
    /// [`Slot::fill`] stores a value; whether it did.
    pub(crate) fn fill_absent(&mut self, token: u64, expires_at: u32) -> bool {
        let is_valid = self.is_token_valid(token);
        if is_valid {
            self.store(NewItem::empty(self.key, expires_at), None);
            if let Some(place) = self.place.take() {
                self.shard.hide(place, state::ABSENT, expires_at);
                self.hidden = Some(place);
            }
        }
        self.come_back_with(token, is_valid.then_some(Found::Absent { expires_at }));
        is_valid
    }

    /// Gives `found`, which is too large to be stored, to those who wait, if
    /// nothing changed the key since `token` was given out.
    pub(crate) fn pass_on(&mut self, token: u64, found: &Found) {
        let found = self.is_token_valid(token).then(|| found.clone());
        self.come_back_with(token, found);
    }

    /// The holder of `token` is done, and has nothing.
    pub(crate) fn come_back(&mut self, token: u64) {
        self.come_back_with(token, None);
    }

    fn come_back_with(&mut self, token: u64, found: Option<Found>) {
        let key = self.lease_key();
        self.shard.leases.come_back(key, token, found);
    }

    /// Gives out no token for the key, and adds nothing to it, before `until`.
    pub(crate) fn hold_off(&mut self, until: u32) {
        let key = self.lease_key();
        self.shard.leases.hold_off(key, until);
        self.bound_leases();
    }

    /// Whether the key is held off.
    pub(crate) fn is_held_off(&self) -> bool {
        self.shard.leases.is_held_off(self.lease_key(), self.now)
    }

    /// Tells those who miss before `until` that another region has the truth.
    pub(crate) fn mark_remote(&mut self, until: u32) {
        let key = self.lease_key();
        self.shard.leases.mark_remote(key, until);
        self.bound_leases();
    }

    /// Whether another region has the truth.
    pub(crate) fn is_remote(&self) -> bool {
        self.shard.leases.is_remote(self.lease_key(), self.now)
    }

    fn lease_key(&self) -> LeaseKey<'t> {
        LeaseKey { hash: self.hash, bytes: self.key, generation: self.generation }
    }

    /// A write that is not an add knows what it writes.
    fn end_hold_off(&mut self) {
        if !self.shard.leases.is_empty() {
            let key = self.lease_key();
            self.shard.leases.end_hold_off(key);
        }
    }

    fn void_lease(&mut self) {
        if !self.shard.leases.is_empty() {
            let key = self.lease_key();
            self.shard.leases.void(key);
        }
    }

    /// Stores `new` in place of a stale value, to be as stale and to end when
    /// that does.
    fn put_stale(&mut self, mut new: NewItem) {
        let Some(old) = self.place.or(self.hidden) else { return };
        let old = self.shard.item(old);
        let (is_deleted, token_sent) = (old.is_deleted(), old.is_token_sent());
        new.expires_at = old.expires_at();
        let expires_at = new.expires_at;
        self.put(new, None);
        if let (true, Some(place)) = (is_deleted, self.place) {
            self.shard.hide(place, state::DELETED, expires_at);
            (self.place, self.hidden) = (None, Some(place));
        } else {
            self.mark_stale(true);
            self.mark_token_sent(token_sent);
        }
    }

    /// Lets the oldest leases go when they take too much.
    fn bound_leases(&mut self) {
        let share = self.table.memory_bytes_max.load(Ordering::Relaxed) / self.table.shards.len() as u64;
        while self.shard.leases.entry_bytes() > share / LEASE_SHARE && self.shard.leases.len() > 1 {
            self.shard.leases.drop_oldest();
        }
        self.table.charge(&mut self.shard);
    }

    /// The counts of the slot's shard.
    pub(crate) fn counts(&mut self) -> &mut Statistics {
        &mut self.shard.statistics
    }
}
