//! What is asked of each side, and how each is set up.
//!
//! Memory: each gets the same block cache and the same memtables, and two
//! threads for its background work. Durability: a synced write is on disk when
//! it returns; of the others each side's promise is its own (ours syncs behind
//! the writer all the time; the peers hand them to the operating system), and
//! a fill's time ends when all of it is on disk. What else is chosen for a
//! peer, its file says.

#[cfg(feature = "fjall")]
mod fjall;
mod lsm;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use std::ops::Range;
use std::path::Path;

use clap::ValueEnum;

use crate::Outcome;
use crate::data::Key;
use crate::data_set::DataSet;

/// An open store.
pub(crate) trait Store: Send + Sync {
    /// Sets a key, in memory and on the way to the disk.
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()>;

    /// Sets a key; it is on disk when this returns.
    fn put_synced(&self, key: &Key, value: &[u8]) -> Outcome<()>;

    /// Deletes the keys of these numbers: as a range where the store can, one by one where it cannot.
    fn delete_range(&self, keys: Range<u32>) -> Outcome<()>;

    /// Returns when all that was put is on disk.
    fn sync(&self) -> Outcome<()>;

    /// Writes the memtables out, and returns when that is done.
    fn flush(&self) -> Outcome<()>;

    /// Compacts everything, and returns when that is done.
    fn compact(&self) -> Outcome<()>;

    /// The value's length.
    fn get(&self, key: &Key) -> Outcome<Option<usize>>;

    /// Makes a cursor and reads the first key at or after `key`; the length of its value.
    fn seek(&self, key: &Key) -> Outcome<Option<usize>>;

    /// Shows `visit` the keys and values at or after `start`, or all of them, in order or the other way
    /// round, until it returns false. Backward there is no `start`.
    fn scan(
        &self,
        start: Option<&Key>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Outcome<()>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// The stores that are compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    #[value(hide = true)]
    Lsm,
    #[cfg(feature = "rocksdb")]
    #[value(name = "rocksdb")]
    RocksDb,
    /// RocksDB that reads mapped files.
    #[cfg(feature = "rocksdb")]
    #[value(name = "rocksdb-mmap")]
    RocksDbMmap,
    #[cfg(feature = "fjall")]
    Fjall,
}

impl StoreKind {
    /// Whom to stand beside by default.
    pub(crate) const PEERS: &[&str] = &[
        #[cfg(feature = "rocksdb")]
        "rocksdb",
        #[cfg(feature = "fjall")]
        "fjall",
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lsm => "lsm",
            #[cfg(feature = "rocksdb")]
            Self::RocksDb => "rocksdb",
            #[cfg(feature = "rocksdb")]
            Self::RocksDbMmap => "rocksdb-mmap",
            #[cfg(feature = "fjall")]
            Self::Fjall => "fjall",
        }
    }

    /// Opens a new store in `dir`, with the memory that `set` gives it.
    pub(crate) fn open(self, dir: &Path, set: &DataSet) -> Outcome<Box<dyn Store>> {
        Ok(match self {
            Self::Lsm => Box::new(lsm::LsmStore::open(dir, set)?),
            #[cfg(feature = "rocksdb")]
            Self::RocksDb => Box::new(rocksdb::RocksDbStore::open(dir, set, false)?),
            #[cfg(feature = "rocksdb")]
            Self::RocksDbMmap => Box::new(rocksdb::RocksDbStore::open(dir, set, true)?),
            #[cfg(feature = "fjall")]
            Self::Fjall => Box::new(fjall::FjallStore::open(dir, set)?),
        })
    }
}
