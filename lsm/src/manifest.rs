//! Manifests: which SSTables make up a tree, and how far its writes are in them.
//!
//! Each tree has one at a time: a file of [frames](crate::frame) under
//! `manifests/`, the first one a snapshot of the tree's state, the others edits
//! of it. A manifest is written under a temporary name, synced, and renamed:
//! one that has its name is complete, and of two for one tree the newer holds.
//! After an opening the first edit begins a new manifest, as does one that
//! finds it grown long; nothing is appended to what another opening wrote.
//!
//! A snapshot:
//!
//! ```text
//! OFFSET  SIZE    FIELD
//! 0       1       1
//! 1       8       tree
//! 9       1       filter key: 1 whole key, 2 through a terminator
//! 10      2       the terminator, else zero
//! 12      varint, n name of the merge operator, empty if there is none; absent
//!                 under format version 1
//!                 an edit's fields
//! ```
//!
//! An edit:
//!
//! ```text
//! OFFSET  SIZE    FIELD
//! 0       1       2
//! 1               fields:
//!         8       redo point: writes up to this sequence number are in tables
//!         8       sequence number at which the tree was dropped, 0 if it is not
//!         varint  tables removed, then of each
//!         8 + 8     epoch and number of the file
//!         varint  tables added, then of each
//!         8 + 8     epoch and number of the file
//!         1         level
//!         8         file length in bytes
//!         8 + 8     least and greatest sequence number
//!         varint, n first user key
//!         varint, n user key just past the last one
//! ```
//!
//! Integers are little-endian. The key bounds are those of the reference: they
//! may be narrower than the table's own, for tables that trees share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use vfs::Access;

use crate::error::Damage;
use crate::file_id::{FileId, FileIds};
use crate::frame::{FrameReader, FrameWriter, Prelude};
use crate::{FilterKey, KeyRange, Result, TreeFormat, TreeId, varint};

/// The first bytes of a manifest: magic and version. Those of version 1, which
/// knew no merge operators, are read.
const PRELUDE: Prelude = *b"HAYMAN\0\x02";
const PRELUDE_V1: Prelude = *b"HAYMAN\0\x01";

/// The extension of a manifest's name, and that of one being written.
pub(crate) const EXTENSION: &str = "manifest";
const UNFINISHED_EXTENSION: &str = "manifest-unfinished";

const SNAPSHOT: u8 = 1;
const EDIT: u8 = 2;

const WHOLE_KEY: u8 = 1;
const THROUGH_TERMINATOR: u8 = 2;

/// The deepest level.
pub(crate) const LEVEL_MAX: usize = 6;

/// A manifest is rewritten once its edits take this many bytes, and as many as
/// the snapshot they follow.
const EDIT_BYTES_MIN: u64 = 64 << 10;

/// A table as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableRecord {
    pub(crate) id: FileId,
    pub(crate) level: usize,
    pub(crate) file_bytes: u64,
    pub(crate) sequence_min: u64,
    pub(crate) sequence_max: u64,
    /// Never open at the end.
    pub(crate) key_range: KeyRange,
}

/// What a manifest says about its tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeRecord {
    pub(crate) tree: TreeId,
    pub(crate) format: TreeFormat,
    /// Writes up to this sequence number are in tables, or never were the tree's.
    pub(crate) redo_point: u64,
    /// The last sequence number at the time the tree was dropped.
    pub(crate) dropped_at: Option<u64>,
    pub(crate) tables: BTreeMap<FileId, TableRecord>,
}

/// A change of a [`TreeRecord`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Moves the redo point up to here, if it is below.
    pub(crate) redo_point: u64,
    pub(crate) dropped_at: Option<u64>,
    pub(crate) removed: Vec<FileId>,
    pub(crate) added: Vec<TableRecord>,
}

impl TreeRecord {
    fn apply(&mut self, edit: &Edit) -> std::result::Result<(), Damage> {
        self.redo_point = self.redo_point.max(edit.redo_point);
        self.dropped_at = edit.dropped_at.or(self.dropped_at);
        for id in &edit.removed {
            self.tables.remove(id).ok_or(Damage("an edit removes a table that is not there"))?;
        }
        for table in &edit.added {
            if self.tables.insert(table.id, table.clone()).is_some() {
                return Err(Damage("an edit adds a table that is there"));
            }
        }
        Ok(())
    }

    /// The greatest sequence number that the tree's files know.
    pub(crate) fn sequence_max(&self) -> u64 {
        let tables = self.tables.values().map(|table| table.sequence_max).max().unwrap_or(0);
        tables.max(self.redo_point).max(self.dropped_at.unwrap_or(0))
    }

    fn encode(&self) -> Vec<u8> {
        let (kind, terminator) = match self.format.filter_key {
            FilterKey::WholeKey => (WHOLE_KEY, [0; 2]),
            FilterKey::ThroughTerminator(terminator) => (THROUGH_TERMINATOR, terminator),
        };
        let mut buffer = vec![SNAPSHOT];
        buffer.extend_from_slice(&self.tree.0.to_le_bytes());
        buffer.push(kind);
        buffer.extend_from_slice(&terminator);
        varint::encode_slice(&mut buffer, self.format.merge_operator.as_deref().unwrap_or("").as_bytes());
        let edit = Edit {
            redo_point: self.redo_point,
            dropped_at: self.dropped_at,
            removed: Vec::new(),
            added: self.tables.values().cloned().collect(),
        };
        edit.encode_fields(&mut buffer);
        buffer
    }

    fn decode(payload: &[u8], prelude: Prelude) -> std::result::Result<Self, Damage> {
        let mut input = payload;
        if take::<1>(&mut input)? != [SNAPSHOT] {
            return Err(Damage("a manifest does not start with a snapshot"));
        }
        let tree = TreeId(take_u64(&mut input)?);
        let [kind, terminator @ ..] = take::<3>(&mut input)?;
        let filter_key = match (kind, terminator) {
            (WHOLE_KEY, [0, 0]) => FilterKey::WholeKey,
            (THROUGH_TERMINATOR, terminator) => FilterKey::ThroughTerminator(terminator),
            _ => return Err(Damage("a manifest names no known filter key")),
        };
        let merge_operator = if prelude == PRELUDE_V1 { None } else { take_operator(&mut input)? };
        let edit = Edit::decode_fields(input)?;
        let format = TreeFormat { filter_key, merge_operator };
        let mut record = Self { tree, format, redo_point: 0, dropped_at: None, tables: BTreeMap::new() };
        record.apply(&edit)?;
        Ok(record)
    }
}

impl Edit {
    fn encode(&self) -> Vec<u8> {
        let mut buffer = vec![EDIT];
        self.encode_fields(&mut buffer);
        buffer
    }

    fn encode_fields(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(&self.redo_point.to_le_bytes());
        buffer.extend_from_slice(&self.dropped_at.unwrap_or(0).to_le_bytes());
        varint::encode(buffer, self.removed.len() as u64);
        for id in &self.removed {
            encode_id(buffer, *id);
        }
        varint::encode(buffer, self.added.len() as u64);
        for table in &self.added {
            encode_id(buffer, table.id);
            buffer.push(u8::try_from(table.level).expect("levels are few"));
            for integer in [table.file_bytes, table.sequence_min, table.sequence_max] {
                buffer.extend_from_slice(&integer.to_le_bytes());
            }
            varint::encode_slice(buffer, &table.key_range.start);
            varint::encode_slice(buffer, &table.key_range.end);
        }
    }

    fn decode(payload: &[u8]) -> std::result::Result<Self, Damage> {
        match payload.split_first() {
            Some((&EDIT, fields)) => Self::decode_fields(fields),
            _ => Err(Damage("a manifest goes on with something that is no edit")),
        }
    }

    fn decode_fields(mut input: &[u8]) -> std::result::Result<Self, Damage> {
        let redo_point = take_u64(&mut input)?;
        let dropped_at = Some(take_u64(&mut input)?).filter(|at| *at != 0);
        // Counts are not believed until each item was there: nothing is allocated ahead.
        let mut removed = Vec::new();
        for _ in 0..take_varint(&mut input)? {
            removed.push(take_id(&mut input)?);
        }
        let mut added = Vec::new();
        for _ in 0..take_varint(&mut input)? {
            added.push(take_table(&mut input)?);
        }
        if !input.is_empty() {
            return Err(Damage("an edit goes on after its end"));
        }
        Ok(Self { redo_point, dropped_at, removed, added })
    }
}

fn encode_id(buffer: &mut Vec<u8>, id: FileId) {
    buffer.extend_from_slice(&id.epoch.to_le_bytes());
    buffer.extend_from_slice(&id.number.to_le_bytes());
}

fn take<const N: usize>(input: &mut &[u8]) -> std::result::Result<[u8; N], Damage> {
    let (taken, rest) = input.split_first_chunk().ok_or(Damage("a manifest's frame is cut off"))?;
    *input = rest;
    Ok(*taken)
}

fn take_u64(input: &mut &[u8]) -> std::result::Result<u64, Damage> {
    take(input).map(u64::from_le_bytes)
}

fn take_varint(input: &mut &[u8]) -> std::result::Result<u64, Damage> {
    varint::take(input).ok_or(Damage("a manifest's frame is cut off"))
}

fn take_id(input: &mut &[u8]) -> std::result::Result<FileId, Damage> {
    Ok(FileId { epoch: take_u64(input)?, number: take_u64(input)? })
}

fn take_key(input: &mut &[u8]) -> std::result::Result<Bytes, Damage> {
    varint::take_slice(input).map(Bytes::copy_from_slice).ok_or(Damage("a manifest's frame is cut off"))
}

fn take_operator(input: &mut &[u8]) -> std::result::Result<Option<String>, Damage> {
    let name = varint::take_slice(input).ok_or(Damage("a manifest's frame is cut off"))?;
    let name = str::from_utf8(name).map_err(|_| Damage("the merge operator's name is no text"))?;
    Ok(Some(name.to_owned()).filter(|name| !name.is_empty()))
}

fn take_table(input: &mut &[u8]) -> std::result::Result<TableRecord, Damage> {
    let id = take_id(input)?;
    let [level] = take::<1>(input)?;
    let table = TableRecord {
        id,
        level: usize::from(level),
        file_bytes: take_u64(input)?,
        sequence_min: take_u64(input)?,
        sequence_max: take_u64(input)?,
        key_range: KeyRange { start: take_key(input)?, end: take_key(input)? },
    };
    if table.level > LEVEL_MAX || table.key_range.start >= table.key_range.end {
        return Err(Damage("a manifest names a table at no level or with no keys"));
    }
    Ok(table)
}

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
        let mut manifest = Self { fs, dir: dir.to_owned(), ids, record, file: None, frames: None };
        manifest.rewrite()?;
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
    /// What the manifest on disk says is unknown: nothing may be built on it
    /// before the tree is recovered.
    pub(crate) fn append(&mut self, edit: &Edit) -> Result<()> {
        self.record.apply(edit).expect("edits follow from the record");
        match &mut self.frames {
            Some((frames, snapshot_end))
                if frames.offset() - *snapshot_end < EDIT_BYTES_MIN.max(*snapshot_end) =>
            {
                frames.append(&edit.encode(), &[])?;
                frames.sync()
            }
            _ => self.rewrite(),
        }
    }

    /// Begins a new file with the record as it is, and removes the old one.
    fn rewrite(&mut self) -> Result<()> {
        let id = self.ids.next();
        let unfinished = id.path(&self.dir, UNFINISHED_EXTENSION);
        let frames = FrameWriter::start(self.fs.create(&unfinished)?, id, PRELUDE, &self.record.encode())?;
        frames.sync()?;
        self.fs.rename(&unfinished, &id.path(&self.dir, EXTENSION))?;
        self.fs.sync_dir(&self.dir)?;
        let snapshot_end = frames.offset();
        self.frames = Some((frames, snapshot_end));
        if let Some(old) = self.file.replace(id) {
            // Should it survive a power cut, the newer one holds.
            self.fs.remove(&old.path(&self.dir, EXTENSION))?;
        }
        Ok(())
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
        let record = read(&**fs, &id.path(dir, EXTENSION), id)?;
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

/// What the manifest at `path` says, made durable.
fn read(fs: &dyn vfs::FileSystem, path: &Path, id: FileId) -> Result<TreeRecord> {
    const INCOMPLETE: Damage = Damage("a manifest has no snapshot");
    let file = fs.open(path, Access::ReadWrite)?;
    let mut reader = FrameReader::open(Arc::clone(&file), path, id, &[PRELUDE, PRELUDE_V1])?
        .ok_or_else(|| INCOMPLETE.at(path, 0))?;
    let prelude = reader.prelude();
    let snapshot = reader.next()?.ok_or_else(|| INCOMPLETE.at(path, 0))?;
    let decoded = TreeRecord::decode(snapshot, prelude);
    let mut record = decoded.map_err(|damage| reader.damage(damage))?;
    let mut edits = 0;
    while let Some(payload) = reader.next()? {
        let applied = Edit::decode(payload).and_then(|edit| record.apply(&edit));
        applied.map_err(|damage| reader.damage(damage))?;
        edits += 1;
    }
    if edits > 0 {
        // The last edit may have been read from the system's memory only, and files go on its word.
        file.sync()?;
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(number: u64, level: usize) -> TableRecord {
        TableRecord {
            id: FileId { epoch: 2, number },
            level,
            file_bytes: 1000 + number,
            sequence_min: 3,
            sequence_max: 90,
            key_range: KeyRange { start: Bytes::from_static(b"a"), end: Bytes::from_static(b"m\0") },
        }
    }

    fn record() -> TreeRecord {
        let tables = [table(1, 0), table(2, 3)].map(|table| (table.id, table));
        TreeRecord {
            tree: TreeId(7),
            format: TreeFormat {
                filter_key: FilterKey::ThroughTerminator([0, 1]),
                merge_operator: Some("sum".to_owned()),
            },
            redo_point: 80,
            dropped_at: None,
            tables: tables.into(),
        }
    }

    #[test]
    fn snapshots_and_edits_come_back() {
        assert_eq!(TreeRecord::decode(&record().encode(), PRELUDE), Ok(record()));
        let mut without = record();
        without.format.merge_operator = None;
        assert_eq!(TreeRecord::decode(&without.encode(), PRELUDE), Ok(without));
        let edit = Edit {
            redo_point: 99,
            dropped_at: Some(100),
            removed: vec![FileId { epoch: 2, number: 1 }],
            added: vec![table(9, LEVEL_MAX)],
        };
        assert_eq!(Edit::decode(&edit.encode()), Ok(edit.clone()));
        let mut changed = record();
        changed.apply(&edit).expect("fits");
        assert_eq!((changed.redo_point, changed.dropped_at, changed.tables.len()), (99, Some(100), 2));
        assert_eq!(changed.sequence_max(), 100);
        assert!(changed.apply(&edit).is_err(), "the table is gone already");
    }

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
        let golden = include_bytes!("../tests/golden/manifest-v2");
        assert!(bytes[..] == golden[..], "the format has changed: {}", bytes.escape_ascii());
    }

    #[test]
    fn a_manifest_of_version_1_is_still_read() {
        let fs = vfs::SimulatedFileSystem::new();
        let id = FileId { epoch: 3, number: 1 };
        let path = id.path(Path::new("/"), EXTENSION);
        let golden = include_bytes!("../tests/golden/manifest-v1");
        let file = vfs::FileSystem::create(&fs, &path).expect("created");
        file.write_all_at(&[std::io::IoSlice::new(golden)], 0).expect("written");
        let read = read(&fs, &path, id).expect("holds");
        assert_eq!((read.format.merge_operator, read.redo_point, read.tables.len()), (None, 81, 1));
    }

    #[test]
    fn every_cut_is_damage() {
        let whole = record().encode();
        for end in 0..whole.len() {
            assert!(TreeRecord::decode(&whole[..end], PRELUDE).is_err(), "{end}");
        }
        assert!(TreeRecord::decode(&[&whole[..], b"x"].concat(), PRELUDE).is_err());
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
