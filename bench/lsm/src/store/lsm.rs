//! Our engine: one tree, a snapshot a read, as the tablet server uses it.
//!
//! Reads see what is applied, durable or not, as those of the peers do.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use lsm::{Engine, KeyRange, Options, Tree, TreeFormat, TreeId, WriteBatch};

use super::{Direction, Store};
use crate::Outcome;
use crate::data::{Key, key};
use crate::data_set::DataSet;

const TREE: TreeId = TreeId(1);

pub(crate) struct LsmStore {
    engine: Engine,
    tree: Tree,
}

impl LsmStore {
    pub(crate) fn open(dir: &Path, set: &DataSet) -> Outcome<Self> {
        let options = Options {
            // The log has two buffers beside memtables and blocks; indexes and filters are in the blocks' part.
            memory_bytes_max: usize::try_from(set.cache_bytes + set.memtable_bytes)? + (16 << 20),
            memtable_bytes_max: usize::try_from(set.memtable_bytes)?,
            ..Options::default()
        };
        let engine = Engine::open(Arc::new(vfs::RealFileSystem), dir, 1, options)?;
        let tree = engine.create_tree(TREE, TreeFormat::default())?;
        Ok(Self { engine, tree })
    }
}

fn batch_of(key: &Key, value: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(TREE, key, value);
    batch
}

impl Store for LsmStore {
    fn put(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        let _not_waited_for = self.engine.write(batch_of(key, value))?;
        Ok(())
    }

    fn put_synced(&self, key: &Key, value: &[u8]) -> Outcome<()> {
        Ok(self.engine.write(batch_of(key, value))?.wait()?)
    }

    fn delete_range(&self, keys: Range<u32>) -> Outcome<()> {
        let mut batch = WriteBatch::new();
        batch.delete_range(TREE, &key(keys.start), &key(keys.end));
        let _not_waited_for = self.engine.write(batch)?;
        Ok(())
    }

    fn sync(&self) -> Outcome<()> {
        Ok(self.engine.barrier().wait()?)
    }

    fn flush(&self) -> Outcome<()> {
        Ok(self.tree.flush()?)
    }

    fn compact(&self) -> Outcome<()> {
        Ok(self.tree.compact()?)
    }

    fn get(&self, key: &Key) -> Outcome<Option<usize>> {
        Ok(self.tree.get(&self.engine.applied_snapshot(), key)?.map(|value| value.len()))
    }

    fn seek(&self, key: &Key) -> Outcome<Option<usize>> {
        let range = KeyRange { start: key.to_vec().into(), ..KeyRange::default() };
        let mut iter = self.tree.iter(&self.engine.applied_snapshot(), range);
        Ok(if iter.next()? { Some(iter.value().len()) } else { None })
    }

    fn scan(
        &self,
        start: Option<&Key>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Outcome<()> {
        let start = start.map(|start| start.to_vec().into()).unwrap_or_default();
        let range = KeyRange { start, ..KeyRange::default() };
        let mut iter = self.tree.iter(&self.engine.applied_snapshot(), range);
        while match direction {
            Direction::Forward => iter.next()?,
            Direction::Backward => iter.prev()?,
        } {
            if !visit(iter.key(), iter.value()) {
                break;
            }
        }
        Ok(())
    }
}
