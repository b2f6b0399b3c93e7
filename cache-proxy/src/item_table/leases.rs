//! Who may fill a key, and what voids that: the leases of a shard.
//!
//! Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013, section 3.2.1:
//! whoever misses gets a token and goes to the database; the others wait; and
//! a change of the key voids the token, so that a value read before the change
//! is not stored after it.
//!
//! A key has an entry here from its first miss until its lease has ended, and
//! no others have: without leases this costs a look at an empty table. The
//! entry stands under its shard's lock, beside the item, so that a change of
//! the item and the voiding of its token are one step. `Slot` does both; nobody
//! else changes an item.
//!
//! Where it departs:
//!
//! - a token that came back, spent or void, does not count for the ten seconds
//!   in which a key gets no other: a holder who is done keeps nobody waiting;
//! - inside the process waiting is waiting, woken by the fill, not polling, and
//!   a voided holder does not keep others waiting at all.
//!
//! Invariants:
//!
//! - a token is valid while it is its entry's and the entry's generation is the
//!   table's: a missing entry means a void token, so any may be dropped;
//! - `order` has each entry once, by number.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use hashbrown::HashTable;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::shard::index_hash;
use crate::lease::Found;

/// Seconds in which a key gets one token, unless it comes back.
pub(crate) const TOKEN_INTERVAL_S: u32 = 10;

/// Seconds after which a token that nobody asked about is forgotten.
const TOKEN_LIFE_S: u32 = 60;

/// No token has this number; neither has 1, which tells a classic client to wait.
const VOID: u64 = 0;

/// Who holds a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A client, which may never come back; others wait for it even when its
    /// token is void.
    Client,
    /// This process, which always comes back.
    Process,
}

/// What a key's reader gets that found no value.
#[derive(Debug)]
pub(crate) enum Offer {
    /// The right to fill it.
    Token(u64),
    /// Somebody else fills it, or the key is held off.
    Wait,
}

/// What those wait on who wait for a fill.
#[derive(Debug, Default)]
pub(crate) struct FillCell {
    notify: Arc<Notify>,
    found: OnceLock<Found>,
}

impl FillCell {
    /// Is woken by whatever ends the lease from now on.
    pub(crate) fn notified(&self) -> OwnedNotified {
        Arc::clone(&self.notify).notified_owned()
    }

    /// What the holder filled in.
    pub(crate) fn found(&self) -> Option<&Found> {
        self.found.get()
    }
}

#[derive(Debug)]
struct Lease {
    hash: u32,
    generation: u8,
    /// A token is out and its holder did not come back: others wait.
    is_out: bool,
    holder: Holder,
    number: u64,
    token: u64,
    issued_at: u32,
    held_off_until: u32,
    remote_until: u32,
    key: Box<[u8]>,
    waiters: Option<Arc<FillCell>>,
}

impl Lease {
    fn grant(&mut self, generation: u8, holder: Holder, now: u32, token: u64) {
        (self.generation, self.holder, self.issued_at) = (generation, holder, now);
        (self.token, self.is_out) = (token, true);
    }

    /// Others need not wait any more.
    fn wake(&mut self, found: Option<Found>) {
        let Some(cell) = self.waiters.take() else { return };
        if let Some(found) = found {
            let _ = cell.found.set(found);
        }
        cell.notify.notify_waiters();
    }

    fn void(&mut self) {
        self.token = VOID;
        if self.holder == Holder::Process {
            self.come_back(None);
        }
    }

    fn come_back(&mut self, found: Option<Found>) {
        self.token = VOID;
        self.is_out = false;
        self.wake(found);
    }

    fn is_over(&self, now: u32) -> bool {
        let token_ends_at = match (self.is_out, self.token) {
            (false, _) => 0,
            (true, VOID) => self.issued_at + TOKEN_INTERVAL_S,
            (true, _) => self.issued_at + TOKEN_LIFE_S,
        };
        now >= token_ends_at && now >= self.held_off_until && now >= self.remote_until
    }
}

impl Drop for Lease {
    /// Whoever still waits asks again.
    fn drop(&mut self) {
        self.wake(None);
    }
}

/// The leases of a shard.
#[derive(Debug, Default)]
pub(super) struct Leases {
    entries: HashTable<Lease>,
    order: VecDeque<(u32, u64)>,
    last_number: u64,
    key_bytes: usize,
}

impl Leases {
    /// Offers the key to somebody who found no value; `new_token` is theirs if
    /// nobody has one.
    pub(super) fn offer(&mut self, key: LeaseKey<'_>, holder: Holder, now: u32, new_token: u64) -> Offer {
        let lease = self.entry(key);
        let is_current = lease.generation == key.generation;
        let waits = lease.is_out && is_current && now < lease.issued_at + TOKEN_INTERVAL_S;
        if waits || now < lease.held_off_until {
            return Offer::Wait;
        }
        lease.grant(key.generation, holder, now, new_token);
        Offer::Token(new_token)
    }

    /// Gives the key to a writer whatever others hold, which is void from now on.
    pub(super) fn take_over(&mut self, key: LeaseKey<'_>, now: u32, new_token: u64) {
        self.entry(key).grant(key.generation, Holder::Process, now, new_token);
    }

    /// Whether a value may be stored under `token`.
    pub(super) fn is_valid(&self, key: LeaseKey<'_>, token: u64) -> bool {
        token != VOID
            && self.find(key).is_some_and(|lease| lease.token == token && lease.generation == key.generation)
    }

    /// The holder of `token` is done, with what it `found` if that counts.
    /// Another holder's lease stays as it is.
    pub(super) fn come_back(&mut self, key: LeaseKey<'_>, token: u64, found: Option<Found>) {
        let Some(lease) = self.find_mut(key) else { return };
        // A client whose token is void comes back too, and it alone can have had it.
        if lease.token == token || lease.token == VOID {
            lease.come_back(found);
        }
    }

    /// Voids the key's token, if there is one.
    pub(super) fn void(&mut self, key: LeaseKey<'_>) {
        if let Some(lease) = self.find_mut(key) {
            lease.void();
        }
    }

    /// Gives out no token for the key before `until`.
    pub(super) fn hold_off(&mut self, key: LeaseKey<'_>, until: u32) {
        let lease = self.entry(key);
        lease.held_off_until = lease.held_off_until.max(until);
    }

    pub(super) fn end_hold_off(&mut self, key: LeaseKey<'_>) {
        if let Some(lease) = self.find_mut(key) {
            lease.held_off_until = 0;
        }
    }

    pub(super) fn is_held_off(&self, key: LeaseKey<'_>, now: u32) -> bool {
        self.find(key).is_some_and(|lease| now < lease.held_off_until)
    }

    /// Tells those who miss before `until` that another region has the truth.
    pub(super) fn mark_remote(&mut self, key: LeaseKey<'_>, until: u32) {
        let lease = self.entry(key);
        lease.remote_until = lease.remote_until.max(until);
    }

    pub(super) fn is_remote(&self, key: LeaseKey<'_>, now: u32) -> bool {
        self.find(key).is_some_and(|lease| now < lease.remote_until)
    }

    /// What the key's waiters wait on, whoever fills it.
    pub(super) fn waiters(&mut self, key: LeaseKey<'_>) -> Arc<FillCell> {
        Arc::clone(self.entry(key).waiters.get_or_insert_default())
    }

    /// Whether somebody may wait for the key's fill.
    pub(super) fn is_awaited(&self, key: LeaseKey<'_>) -> bool {
        self.find(key).is_some_and(|lease| lease.waiters.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Removes what is over, looking at no more than `count_max` of the oldest.
    pub(super) fn purge(&mut self, now: u32, count_max: usize) {
        for _ in 0..count_max.min(self.order.len()) {
            let Some((hash, number)) = self.order.pop_front() else { break };
            let is_same = |lease: &Lease| lease.number == number;
            let Ok(entry) = self.entries.find_entry(index_hash(hash), is_same) else { continue };
            if entry.get().is_over(now) {
                self.key_bytes -= entry.get().key.len();
                entry.remove();
            } else {
                self.order.push_back((hash, number));
            }
        }
        if self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2, |lease| index_hash(lease.hash));
            self.order.shrink_to(self.entries.len() * 2);
        }
    }

    /// Removes the oldest entry, over or not: its token is void then.
    pub(super) fn drop_oldest(&mut self) {
        let Some((hash, number)) = self.order.pop_front() else { return };
        let is_same = |lease: &Lease| lease.number == number;
        if let Ok(entry) = self.entries.find_entry(index_hash(hash), is_same) {
            self.key_bytes -= entry.get().key.len();
            entry.remove();
        }
    }

    /// Bytes of memory that the leases take.
    pub(super) fn memory_bytes(&self) -> u64 {
        (self.entries.allocation_size() + self.order.capacity() * size_of::<(u32, u64)>() + self.key_bytes)
            as u64
    }

    /// The part of it that goes down with each entry that goes.
    pub(super) fn entry_bytes(&self) -> u64 {
        (self.entries.len() * (size_of::<Lease>() + size_of::<(u32, u64)>()) + self.key_bytes) as u64
    }

    fn find(&self, key: LeaseKey<'_>) -> Option<&Lease> {
        self.entries.find(index_hash(key.hash), |lease| lease.hash == key.hash && *lease.key == *key.bytes)
    }

    fn find_mut(&mut self, key: LeaseKey<'_>) -> Option<&mut Lease> {
        self.entries
            .find_mut(index_hash(key.hash), |lease| lease.hash == key.hash && *lease.key == *key.bytes)
    }

    fn entry(&mut self, key: LeaseKey<'_>) -> &mut Lease {
        let is_same = |lease: &Lease| lease.hash == key.hash && *lease.key == *key.bytes;
        let rehash = |lease: &Lease| index_hash(lease.hash);
        let entry = match self.entries.entry(index_hash(key.hash), is_same, rehash) {
            hashbrown::hash_table::Entry::Occupied(entry) => return entry.into_mut(),
            hashbrown::hash_table::Entry::Vacant(entry) => entry,
        };
        self.last_number += 1;
        self.order.push_back((key.hash, self.last_number));
        self.key_bytes += key.bytes.len();
        entry
            .insert(Lease {
                hash: key.hash,
                generation: key.generation,
                is_out: false,
                holder: Holder::Client,
                number: self.last_number,
                token: VOID,
                issued_at: 0,
                held_off_until: 0,
                remote_until: 0,
                key: key.bytes.into(),
                waiters: None,
            })
            .into_mut()
    }
}

/// A key as the leases find it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseKey<'k> {
    pub(super) hash: u32,
    pub(super) bytes: &'k [u8],
    /// The table's, now.
    pub(super) generation: u8,
}
