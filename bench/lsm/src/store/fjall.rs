//! fjall 3: one keyspace, its defaults but for memory and threads.
//!
//! It has no range deletes: keys are removed one by one, in one batch.

use std::ops::Range;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Direction, Store};
use crate::Outcome;
use crate::data::{Key, key};
use crate::data_set::DataSet;

pub(crate) struct FjallStore {
    database: Database,
    keyspace: Keyspace,
}

impl FjallStore {
    pub(crate) fn open(dir: &Path, set: &DataSet) -> Outcome<Self> {
        let database = Database::builder(dir).cache_size(set.cache_bytes).worker_threads(2).open()?;
        // Half of it freezes, as on our side.
        let options = || KeyspaceCreateOptions::default().max_memtable_size(set.memtable_bytes / 2);
        let keyspace = database.keyspace("bench", options)?;
        Ok(Self { database, keyspace })
    }
}

impl Store for FjallStore {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        Ok(self.keyspace.insert(&key[..], value)?)
    }

    fn put_synced(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        self.keyspace.insert(&key[..], value)?;
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn delete_range(&self, keys: Range<u32>) -> Outcome<()> {
        let mut batch = self.database.batch();
        for i in keys {
            batch.remove(&self.keyspace, &key(i)[..]);
        }
        Ok(batch.commit()?)
    }

    fn sync(&self) -> Outcome<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn flush(&self) -> Outcome<()> {
        Ok(self.keyspace.rotate_memtable_and_wait()?)
    }

    fn compact(&self) -> Outcome<()> {
        self.flush()?;
        Ok(self.keyspace.major_compact()?)
    }

    fn get(&self, key: &Key) -> Outcome<Option<usize>> {
        Ok(self.keyspace.get(key)?.map(|value| value.len()))
    }

    fn seek(&self, key: &Key) -> Outcome<Option<usize>> {
        match self.keyspace.range(&key[..]..).next() {
            Some(entry) => Ok(Some(entry.into_inner()?.1.len())),
            None => Ok(None),
        }
    }

    fn scan(
        &self,
        start: Option<&Key>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Outcome<()> {
        let mut entries = match start {
            Some(start) => self.keyspace.range(&start[..]..),
            None => self.keyspace.iter(),
        };
        while let Some(entry) = match direction {
            Direction::Forward => entries.next(),
            Direction::Backward => entries.next_back(),
        } {
            let (key, value) = entry.into_inner()?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}
