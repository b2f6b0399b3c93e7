//! Which item to evict next: S3-FIFO.
//!
//! Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023,
//! section 4. New items enter a small queue of a tenth of the bytes; those read
//! more than once there move on to the main queue, and the others leave, but
//! leave a ghost: a key that comes back soon enters the main queue at once. In
//! the main queue an item that was read goes round again.
//!
//! Where it departs: the ghosts are a table of fingerprints in which a new one
//! overwrites an old one, instead of a queue. A ghost then lasts for as many
//! evictions as the table has places on average, not exactly.

use super::item::{NOWHERE, Place, state};
use super::slab::Slab;

/// A queue of items, linked through the items themselves.
#[derive(Debug)]
pub(super) struct Queue {
    newest: Place,
    oldest: Place,
    pub(super) bytes: u64,
}

impl Queue {
    fn new() -> Self {
        Self { newest: NOWHERE, oldest: NOWHERE, bytes: 0 }
    }

    fn push(&mut self, slab: &mut Slab, place: Place) {
        let bytes = slab.get(place).memory_bytes();
        let newest = self.newest;
        let item = slab.get_mut(place);
        item.next = newest;
        item.previous = NOWHERE;
        match newest {
            NOWHERE => self.oldest = place,
            newest => slab.get_mut(newest).previous = place,
        }
        self.newest = place;
        self.bytes += bytes;
    }

    fn unlink(&mut self, slab: &mut Slab, place: Place) {
        let item = slab.get(place);
        let (newer, older, bytes) = (item.previous, item.next, item.memory_bytes());
        match newer {
            NOWHERE => self.newest = older,
            newer => slab.get_mut(newer).next = older,
        }
        match older {
            NOWHERE => self.oldest = newer,
            older => slab.get_mut(older).previous = newer,
        }
        self.bytes -= bytes;
    }
}

/// The queues of a shard.
#[derive(Debug)]
pub(super) struct Queues {
    small: Queue,
    main: Queue,
    /// Fingerprints of evicted keys, by hash; a power of two of them, or none.
    ghosts: Vec<u32>,
}

impl Queues {
    pub(super) fn new() -> Self {
        Self { small: Queue::new(), main: Queue::new(), ghosts: Vec::new() }
    }

    /// Takes a new item in.
    pub(super) fn insert(&mut self, slab: &mut Slab, place: Place) {
        let hash = slab.get(place).hash;
        let returns = self.forget_ghost(hash);
        let item = slab.get_mut(place);
        item.state &= !(state::ACCESS_MASK | state::MAIN);
        if returns {
            item.state |= state::MAIN;
            self.main.push(slab, place);
        } else {
            self.small.push(slab, place);
        }
    }

    /// Lets an item go that is removed for another reason than eviction.
    pub(super) fn remove(&mut self, slab: &mut Slab, place: Place) {
        let in_main = slab.get(place).state & state::MAIN != 0;
        let queue = if in_main { &mut self.main } else { &mut self.small };
        queue.unlink(slab, place);
    }

    /// Moves an item to the main queue.
    pub(super) fn promote(&mut self, slab: &mut Slab, place: Place) {
        self.remove(slab, place);
        slab.get_mut(place).state |= state::MAIN;
        self.main.push(slab, place);
    }

    /// Notes that the item at `place` grew or shrank from `old_bytes`.
    pub(super) fn resize(&mut self, slab: &Slab, place: Place, old_bytes: u64) {
        let item = slab.get(place);
        let queue = if item.state & state::MAIN != 0 { &mut self.main } else { &mut self.small };
        queue.bytes = queue.bytes - old_bytes + item.memory_bytes();
    }

    /// Picks the item to evict and lets it go; the caller removes it.
    pub(super) fn evict(&mut self, slab: &mut Slab, item_count: usize) -> Option<Place> {
        loop {
            let small_share = (self.small.bytes + self.main.bytes) / 10;
            let from_small = self.small.oldest != NOWHERE
                && (self.small.bytes > small_share || self.main.oldest == NOWHERE);
            if from_small {
                let place = self.small.oldest;
                self.small.unlink(slab, place);
                let item = slab.get_mut(place);
                if item.state & state::ACCESS_MASK > 1 {
                    item.state = item.state & !state::ACCESS_MASK | state::MAIN;
                    self.main.push(slab, place);
                    continue;
                }
                let hash = item.hash;
                self.remember_ghost(hash, item_count);
                return Some(place);
            }
            if self.main.oldest == NOWHERE {
                return None;
            }
            let place = self.main.oldest;
            self.main.unlink(slab, place);
            let item = slab.get_mut(place);
            if item.state & state::ACCESS_MASK == 0 {
                return Some(place);
            }
            item.state -= 1;
            self.main.push(slab, place);
        }
    }

    /// Walks the queues: how many items and bytes they have.
    #[cfg(test)]
    pub(super) fn check(&self, slab: &Slab) -> (usize, u64) {
        let (mut count, mut total_bytes) = (0, 0);
        for (queue, mark) in [(&self.small, 0), (&self.main, state::MAIN)] {
            let (mut place, mut newer, mut bytes) = (queue.newest, NOWHERE, 0);
            while place != NOWHERE {
                let item = slab.get(place);
                assert_eq!((item.previous, item.state & state::MAIN), (newer, mark));
                bytes += item.memory_bytes();
                count += 1;
                (newer, place) = (place, item.next);
            }
            assert_eq!((queue.oldest, queue.bytes), (newer, bytes));
            total_bytes += bytes;
        }
        (count, total_bytes)
    }

    /// The oldest item of the main queue, or else of the small one.
    pub(super) fn oldest(&self) -> Option<Place> {
        [self.main.oldest, self.small.oldest].into_iter().find(|place| *place != NOWHERE)
    }

    /// Bytes that the ghosts take.
    pub(super) fn ghost_bytes(&self) -> u64 {
        (self.ghosts.capacity() * size_of::<u32>()) as u64
    }

    /// Makes as many places as the shard has items, and again when it has
    /// twice as many; what they held is lost.
    fn remember_ghost(&mut self, hash: u32, item_count: usize) {
        if self.ghosts.len() * 2 < item_count || self.ghosts.is_empty() {
            self.ghosts = vec![0; item_count.next_power_of_two().max(16)];
        }
        let place = self.ghost_place(hash);
        self.ghosts[place] = hash;
    }

    fn forget_ghost(&mut self, hash: u32) -> bool {
        if self.ghosts.is_empty() {
            return false;
        }
        let place = self.ghost_place(hash);
        let known = self.ghosts[place] == hash && hash != 0;
        if known {
            self.ghosts[place] = 0;
        }
        known
    }

    fn ghost_place(&self, hash: u32) -> usize {
        hash as usize & (self.ghosts.len() - 1)
    }
}
