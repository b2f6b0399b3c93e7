//! What is asked of each side, and how each is set up.
//!
//! Memory: each gets the same block cache and the same memtables, and two
//! threads for its background work. Durability: a synced write is on disk when
//! it returns; of the others each side's promise is its own (ours syncs behind
//! the writer all the time; fjall hands them to the operating system), and a
//! fill's time ends when all of it is on disk. Everything else is the
//! default of its store, compression included.

#[cfg(feature = "fjall")]
mod fjall;
mod lsm;

use std::path::Path;

use clap::ValueEnum;

use crate::Outcome;
use crate::data::Key;

/// Memtables of each store.
pub(crate) const MEMTABLE_BYTES: usize = 64 << 20;

/// An open store.
pub(crate) trait Store: Send + Sync {
    /// Sets a key, in memory and on the way to the disk.
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()>;

    /// Sets a key; it is on disk when this returns.
    fn put_synced(&self, key: &Key, value: &[u8]) -> Outcome<()>;

    /// Returns when all that was put is on disk.
    fn sync(&self) -> Outcome<()>;

    /// Compacts everything, and returns when that is done.
    fn settle(&self) -> Outcome<()>;

    /// The value's length.
    fn get(&self, key: &Key) -> Outcome<Option<usize>>;

    /// Makes a cursor and reads the first key at or after `key`; the length of its value.
    fn seek(&self, key: &Key) -> Outcome<Option<usize>>;

    /// Shows `visit` all keys and values, in order or the other way round, until it returns false.
    fn scan(&self, direction: Direction, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Outcome<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    #[value(skip)]
    Lsm,
    #[cfg(feature = "fjall")]
    Fjall,
}

impl StoreKind {
    /// The peers that are compiled in.
    #[cfg(feature = "fjall")]
    pub(crate) const PEERS: [&str; 1] = ["fjall"];
    #[cfg(not(feature = "fjall"))]
    pub(crate) const PEERS: [&str; 0] = [];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lsm => "lsm",
            #[cfg(feature = "fjall")]
            Self::Fjall => "fjall",
        }
    }

    /// Opens a new store in `dir`.
    pub(crate) fn open(self, dir: &Path, cache_bytes: u64) -> Outcome<Box<dyn Store>> {
        Ok(match self {
            Self::Lsm => Box::new(lsm::LsmStore::open(dir, cache_bytes)?),
            #[cfg(feature = "fjall")]
            Self::Fjall => Box::new(fjall::FjallStore::open(dir, cache_bytes)?),
        })
    }
}
