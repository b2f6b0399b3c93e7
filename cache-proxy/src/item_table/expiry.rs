//! Which items expire when.
//!
//! Items that expire at all stand in buckets of eight seconds, each item knowing
//! its position, so that the reaper touches those that are due and no others.
//! (Nishtala et al., NSDI 2013, section 4.3, has buckets of one second for
//! short-lived items only.) Reads do not wait for the reaper: an item is gone
//! from its second on.

use std::collections::BTreeMap;

use super::item::Place;
use super::slab::Slab;

const BUCKET_SECONDS: u32 = 8;

/// Bytes of a bucket beyond its places: its node in the tree and its vector.
const BUCKET_BYTES: usize = 48;

/// A shard's expiring items by the time they expire.
#[derive(Debug, Default)]
pub(super) struct ExpiryBuckets {
    buckets: BTreeMap<u32, Vec<Place>>,
    place_capacity: usize,
}

impl ExpiryBuckets {
    /// Notes when the item at `place` expires, if it does.
    pub(super) fn insert(&mut self, slab: &mut Slab, place: Place) {
        let item = slab.get_mut(place);
        if item.expires_at == 0 {
            return;
        }
        let bucket = self.buckets.entry(item.expires_at / BUCKET_SECONDS).or_default();
        item.expiry_position = u32::try_from(bucket.len()).expect("fewer items than 2^32");
        let capacity = bucket.capacity();
        bucket.push(place);
        self.place_capacity += bucket.capacity() - capacity;
    }

    /// Forgets the item at `place`.
    ///
    /// REQUIRES: its `expires_at` is what it was at [`ExpiryBuckets::insert`].
    pub(super) fn remove(&mut self, slab: &mut Slab, place: Place) {
        let item = slab.get(place);
        if item.expires_at == 0 {
            return;
        }
        let (key, position) = (item.expires_at / BUCKET_SECONDS, item.expiry_position);
        let Some(bucket) = self.buckets.get_mut(&key) else { return };
        bucket.swap_remove(position as usize);
        if let Some(moved) = bucket.get(position as usize) {
            slab.get_mut(*moved).expiry_position = position;
        }
        if bucket.is_empty() {
            self.place_capacity -= bucket.capacity();
            self.buckets.remove(&key);
        }
    }

    /// An item of a bucket that is due in whole at `now`.
    pub(super) fn due(&self, now: u32) -> Option<Place> {
        let (key, bucket) = self.buckets.first_key_value()?;
        if key.saturating_add(1).saturating_mul(BUCKET_SECONDS) > now {
            return None;
        }
        bucket.last().copied()
    }

    /// Bytes that the buckets take.
    pub(super) fn memory_bytes(&self) -> u64 {
        (self.buckets.len() * BUCKET_BYTES + self.place_capacity * size_of::<Place>()) as u64
    }
}
