//! Small durable records, locks and epochs: the part Chubby plays in Bigtable (section 4).
//!
//! Everything in it is small and rarely written: schemas, the root tablet's
//! location, who is alive, which epochs were handed out. Nothing is written here
//! for a write of a user's.

pub mod embedded;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Epoch;

pub use embedded::EmbeddedLockService;

/// Bytes of a record's value at most.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// A record's version: greater after each change of it, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key: a path such as `schema/<instance>/<table>`.
    pub key: String,
    /// Its content.
    pub value: Bytes,
    /// Its version.
    pub revision: Revision,
}

/// What a change asks of the record that it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// That there is none.
    Absent,
    /// That it still has this version.
    At(Revision),
    /// Nothing.
    Anything,
}

/// A lock service operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The record is not as expected: somebody else changed it. Read it again.
    #[error("{key} was changed by somebody else")]
    Conflict {
        /// The record's key.
        key: String,
    },
    /// The lock is held.
    #[error("{name} is held by another process")]
    Held {
        /// The lock's name.
        name: String,
    },
    /// The key or the value breaks a limit of the service; nothing changed.
    #[error("{key}: {limit}")]
    Refused {
        /// The record's key.
        key: String,
        /// The limit, as a sentence.
        limit: &'static str,
    },
    /// An earlier change of a file failed halfway, so that what is on disk is
    /// unknown. Records can be read; nothing changes until the process starts again.
    #[error("{path} may or may not have changed when its disk failed; no record changes until a restart")]
    Poisoned {
        /// The file.
        path: String,
    },
    /// A file of the embedded service is damaged.
    #[error("{path} is damaged: {found}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        found: String,
    },
    /// A file operation of the embedded service failed.
    #[error(transparent)]
    Io(#[from] vfs::Error),
}

/// A lock that is held; dropping it lets go.
pub trait LockSession: Send + Sync + std::fmt::Debug {
    /// The epoch of this holding, greater than that of any holding before.
    fn epoch(&self) -> Epoch;
}

/// Durable records with compare-and-set, exclusive locks, and epochs.
///
/// Every change is durable when its call returns. A call whose future is
/// dropped may still happen, whole.
#[async_trait]
pub trait LockService: Send + Sync + std::fmt::Debug + 'static {
    /// The record at `key`.
    async fn get(&self, key: &str) -> Result<Option<Record>, LockError>;

    /// The records whose keys start with `prefix`, in key order.
    async fn list(&self, prefix: &str) -> Result<Vec<Record>, LockError>;

    /// Sets the record at `key`.
    ///
    /// # Errors
    ///
    /// [`LockError::Conflict`]: it is not as `expect` says; nothing changed.
    async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<Revision, LockError>;

    /// Removes the record at `key`. Removing what is not there succeeds, unless
    /// a version was expected.
    ///
    /// # Errors
    ///
    /// [`LockError::Conflict`]: it is not as `expect` says; nothing changed.
    async fn delete(&self, key: &str, expect: Expect) -> Result<(), LockError>;

    /// Takes the lock `name`, under an epoch that never comes again.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`]: somebody else has it.
    async fn lock(&self, name: &str) -> Result<Box<dyn LockSession>, LockError>;

    /// A number greater than every one this service handed out before.
    async fn next_id(&self) -> Result<u64, LockError>;
}
