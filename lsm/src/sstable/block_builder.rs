//! Builds the blocks that `block.rs` reads: data blocks, and with a restart at
//! each entry the blocks of an index. The layout is described there.

use super::block;
use crate::varint;

/// A block that grows entry by entry.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    restart_interval: usize,
    buffer: Vec<u8>,
    restarts: Vec<u32>,
    /// Of each entry, or of none.
    tags: Vec<u8>,
    entry_count: usize,
    /// Of the entry added last; it outlives the block, as the writer's index wants it.
    last_key: Vec<u8>,
}

impl BlockBuilder {
    /// A builder of blocks with a whole key at each `restart_interval`th entry, 1 to
    /// [`super::block::RESTART_INTERVAL_MAX`].
    pub(crate) fn new(restart_interval: usize) -> Self {
        Self {
            restart_interval,
            buffer: Vec::new(),
            restarts: Vec::new(),
            tags: Vec::new(),
            entry_count: 0,
            last_key: Vec::new(),
        }
    }

    /// Adds an entry.
    ///
    /// REQUIRES: `key` is an internal key after the one before; the block stays
    /// under [`super::format::BLOCK_BYTES_MAX`].
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        let shared = if self.entry_count.is_multiple_of(self.restart_interval) {
            self.restarts.push(u32::try_from(self.buffer.len()).expect("blocks are bounded"));
            0
        } else {
            shared_prefix(&self.last_key, key)
        };
        varint::encode(&mut self.buffer, shared as u64);
        varint::encode(&mut self.buffer, (key.len() - shared) as u64);
        varint::encode(&mut self.buffer, value.len() as u64);
        self.buffer.extend_from_slice(&key[shared..]);
        self.buffer.extend_from_slice(value);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&key[shared..]);
        self.entry_count += 1;
    }

    /// Tags the entry added last with the hash of its user key. All entries of a block are tagged, or none.
    pub(crate) fn tag(&mut self, key_hash: u64) {
        self.tags.push(block::tag_of(key_hash));
    }

    /// The key added last, in this block or the ones before; empty if there was none.
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Entries in the block.
    pub(crate) fn entry_count(&self) -> usize {
        self.entry_count
    }

    /// Bytes of the block if it were finished now.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.len() + 4 * (self.restarts.len() + 1) + self.tags.len() + block::TAGS_TRAILER_BYTES
    }

    /// The finished block; [`BlockBuilder::reset`] starts the next one.
    pub(crate) fn finish(&mut self) -> &[u8] {
        for restart in &self.restarts {
            self.buffer.extend_from_slice(&restart.to_le_bytes());
        }
        let mut restart_count = u32::try_from(self.restarts.len()).expect("blocks are bounded");
        if !self.tags.is_empty() {
            debug_assert_eq!(self.tags.len(), self.entry_count);
            let tag_count = u32::try_from(self.tags.len()).expect("blocks are bounded");
            self.buffer.extend_from_slice(&self.tags);
            self.buffer.push(u8::try_from(self.restart_interval).expect("intervals are bounded"));
            self.buffer.extend_from_slice(&tag_count.to_le_bytes());
            restart_count |= block::TAGGED;
        }
        self.buffer.extend_from_slice(&restart_count.to_le_bytes());
        &self.buffer
    }

    /// Starts an empty block. The last key stays.
    pub(crate) fn reset(&mut self) {
        self.buffer.clear();
        self.restarts.clear();
        self.tags.clear();
        self.entry_count = 0;
    }
}

/// How many first bytes `a` and `b` have in common.
pub(crate) fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    let (a_words, b_words) = (a.chunks_exact(8), b.chunks_exact(8));
    let words = a_words.zip(b_words).take_while(|(a, b)| a == b).count() * 8;
    words + a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count()
}
