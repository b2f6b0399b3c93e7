//! SSTables: sorted, immutable files of internal keys and values.

pub(crate) mod block;
pub(crate) mod cursor;
pub(crate) mod filter;
pub(crate) mod properties;
pub(crate) mod table;
pub(crate) mod writer;

pub(crate) use cursor::{ReadMode, TableCursor};
pub(crate) use filter::FilterHash;
pub(crate) use properties::Properties;
pub(crate) use table::{Found, Table};
pub(crate) use writer::{TableOptions, TableWriter};

/// How blocks are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Compression {
    /// As they are: read in place from the mapped file.
    Raw,
    /// By LZ4, where that saves an eighth.
    #[default]
    Lz4,
}
