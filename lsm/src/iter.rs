//! Ordered reading of one tree.

use bytes::Bytes;

use crate::Result;

/// A cursor over the keys of one tree within its range, newest visible value
/// each, at one snapshot. Owns what it reads from: `Send + 'static`.
///
/// Fresh, it stands before the first key. `next` and `prev` may be mixed.
pub struct Iter {}

impl Iter {
    /// Moves to the next key; false at the end.
    pub fn next(&mut self) -> Result<bool> {
        unimplemented!()
    }
    /// Moves to the key before; false at the start. On a fresh iterator: the last key.
    pub fn prev(&mut self) -> Result<bool> {
        unimplemented!()
    }
    /// Moves to the first key at or after `key`; false if there is none in range.
    pub fn seek(&mut self, _key: &[u8]) -> Result<bool> {
        unimplemented!()
    }
    /// Moves to the last key before `key`; false if there is none in range.
    pub fn seek_before(&mut self, _key: &[u8]) -> Result<bool> {
        unimplemented!()
    }
    /// The current key. Panics unless the last move returned true.
    pub fn key(&self) -> &[u8] {
        unimplemented!()
    }
    /// The current value, in place.
    pub fn value(&self) -> &[u8] {
        unimplemented!()
    }
    /// The current value, shared without a copy where the source allows it.
    pub fn value_bytes(&self) -> Bytes {
        unimplemented!()
    }
}
