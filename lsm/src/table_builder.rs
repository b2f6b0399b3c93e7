//! Builds a table outside of any tree, to be taken in whole by
//! [`crate::Engine::ingest`].
//!
//! ```
//! # fn main() -> Result<(), lsm::Error> {
//! # use std::{path::Path, sync::Arc};
//! # use lsm::{Engine, Options, TableBuilder, TreeFormat, TreeId};
//! # let fs = Arc::new(vfs::SimulatedFileSystem::new());
//! # let engine = Engine::open(fs.clone(), Path::new("/data"), 1, Options::default())?;
//! let tree = engine.create_tree(TreeId(1), TreeFormat::default())?;
//! let path = Path::new("/fruit.sst");
//! let mut builder = TableBuilder::create(&*fs, path, tree.format(), &Options::default())?;
//! builder.put(b"apple", b"green")?;
//! builder.delete(b"banana")?;
//! builder.finish(&*fs)?;
//! engine.ingest(tree.id(), &[path])?;
//! assert_eq!(tree.get(&engine.snapshot(), b"apple")?.as_deref(), Some(&b"green"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! Every entry is stored under one sequence number; the manifest of the tree
//! that takes the table in assigns another one, which readers see in its place.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::internal_key::{self, Kind, Trailer};
use crate::range_tombstone::{FragmentedTombstones, RangeTombstone};
use crate::sstable::{TableOptions, TableWriter};
use crate::{Error, Options, Result, TreeFormat};

/// The sequence number of all that stands in a table from outside.
pub(crate) const STORED_SEQUENCE: u64 = 1;

/// Writes a table file from keys in order. Memory is bounded but for range
/// deletes. Dropping it unfinished leaves a file that is of no use.
#[derive(Debug)]
pub struct TableBuilder {
    path: PathBuf,
    writer: TableWriter,
    /// The last key, and whether there is one.
    last_key: Option<Vec<u8>>,
    internal_key: Vec<u8>,
    tombstones: Vec<RangeTombstone>,
}

impl TableBuilder {
    /// Creates the file at `path`, which must not exist, for a tree of this
    /// format. Of `options` only [`Options::block_bytes`] counts.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidOption`]: there is no file.
    /// - [`Error::Io`]: a file that was there is untouched.
    pub fn create(
        fs: &dyn vfs::FileSystem,
        path: &Path,
        format: &TreeFormat,
        options: &Options,
    ) -> Result<Self> {
        options.check()?;
        let options = TableOptions {
            filter_key: format.filter_key,
            block_bytes: options.block_bytes,
            ..TableOptions::default()
        };
        Ok(Self {
            path: path.to_owned(),
            writer: TableWriter::create(fs, path, options)?,
            last_key: None,
            internal_key: Vec::new(),
            tombstones: Vec::new(),
        })
    }

    /// Sets `key`, which is greater than the keys before.
    ///
    /// # Errors
    ///
    /// - [`Error::OutOfOrder`], [`Error::EntryTooLarge`]: it was not added.
    /// - [`Error::Io`]: the file is of no use any more.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.add(Kind::Put, key, value)
    }

    /// Removes `key`, which is greater than the keys before.
    ///
    /// # Errors
    ///
    /// As [`TableBuilder::put`].
    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.add(Kind::Delete, key, &[])
    }

    /// Removes what the tree holds from `start` on and before `end` when it
    /// takes the table in, but nothing that this table puts. Ranges come in any order; one
    /// with `start >= end` removes nothing.
    pub fn delete_range(&mut self, start: &[u8], end: &[u8]) {
        self.tombstones.push(RangeTombstone {
            start: Bytes::copy_from_slice(start),
            end: Bytes::copy_from_slice(end),
            sequence: STORED_SEQUENCE,
        });
    }

    /// Bytes the file would have if it were finished now, roughly.
    pub fn estimated_bytes(&self) -> u64 {
        self.writer.estimated_bytes()
    }

    /// Completes the file and returns its length in bytes.
    ///
    /// # Durability
    ///
    /// The file and its name are durable when this returns.
    ///
    /// # Errors
    ///
    /// - [`Error::EntryTooLarge`]: there are too many range deletes for one table.
    /// - [`Error::Io`]
    ///
    /// The file is of no use then.
    pub fn finish(mut self, fs: &dyn vfs::FileSystem) -> Result<u64> {
        self.writer.set_range_tombstones(FragmentedTombstones::new(&self.tombstones));
        let finished = self.writer.finish()?;
        if let Some(dir) = self.path.parent() {
            fs.sync_dir(dir)?;
        }
        Ok(finished.file_bytes)
    }

    fn add(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> Result<()> {
        if self.last_key.as_deref().is_some_and(|last| last >= key) {
            return Err(Error::OutOfOrder { file: self.path.clone() });
        }
        self.internal_key.clear();
        internal_key::encode(&mut self.internal_key, key, Trailer::new(STORED_SEQUENCE, kind));
        self.writer.add(&self.internal_key, value)?;
        let last_key = self.last_key.get_or_insert_default();
        last_key.clear();
        last_key.extend_from_slice(key);
        Ok(())
    }
}
