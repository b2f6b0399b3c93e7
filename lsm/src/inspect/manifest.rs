//! A tree's manifest.

use std::path::Path;

use super::id_of;
use crate::manifest::{EXTENSION, record};
use crate::{FileId, KeyRange, Result, TreeFormat, TreeId};

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub id: FileId,
    /// The tree.
    pub tree: TreeId,
    /// What the tree's creation fixed.
    pub format: TreeFormat,
    /// Writes up to this sequence number are in tables.
    pub redo_point: u64,
    /// The last sequence number at the time the tree was dropped.
    pub dropped_at: Option<u64>,
    /// Edits behind the snapshot.
    pub edit_count: usize,
    /// The tables, by level and then as they were made.
    pub tables: Vec<Table>,
}

/// A table as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub id: FileId,
    /// Its level.
    pub level: usize,
    /// The file's length.
    pub file_bytes: u64,
    /// The least and the greatest sequence number in it.
    pub sequences: (u64, u64),
    /// Stands in place of every sequence number stored, if the table came from outside.
    pub assigned_sequence: Option<u64>,
    /// The keys of it that are the tree's.
    pub key_range: KeyRange,
}

/// Reads the manifest at `path`.
///
/// # Errors
///
/// - [`crate::Error::Damaged`]
/// - [`crate::Error::Io`]
pub fn read(fs: &dyn vfs::FileSystem, path: &Path) -> Result<Summary> {
    let id = id_of(path, EXTENSION)?;
    let (record, edit_count) = record(fs, path, id)?;
    let mut tables: Vec<_> = record.tables.into_values().collect();
    tables.sort_by_key(|table| (table.level, table.id));
    let tables = tables.into_iter().map(|table| Table {
        id: table.id,
        level: table.level,
        file_bytes: table.file_bytes,
        sequences: (table.sequence_min, table.sequence_max),
        assigned_sequence: table.assigned_sequence,
        key_range: table.key_range,
    });
    Ok(Summary {
        id,
        tree: record.tree,
        format: record.format,
        redo_point: record.redo_point,
        dropped_at: record.dropped_at,
        edit_count,
        tables: tables.collect(),
    })
}
