//! Our engine: one tree, a snapshot a read, as the tablet server uses it.

use std::path::Path;
use std::sync::Arc;

use lsm::{Engine, KeyRange, Options, Tree, TreeFormat, TreeId, WriteBatch};

use super::{Direction, MEMTABLE_BYTES, Store};
use crate::Outcome;
use crate::data::Key;

const TREE: TreeId = TreeId(1);

pub(crate) struct LsmStore {
    engine: Engine,
    tree: Tree,
}

impl LsmStore {
    pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Outcome<Self> {
        let options = Options {
            // The log has two buffers beside memtables and blocks.
            memory_bytes_max: usize::try_from(cache_bytes)? + MEMTABLE_BYTES + (16 << 20),
            memtable_bytes_max: MEMTABLE_BYTES,
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

    fn sync(&self) -> Outcome<()> {
        Ok(self.engine.barrier().wait()?)
    }

    fn settle(&self) -> Outcome<()> {
        Ok(self.tree.compact()?)
    }

    fn get(&self, key: &Key) -> Outcome<Option<usize>> {
        Ok(self.tree.get(&self.engine.snapshot(), key)?.map(|value| value.len()))
    }

    fn seek(&self, key: &Key) -> Outcome<Option<usize>> {
        let range = KeyRange { start: key.to_vec().into(), ..KeyRange::default() };
        let mut iter = self.tree.iter(&self.engine.snapshot(), range);
        Ok(if iter.next()? { Some(iter.value().len()) } else { None })
    }

    fn scan(&self, direction: Direction, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Outcome<()> {
        let mut iter = self.tree.iter(&self.engine.snapshot(), KeyRange::default());
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
