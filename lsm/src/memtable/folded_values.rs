//! Values that readers have folded from the operands of a memtable.
//!
//! A memtable keeps each operand of a hot counter until it is flushed, and a
//! reader must not go through all of them each time. One that has gone through
//! many leaves the value here, as it is as of one operand; the next one starts
//! there. So reading costs what was merged since the last reading, writing
//! nothing, and it does not matter whether the operator can combine operands,
//! or where the value below them is.
//!
//! A value as of a sequence number never changes, but for what compactions drop
//! or rewrite below it meanwhile: that shows once the memtable is flushed.
//!
//! One value a key is kept, the newest, and only where the operands that were
//! gone through take as much memory: no more than the memtable itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;

use crate::memtable::skip_list::ENTRY_OVERHEAD_BYTES;

/// After as many operands a value is worth keeping.
pub(crate) const OPERANDS_MIN: usize = 32;

/// What an operand takes in a memtable at least.
const OPERAND_BYTES: usize = ENTRY_OVERHEAD_BYTES;

/// What a value takes beside its bytes and its key's: entry, shared headers, allocator's rounding.
const VALUE_OVERHEAD_BYTES: usize = 192;

/// The value of a key as of an operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoldedValue {
    /// The operand's sequence number.
    pub(crate) sequence: u64,
    pub(crate) value: Bytes,
}

/// Folded values by key.
#[derive(Debug, Default)]
pub(crate) struct FoldedValues {
    values: RwLock<HashMap<Bytes, Kept>>,
    /// Never less than before, so that the memtable only grows. Zero as long as there is none.
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct Kept {
    folded: FoldedValue,
    /// What it is charged for: its largest value so far.
    bytes: usize,
}

impl FoldedValues {
    /// The value of `user_key`, as of some operand of it in this memtable.
    pub(crate) fn get(&self, user_key: &[u8]) -> Option<FoldedValue> {
        if self.bytes() == 0 {
            return None;
        }
        self.values.read().get(user_key).map(|kept| kept.folded.clone())
    }

    /// Keeps what `operands` operands of this memtable have come to, if it is worth it.
    pub(crate) fn keep(&self, user_key: &[u8], folded: FoldedValue, operands: usize) {
        let bytes = VALUE_OVERHEAD_BYTES + user_key.len() + folded.value.len();
        if operands < OPERANDS_MIN || bytes > operands * OPERAND_BYTES {
            return;
        }
        let mut values = self.values.write();
        match values.get_mut(user_key) {
            Some(kept) => {
                if kept.folded.sequence < folded.sequence {
                    let grown = bytes.saturating_sub(kept.bytes);
                    *kept = Kept { folded, bytes: kept.bytes + grown };
                    self.bytes.fetch_add(grown, Ordering::Relaxed);
                }
            }
            None => {
                values.insert(Bytes::copy_from_slice(user_key), Kept { folded, bytes });
                self.bytes.fetch_add(bytes, Ordering::Release);
            }
        }
    }

    /// Bytes of memory taken.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(sequence: u64, bytes: usize) -> FoldedValue {
        FoldedValue { sequence, value: vec![7; bytes].into() }
    }

    #[test]
    fn the_newest_value_is_kept_if_it_takes_no_more_than_its_operands() {
        let values = FoldedValues::default();
        values.keep(b"k", folded(5, 8), OPERANDS_MIN - 1);
        values.keep(b"k", folded(5, OPERANDS_MIN * OPERAND_BYTES), OPERANDS_MIN);
        assert_eq!((values.get(b"k"), values.bytes()), (None, 0));
        values.keep(b"k", folded(50, 1000), OPERANDS_MIN);
        let charged = values.bytes();
        assert!(charged > 1000);
        values.keep(b"k", folded(40, 8), OPERANDS_MIN);
        assert_eq!(values.get(b"k"), Some(folded(50, 1000)));
        values.keep(b"k", folded(60, 8), OPERANDS_MIN);
        assert_eq!(values.get(b"k"), Some(folded(60, 8)));
        assert_eq!(values.bytes(), charged, "a memtable never shrinks");
        assert_eq!(values.get(b"other"), None);
    }
}
