//! How a reader of a history takes it that something is not in memory.

use std::path::Path;

use bytes::Bytes;
use lsm::{Error, Iter, Result, Snapshot, Tree};
use vfs::{FileSystem, SimulatedFileSystem};

use super::step::Move;

/// A move that has had so many blocks fetched is completed by one that may block.
const FETCHES_MAX: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It waits for the disk.
    Waits,
    /// It tries without, and fetches what is missing.
    Tries,
}

impl Patience {
    pub fn get(self, tree: &Tree, snapshot: &Snapshot, key: &[u8]) -> Result<Option<Bytes>> {
        if self == Self::Tries {
            for _ in 0..FETCHES_MAX {
                match tree.try_get(snapshot, key) {
                    Err(Error::WouldBlock(miss)) => miss.fetch()?,
                    found => return found,
                }
            }
        }
        tree.get(snapshot, key)
    }

    pub fn go(self, iter: &mut Iter, to: &Move) -> Result<bool> {
        if self == Self::Waits {
            return match to {
                Move::Next => iter.next(),
                Move::Prev => iter.prev(),
                Move::Seek(key) => iter.seek(key),
                Move::SeekBefore(key) => iter.seek_before(key),
            };
        }
        let is_forward = matches!(to, Move::Next | Move::Seek(_));
        let mut moved = match to {
            Move::Next => iter.try_next(),
            Move::Prev => iter.try_prev(),
            Move::Seek(key) => iter.try_seek(key),
            Move::SeekBefore(key) => iter.try_seek_before(key),
        };
        for _ in 0..FETCHES_MAX {
            let Err(Error::WouldBlock(miss)) = moved else { return moved };
            miss.fetch()?;
            moved = if is_forward { iter.try_next() } else { iter.try_prev() };
        }
        match moved {
            Err(Error::WouldBlock(_)) if is_forward => iter.next(),
            Err(Error::WouldBlock(_)) => iter.prev(),
            moved => moved,
        }
    }
}

/// Puts the tables below `dir` out of memory, but for what the block cache holds of them.
pub fn evict_tables(fs: &SimulatedFileSystem, dir: &Path) {
    let dir = dir.join("tables");
    // Where nothing can be listed any more, nothing can be read either.
    for name in fs.list(&dir).unwrap_or_default() {
        fs.evict(&dir.join(name), 0..u64::MAX);
    }
}
