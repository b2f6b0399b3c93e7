//! SSTables: sorted, immutable files of internal keys and values (Bigtable,
//! section 4; the layout is LevelDB's, see `format.rs`).
//!
//! Read on in this order:
//!
//! - `format`: what a file consists of, the envelope of a block, the footer.
//! - `block`, `block_builder`, `block_cursor`: entries with prefix compression.
//! - `block_index` with `key_digests`, `filter`, `properties`: what stands beside the data.
//! - `writer`: `TableWriter`, for flushes and compactions.
//! - `table`, `cursor`: `Table` and `TableCursor`, for reads; `miss`: what they lack that must not block.
//! - `kept_blocks`: blocks of a table that stay in memory.
//! - `extent`: how much of a table lies where.
//! - [`inspect`]: looks into a table offline.
//!
//! Nothing here knows levels, trees or the names of files.

pub(crate) mod block;
pub(crate) mod block_builder;
pub(crate) mod block_cursor;
pub(crate) mod block_index;
pub(crate) mod cursor;
pub(crate) mod extent;
pub(crate) mod filter;
pub(crate) mod format;
pub mod inspect;
mod kept_blocks;
pub(crate) mod key_digests;
#[cfg(test)]
pub(crate) mod measure;
mod miss;
pub(crate) mod properties;
pub(crate) mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

pub(crate) use cursor::{READ_AHEAD_BYTES, ReadMode, TableCursor};
pub(crate) use filter::FilterHash;
pub(crate) use miss::Blocking;
pub use miss::Miss;
pub(crate) use properties::Properties;
pub(crate) use table::{Found, Table};
pub(crate) use writer::{ENTRY_BYTES_MAX, TableOptions, TableWriter, WRITER_MEMORY_BYTES_MAX, fits_entry};

/// How blocks are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As they are: read in place from the mapped file.
    Raw,
    /// By LZ4, where that saves an eighth.
    #[default]
    Lz4,
}
