//! What can go wrong.

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
}

/// An engine operation's outcome.
pub type Result<T> = std::result::Result<T, Error>;
