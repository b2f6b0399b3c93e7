//! What can go wrong.

use std::path::{Path, PathBuf};

/// A failed engine operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{0}")]
    Io(#[from] vfs::Error),
    /// An earlier sync failed; nothing is written until the engine is reopened.
    #[error("the commit log failed earlier and takes no more writes")]
    Poisoned,
    /// Writers outrun flushes; try again after [`crate::Engine::on_writable`] fires.
    #[error("too much waits to be flushed")]
    Stalled,
    /// A file holds bytes that nobody wrote there. Reading it again changes nothing.
    #[error("{} is damaged at offset {offset}: {what}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it: the start of the block or record that does not hold, in bytes.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A key and its value together are longer than anything that is stored; nothing was written.
    #[error("an entry of {bytes} bytes is longer than the {bytes_max} allowed")]
    EntryTooLarge {
        /// What they have.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// A table was given its keys out of order; what was written of it is of no use.
    #[error("keys of {} came out of order", file.display())]
    OutOfOrder {
        /// The table's file.
        file: PathBuf,
    },
}

/// An engine operation's outcome.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a decoder that knows no file found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) &'static str);

impl Damage {
    /// The damage as an error, found in the block or record at `offset` of `file`.
    pub(crate) fn at(self, file: &Path, offset: u64) -> Error {
        Error::Damaged { file: file.to_owned(), offset, what: self.0 }
    }
}
