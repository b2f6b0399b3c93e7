//! A set of writes that takes effect as one.

use crate::TreeId;

/// Writes to any trees of one engine, applied in order and atomically.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {}

impl WriteBatch {
    /// A batch without writes.
    pub fn new() -> Self {
        Self::default()
    }
    /// Sets `key` to `value` in `tree`.
    pub fn put(&mut self, _tree: TreeId, _key: &[u8], _value: &[u8]) {
        unimplemented!()
    }
    /// Removes `key` from `tree`.
    pub fn delete(&mut self, _tree: TreeId, _key: &[u8]) {
        unimplemented!()
    }
    /// Removes each key of `tree` in `start..end`; writes nothing where the range is empty.
    pub fn delete_range(&mut self, _tree: TreeId, _start: &[u8], _end: &[u8]) {
        unimplemented!()
    }
    /// Writes in the batch.
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// Bytes the batch takes in the commit log.
    pub fn bytes(&self) -> usize {
        unimplemented!()
    }
}
