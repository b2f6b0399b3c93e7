//! The SSTables of an engine, as files: written, opened, deleted.

pub(crate) mod sweeper;
pub(crate) mod table_ref;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfs::Access;

use crate::block_cache::BlockCache;
use crate::file_copy::link_or_copy;
use crate::file_id::{FileId, FileIds};
use crate::manifest::TableRecord;
use crate::sstable::{Table, TableOptions, TableWriter};
use crate::tables::sweeper::{Sweeper, TABLE_EXTENSION};
use crate::tables::table_ref::TableRef;
use crate::{FilterKind, Options, Result, TreeFormat, TreeTuning};

/// Where tables live, and what it takes to write and open one.
#[derive(Debug)]
pub(crate) struct Tables {
    fs: Arc<dyn vfs::FileSystem>,
    dir: PathBuf,
    ids: Arc<FileIds>,
    cache: Arc<BlockCache>,
    sweeper: Arc<Sweeper>,
    block_bytes: usize,
    filter_kind: FilterKind,
    /// A table below level 0 is closed once it holds this many bytes.
    pub(crate) table_bytes: u64,
}

impl Tables {
    pub(crate) fn new(
        fs: Arc<dyn vfs::FileSystem>,
        dir: &Path,
        ids: Arc<FileIds>,
        options: &Options,
    ) -> Self {
        Self {
            sweeper: Arc::new(Sweeper::new(Arc::clone(&fs), dir)),
            fs,
            dir: dir.to_owned(),
            ids,
            cache: Arc::new(BlockCache::new(
                options.shared_bytes(),
                options.block_cache_bytes_min(),
                options.kept_bytes_max(),
            )),
            block_bytes: options.block_bytes,
            filter_kind: options.filter_kind,
            table_bytes: options.table_bytes,
        }
    }

    pub(crate) fn cache(&self) -> &Arc<BlockCache> {
        &self.cache
    }

    pub(crate) fn sweeper(&self) -> &Sweeper {
        &self.sweeper
    }

    /// Begins a table.
    pub(crate) fn create(&self, format: &TreeFormat, tuning: TreeTuning) -> Result<(FileId, TableWriter)> {
        let id = self.ids.next();
        let options = TableOptions {
            filter_kind: self.filter_kind,
            filter_key: format.filter_key,
            block_bytes: tuning.block_bytes.unwrap_or(self.block_bytes),
            compression: tuning.compression,
            ..TableOptions::default()
        };
        let writer = TableWriter::create(&*self.fs, &self.path(id), options)?;
        Ok((id, writer))
    }

    /// Completes a table and opens it. Its name is durable after [`Tables::sync_names`].
    pub(crate) fn finish(&self, id: FileId, writer: TableWriter, level: usize) -> Result<Arc<TableRef>> {
        let finished = writer.finish()?;
        let record = TableRecord {
            id,
            level,
            file_bytes: finished.file_bytes,
            sequence_min: finished.properties.sequence_min,
            sequence_max: finished.properties.sequence_max,
            assigned_sequence: None,
            key_range: finished.properties.key_range,
        };
        let table = Table::open(finished.file, &self.path(id), Arc::clone(&self.cache))?;
        Ok(self.named(record, table))
    }

    /// Takes the file at `from` over under a new name, which is noted in `taken` before it is there: linked, or
    /// copied, which `copied` is told. Its name is durable after [`Tables::sync_names`].
    pub(crate) fn adopt(
        &self,
        from: &Path,
        copied: &mut dyn FnMut(u64),
        taken: &mut Vec<FileId>,
    ) -> Result<FileId> {
        let id = self.ids.next();
        taken.push(id);
        link_or_copy(&*self.fs, from, &self.path(id), copied)?;
        Ok(id)
    }

    /// Opens a table that no manifest names yet.
    pub(crate) fn open_table(&self, id: FileId) -> Result<Arc<Table>> {
        let path = self.path(id);
        Table::open(self.fs.open(&path, Access::Read)?, &path, Arc::clone(&self.cache))
    }

    /// A table that one manifest is about to name, by `record`.
    pub(crate) fn named(&self, record: TableRecord, table: Arc<Table>) -> Arc<TableRef> {
        TableRef::new(record, table, &self.sweeper)
    }

    /// Where the table `id` is.
    pub(crate) fn path(&self, id: FileId) -> PathBuf {
        id.path(&self.dir, TABLE_EXTENSION)
    }

    /// Opens the table that a manifest names.
    pub(crate) fn open(&self, record: TableRecord) -> Result<Arc<TableRef>> {
        let table = self.open_table(record.id)?;
        Ok(self.named(record, table))
    }

    /// Makes the names of finished tables durable.
    pub(crate) fn sync_names(&self) -> Result<()> {
        Ok(self.fs.sync_dir(&self.dir)?)
    }
}
