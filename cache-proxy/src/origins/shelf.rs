//! Where what came from an origin is kept: values in the item table, among the
//! items of all other clients, and absences in a small table beside it.
//!
//! An item's cas has the generation of its row in its high bits and the identity
//! of its value in the low ones; an absence has its generation too.
//!
//! REQUIRES, of everything that changes what is kept: the lock of the key in
//! `flights` is held.

use std::sync::Arc;

use quick_cache::sync::Cache as QuickCache;

use super::cell::CellValue;
use crate::invalidation::table_state::TableState;
use crate::item_table::{ItemBytes, ItemTable, NewItem, Slot};

/// Keys known to be absent, of 250 bytes at most each.
const ABSENCE_COUNT_MAX: usize = 1 << 16;

/// Seconds for which an absence is believed, at most.
const ABSENCE_SECONDS_MAX: u32 = 60;

#[derive(Clone, Copy, Debug)]
struct Absence {
    generation: u32,
    expires_at: u32,
}

#[derive(Debug)]
pub(crate) struct Shelf {
    items: Arc<ItemTable>,
    absences: QuickCache<Box<[u8]>, Absence>,
}

impl Shelf {
    pub(crate) fn new(items: Arc<ItemTable>) -> Self {
        Self { items, absences: QuickCache::new(ABSENCE_COUNT_MAX) }
    }

    /// The slot of `key`, whose item is only to be served after its cas was looked at.
    pub(crate) fn slot<'s>(&'s self, key: &'s [u8], now: u32) -> Slot<'s> {
        self.items.slot(key, now)
    }

    /// Whether `key`, whose row has `generation`, is known to be absent.
    pub(crate) fn is_absent(&self, key: &[u8], generation: u32, now: u32) -> bool {
        let absence = self.absences.get(key);
        absence.is_some_and(|absence| absence.generation == generation && now < absence.expires_at)
    }

    /// Keeps `value` under `key` until `expires_at`; returns its cas.
    pub(crate) fn put(
        &self,
        key: &[u8],
        value: &CellValue,
        generation: u32,
        expires_at: u32,
        now: u32,
    ) -> u64 {
        let cas = TableState::cas(generation, value.identity());
        self.absences.remove(key);
        let new = NewItem {
            bytes: ItemBytes::copy(key, &[&value.value]),
            key_bytes: u8::try_from(key.len()).expect("keys are checked"),
            client_flags: value.client_flags,
            expires_at,
            binary_key: false,
        };
        self.items.slot(key, now).put(new, Some(cas));
        self.items.relieve(now);
        cas
    }

    /// Keeps that `key` is absent, for `seconds` at most.
    pub(crate) fn put_absence(&self, key: &[u8], generation: u32, seconds: u32, now: u32) {
        self.items.slot(key, now).remove();
        let expires_at = now.saturating_add(seconds.min(ABSENCE_SECONDS_MAX));
        self.absences.insert(key.into(), Absence { generation, expires_at });
    }

    /// Takes away what is kept under `key`; whether that was anything.
    pub(crate) fn remove(&self, key: &[u8], now: u32) -> bool {
        let was_absent = self.absences.remove(key).is_some();
        self.items.slot(key, now).remove() || was_absent
    }
}
