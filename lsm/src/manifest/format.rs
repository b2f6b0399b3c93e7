//! What a manifest's frames hold: a tree's state, and edits of it.
//!
//! A snapshot:
//!
//! ```text
//! OFFSET  SIZE    FIELD
//! 0       1       1
//! 1       8       tree
//! 9       1       filter key: 1 whole key, 2 through a terminator
//! 10      2       the terminator, else zero
//! 12      varint, n name of the merge operator, empty if there is none
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
//!         8         sequence number in place of all those stored, 0 if those hold
//!         8         file length in bytes
//!         8 + 8     least and greatest sequence number
//!         varint, n first user key
//!         varint, n user key just past the last one
//! ```
//!
//! Integers are little-endian. Version 1, which is read too, lacks the merge
//! operator and the sequence number in place of those stored. The key bounds are those of the reference: they
//! may be narrower than the table's own, for tables that trees share.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::Damage;
use crate::file_id::FileId;
use crate::frame::Prelude;
use crate::{FilterKey, KeyRange, TreeFormat, TreeId, varint};

/// The first bytes of a manifest: magic and version.
pub(crate) const PRELUDE: Prelude = *b"HAYMAN\0\x02";

/// Those of a version that is read, but not written any more.
pub(crate) const PRELUDE_V1: Prelude = *b"HAYMAN\0\x01";

const SNAPSHOT: u8 = 1;
const EDIT: u8 = 2;

const WHOLE_KEY: u8 = 1;
const THROUGH_TERMINATOR: u8 = 2;

/// The deepest level.
pub(crate) const LEVEL_MAX: usize = 6;

/// A table as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableRecord {
    pub(crate) id: FileId,
    pub(crate) level: usize,
    pub(crate) file_bytes: u64,
    pub(crate) sequence_min: u64,
    pub(crate) sequence_max: u64,
    /// Stands in place of every sequence number stored: the table came from outside.
    pub(crate) assigned_sequence: Option<u64>,
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
    /// A tree that holds writes up to `redo_point`, in these tables.
    pub(crate) fn of<'a>(
        tree: TreeId,
        format: &TreeFormat,
        redo_point: u64,
        tables: impl Iterator<Item = &'a TableRecord>,
    ) -> Self {
        let tables = tables.map(|table| (table.id, table.clone())).collect();
        Self { tree, format: format.clone(), redo_point, dropped_at: None, tables }
    }

    pub(crate) fn apply(&mut self, edit: &Edit) -> Result<(), Damage> {
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

    pub(crate) fn encode(&self) -> Vec<u8> {
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

    pub(crate) fn decode(payload: &[u8], prelude: Prelude) -> Result<Self, Damage> {
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
        let edit = Edit::decode_fields(input, prelude)?;
        let format = TreeFormat { filter_key, merge_operator };
        let mut record = Self { tree, format, redo_point: 0, dropped_at: None, tables: BTreeMap::new() };
        record.apply(&edit)?;
        Ok(record)
    }
}

impl Edit {
    pub(crate) fn encode(&self) -> Vec<u8> {
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
            let assigned_sequence = table.assigned_sequence.unwrap_or(0);
            for integer in [assigned_sequence, table.file_bytes, table.sequence_min, table.sequence_max] {
                buffer.extend_from_slice(&integer.to_le_bytes());
            }
            varint::encode_slice(buffer, &table.key_range.start);
            varint::encode_slice(buffer, &table.key_range.end);
        }
    }

    pub(crate) fn decode(payload: &[u8], prelude: Prelude) -> Result<Self, Damage> {
        match payload.split_first() {
            Some((&EDIT, fields)) => Self::decode_fields(fields, prelude),
            _ => Err(Damage("a manifest goes on with something that is no edit")),
        }
    }

    fn decode_fields(mut input: &[u8], prelude: Prelude) -> Result<Self, Damage> {
        let redo_point = take_u64(&mut input)?;
        let dropped_at = Some(take_u64(&mut input)?).filter(|at| *at != 0);
        // Counts are not believed until each item was there: nothing is allocated ahead.
        let mut removed = Vec::new();
        for _ in 0..take_varint(&mut input)? {
            removed.push(take_id(&mut input)?);
        }
        let mut added = Vec::new();
        for _ in 0..take_varint(&mut input)? {
            added.push(take_table(&mut input, prelude)?);
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

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Damage> {
    let (taken, rest) = input.split_first_chunk().ok_or(Damage("a manifest's frame is cut off"))?;
    *input = rest;
    Ok(*taken)
}

fn take_u64(input: &mut &[u8]) -> Result<u64, Damage> {
    take(input).map(u64::from_le_bytes)
}

fn take_varint(input: &mut &[u8]) -> Result<u64, Damage> {
    varint::take(input).ok_or(Damage("a manifest's frame is cut off"))
}

fn take_id(input: &mut &[u8]) -> Result<FileId, Damage> {
    Ok(FileId { epoch: take_u64(input)?, number: take_u64(input)? })
}

fn take_key(input: &mut &[u8]) -> Result<Bytes, Damage> {
    varint::take_slice(input).map(Bytes::copy_from_slice).ok_or(Damage("a manifest's frame is cut off"))
}

fn take_operator(input: &mut &[u8]) -> Result<Option<String>, Damage> {
    let name = varint::take_slice(input).ok_or(Damage("a manifest's frame is cut off"))?;
    let name = str::from_utf8(name).map_err(|_| Damage("the merge operator's name is no text"))?;
    Ok(Some(name.to_owned()).filter(|name| !name.is_empty()))
}

fn take_table(input: &mut &[u8], prelude: Prelude) -> Result<TableRecord, Damage> {
    let id = take_id(input)?;
    let [level] = take::<1>(input)?;
    let assigned_sequence = if prelude == PRELUDE_V1 { 0 } else { take_u64(input)? };
    let table = TableRecord {
        id,
        level: usize::from(level),
        file_bytes: take_u64(input)?,
        sequence_min: take_u64(input)?,
        sequence_max: take_u64(input)?,
        assigned_sequence: Some(assigned_sequence).filter(|sequence| *sequence != 0),
        key_range: KeyRange { start: take_key(input)?, end: take_key(input)? },
    };
    if table.level > LEVEL_MAX || table.key_range.start >= table.key_range.end {
        return Err(Damage("a manifest names a table at no level or with no keys"));
    }
    Ok(table)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn table(number: u64, level: usize) -> TableRecord {
        TableRecord {
            id: FileId { epoch: 2, number },
            level,
            file_bytes: 1000 + number,
            sequence_min: 3,
            sequence_max: 90,
            assigned_sequence: (number == 2).then_some(90),
            key_range: KeyRange { start: Bytes::from_static(b"a"), end: Bytes::from_static(b"m\0") },
        }
    }

    pub(crate) fn record() -> TreeRecord {
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
        assert_eq!(Edit::decode(&edit.encode(), PRELUDE), Ok(edit.clone()));
        let mut changed = record();
        changed.apply(&edit).expect("fits");
        assert_eq!((changed.redo_point, changed.dropped_at, changed.tables.len()), (99, Some(100), 2));
        assert_eq!(changed.sequence_max(), 100);
        assert!(changed.apply(&edit).is_err(), "the table is gone already");
    }

    #[test]
    fn every_cut_is_damage() {
        let whole = record().encode();
        for end in 0..whole.len() {
            assert!(TreeRecord::decode(&whole[..end], PRELUDE).is_err(), "{end}");
        }
        assert!(TreeRecord::decode(&[&whole[..], b"x"].concat(), PRELUDE).is_err());
    }
}
