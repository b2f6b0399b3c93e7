//! A moment to read at.
//!
//! A snapshot is a sequence number in a list that compactions consult: they
//! keep, of each key, what is newest at each number of the list.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

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
    list: Arc<SnapshotList>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.list.counts.lock();
        if let Some(count) = counts.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.sequence);
            }
        }
    }
}

/// The snapshots of an engine.
#[derive(Debug, Default)]
pub(crate) struct SnapshotList {
    /// How many there are at each sequence number.
    counts: Mutex<BTreeMap<u64, usize>>,
}

impl SnapshotList {
    /// A snapshot at the number that `sequence` returns, which never decreases
    /// from call to call: it is asked under the list's lock, so that no
    /// compaction can miss a snapshot that is older than what it sees.
    pub(crate) fn take(self: &Arc<Self>, sequence: impl FnOnce() -> u64) -> Snapshot {
        let mut counts = self.counts.lock();
        let sequence = sequence();
        *counts.entry(sequence).or_insert(0) += 1;
        drop(counts);
        Snapshot { held: Arc::new(Held { sequence, list: Arc::clone(self) }) }
    }

    /// The sequence numbers held, ascending.
    pub(crate) fn sequences(&self) -> Vec<u64> {
        self.counts.lock().keys().copied().collect()
    }

    /// How many sequence numbers are held.
    pub(crate) fn len(&self) -> usize {
        self.counts.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_held_until_its_last_snapshot_goes() {
        let list = Arc::new(SnapshotList::default());
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
}
