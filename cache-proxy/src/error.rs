//! The one error of this crate.

use std::path::PathBuf;

/// A cache that could not be made, or a door of it not opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option is out of its range; nothing was made.
    #[error("{option} is {found}; it must be {range}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its value.
        found: String,
        /// The values that would do.
        range: String,
    },
    /// A Unix socket could not be bound.
    #[error("cannot listen at {path:?}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Certificates cannot be used.
    #[error("cannot use the certificates of {path:?}: {reason}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The table cannot be saved while somebody may change it.
    #[error("{open_count} connections are open: what they change would be saved as it was before")]
    Busy {
        /// Connections.
        open_count: u64,
    },
    /// The table's file cannot be written, or not be used.
    #[error("cannot use the cache's file {path:?}")]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of users and passwords is not one.
    #[error("{path:?} has no users and passwords, `user:password` one a line (line {line})")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// The line that is wrong, from 1; 0 if none was read.
        line: usize,
        /// What the system said, if it did.
        source: Option<std::io::Error>,
    },
    /// The directory for the cache's files cannot be made.
    #[error("cannot make the directory {}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the file system said.
        #[source]
        source: vfs::Error,
    },
}

/// The outcome of making a cache.
pub type Result<T> = std::result::Result<T, Error>;
