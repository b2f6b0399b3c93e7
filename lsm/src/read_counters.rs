//! What reads count: in shards, so that threads that read at once do not meet.
//!
//! Each thread adds to a shard that few others or none add to, relaxed: about
//! the price of a few instructions, and exact in sum.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const SHARD_COUNT: usize = 16;

/// Counts of what reads did since the engine's opening.
#[derive(Debug, Default)]
pub(crate) struct ReadCounters {
    shards: [Shard; SHARD_COUNT],
}

/// Two cache lines: processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    block_hits: AtomicU64,
    block_misses: AtomicU64,
    filter_passes: AtomicU64,
    filter_rejections: AtomicU64,
}

/// The sums of all shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadCounts {
    /// Blocks that were in the cache, and that were not.
    pub(crate) block_hits: u64,
    pub(crate) block_misses: u64,
    /// Tables that a filter said may hold a key, and that it spared.
    pub(crate) filter_passes: u64,
    pub(crate) filter_rejections: u64,
}

impl ReadCounters {
    fn shard(&self) -> &Shard {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static INDEX: Cell<usize> = const { Cell::new(usize::MAX) };
        }
        let index = INDEX.with(|index| {
            if index.get() == usize::MAX {
                index.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARD_COUNT);
            }
            index.get()
        });
        &self.shards[index]
    }

    /// Counts a block that was looked for in the cache.
    pub(crate) fn block(&self, was_there: bool) {
        let shard = self.shard();
        let counter = if was_there { &shard.block_hits } else { &shard.block_misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a table whose filter was asked.
    pub(crate) fn filter(&self, may_contain: bool) {
        let shard = self.shard();
        let counter = if may_contain { &shard.filter_passes } else { &shard.filter_rejections };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> ReadCounts {
        let sum = |counter: fn(&Shard) -> &AtomicU64| {
            self.shards.iter().map(|shard| counter(shard).load(Ordering::Relaxed)).sum()
        };
        ReadCounts {
            block_hits: sum(|shard| &shard.block_hits),
            block_misses: sum(|shard| &shard.block_misses),
            filter_passes: sum(|shard| &shard.filter_passes),
            filter_rejections: sum(|shard| &shard.filter_rejections),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_adds_up() {
        let counters = ReadCounters::default();
        std::thread::scope(|scope| {
            for _ in 0..SHARD_COUNT + 1 {
                scope.spawn(|| (0..100).for_each(|i| counters.filter(i % 4 == 0)));
            }
        });
        counters.block(true);
        counters.block(false);
        let threads = SHARD_COUNT as u64 + 1;
        let expected = ReadCounts {
            block_hits: 1,
            block_misses: 1,
            filter_passes: 25 * threads,
            filter_rejections: 75 * threads,
        };
        assert_eq!(counters.counts(), expected);
    }
}
