//! A moment to read at.
//!
//! A snapshot is a sequence number in a list that compactions consult: they
//! keep, of each key, what is newest at each number of the list. While nothing
//! is written, one reader after the other wants the same number: the newest
//! snapshot is kept at hand, so that taking another one of its number takes
//! neither a lock nor memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

/// A sequence number that compactions respect while this lives. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    held: Arc<Held>,
}

impl Snapshot {
    /// Writes up to and including this one are seen.
    pub fn sequence(&self) -> u64 {
        self.held.sequence
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(&self.held.sequence).finish()
    }
}

struct Held {
    sequence: u64,
    counts: Arc<Counts>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.sequence);
            }
        }
    }
}

/// How many snapshots there are at each sequence number.
type Counts = Mutex<BTreeMap<u64, usize>>;

/// The snapshots of an engine.
#[derive(Default)]
pub(crate) struct SnapshotList {
    counts: Arc<Counts>,
    /// Kept for the next one who wants its number, unless somebody asks for the list.
    newest: ArcSwapOption<Held>,
    /// The number taken last: one that is taken twice in a row is worth keeping.
    last_taken: AtomicU64,
}

impl SnapshotList {
    /// A snapshot at the number that `sequence` returns, which never decreases
    /// from call to call. It is on the list before this returns and was since
    /// the number was asked for: either it is one that was there, or it is
    /// asked for under the list's lock. So no compaction can miss a snapshot
    /// that is older than what it sees.
    pub(crate) fn take(&self, sequence: impl Fn() -> u64) -> Snapshot {
        if let Some(held) = &*self.newest.load()
            && held.sequence == sequence()
        {
            return Snapshot { held: Arc::clone(held) };
        }
        let mut counts = self.counts.lock();
        let sequence = sequence();
        *counts.entry(sequence).or_insert(0) += 1;
        drop(counts);
        let held = Arc::new(Held { sequence, counts: Arc::clone(&self.counts) });
        if self.last_taken.swap(sequence, Ordering::Relaxed) == sequence {
            self.newest.store(Some(Arc::clone(&held)));
        }
        Snapshot { held }
    }

    /// The sequence numbers held, ascending.
    pub(crate) fn sequences(&self) -> Vec<u64> {
        self.forget_newest();
        self.counts.lock().keys().copied().collect()
    }

    /// How many sequence numbers are held.
    pub(crate) fn len(&self) -> usize {
        self.forget_newest();
        self.counts.lock().len()
    }

    /// Holds none that nobody else holds. Who is taking it now has it already, or takes another one.
    fn forget_newest(&self) {
        self.newest.store(None);
    }
}

impl fmt::Debug for SnapshotList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SnapshotList").field(&self.counts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_held_until_its_last_snapshot_goes() {
        let list = SnapshotList::default();
        let first = list.take(|| 5);
        let second = list.take(|| 5);
        let clone = second.clone();
        let later = list.take(|| 9);
        assert_eq!(list.sequences(), [5, 9]);
        drop((first, second));
        assert_eq!(list.sequences(), [5, 9]);
        drop(clone);
        assert_eq!(list.sequences(), [9]);
        assert_eq!(later.sequence(), 9);
    }

    #[test]
    fn the_one_at_hand_holds_nothing_back_once_somebody_asks() {
        let list = SnapshotList::default();
        for _ in 0..3 {
            drop(list.take(|| 5));
        }
        assert!(list.newest.load().is_some());
        assert_eq!(list.sequences(), [0; 0]);
        let held = (0..3).map(|_| list.take(|| 5)).collect::<Vec<_>>();
        assert_eq!(list.len(), 1);
        assert_eq!(list.take(|| 7).sequence(), 7);
        drop(held);
        assert_eq!(list.len(), 0);
    }
}
