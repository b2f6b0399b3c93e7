//! What can be chosen.

/// Tunables of an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memtables of all trees together, bytes.
    pub memtable_bytes_max: usize,
    /// Decoded blocks kept in memory, bytes.
    pub block_cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { memtable_bytes_max: 64 << 20, block_cache_bytes: 256 << 20 }
    }
}

/// Which part of a key the bloom filters know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilterKey {
    /// The whole key: point reads skip tables that lack it.
    #[default]
    WholeKey,
    /// The key up to and including the first occurrence of these two bytes:
    /// scans of one such prefix skip tables that lack it.
    ThroughTerminator([u8; 2]),
}

/// What a tree's creation fixes for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeFormat {
    /// What bloom filters are built over.
    pub filter_key: FilterKey,
}
