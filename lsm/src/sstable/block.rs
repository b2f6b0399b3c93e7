//! Blocks.

use bytes::Bytes;

/// A verified, decoded block. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    data: Bytes,
}

impl Block {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len()
    }
}
