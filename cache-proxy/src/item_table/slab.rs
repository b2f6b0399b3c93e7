//! The items of a shard, in chunks that never move.
//!
//! Growth adds a chunk; it copies nothing, so a full shard does not pause. A
//! chunk is never given back: its free places are the next items'.

use super::item::{Item, ItemBytes, NOWHERE, Place};

const CHUNK_ITEMS: usize = 256;

/// A shard's items by [`Place`].
#[derive(Debug)]
pub(super) struct Slab {
    chunks: Vec<Vec<Item>>,
    free: Place,
}

impl Slab {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), free: NOWHERE }
    }

    /// Stores `item` in a free place.
    pub(super) fn insert(&mut self, item: Item) -> Place {
        if self.free != NOWHERE {
            let place = self.free;
            let slot = self.get_mut(place);
            let next_free = slot.next;
            *slot = item;
            self.free = next_free;
            return place;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_ITEMS) {
            self.chunks.push(Vec::with_capacity(CHUNK_ITEMS));
        }
        let chunk_index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[chunk_index];
        let place = chunk_index * CHUNK_ITEMS + chunk.len();
        chunk.push(item);
        Place::try_from(place).expect("a shard holds fewer than 2^32 items: each takes more than 56 bytes")
    }

    /// Frees `place` and returns what its item held.
    pub(super) fn remove(&mut self, place: Place) -> ItemBytes {
        let free = self.free;
        let item = self.get_mut(place);
        item.next = free;
        item.key_bytes = 0;
        let bytes = std::mem::replace(&mut item.bytes, ItemBytes::Owned(Box::default()));
        self.free = place;
        bytes
    }

    pub(super) fn get(&self, place: Place) -> &Item {
        let place = place as usize;
        &self.chunks[place / CHUNK_ITEMS][place % CHUNK_ITEMS]
    }

    pub(super) fn get_mut(&mut self, place: Place) -> &mut Item {
        let place = place as usize;
        &mut self.chunks[place / CHUNK_ITEMS][place % CHUNK_ITEMS]
    }

    /// Places that exist, free ones too.
    pub(super) fn place_count(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK_ITEMS + last.len())
    }

    /// Whether `place` is free: an item's bytes hold `\r\n` at least.
    pub(super) fn is_free(&self, place: Place) -> bool {
        self.get(place).bytes.as_slice().is_empty()
    }

    /// Bytes of the chunks beyond those charged item by item.
    pub(super) fn spare_bytes(&self, item_count: usize) -> u64 {
        let places = self.chunks.len() * CHUNK_ITEMS;
        let chunk_headers = self.chunks.capacity() * size_of::<Vec<Item>>();
        (places.saturating_sub(item_count) * size_of::<Item>() + chunk_headers) as u64
    }
}
