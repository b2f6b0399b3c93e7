//! Memtables that are flushed, until their last reader is gone.
//!
//! To free a memtable takes many milliseconds, which must not be spent by a
//! reader that happens to be the last to let go of it. So one more reference is
//! kept here, and given up by the thread that flushes once it is the only one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::block_cache::{BlockCache, Reserved};
use crate::heap;
use crate::memtable::Memtable;

/// The memtables that are flushed and not freed.
#[derive(Debug, Default)]
pub(crate) struct RetiredMemtables {
    memtables: Mutex<Vec<Retired>>,
    /// Of those that nothing is reserved for yet.
    fresh_bytes: AtomicUsize,
}

#[derive(Debug)]
struct Retired {
    memtable: Arc<Memtable>,
    /// A look at it found readers.
    was_read: bool,
    /// Set once it turns out that a reader takes its time.
    reserved: Option<Reserved>,
}

impl RetiredMemtables {
    /// Takes a memtable that no tree's state names any more.
    pub(crate) fn add(&self, memtable: Arc<Memtable>) {
        self.fresh_bytes.fetch_add(memtable.bytes(), Ordering::AcqRel);
        self.memtables.lock().push(Retired { memtable, was_read: false, reserved: None });
    }

    /// Frees those without readers; the others count in `budget` from the second call on.
    pub(crate) fn free(&self, budget: &Arc<BlockCache>) {
        let unread: Vec<_> = {
            let mut memtables = self.memtables.lock();
            memtables.extract_if(.., |retired| Arc::strong_count(&retired.memtable) == 1).collect()
        };
        let some_freed = !unread.is_empty();
        for Retired { memtable, reserved, .. } in unread {
            let bytes = memtable.bytes();
            drop(memtable);
            if reserved.is_none() {
                self.fresh_bytes.fetch_sub(bytes, Ordering::AcqRel);
            }
        }
        if some_freed {
            heap::trim();
        }
        for retired in self.memtables.lock().iter_mut().filter(|retired| retired.reserved.is_none()) {
            if !std::mem::replace(&mut retired.was_read, true) {
                continue;
            }
            let bytes = retired.memtable.bytes();
            retired.reserved = Some(budget.reserve(bytes));
            self.fresh_bytes.fetch_sub(bytes, Ordering::AcqRel);
        }
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.memtables.lock().is_empty()
    }

    /// Bytes of those that count as memtables still.
    pub(crate) fn fresh_bytes(&self) -> usize {
        self.fresh_bytes.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::internal_key::Kind;

    #[test]
    fn a_memtable_goes_once_nobody_reads_it_and_is_charged_meanwhile() {
        let budget = Arc::new(BlockCache::new(1 << 30, 0, 0));
        let retired = RetiredMemtables::default();
        let memtable = Arc::new(Memtable::new());
        memtable.insert(b"k", 1, Kind::Put, &vec![7; 1 << 20]);
        retired.add(Arc::clone(&memtable));
        assert!(retired.fresh_bytes() >= 1 << 20);
        retired.free(&budget);
        assert!(retired.fresh_bytes() >= 1 << 20, "it may be a matter of microseconds");
        retired.free(&budget);
        assert!(!retired.is_empty());
        assert_eq!(retired.fresh_bytes(), 0);
        assert!(budget.room().0 >= 1 << 20);
        drop(memtable);
        retired.free(&budget);
        assert!(retired.is_empty());
        assert_eq!(budget.room().0, 0);
    }
}
