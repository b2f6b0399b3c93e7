//! A cursor over the entries of one block, in both directions.
//!
//! Forward it decodes an entry at a time. Backward it decodes a stretch from
//! one restart to the next at once and hands that out from behind, so that a
//! step back costs about what a step forward does.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;

use super::block::{Block, KeyBuffer, RESTART_INTERVAL_MAX, Result};
use crate::error::Damage;
use crate::internal_key;

/// A cursor over the entries of one block, in both directions. Owns the block.
///
/// It stands on an entry or nowhere: fresh, past an end, or after an error.
#[derive(Debug)]
pub(crate) struct BlockCursor {
    block: Block,
    is_valid: bool,
    key: KeyBuffer,
    /// Where the current entry starts.
    start: usize,
    /// Where its value is.
    value: Range<usize>,
    behind: Behind,
}

/// Entries from a restart up to the current one, decoded to go backward: all
/// of the stretch are decoded once, not once a step.
#[derive(Debug, Default)]
struct Behind {
    keys: Vec<u8>,
    entries: Vec<BehindEntry>,
}

#[derive(Debug)]
struct BehindEntry {
    start: usize,
    key: Range<usize>,
    value: Range<usize>,
}

impl Behind {
    fn clear(&mut self) {
        self.keys.clear();
        self.entries.clear();
    }
}

impl BlockCursor {
    /// A cursor over `block` that stands nowhere.
    pub(crate) fn new(block: Block) -> Self {
        Self {
            block,
            is_valid: false,
            key: KeyBuffer::new(),
            start: 0,
            value: 0..0,
            behind: Behind::default(),
        }
    }

    /// Goes over to another block and stands nowhere in it; keeps its buffers.
    pub(crate) fn set_block(&mut self, block: Block) {
        self.block = block;
        self.is_valid = false;
    }

    /// Whether it stands on an entry.
    pub(crate) fn is_valid(&self) -> bool {
        self.is_valid
    }

    /// The current internal key. REQUIRES: the cursor stands on an entry.
    pub(crate) fn key(&self) -> &[u8] {
        assert!(self.is_valid, "the cursor stands on no entry");
        &self.key
    }

    /// The current value. REQUIRES: the cursor stands on an entry.
    pub(crate) fn value(&self) -> &[u8] {
        assert!(self.is_valid, "the cursor stands on no entry");
        &self.block.data[self.value.clone()]
    }

    /// The current value, shared with the block. REQUIRES: the cursor stands on an entry.
    pub(crate) fn value_bytes(&self) -> Bytes {
        assert!(self.is_valid, "the cursor stands on no entry");
        self.block.data.slice(self.value.clone())
    }

    /// Moves to the first entry; false if there is none.
    pub(crate) fn seek_to_first(&mut self) -> Result<bool> {
        self.restart_at(0);
        self.step()
    }

    /// Moves to the last entry; false if there is none.
    pub(crate) fn seek_to_last(&mut self) -> Result<bool> {
        self.restart_at(self.block.entries_end);
        self.step_back()
    }

    /// Moves to the first entry at or after `target`; false if there is none.
    pub(crate) fn seek(&mut self, target: &[u8]) -> Result<bool> {
        self.is_valid = false;
        let restart = self.block.seek_restart(target)?;
        self.restart_at(restart);
        while self.step()? {
            if internal_key::compare(&self.key, target) != Ordering::Less {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves to the last entry before `target`; false if there is none.
    pub(crate) fn seek_before(&mut self, target: &[u8]) -> Result<bool> {
        if self.seek(target)? { self.prev() } else { self.seek_to_last() }
    }

    /// Moves to the next entry; false at the end. REQUIRES: it stands on one.
    pub(crate) fn next(&mut self) -> Result<bool> {
        assert!(self.is_valid, "the cursor stands on no entry");
        self.behind.clear();
        self.step()
    }

    /// Moves to the entry before; false at the start. REQUIRES: it stands on one.
    pub(crate) fn prev(&mut self) -> Result<bool> {
        assert!(self.is_valid, "the cursor stands on no entry");
        self.step_back()
    }

    /// Prepares a step to the entry at `offset`, a restart or the end.
    fn restart_at(&mut self, offset: usize) {
        self.is_valid = false;
        self.behind.clear();
        self.key.clear();
        self.start = offset;
        self.value = offset..offset;
    }

    /// Moves to the entry behind the current value.
    #[inline]
    fn step(&mut self) -> Result<bool> {
        self.is_valid = false;
        let at = self.value.end;
        if at >= self.block.entries_end {
            return Ok(false);
        }
        let entry = self.block.entry(at)?;
        self.block.extend_key(&mut self.key, entry)?;
        self.start = at;
        self.value = entry.value..entry.end;
        self.is_valid = true;
        Ok(true)
    }

    /// Moves to the entry that ends where the current one starts.
    fn step_back(&mut self) -> Result<bool> {
        self.is_valid = false;
        if self.behind.entries.is_empty() {
            self.decode_behind()?;
        }
        let Some(entry) = self.behind.entries.pop() else {
            return Ok(false);
        };
        self.key.clear();
        self.key.extend_from_slice(&self.behind.keys[entry.key]);
        self.start = entry.start;
        self.value = entry.value;
        self.is_valid = true;
        Ok(true)
    }

    /// Decodes the entries from the last restart before the current entry up to it.
    fn decode_behind(&mut self) -> Result<()> {
        self.behind.clear();
        let block = &self.block;
        let Some(mut at) = block.last_restart_before(self.start) else { return Ok(()) };
        let mut key = KeyBuffer::new();
        while at < self.start {
            if self.behind.entries.len() == RESTART_INTERVAL_MAX {
                return Err(Damage("a block's restarts are too far apart"));
            }
            let entry = block.entry(at)?;
            block.extend_key(&mut key, entry)?;
            let key_start = self.behind.keys.len();
            self.behind.keys.extend_from_slice(&key);
            let key = key_start..self.behind.keys.len();
            self.behind.entries.push(BehindEntry { start: at, key, value: entry.value..entry.end });
            at = entry.end;
        }
        if at == self.start { Ok(()) } else { Err(Damage("an entry is cut by a restart")) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block_builder::BlockBuilder;
    use super::*;
    use crate::internal_key::{Kind, Trailer, encode};
    use crate::sstable::filter::key_hash;

    fn entries(count: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        (0..count)
            .map(|i| {
                let mut key = Vec::new();
                // Three versions of a user key, keys of growing lengths.
                let user_key = format!("key{:05}{}", i / 3, "x".repeat((i / 3 % 90) as usize));
                encode(&mut key, user_key.as_bytes(), Trailer::new(100 - i % 3, Kind::Put));
                (key, vec![b'v'; (i * 7 % 200) as usize])
            })
            .collect()
    }

    fn block(entries: &[(Vec<u8>, Vec<u8>)], restart_interval: usize) -> Block {
        let mut builder = BlockBuilder::new(restart_interval);
        for (key, value) in entries {
            builder.add(key, value);
        }
        Block::new(Bytes::copy_from_slice(builder.finish())).expect("well-formed")
    }

    fn tagged_block(entries: &[(Vec<u8>, Vec<u8>)], restart_interval: usize) -> Block {
        let mut builder = BlockBuilder::new(restart_interval);
        for (key, value) in entries {
            builder.add(key, value);
            builder.tag(key_hash(internal_key::user_key(key)));
        }
        Block::new(Bytes::copy_from_slice(builder.finish())).expect("well-formed")
    }

    #[test]
    fn both_directions_and_all_seeks_agree_with_a_sorted_list() {
        for (count, interval) in
            [(0, 16), (1, 16), (15, 16), (16, 16), (17, 16), (100, 16), (100, 1), (40, 3)]
        {
            let entries = entries(count);
            let mut cursor = BlockCursor::new(block(&entries, interval));
            let mut seen = Vec::new();
            let mut on = cursor.seek_to_first().unwrap();
            while on {
                seen.push((cursor.key().to_vec(), cursor.value().to_vec()));
                on = cursor.next().unwrap();
            }
            assert_eq!(seen, entries);
            let mut on = cursor.seek_to_last().unwrap();
            while on {
                assert_eq!(seen.pop(), Some((cursor.key().to_vec(), cursor.value_bytes().to_vec())));
                on = cursor.prev().unwrap();
            }
            assert!(seen.is_empty());
            for (i, (key, _)) in entries.iter().enumerate() {
                assert!(cursor.seek(key).unwrap());
                assert_eq!(cursor.key(), key);
                assert_eq!(cursor.seek_before(key).unwrap(), i > 0);
                if i > 0 {
                    assert_eq!(cursor.key(), entries[i - 1].0);
                    assert!(cursor.next().unwrap());
                    assert_eq!(cursor.key(), key);
                    assert!(cursor.prev().unwrap());
                    assert_eq!(cursor.key(), entries[i - 1].0);
                }
            }
        }
    }

    #[test]
    fn find_takes_the_newest_version_at_or_below_a_sequence() {
        let entries = entries(60);
        for (interval, is_tagged) in [(16, false), (16, true), (1, true), (2, true), (5, true)] {
            let block = if is_tagged { tagged_block(&entries, interval) } else { block(&entries, interval) };
            let find = |user_key: &[u8], sequence| {
                let mut target = Vec::new();
                encode(&mut target, user_key, Trailer::seek(sequence));
                let found = block.clone().find(&target, key_hash(user_key)).unwrap();
                found.map(|(trailer, value)| (trailer.sequence(), value.len()))
            };
            assert_eq!(find(b"key00004xxxx", internal_key::SEQUENCE_MAX), Some((100, 12 * 7)));
            assert_eq!(find(b"key00004xxxx", 99), Some((99, 13 * 7)));
            assert_eq!(find(b"key00004xxxx", 97), None);
            for (key, value) in &entries {
                let (user_key, trailer) = internal_key::decode(key).unwrap();
                assert_eq!(find(user_key, trailer.sequence()), Some((trailer.sequence(), value.len())));
                assert_eq!(find(&[user_key, b"y"].concat(), 100), None);
            }
        }
    }

    #[test]
    fn random_bytes_are_refused_or_read_without_a_panic() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let good = {
            let mut builder = BlockBuilder::new(4);
            for (key, value) in entries(30) {
                builder.add(&key, &value);
                builder.tag(key_hash(internal_key::user_key(&key)));
            }
            builder.finish().to_vec()
        };
        for round in 0..20_000 {
            let mut bytes = if round % 2 == 0 { good.clone() } else { vec![0; round % 97] };
            for _ in 0..1 + round % 9 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if let Some(len) = std::num::NonZeroUsize::new(bytes.len()) {
                    bytes[(state >> 33) as usize % len] = state.to_le_bytes()[3];
                }
            }
            read_everything(&bytes);
        }
    }

    fn read_everything(bytes: &[u8]) {
        let Ok(block) = Block::new(Bytes::copy_from_slice(bytes)) else { return };
        let target = &b"key00005xxxxx\x01\x00\x00\x00\x00\x00\x00\x01"[..];
        let _ = block.clone().find(target, key_hash(internal_key::user_key(target)));
        let mut cursor = BlockCursor::new(block);
        let mut on = cursor.seek_to_first();
        while let Ok(true) = on {
            on = cursor.next();
        }
        let mut on = cursor.seek_to_last();
        while let Ok(true) = on {
            on = cursor.prev();
        }
        let _ = cursor.seek(target);
        let _ = cursor.seek_before(target);
    }
}
