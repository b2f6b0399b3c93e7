//! Blocks of internal keys and values. `block_cursor.rs` goes through one.
//!
//! Keys share prefixes with their predecessors, except at restarts, where they
//! stand whole, so that a binary search over the restarts finds the stretch to
//! decode (LevelDB, `table/block_builder.cc`). Built by `block_builder.rs`.
//!
//! ```text
//! SIZE    FIELD
//! ...     entries
//! 4 * n   restarts: offset of each entry whose key stands whole, ascending, the first one 0
//! 4       n; zero only where there are no entries
//!
//! entry:
//! varint  bytes shared with the key before; zero at a restart
//! varint  bytes of the key that follow
//! varint  bytes of the value
//! ...     rest of the key
//! ...     value
//! ```
//!
//! A key is an internal key, thus 8 bytes at least. From one restart to the next
//! there are at most 128 entries, which bounds what going backward decodes ahead.
//!
//! What is decoded passed its checksum, so damage here means a writer's bug or
//! a forged file; it is an error all the same, found when the entry is touched.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::error::Damage;
use crate::internal_key::{self, TRAILER_BYTES};
use crate::varint;

const RESTART_BYTES: usize = 4;
/// The most entries from one restart to the next.
pub(crate) const RESTART_INTERVAL_MAX: usize = 128;

/// A key as it is put together; the usual ones take no allocation.
pub(super) type KeyBuffer = SmallVec<[u8; 64]>;

pub(super) type Result<T> = std::result::Result<T, Damage>;

/// A decoded block. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(super) data: Bytes,
    /// Where the entries end.
    pub(super) entries_end: usize,
    restart_count: usize,
}

/// The lengths of an entry, and where its key's rest and its value are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) shared: usize,
    pub(super) key: usize,
    pub(super) value: usize,
    pub(super) end: usize,
}

impl Block {
    /// The block in `data`, which holds nothing else.
    pub(crate) fn new(data: Bytes) -> Result<Self> {
        let Some((rest, restart_count)) = data.split_last_chunk::<RESTART_BYTES>() else {
            return Err(Damage("a block is too short for its restart count"));
        };
        let restart_count = u32::from_le_bytes(*restart_count) as usize;
        let entries_end = restart_count
            .checked_mul(RESTART_BYTES)
            .and_then(|bytes| rest.len().checked_sub(bytes))
            .ok_or(Damage("a block has more restarts than bytes"))?;
        if (restart_count == 0) != (entries_end == 0) {
            return Err(Damage("a block has entries without restarts or restarts without entries"));
        }
        Ok(Self { data, entries_end, restart_count })
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }

    /// How many entries have whole keys.
    pub(crate) fn restart_count(&self) -> usize {
        self.restart_count
    }

    /// The bytes of the `restart`th whole key and of its value. REQUIRES: there is such a restart.
    pub(crate) fn whole_entry(&self, restart: usize) -> Result<(&[u8], &[u8])> {
        let entry = self.entry(self.restart(restart))?;
        if entry.shared != 0 {
            return Err(Damage("a restart's key is not whole"));
        }
        Ok((&self.data[entry.key..entry.value], &self.data[entry.value..entry.end]))
    }

    /// Whether each entry is a restart, from the first byte to the last.
    pub(crate) fn is_all_whole(&self) -> Result<bool> {
        let mut at = 0;
        for restart in 0..self.restart_count {
            if self.restart(restart) != at {
                return Ok(false);
            }
            let entry = self.entry(at)?;
            if entry.shared != 0 || entry.value - entry.key < TRAILER_BYTES {
                return Ok(false);
            }
            at = entry.end;
        }
        Ok(at == self.entries_end)
    }

    /// The first entry at or after `target`, if it has the same user key: its
    /// trailer and where its value is. Allocates for long keys only.
    pub(crate) fn find(&self, target: &[u8]) -> Result<Option<(internal_key::Trailer, Bytes)>> {
        let mut key = KeyBuffer::new();
        let mut at = self.seek_restart(target)?;
        while at < self.entries_end {
            let entry = self.entry(at)?;
            self.extend_key(&mut key, entry)?;
            if internal_key::compare(&key, target) != Ordering::Less {
                let (user_key, trailer) = internal_key::decode(&key).ok_or(SHORT_KEY)?;
                let is_same = user_key == internal_key::user_key(target);
                return Ok(is_same.then(|| (trailer, self.data.slice(entry.value..entry.end))));
            }
            at = entry.end;
        }
        Ok(None)
    }

    /// The offset of the last restart whose key is before `target`, or of the first one.
    pub(super) fn seek_restart(&self, target: &[u8]) -> Result<usize> {
        let (mut low, mut high) = (0, self.restart_count);
        while low < high {
            let middle = low + (high - low) / 2;
            if internal_key::compare(self.whole_entry(middle)?.0, target) == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let start = if low == 0 { 0 } else { self.restart(low - 1) };
        let end = if low < self.restart_count { self.restart(low) } else { self.entries_end };
        self.warm(start..end);
        Ok(start)
    }

    /// Brings entries that are about to be decoded into the processor's cache,
    /// as many lines at once as it can fetch: decoding waits for each entry's
    /// lengths before it knows where the next one is.
    fn warm(&self, entries: Range<usize>) {
        /// Long entries are not all looked at: their lines would be fetched in vain.
        const WARMED_BYTES_MAX: usize = 2 << 10;
        const LINE_BYTES: usize = 64;
        let end = entries.end.min(entries.start.saturating_add(WARMED_BYTES_MAX));
        let lines = self.data.get(entries.start..end).unwrap_or_default().iter().step_by(LINE_BYTES);
        std::hint::black_box(lines.fold(0, |all, byte| all | byte));
    }

    /// The offset of the last restart before `offset`.
    pub(super) fn last_restart_before(&self, offset: usize) -> Option<usize> {
        let (mut low, mut high) = (0, self.restart_count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.restart(middle) < offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(self.restart(low.checked_sub(1)?))
    }

    /// The offset of a restart, unchecked against the entries.
    pub(super) fn restart(&self, restart: usize) -> usize {
        let at = self.entries_end + restart * RESTART_BYTES;
        let mut bytes = [0; RESTART_BYTES];
        bytes.copy_from_slice(&self.data[at..at + RESTART_BYTES]);
        u32::from_le_bytes(bytes) as usize
    }

    #[inline]
    pub(super) fn entry(&self, at: usize) -> Result<Entry> {
        let entries =
            self.data.get(at..self.entries_end).ok_or(Damage("a restart points past the entries"))?;
        let mut rest = entries;
        let (shared, unshared, value_bytes) =
            read_lengths(&mut rest).ok_or(Damage("an entry's lengths are cut off"))?;
        let key = at + (entries.len() - rest.len());
        let value = key.checked_add(unshared);
        let end = value.and_then(|value| value.checked_add(value_bytes));
        match (value, end) {
            (Some(value), Some(end)) if end <= self.entries_end => Ok(Entry { shared, key, value, end }),
            _ => Err(Damage("an entry is longer than its block")),
        }
    }

    /// Makes `key`, the key of the entry before, the key of `entry`.
    #[inline]
    pub(super) fn extend_key(&self, key: &mut KeyBuffer, entry: Entry) -> Result<()> {
        if entry.shared > key.len() {
            return Err(Damage("an entry shares more than the key before it has"));
        }
        key.truncate(entry.shared);
        key.extend_from_slice(&self.data[entry.key..entry.value]);
        if key.len() < TRAILER_BYTES { Err(SHORT_KEY) } else { Ok(()) }
    }
}

const SHORT_KEY: Damage = Damage("a key is too short for its trailer");

#[inline]
fn read_lengths(bytes: &mut &[u8]) -> Option<(usize, usize, usize)> {
    // Nearly every entry has three one-byte lengths.
    if let Some((&[shared, unshared, value], rest)) = bytes.split_first_chunk::<3>()
        && (shared | unshared | value) < 0x80
    {
        *bytes = rest;
        return Some((shared.into(), unshared.into(), value.into()));
    }
    Some((varint::take_usize(bytes)?, varint::take_usize(bytes)?, varint::take_usize(bytes)?))
}
