//! METADATA: the table that says where every tablet is (Bigtable section 5.1).
//!
//! Written by the master, read by gateways. Three levels: a record of the lock
//! service names the root tablet's server; the root tablet, which never splits,
//! names METADATA's other tablets; those name all the rest. METADATA is a
//! table like any other, table 0; its first tablet, the root, holds the rows of
//! table 0 and nothing else.
//!
//! A tablet's row, its key:
//!
//! ```text
//! OFFSET  SIZE  FIELD
//!      0     8  table id, big-endian
//!      8     1  1: an end row follows; 2: the tablet ends past every row
//!      9     n  end row, as it is (tag 1 only)
//! ```
//!
//! so that in key order a table's tablets stand together, ordered by end row,
//! and the empty end row sorts last. The tablet of a row is the first one whose
//! key is greater than the key that the row would have as an end row.
//!
//! Its cells, all in the family [`FAMILY`], at timestamp 0, so that each write
//! replaces the one before:
//!
//! ```text
//! QUALIFIER  VALUE
//! tablet     tablet id, 8 bytes big-endian
//! start      the tablet's first row
//! epoch      ownership epoch, 8 bytes big-endian
//! server     the owner's id, as text; absent while nobody owns the tablet
//! ```

use bytes::Bytes;
use cluster::{Epoch, ServerId};
use prost::Message;
use row_api::data;
use row_api::data::mutation::{DeleteFromRow, Mutation as Kind, SetCell};
use row_api::names::{InstanceName, TableName};

use crate::row::{Cell, Row};
use crate::row_set::RowRange;
use crate::schema::{FamilyId, TableId, TabletId};

/// METADATA's own table id; the lock service hands out none below 1.
pub const METADATA_TABLE: TableId = TableId(0);

/// METADATA's one family.
pub const FAMILY: &str = "tablet";

/// The id of [`FAMILY`].
pub(crate) const FAMILY_ID: FamilyId = FamilyId(1);

/// Where the lock service keeps the [`RootRecord`].
pub const ROOT_RECORD_KEY: &str = "root-tablet";

/// Bytes that METADATA's keys add to an end row, one level of METADATA above the other.
pub const KEY_OVERHEAD_BYTES: usize = 2 * (TAG_OFFSET + 1);

const TAG_OFFSET: usize = size_of::<u64>();
const TAG_END: u8 = 1;
const TAG_LAST: u8 = 2;

/// The project and the instance that hold Hayloft's own tables.
const SYSTEM: (&str, &str) = ("hayloft", "system");

/// The instance that holds Hayloft's own tables.
pub fn system_instance() -> InstanceName {
    InstanceName { project: SYSTEM.0.to_owned(), instance: SYSTEM.1.to_owned() }
}

/// Whether `instance` is that one.
pub fn is_system(instance: &InstanceName) -> bool {
    (instance.project.as_str(), instance.instance.as_str()) == SYSTEM
}

/// METADATA's name.
pub fn metadata_table_name() -> TableName {
    TableName { instance: system_instance(), table: "metadata".to_owned() }
}

/// What the rows of the root tablet start and end with.
pub fn root_range() -> RowRange {
    RowRange { start: Bytes::new(), end: first_user_key() }
}

/// The range of METADATA's second tablet when a cluster begins: everything behind the root.
pub fn second_range() -> RowRange {
    RowRange { start: first_user_key(), end: Bytes::new() }
}

fn first_user_key() -> Bytes {
    Bytes::copy_from_slice(&1_u64.to_be_bytes())
}

/// The row key of `table`'s tablet that ends at `end`.
pub fn row_key(table: TableId, end: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(TAG_OFFSET + 1 + end.len());
    key.extend_from_slice(&table.0.to_be_bytes());
    if end.is_empty() {
        key.push(TAG_LAST);
    } else {
        key.push(TAG_END);
        key.extend_from_slice(end);
    }
    key
}

/// The key from which on the first one is the key of the tablet of `row`: the
/// next after the one that `row` would have as an end row.
pub fn search_key(table: TableId, row: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(TAG_OFFSET + 2 + row.len());
    key.extend_from_slice(&table.0.to_be_bytes());
    key.push(TAG_END);
    key.extend_from_slice(row);
    key.push(0);
    key
}

/// The first key past the tablets of `table`.
pub fn table_end_key(table: TableId) -> Vec<u8> {
    table.0.saturating_add(1).to_be_bytes().to_vec()
}

/// A tablet as METADATA describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TabletRecord {
    /// The tablet's number.
    pub tablet: TabletId,
    /// Whose rows it holds.
    pub table: TableId,
    /// Which of them.
    pub range: RowRange,
    /// The number of its last ownership.
    pub epoch: Epoch,
    /// Its owner, if it has one.
    pub server: Option<ServerId>,
}

/// A METADATA row that describes no tablet: damage, or a newer format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("METADATA row {key:02x?} has a bad {field}")]
pub struct BadTabletRow {
    /// The row's key.
    pub key: Bytes,
    /// What is wrong with it.
    pub field: &'static str,
}

impl TabletRecord {
    /// The key of the tablet's row.
    pub fn key(&self) -> Vec<u8> {
        row_key(self.table, &self.range.end)
    }

    /// The mutations that make a row say what this does, whatever it said before.
    pub fn to_mutations(&self) -> Vec<data::Mutation> {
        let mut mutations = vec![
            data::Mutation::from(Kind::DeleteFromRow(DeleteFromRow {})),
            set_cell("tablet", self.tablet.0.to_be_bytes().to_vec()),
            set_cell("start", self.range.start.to_vec()),
            set_cell("epoch", self.epoch.0.to_be_bytes().to_vec()),
        ];
        mutations
            .extend(self.server.as_ref().map(|server| set_cell("server", server.0.clone().into_bytes())));
        mutations
    }

    /// The mutations that take a tablet's row away.
    pub fn removal() -> Vec<data::Mutation> {
        vec![data::Mutation::from(Kind::DeleteFromRow(DeleteFromRow {}))]
    }

    /// Reads a METADATA row.
    ///
    /// # Errors
    ///
    /// [`BadTabletRow`] where a cell is missing or has another shape.
    pub fn decode(row: &Row) -> Result<Self, BadTabletRow> {
        let bad = |field| BadTabletRow { key: row.key.clone(), field };
        let table =
            row.key.first_chunk().map(|id| TableId(u64::from_be_bytes(*id))).ok_or_else(|| bad("key"))?;
        let end = match row.key.get(TAG_OFFSET) {
            Some(&TAG_END) if row.key.len() > TAG_OFFSET + 1 => row.key.slice(TAG_OFFSET + 1..),
            Some(&TAG_LAST) if row.key.len() == TAG_OFFSET + 1 => Bytes::new(),
            _ => return Err(bad("key")),
        };
        let cell = |name: &str| {
            let is_it = |cell: &&Cell| &*cell.family == FAMILY && cell.qualifier == name.as_bytes();
            row.cells.iter().find(is_it).map(|cell| cell.value.clone())
        };
        let number = |name| {
            cell(name)
                .and_then(|value| Some(u64::from_be_bytes(value.as_ref().try_into().ok()?)))
                .ok_or_else(|| bad(name))
        };
        let server = cell("server").map(|id| String::from_utf8(id.to_vec())).transpose();
        Ok(Self {
            tablet: TabletId(number("tablet")?),
            table,
            range: RowRange { start: cell("start").ok_or_else(|| bad("start"))?, end },
            epoch: Epoch(number("epoch")?),
            server: server.map_err(|_| bad("server"))?.map(ServerId),
        })
    }
}

fn set_cell(qualifier: &str, value: Vec<u8>) -> data::Mutation {
    let cell = SetCell {
        family_name: FAMILY.to_owned(),
        column_qualifier: Bytes::copy_from_slice(qualifier.as_bytes()),
        timestamp_micros: 0,
        value: value.into(),
    };
    data::Mutation::from(Kind::SetCell(cell))
}

/// Where the root tablet is: the lock service's record [`ROOT_RECORD_KEY`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RootRecord {
    /// The root tablet's id.
    #[prost(uint64, tag = "1")]
    pub tablet: u64,
    /// Its owner's id.
    #[prost(string, tag = "2")]
    pub server: String,
    /// The number of its last ownership.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
}

impl RootRecord {
    /// The root tablet as METADATA would describe it.
    pub fn to_tablet(&self) -> TabletRecord {
        TabletRecord {
            tablet: TabletId(self.tablet),
            table: METADATA_TABLE,
            range: root_range(),
            epoch: Epoch(self.epoch),
            server: Some(ServerId(self.server.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(record: &TabletRecord) -> Row {
        let mut row = Row { key: record.key().into(), cells: Vec::new() };
        for mutation in record.to_mutations() {
            if let Some(Kind::SetCell(cell)) = mutation.mutation {
                row.cells.push(Cell {
                    family_id: FamilyId(1),
                    family: cell.family_name.into(),
                    qualifier: cell.column_qualifier,
                    timestamp_us: cell.timestamp_micros,
                    value: cell.value,
                    label: None,
                });
            }
        }
        row
    }

    fn record(table: u64, start: &'static str, end: &'static str) -> TabletRecord {
        TabletRecord {
            tablet: TabletId(7),
            table: TableId(table),
            range: RowRange { start: start.into(), end: end.into() },
            epoch: Epoch(9),
            server: Some(ServerId("tablet-server-1".to_owned())),
        }
    }

    #[test]
    fn a_record_survives_its_row() {
        for record in
            [record(3, "", ""), record(3, "a", "b"), TabletRecord { server: None, ..record(0, "", "x") }]
        {
            assert_eq!(TabletRecord::decode(&row_of(&record)).unwrap(), record);
        }
    }

    #[test]
    fn a_row_that_lacks_a_cell_is_refused_by_name() {
        let mut row = row_of(&record(3, "a", "b"));
        row.cells.retain(|cell| cell.qualifier != "epoch");
        assert_eq!(TabletRecord::decode(&row).unwrap_err().field, "epoch");
        row.key = Bytes::from_static(b"short");
        assert_eq!(TabletRecord::decode(&row).unwrap_err().field, "key");
    }

    #[test]
    fn the_tablet_of_a_row_is_the_first_key_past_its_search_key() {
        let keys = [row_key(TableId(3), b"b"), row_key(TableId(3), b"b\0"), row_key(TableId(3), b"")];
        assert!(keys.is_sorted());
        let tablet_of = |row: &[u8]| keys.iter().position(|key| *key >= search_key(TableId(3), row));
        for (row, tablet) in [("", 0), ("a\u{ff}", 0), ("b", 1), ("b\0", 2), ("zzz", 2)] {
            assert_eq!(tablet_of(row.as_bytes()), Some(tablet), "{row:?}");
        }
        assert!(keys.iter().all(|key| *key < table_end_key(TableId(3)) && *key > row_key(TableId(2), b"")));
    }

    #[test]
    fn the_root_holds_the_rows_of_metadata_alone() {
        assert!(root_range().contains(&row_key(METADATA_TABLE, b"")));
        assert!(second_range().contains(&row_key(TableId(1), b"a")));
    }
}
