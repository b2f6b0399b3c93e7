//! The lock service of one machine, in the data directory.
//!
//! One process owns the directory, by a lock on its file `LOCK`; so locks by
//! name live in that process's memory, and only their epochs on disk. Records
//! are small and few: all are in memory, each is a file of its own, replaced
//! whole.
//!
//! ```text
//! LOCK                  held while the service is open
//! counter               the ceiling of the numbers handed out
//! records/<key>         one record; the key percent-encoded
//! counter.new, records/.new    a file on its way to its name
//! ```
//!
//! Revisions, epochs and ids are one sequence. Its ceiling is on disk before
//! a number below it is handed out, and moves up by 1024 at a time; whoever
//! opens the directory goes on from the ceiling, so that no number comes
//! again, whatever a power cut takes. The unused rest of a step is skipped.
//!
//! Both kinds of file have the layout of `record_file`. A file that is not
//! exactly as it was written is reported with its path, never skipped.

mod directory;
mod record_file;

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use vfs::FileSystem;

use self::directory::Directory;
use super::{Expect, LockError, LockService, LockSession, Record, Revision};
use crate::Epoch;

/// Records, locks and epochs in a directory. Cheap to clone; all clones are
/// one, and the directory stays locked until the last of them and of their
/// [`LockSession`]s is dropped.
#[derive(Clone, Debug)]
pub struct EmbeddedLockService {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Taken for a change, and for as long as its files take; before `records`.
    directory: Mutex<Directory>,
    /// What is on disk.
    records: RwLock<BTreeMap<String, Record>>,
    held: Mutex<HashSet<String>>,
}

impl EmbeddedLockService {
    /// Opens the service in `dir`, which is created if missing, and reads every record.
    ///
    /// # Errors
    ///
    /// - [`LockError::Held`]: another process, or this one, has the directory open.
    /// - [`LockError::Damaged`]: a file is not as it was written.
    /// - [`LockError::Io`]: the file system refused.
    pub fn open(fs: Arc<dyn FileSystem>, dir: &Path) -> Result<Self, LockError> {
        let (directory, records) = Directory::open(fs, dir)?;
        let shared = Shared {
            directory: Mutex::new(directory),
            records: RwLock::new(records),
            held: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Runs a change where it may wait for the disk, to its end even if the
    /// caller's future is dropped.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Shared) -> Result<T, LockError> + Send + 'static,
    ) -> Result<T, LockError> {
        let shared = Arc::clone(&self.shared);
        let outcome = tokio::task::spawn_blocking(move || change(&shared)).await;
        outcome.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

impl Shared {
    fn put(&self, key: String, value: Bytes, expect: Expect) -> Result<Revision, LockError> {
        let mut directory = self.directory.lock();
        self.check(&key, expect)?;
        let revision = Revision(directory.next_number()?);
        let record = Record { key, value, revision };
        directory.write(&record)?;
        self.records.write().insert(record.key.clone(), record);
        Ok(revision)
    }

    fn delete(&self, key: &str, expect: Expect) -> Result<(), LockError> {
        let mut directory = self.directory.lock();
        self.check(key, expect)?;
        if self.records.read().contains_key(key) {
            directory.remove(key)?;
            self.records.write().remove(key);
        }
        Ok(())
    }

    /// REQUIRES: `directory` is locked.
    fn check(&self, key: &str, expect: Expect) -> Result<(), LockError> {
        let revision = self.records.read().get(key).map(|record| record.revision);
        let is_expected = match expect {
            Expect::Absent => revision.is_none(),
            Expect::At(expected) => revision == Some(expected),
            Expect::Anything => true,
        };
        if is_expected { Ok(()) } else { Err(LockError::Conflict { key: key.to_owned() }) }
    }
}

#[async_trait]
impl LockService for EmbeddedLockService {
    async fn get(&self, key: &str) -> Result<Option<Record>, LockError> {
        Ok(self.shared.records.read().get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Record>, LockError> {
        let records = self.shared.records.read();
        let from_prefix = records.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        Ok(from_prefix
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(_, record)| record.clone())
            .collect())
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect) -> Result<Revision, LockError> {
        let key = key.to_owned();
        self.change(move |shared| shared.put(key, value, expect)).await
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<(), LockError> {
        let key = key.to_owned();
        self.change(move |shared| shared.delete(&key, expect)).await
    }

    async fn lock(&self, name: &str) -> Result<Box<dyn LockSession>, LockError> {
        if !self.shared.held.lock().insert(name.to_owned()) {
            return Err(LockError::Held { name: name.to_owned() });
        }
        // From here on dropping the session, or this future, lets go.
        let mut session =
            EmbeddedSession { shared: Arc::clone(&self.shared), name: name.to_owned(), epoch: Epoch(0) };
        session.epoch = Epoch(self.next_id().await?);
        Ok(Box::new(session))
    }

    async fn next_id(&self) -> Result<u64, LockError> {
        self.change(|shared| shared.directory.lock().next_number()).await
    }
}

/// A lock that is held. It keeps the directory open, since another process
/// could take the same name otherwise.
#[derive(Debug)]
struct EmbeddedSession {
    shared: Arc<Shared>,
    name: String,
    epoch: Epoch,
}

impl LockSession for EmbeddedSession {
    fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Drop for EmbeddedSession {
    fn drop(&mut self) {
        self.shared.held.lock().remove(&self.name);
    }
}
