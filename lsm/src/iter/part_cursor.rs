//! Reads the part of an SSTable that a tree names, as its manifest names it:
//! what lies outside the bounds is another tree's, or nobody's; and in a table
//! that came from outside, one sequence number stands in place of those stored.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::internal_key::{self, SEQUENCE_MAX, Trailer};
use crate::sstable::{Blocking, TableCursor};
use crate::{KeyRange, Result};

/// A cursor over the point entries of a part of a table. Fresh, and after a
/// move that returned false, it stands nowhere.
#[derive(Debug)]
pub(crate) struct PartCursor {
    cursor: TableCursor,
    /// None where the part is the whole table as it stands.
    part: Option<Box<Part>>,
}

/// Which part of a table is seen, and how.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Not open at the end.
    bounds: KeyRange,
    assigned: Option<AssignedKey>,
}

/// Keys under a sequence number that is not stored.
#[derive(Clone, Debug)]
struct AssignedKey {
    sequence: u64,
    /// The current entry's internal key.
    key: Vec<u8>,
}

impl Part {
    /// The entries within `bounds`, under `assigned_sequence` if there is one.
    pub(crate) fn new(bounds: KeyRange, assigned_sequence: Option<u64>) -> Self {
        let assigned = assigned_sequence.map(|sequence| AssignedKey { sequence, key: Vec::new() });
        Self { bounds, assigned }
    }

    /// Puts the sequence number in place of that of `stored`.
    fn see(&mut self, stored: &[u8]) {
        if let Some(assigned) = &mut self.assigned {
            let (user_key, trailer) = internal_key::decode(stored).expect("an internal key");
            let kind = trailer.kind().expect("tables hold known kinds");
            assigned.key.clear();
            internal_key::encode(&mut assigned.key, user_key, Trailer::new(assigned.sequence, kind));
        }
    }
}

impl PartCursor {
    /// `cursor` over the part of its table.
    pub(crate) fn new(cursor: TableCursor, part: Option<Part>) -> Self {
        Self { cursor, part: part.map(Box::new) }
    }

    /// Whether moves from now on may wait for the disk. Once they may not, it has to be sought first.
    pub(crate) fn set_blocking(&mut self, blocking: Blocking) {
        self.cursor.set_blocking(blocking);
    }

    pub(crate) fn seek_to_first(&mut self) -> Result<bool> {
        let Some(part) = &self.part else { return self.cursor.seek_to_first() };
        let is_on = self.cursor.seek(&before(&part.bounds.start))?;
        Ok(is_on && self.settle())
    }

    pub(crate) fn seek_to_last(&mut self) -> Result<bool> {
        let Some(part) = &self.part else { return self.cursor.seek_to_last() };
        let is_on = self.cursor.seek_before(&before(&part.bounds.end))?;
        Ok(is_on && self.settle())
    }

    /// Moves to the first entry at or after the encoded internal key.
    pub(crate) fn seek(&mut self, internal_key: &[u8]) -> Result<bool> {
        let Some(part) = &self.part else { return self.cursor.seek(internal_key) };
        let user_key = internal_key::user_key(internal_key);
        if !part.bounds.begins_by(user_key) {
            return self.seek_to_first();
        }
        if part.assigned.is_none() {
            return Ok(self.cursor.seek(internal_key)? && self.settle());
        }
        // There is one entry of a user key, at most.
        if !(self.cursor.seek(&before(user_key))? && self.settle()) {
            return Ok(false);
        }
        if internal_key::compare(self.key(), internal_key) == Ordering::Less { self.next() } else { Ok(true) }
    }

    /// Moves to the last entry before the encoded internal key.
    pub(crate) fn seek_before(&mut self, internal_key: &[u8]) -> Result<bool> {
        let Some(part) = &self.part else { return self.cursor.seek_before(internal_key) };
        let user_key = internal_key::user_key(internal_key);
        if *user_key >= *part.bounds.end {
            return self.seek_to_last();
        }
        if part.assigned.is_none() {
            return Ok(self.cursor.seek_before(internal_key)? && self.settle());
        }
        if !(self.cursor.seek_before(&behind(user_key))? && self.settle()) {
            return Ok(false);
        }
        if internal_key::compare(self.key(), internal_key) == Ordering::Less { Ok(true) } else { self.prev() }
    }

    /// REQUIRES: it stands on an entry.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<bool> {
        Ok(self.cursor.next()? && self.settle())
    }

    /// REQUIRES: it stands on an entry.
    #[inline]
    pub(crate) fn prev(&mut self) -> Result<bool> {
        Ok(self.cursor.prev()? && self.settle())
    }

    /// Whether the entry before the current one is known to be of another user key.
    #[inline]
    pub(crate) fn is_newest_of_key(&self) -> bool {
        self.cursor.is_newest_of_key()
    }

    /// The current encoded internal key.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        match &self.part {
            Some(part) => part.assigned.as_ref().map_or_else(|| self.cursor.key(), |assigned| &assigned.key),
            None => self.cursor.key(),
        }
    }

    /// The current value.
    pub(crate) fn value(&self) -> &[u8] {
        self.cursor.value()
    }

    /// The current value, shared with its block.
    pub(crate) fn value_bytes(&self) -> Bytes {
        self.cursor.value_bytes()
    }

    /// Whether the entry that the table's cursor stands on is of the part.
    #[inline]
    fn settle(&mut self) -> bool {
        let Some(part) = &mut self.part else { return true };
        let stored = self.cursor.key();
        part.see(stored);
        part.bounds.contains(internal_key::user_key(stored))
    }
}

/// The place before all versions of `user_key`.
fn before(user_key: &[u8]) -> Vec<u8> {
    place(user_key, SEQUENCE_MAX)
}

/// The place behind all versions of `user_key`: no write has sequence number 0.
fn behind(user_key: &[u8]) -> Vec<u8> {
    place(user_key, 0)
}

fn place(user_key: &[u8], sequence: u64) -> Vec<u8> {
    let mut place = Vec::with_capacity(user_key.len() + internal_key::TRAILER_BYTES);
    internal_key::encode(&mut place, user_key, Trailer::seek(sequence));
    place
}
