//! Data sets: how many keys, of which values, in how much memory.

use clap::ValueEnum;

use crate::data::{KEY_BYTES, VALUE_BYTES, ValueKind};

/// The data sets by name, which is also the suffix of their workloads' names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SetName {
    /// Several times the caches; half of each value is compressible.
    Large,
    /// Several times the caches; nothing is compressible.
    Incompressible,
    /// All of it fits the block cache; half of each value is compressible.
    Cached,
    /// All of it fits the block cache; nothing is compressible.
    CachedIncompressible,
}

/// What is put into each store, and the memory that each store gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataSet {
    pub(crate) name: SetName,
    pub(crate) keys: u32,
    pub(crate) values: ValueKind,
    pub(crate) cache_bytes: u64,
    pub(crate) memtable_bytes: u64,
}

/// Keys of the cached sets, and the cache that holds them with room to spare.
const CACHED_KEYS: u32 = 1_000_000;
const CACHED_BYTES: u64 = 256 << 20;
const CACHED_MEMTABLE_BYTES: u64 = 64 << 20;

impl DataSet {
    /// The set `name`; a large one has `keys` keys, and `cache_bytes` for blocks and for memtables each.
    pub(crate) fn new(name: SetName, keys: u32, cache_bytes: u64) -> Self {
        let values = match name {
            SetName::Large | SetName::Cached => ValueKind::Half,
            SetName::Incompressible | SetName::CachedIncompressible => ValueKind::Random,
        };
        match name {
            SetName::Large | SetName::Incompressible => {
                Self { name, keys, values, cache_bytes, memtable_bytes: cache_bytes }
            }
            SetName::Cached | SetName::CachedIncompressible => Self {
                name,
                keys: keys.min(CACHED_KEYS),
                values,
                cache_bytes: CACHED_BYTES,
                memtable_bytes: CACHED_MEMTABLE_BYTES,
            },
        }
    }

    /// Whether every workload runs over it, and not only those that read.
    pub(crate) fn is_main(&self) -> bool {
        self.name == SetName::Large
    }

    /// What stands behind a workload's name.
    pub(crate) fn suffix(&self) -> &'static str {
        match self.name {
            SetName::Large => "",
            SetName::Incompressible => "-incompressible",
            SetName::Cached => "-cached",
            SetName::CachedIncompressible => "-cached-incompressible",
        }
    }

    /// Bytes of its keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.keys) * (KEY_BYTES + VALUE_BYTES) as u64
    }

    /// One line for people.
    pub(crate) fn describe(&self) -> String {
        let Self { keys, values, cache_bytes, memtable_bytes, .. } = self;
        let values = match values {
            ValueKind::Half => "half compressible",
            ValueKind::Random => "incompressible",
        };
        format!(
            "{keys} keys of {KEY_BYTES} bytes with values of {VALUE_BYTES} bytes, {values}: {} MiB; {} MiB of block cache, \
             {} MiB of memtables",
            self.bytes() >> 20,
            cache_bytes >> 20,
            memtable_bytes >> 20,
        )
    }
}
