//! Manifests: which SSTables make up a tree, and how far its writes are in them.
//!
//! Each tree has one at a time: a file of [frames](crate::frame) under
//! `manifests/`, the first one a snapshot of the tree's state, the others edits
//! of it. A manifest is written under a temporary name, synced, and renamed:
//! one that has its name is complete, and of two for one tree the newer holds.
//! Each edit stands there twice: files are deleted on its word, so that losing
//! the last one must not look like a torn tail.
//! After an opening the first edit begins a new manifest, as does one that
//! finds it grown long; nothing is appended to what another opening wrote.
//!
//! - `format`: what stands in the frames.

mod format;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfs::Access;

pub(crate) use self::format::{Edit, LEVEL_MAX, PRELUDE, PRELUDE_V1, TableRecord, TreeRecord};
use crate::error::Damage;
use crate::file_id::{FileId, FileIds};
use crate::frame::{FrameReader, FrameWriter};
use crate::{Error, Result, TreeId};

/// The extension of a manifest's name, and that of one being written.
pub(crate) const EXTENSION: &str = "manifest";
const UNFINISHED_EXTENSION: &str = "manifest-unfinished";

/// A manifest is rewritten once its edits take this many bytes, and as many as
/// the snapshot they follow.
const EDIT_BYTES_MIN: u64 = 64 << 10;

/// A tree's manifest and what it says.
#[derive(Debug)]
pub(crate) struct Manifest {
    fs: Arc<dyn vfs::FileSystem>,
    dir: PathBuf,
    ids: Arc<FileIds>,
    record: TreeRecord,
    /// The file that has the record now.
    file: Option<FileId>,
    /// It, if this opening wrote it, and where its snapshot ends.
    frames: Option<(FrameWriter, u64)>,
}

impl Manifest {
    /// Writes the first manifest of a tree, durably.
    pub(crate) fn create(
        fs: Arc<dyn vfs::FileSystem>,
        dir: &Path,
        ids: Arc<FileIds>,
        record: TreeRecord,
    ) -> Result<Self> {
        let mut manifest =
            Self { fs, dir: dir.to_owned(), ids, record: record.clone(), file: None, frames: None };
        manifest.rewrite(record)?;
        Ok(manifest)
    }

    /// What the manifest says.
    pub(crate) fn record(&self) -> &TreeRecord {
        &self.record
    }

    /// Makes `edit` durable.
    ///
    /// # Errors
    ///
    /// - [`Error::DiskFull`]: the manifest says what it said before.
    /// - After any other one what the manifest on disk says is unknown: nothing may be built on it before the
    ///   tree is recovered.
    pub(crate) fn append(&mut self, edit: &Edit) -> Result<()> {
        let mut record = self.record.clone();
        record.apply(edit).expect("edits follow from the record");
        match &mut self.frames {
            Some((frames, snapshot_end))
                if frames.offset() - *snapshot_end < EDIT_BYTES_MIN.max(*snapshot_end) =>
            {
                let appended = frames.append_twice(&edit.encode()).map_err(Error::told_full);
                if let Err(Error::DiskFull) = appended {
                    // Nothing was synced, but a part of it, or all, may be on its way to the disk.
                    frames.cut_back()?;
                }
                appended?;
                frames.sync()?;
                self.record = record;
                Ok(())
            }
            _ => self.rewrite(record),
        }
    }

    /// Begins a new file with `record`, and removes the old one.
    fn rewrite(&mut self, record: TreeRecord) -> Result<()> {
        let id = self.ids.next();
        let unfinished = id.path(&self.dir, UNFINISHED_EXTENSION);
        let begun = self.begin(id, &unfinished, &record).map_err(Error::told_full);
        if let Err(Error::DiskFull) = begun {
            // No name leads to it; what cannot be removed now the next opening removes.
            _ = self.fs.remove(&unfinished);
        }
        let frames = begun?;
        self.fs.rename(&unfinished, &id.path(&self.dir, EXTENSION))?;
        self.fs.sync_dir(&self.dir)?;
        self.record = record;
        let snapshot_end = frames.offset();
        self.frames = Some((frames, snapshot_end));
        if let Some(old) = self.file.replace(id) {
            // Should it survive a power cut, the newer one holds.
            self.fs.remove(&old.path(&self.dir, EXTENSION))?;
        }
        Ok(())
    }

    /// Writes the file `id` at `path` with `record`, and syncs it.
    fn begin(&self, id: FileId, path: &Path, record: &TreeRecord) -> Result<FrameWriter> {
        let frames = FrameWriter::start(self.fs.create(path)?, id, PRELUDE, &record.encode())?;
        frames.sync()?;
        Ok(frames)
    }

    /// Removes the manifest: afterwards nothing knows that there was such a tree.
    pub(crate) fn remove(self) -> Result<()> {
        if let Some(file) = self.file {
            self.fs.remove(&file.path(&self.dir, EXTENSION))?;
            self.fs.sync_dir(&self.dir)?;
        }
        Ok(())
    }
}

/// Reads all manifests in `dir`, makes what they say durable, and removes those
/// that were never finished or have a newer one beside them. In tree order.
pub(crate) fn recover(
    fs: &Arc<dyn vfs::FileSystem>,
    dir: &Path,
    ids: &Arc<FileIds>,
) -> Result<Vec<Manifest>> {
    // A newer manifest's name must not be lost once the older one is removed on its word.
    fs.sync_dir(dir)?;
    let mut found: BTreeMap<TreeId, Manifest> = BTreeMap::new();
    for name in fs.list(dir)? {
        if FileId::parse(&name, UNFINISHED_EXTENSION).is_some() {
            fs.remove(&dir.join(name.file_name().unwrap_or_default()))?;
            continue;
        }
        // Names come in byte order, which is that of creation.
        let Some(id) = FileId::parse(&name, EXTENSION) else { continue };
        let record = read_durably(&**fs, &id.path(dir, EXTENSION), id)?;
        let (fs, dir, ids) = (Arc::clone(fs), dir.to_owned(), Arc::clone(ids));
        let newer = Manifest { fs, dir, ids, record, file: Some(id), frames: None };
        if let Some(older) = found.insert(newer.record.tree, newer) {
            older.remove()?;
        }
    }
    Ok(found.into_values().collect())
}

/// The epochs of the manifests in `dir`.
pub(crate) fn list(fs: &dyn vfs::FileSystem, dir: &Path) -> Result<Vec<FileId>> {
    Ok(fs.list(dir)?.iter().filter_map(|name| FileId::parse(name, EXTENSION)).collect())
}

/// What the manifests in `dir` say, the newest of each tree; nothing is changed. In tree order.
pub(crate) fn records(fs: &dyn vfs::FileSystem, dir: &Path) -> Result<Vec<TreeRecord>> {
    let mut found = BTreeMap::new();
    let mut ids = list(fs, dir)?;
    ids.sort_unstable();
    for id in ids {
        let path = id.path(dir, EXTENSION);
        let (record, _) = record(fs, &path, id)?;
        found.insert(record.tree, record);
    }
    Ok(found.into_values().collect())
}

/// What the manifest at `path`, named `id`, says, and in how many edits; nothing is changed.
pub(crate) fn record(fs: &dyn vfs::FileSystem, path: &Path, id: FileId) -> Result<(TreeRecord, usize)> {
    read(fs.open(path, Access::Read)?, path, id)
}

/// What the manifest at `path` says, made durable.
fn read_durably(fs: &dyn vfs::FileSystem, path: &Path, id: FileId) -> Result<TreeRecord> {
    let file = fs.open(path, Access::ReadWrite)?;
    let (record, edits) = read(Arc::clone(&file), path, id)?;
    if edits > 0 {
        // The last edit may have been read from the system's memory only, and files go on its word.
        file.sync_anew()?;
    }
    Ok(record)
}

/// What the manifest in `file`, at `path`, says, and in how many edits.
fn read(file: Arc<dyn vfs::File>, path: &Path, id: FileId) -> Result<(TreeRecord, usize)> {
    const INCOMPLETE: Damage = Damage("a manifest has no snapshot");
    let reader = FrameReader::open(file, path, id, &[PRELUDE, PRELUDE_V1])?;
    let mut reader = reader.ok_or_else(|| INCOMPLETE.at(path, 0))?;
    let prelude = reader.prelude();
    let snapshot = reader.next()?.ok_or_else(|| INCOMPLETE.at(path, 0))?;
    let decoded = TreeRecord::decode(snapshot, prelude);
    let mut record = decoded.map_err(|damage| reader.damage(damage))?;
    let mut edits = 0;
    loop {
        let next = if prelude == PRELUDE_V1 { reader.next()? } else { reader.next_of_twins()? };
        let Some(payload) = next else { break };
        let applied = Edit::decode(payload, prelude).and_then(|edit| record.apply(&edit));
        applied.map_err(|damage| reader.damage(damage))?;
        edits += 1;
    }
    Ok((record, edits))
}

#[cfg(test)]
mod tests {
    use super::format::tests::{record, table};
    use super::*;

    #[test]
    fn golden_bytes_of_a_manifest() {
        let fs: Arc<dyn vfs::FileSystem> = Arc::new(vfs::SimulatedFileSystem::new());
        let mut manifest =
            Manifest::create(Arc::clone(&fs), Path::new("/"), Arc::new(FileIds::new(3)), record())
                .expect("created");
        let edit = Edit { redo_point: 81, removed: vec![FileId { epoch: 2, number: 1 }], ..Edit::default() };
        manifest.append(&edit).expect("appended");
        let path = FileId { epoch: 3, number: 1 }.path(Path::new("/"), EXTENSION);
        let bytes = fs.open(&path, Access::Read).expect("opened").map().expect("mapped");
        let golden = include_bytes!("../../tests/golden/manifest-v2");
        assert!(bytes[..] == golden[..], "the format has changed: {}", bytes.escape_ascii());
    }

    #[test]
    fn the_golden_manifest_of_version_1_is_read() {
        let fs: Arc<dyn vfs::FileSystem> = Arc::new(vfs::SimulatedFileSystem::new());
        let path = FileId { epoch: 3, number: 1 }.path(Path::new("/"), EXTENSION);
        let golden = include_bytes!("../../tests/golden/manifest-v1");
        let file = fs.create(&path).expect("created");
        file.write_all_at(&[std::io::IoSlice::new(golden)], 0).expect("written");
        let recovered = recover(&fs, Path::new("/"), &Arc::new(FileIds::new(4))).expect("recovered");
        let mut expected = record();
        expected.redo_point = 81;
        expected.format.merge_operator = None;
        expected.tables.retain(|id, _| id.number == 2);
        expected.tables.values_mut().for_each(|table| table.assigned_sequence = None);
        assert_eq!(recovered[0].record(), &expected);
    }

    #[test]
    fn edits_are_recovered_and_a_long_manifest_is_rewritten() {
        let dir = Path::new("/");
        let fs: Arc<dyn vfs::FileSystem> = Arc::new(vfs::SimulatedFileSystem::new());
        let ids = |epoch| Arc::new(FileIds::new(epoch));
        let mut manifest = Manifest::create(Arc::clone(&fs), dir, ids(3), record()).expect("created");
        for number in 10..2000 {
            let edit = Edit { added: vec![table(number, 1)], redo_point: number, ..Edit::default() };
            manifest.append(&edit).expect("appended");
            let edit = Edit { removed: vec![FileId { epoch: 2, number }], ..Edit::default() };
            manifest.append(&edit).expect("appended");
        }
        assert_eq!(list(&*fs, dir).expect("listed").len(), 1);
        let expected = TreeRecord { redo_point: 1999, ..record() };
        for epoch in 4..6 {
            let mut recovered = recover(&fs, dir, &ids(epoch)).expect("recovered");
            assert_eq!(recovered.len(), 1);
            assert_eq!(recovered[0].record(), &expected);
            recovered[0].append(&Edit::default()).expect("begins a new file");
            let files = list(&*fs, dir).expect("listed");
            assert_eq!(files.iter().map(|id| id.epoch).collect::<Vec<_>>(), [epoch]);
        }
    }
}
