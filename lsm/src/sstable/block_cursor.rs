//! A cursor over the entries of one block, in both directions.
//!
//! Forward it decodes an entry at a time. Backward it decodes a stretch from
//! one restart to the next at once and goes over that from behind, so that a
//! step back costs no more than a step forward does: it moves no bytes.

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
    /// The current key, unless the stretch has it.
    key: KeyBuffer,
    /// Where the current entry starts; with a stretch, where that does.
    start: usize,
    /// Where the current value is.
    value: Range<usize>,
    /// Empty unless the cursor has come backward to where it is.
    stretch: Stretch,
}

/// Entries from a restart up to the current one, which is the last of them.
#[derive(Debug, Default)]
struct Stretch {
    keys: Vec<u8>,
    entries: Vec<StretchEntry>,
}

/// Where key and value are, the one in the stretch and the other in the block.
#[derive(Debug)]
struct StretchEntry {
    key: Range<usize>,
    value: Range<usize>,
}

impl Stretch {
    fn clear(&mut self) {
        self.keys.clear();
        self.entries.clear();
    }

    /// The key of the current entry.
    #[inline]
    fn key(&self) -> Option<&[u8]> {
        self.entries.last().map(|entry| &self.keys[entry.key.clone()])
    }

    /// The key of the entry before the current one.
    #[inline]
    fn key_before(&self) -> Option<&[u8]> {
        let before = self.entries.len().checked_sub(2)?;
        Some(&self.keys[self.entries[before].key.clone()])
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
            stretch: Stretch::default(),
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
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        assert!(self.is_valid, "the cursor stands on no entry");
        self.stretch.key().unwrap_or(&self.key)
    }

    /// Whether the entry before the current one is at hand, and of another user key. REQUIRES: it stands on one.
    #[inline]
    pub(crate) fn is_newest_of_key(&self) -> bool {
        let before = self.stretch.key_before();
        before.is_some_and(|before| internal_key::user_key(before) != internal_key::user_key(self.key()))
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
        if let Some(key) = self.stretch.key() {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.stretch.clear();
        }
        self.step()
    }

    /// Moves to the entry before; false at the start. REQUIRES: it stands on one.
    #[inline]
    pub(crate) fn prev(&mut self) -> Result<bool> {
        assert!(self.is_valid, "the cursor stands on no entry");
        self.step_back()
    }

    /// Prepares a step to the entry at `offset`, a restart or the end.
    fn restart_at(&mut self, offset: usize) {
        self.is_valid = false;
        self.stretch.clear();
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
    #[inline]
    fn step_back(&mut self) -> Result<bool> {
        self.is_valid = false;
        self.stretch.entries.pop();
        if self.stretch.entries.is_empty() {
            self.decode_stretch()?;
        }
        let Some(entry) = self.stretch.entries.last() else { return Ok(false) };
        self.value = entry.value.clone();
        self.is_valid = true;
        Ok(true)
    }

    /// Decodes the entries from the last restart before `self.start` up to it; none where that is the first.
    fn decode_stretch(&mut self) -> Result<()> {
        self.stretch.clear();
        let Some(restart) = self.block.last_restart_before(self.start) else { return Ok(()) };
        self.block.warm(restart..self.start);
        let Stretch { keys, entries } = &mut self.stretch;
        let mut key = 0..0;
        let mut at = restart;
        while at < self.start {
            if entries.len() == RESTART_INTERVAL_MAX {
                return Err(Damage("a block's restarts are too far apart"));
            }
            let entry = self.block.entry(at)?;
            key = self.block.append_key(keys, key, entry)?;
            entries.push(StretchEntry { key: key.clone(), value: entry.value..entry.end });
            at = entry.end;
        }
        if at != self.start {
            return Err(Damage("an entry is cut by a restart"));
        }
        self.start = restart;
        Ok(())
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
            let (mut on, mut unknown) = (cursor.seek_to_last().unwrap(), 0);
            while on {
                assert_eq!(seen.pop(), Some((cursor.key().to_vec(), cursor.value_bytes().to_vec())));
                let is_newest = seen.last().is_none_or(|(before, _)| {
                    internal_key::user_key(before) != internal_key::user_key(cursor.key())
                });
                assert!(is_newest || !cursor.is_newest_of_key());
                unknown += usize::from(is_newest && !cursor.is_newest_of_key());
                on = cursor.prev().unwrap();
            }
            assert!(seen.is_empty());
            assert!(unknown <= entries.len().div_ceil(interval), "only a restart's neighbour is not known");
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
