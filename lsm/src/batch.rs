//! A set of writes that takes effect as one.
//!
//! A batch is kept as it will stand in the commit log, so that logging it is
//! one copy, and the memtable's keys and values are slices of it:
//!
//! ```text
//! SIZE    FIELD
//! 1       kind: 1 put, 2 delete, 3 range delete, 4 merge
//! varint  tree
//! varint  key length, k
//! k       key; of a range delete, its start
//! varint  value length, v; none behind the key of a delete
//! v       value; of a range delete, its end; of a merge, its operand
//! ```
//!
//! once for each write. The write at index `i` of a batch has the batch's first
//! sequence number plus `i`, so that a later write of a key wins.

use std::ops::Range;

use smallvec::SmallVec;

use crate::error::Damage;
use crate::internal_key::{Kind, TRAILER_BYTES};
use crate::{TreeId, varint};

/// Writes to any trees of one engine, applied in order and atomically.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    encoded: Vec<u8>,
    len: usize,
    /// Bytes of the largest key and value together, as a table holds them.
    entry_bytes: usize,
    /// The trees written to, each once.
    trees: SmallVec<[TreeId; 4]>,
    /// Those of them that get merge operands.
    merged_trees: SmallVec<[TreeId; 2]>,
}

impl WriteBatch {
    /// A batch without writes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A batch without writes that has room for `bytes` of them, as [`WriteBatch::bytes`] counts.
    /// Its buffer lives on in memtables: what it has too much stays allocated as long.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { encoded: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Sets `key` to `value` in `tree`.
    pub fn put(&mut self, tree: TreeId, key: &[u8], value: &[u8]) {
        self.push(Kind::Put, tree, key, Some(value));
    }

    /// Removes `key` from `tree`.
    pub fn delete(&mut self, tree: TreeId, key: &[u8]) {
        self.push(Kind::Delete, tree, key, None);
    }

    /// Changes the value of `key` in `tree` by `operand`, as the tree's
    /// [`crate::MergeOperator`] understands it; what the value is meanwhile need
    /// not be known. The caller has checked the operand: nothing can refuse it later.
    pub fn merge(&mut self, tree: TreeId, key: &[u8], operand: &[u8]) {
        self.push(Kind::Merge, tree, key, Some(operand));
        if !self.merged_trees.contains(&tree) {
            self.merged_trees.push(tree);
        }
    }

    /// Removes each key of `tree` in `start..end`; writes nothing where the
    /// range is empty, which it is where `end` is.
    pub fn delete_range(&mut self, tree: TreeId, start: &[u8], end: &[u8]) {
        if start < end {
            self.push(Kind::RangeDelete, tree, start, Some(end));
        }
    }

    /// Writes in the batch.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes the batch takes in the commit log.
    pub fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Bytes of the largest write, as a table holds it.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// The trees written to, each once, in order of their first write.
    pub(crate) fn trees(&self) -> &[TreeId] {
        &self.trees
    }

    /// The trees that get merge operands, each once.
    pub(crate) fn merged_trees(&self) -> &[TreeId] {
        &self.merged_trees
    }

    /// The batch as the commit log holds it.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    fn push(&mut self, kind: Kind, tree: TreeId, key: &[u8], value: Option<&[u8]>) {
        // A batch of one write, the most frequent one, gets its exact size at once.
        let value_bytes = value.map_or(0, |value| varint_bytes(value.len() as u64) + value.len());
        let key_bytes = varint_bytes(key.len() as u64) + key.len();
        self.encoded.reserve(1 + varint_bytes(tree.0) + key_bytes + value_bytes);
        self.encoded.push(kind as u8);
        varint::encode(&mut self.encoded, tree.0);
        varint::encode_slice(&mut self.encoded, key);
        if let Some(value) = value {
            varint::encode_slice(&mut self.encoded, value);
        }
        self.len += 1;
        self.entry_bytes = self.entry_bytes.max(key.len() + TRAILER_BYTES + value.map_or(0, <[u8]>::len));
        if self.trees.last() != Some(&tree) && !self.trees.contains(&tree) {
            self.trees.push(tree);
        }
    }
}

impl WriteBatch {
    /// A batch of one write to `tree` that changes nothing: for its sequence number's sake.
    pub(crate) fn marker(tree: TreeId) -> Self {
        let mut batch = Self::new();
        batch.push(Kind::RangeDelete, tree, &[], Some(&[]));
        batch
    }
}

/// Bytes of `value` as a varint.
fn varint_bytes(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()).max(1).div_ceil(7) as usize
}

/// One write of an encoded batch. The ranges are places in the encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) kind: Kind,
    pub(crate) tree: TreeId,
    pub(crate) key: Range<usize>,
    /// Empty for a delete.
    pub(crate) value: Range<usize>,
}

impl Operation {
    /// Whether it is that of [`WriteBatch::marker`], whose tree need not exist.
    pub(crate) fn is_marker(&self) -> bool {
        self.kind == Kind::RangeDelete && self.key.is_empty() && self.value.is_empty()
    }
}

/// Goes through an encoded batch.
#[derive(Clone, Debug)]
pub(crate) struct Operations<'a> {
    encoded: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Operations<'a> {
    pub(crate) fn new(encoded: &'a [u8]) -> Self {
        Self { encoded, rest: encoded }
    }

    fn decode_next(&mut self) -> Result<Operation, Damage> {
        const CUT_OFF: Damage = Damage("a write of a batch is cut off");
        let (&tag, rest) = self.rest.split_first().ok_or(CUT_OFF)?;
        self.rest = rest;
        let kind = Kind::from_tag(tag).ok_or(Damage("a write of a batch has no known kind"))?;
        let tree = TreeId(varint::take(&mut self.rest).ok_or(CUT_OFF)?);
        let key = self.take_range().ok_or(CUT_OFF)?;
        let value = if kind == Kind::Delete { 0..0 } else { self.take_range().ok_or(CUT_OFF)? };
        Ok(Operation { kind, tree, key, value })
    }

    fn take_range(&mut self) -> Option<Range<usize>> {
        let slice = varint::take_slice(&mut self.rest)?;
        let end = self.encoded.len() - self.rest.len();
        Some(end - slice.len()..end)
    }
}

impl Iterator for Operations<'_> {
    type Item = Result<Operation, Damage>;

    /// The next write; damage ends the batch.
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let operation = self.decode_next();
        if operation.is_err() {
            self.rest = &[];
        }
        Some(operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_come_back_in_order() {
        let mut batch = WriteBatch::new();
        batch.put(TreeId(7), b"key", b"value");
        batch.delete(TreeId(300), b"gone");
        batch.delete_range(TreeId(7), b"a", b"c");
        batch.delete_range(TreeId(7), b"c", b"c");
        batch.merge(TreeId(7), b"key", b"+1");
        assert_eq!((batch.len(), batch.trees()), (4, &[TreeId(7), TreeId(300)][..]));
        assert_eq!(batch.merged_trees(), [TreeId(7)]);

        let bytes = batch.encoded();
        let text = |range: &Range<usize>| &bytes[range.clone()];
        let writes: Vec<_> = Operations::new(bytes).map(|operation| operation.expect("holds")).collect();
        let seen: Vec<_> = writes.iter().map(|w| (w.kind, w.tree.0, text(&w.key), text(&w.value))).collect();
        let expected: [(Kind, u64, &[u8], &[u8]); 4] = [
            (Kind::Put, 7, b"key", b"value"),
            (Kind::Delete, 300, b"gone", b""),
            (Kind::RangeDelete, 7, b"a", b"c"),
            (Kind::Merge, 7, b"key", b"+1"),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn bytes_are_those_of_the_table_above() {
        let mut batch = WriteBatch::new();
        batch.put(TreeId(1), b"k", b"vw");
        batch.delete(TreeId(128), b"");
        batch.merge(TreeId(1), b"k", b"o");
        assert_eq!(batch.encoded(), b"\x01\x01\x01k\x02vw\x02\x80\x01\x00\x04\x01\x01k\x01o");
    }

    #[test]
    fn a_batch_of_one_write_wastes_no_memory() {
        let mut batch = WriteBatch::new();
        batch.put(TreeId(1), &[1; 40], &[2; 400]);
        assert_eq!(batch.encoded.capacity(), batch.bytes());
    }

    #[test]
    fn every_cut_and_unknown_kinds_are_damage() {
        let mut batch = WriteBatch::new();
        batch.put(TreeId(1), b"key", b"value");
        for end in 1..batch.bytes() {
            assert!(
                Operations::new(&batch.encoded()[..end]).last().is_some_and(|last| last.is_err()),
                "{end}"
            );
        }
        assert!(Operations::new(&[9, 1, 0]).next().is_some_and(|first| first.is_err()));
    }
}
