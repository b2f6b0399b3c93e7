//! Everything of an engine: each file, and whether they fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::batch::Operations;
use crate::commit_log::survey::survey;
use crate::error::Damage;
use crate::layout::Layout;
use crate::manifest::{self, TableRecord, TreeRecord};
use crate::sstable::inspect as table;
use crate::tables::sweeper::TABLE_EXTENSION;
use crate::{Error, FileId, Result};

/// What was found in an engine's directory.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Trees that exist.
    pub tree_count: usize,
    /// Manifests.
    pub manifest_count: usize,
    /// Tables that manifests name.
    pub table_count: usize,
    /// Entries in them.
    pub entry_count: u64,
    /// Segments of the commit log.
    pub segment_count: usize,
    /// Batches in them.
    pub batch_count: u64,
    /// Bytes of tables that manifests name.
    pub table_bytes: u64,
    /// Bytes of all of these files.
    pub bytes: u64,
    /// Tables that no manifest names: left by a crash, and deleted by the next opening.
    pub orphans: Vec<PathBuf>,
    /// What does not hold, each an [`Error::Damaged`] with file and offset.
    pub damages: Vec<Error>,
}

/// What is being read, and how much of it is done.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The file.
    pub file: &'a Path,
    /// Bytes of tables that are done.
    pub done_bytes: u64,
    /// Bytes of all tables.
    pub total_bytes: u64,
}

/// Verifies the engine in `dir`, which should be closed: manifests, tables with
/// all of their blocks, and the commit log, each by itself and against the others.
///
/// # Errors
///
/// [`Error::Io`]: a file cannot be read, and nothing is said about the others.
pub fn verify(
    fs: &dyn vfs::FileSystem,
    dir: &Path,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Verdict> {
    let layout = Layout::of(dir);
    let mut verdict = Verdict::default();
    let trees = verdict.manifests(fs, &layout)?;
    verdict.tables(fs, &layout, &trees, &mut progress)?;
    verdict.log(fs, &layout, &trees)?;
    Ok(verdict)
}

impl Verdict {
    /// Reads the manifests: the newest of each tree, with its path.
    fn manifests(&mut self, fs: &dyn vfs::FileSystem, layout: &Layout) -> Result<Vec<(PathBuf, TreeRecord)>> {
        let mut trees = BTreeMap::new();
        let mut ids = manifest::list(fs, &layout.manifests)?;
        ids.sort_unstable();
        for id in ids {
            let path = id.path(&layout.manifests, manifest::EXTENSION);
            self.manifest_count += 1;
            self.bytes += fs.open(&path, vfs::Access::Read)?.len()?;
            match manifest::record(fs, &path, id) {
                Ok((record, _)) => drop(trees.insert(record.tree, (path, record))),
                Err(damage @ Error::Damaged { .. }) => self.damages.push(damage),
                Err(error) => return Err(error),
            }
        }
        let trees: Vec<_> = trees.into_values().collect();
        self.tree_count = trees.iter().filter(|(_, record)| record.dropped_at.is_none()).count();
        for (path, record) in &trees {
            self.levels(path, record);
        }
        Ok(trees)
    }

    /// Below level 0 the key ranges of a level are disjoint.
    fn levels(&mut self, path: &Path, record: &TreeRecord) {
        let mut tables: Vec<&TableRecord> = record.tables.values().filter(|table| table.level > 0).collect();
        tables.sort_by(|a, b| (a.level, &a.key_range.start).cmp(&(b.level, &b.key_range.start)));
        let overlap = |pair: &[&TableRecord]| {
            pair[0].level == pair[1].level && pair[0].key_range.end > pair[1].key_range.start
        };
        if tables.windows(2).any(overlap) {
            self.damages.push(Damage("key ranges of a level overlap").at(path, 0));
        }
    }

    fn tables(
        &mut self,
        fs: &dyn vfs::FileSystem,
        layout: &Layout,
        trees: &[(PathBuf, TreeRecord)],
        progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<()> {
        let live = trees.iter().filter(|(_, record)| record.dropped_at.is_none());
        let mut named: BTreeMap<FileId, Vec<&TableRecord>> = BTreeMap::new();
        for table in live.flat_map(|(_, record)| record.tables.values()) {
            named.entry(table.id).or_default().push(table);
        }
        let names = fs.list(&layout.tables)?;
        let present: BTreeSet<_> =
            names.iter().filter_map(|name| FileId::parse(name, TABLE_EXTENSION)).collect();
        let orphans = present.iter().filter(|id| !named.contains_key(id));
        self.orphans = orphans.map(|id| id.path(&layout.tables, TABLE_EXTENSION)).collect();
        let total_bytes = named.values().map(|records| records[0].file_bytes).sum();
        for (id, records) in named {
            let file = id.path(&layout.tables, TABLE_EXTENSION);
            if !present.contains(&id) {
                let missing = Damage("a manifest names this table, and there is no such file");
                self.damages.push(missing.at(&file, 0));
                continue;
            }
            let before = self.table_bytes;
            let tell = &mut |done| {
                progress(Progress { file: &file, done_bytes: before + done, total_bytes });
            };
            match self.table(fs, &file, &records, tell) {
                Err(damage @ Error::Damaged { .. }) => self.damages.push(damage),
                other => other?,
            }
            self.table_count += 1;
            self.table_bytes += records[0].file_bytes;
            self.bytes += records[0].file_bytes;
        }
        Ok(())
    }

    fn table(
        &mut self,
        fs: &dyn vfs::FileSystem,
        file: &Path,
        records: &[&TableRecord],
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let inspection = table::open(fs, file)?;
        let summary = inspection.summary();
        self.entry_count += summary.entry_count;
        self.damages.extend(inspection.verify(|done, _| progress(done))?);
        for record in records {
            let (whole, part) = (&summary.key_range, &record.key_range);
            let stored = (summary.sequence_min, summary.sequence_max);
            let what = if record.file_bytes != summary.file_bytes {
                "the manifest gives the table another length"
            } else if record.assigned_sequence.is_none()
                && (record.sequence_min, record.sequence_max) != stored
            {
                "the manifest gives the table other sequence numbers"
            } else if part.start > whole.end || part.end < whole.start {
                "the manifest gives the table other keys"
            } else {
                continue;
            };
            self.damages.push(Damage(what).at(file, 0));
        }
        Ok(())
    }

    fn log(
        &mut self,
        fs: &dyn vfs::FileSystem,
        layout: &Layout,
        trees: &[(PathBuf, TreeRecord)],
    ) -> Result<()> {
        let known: BTreeSet<_> = trees.iter().map(|(_, record)| record.tree).collect();
        let mut unknown = None;
        let found = survey(fs, &layout.log, &mut |segment, offset, record| {
            for operation in Operations::new(record.batch).flatten() {
                if !operation.is_marker() && !known.contains(&operation.tree) {
                    unknown.get_or_insert((segment, offset));
                }
            }
            Ok(())
        })?;
        self.segment_count = found.segments.len();
        self.batch_count = found.segments.iter().map(|segment| segment.batch_count).sum();
        self.bytes += found.segments.iter().map(|segment| segment.file_bytes).sum::<u64>();
        self.damages.extend(found.losses.iter().map(crate::salvage::Loss::error));
        if let Some((segment, offset)) = unknown {
            let damage = Damage("a batch writes to a tree that has no manifest");
            self.damages.push(damage.at(&found.segments[segment].path, offset));
        }
        let live = trees.iter().filter(|(_, record)| record.dropped_at.is_none());
        let redo_point = live.map(|(_, record)| record.redo_point).max().unwrap_or(0);
        if let Some(last) = found.segments.iter().rfind(|segment| segment.descriptor.is_some())
            && found.last_sequence < redo_point
            && found.losses.is_empty()
        {
            self.damages.push(Damage("the log ends before what is in tables").at(&last.path, last.end));
        }
        Ok(())
    }
}
