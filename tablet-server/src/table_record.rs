//! A table's record in the lock service, `schema/<table name>`.
//!
//! Written by the master, and the only durable copy of a schema. The record is
//! also the intent of a creation or deletion: it says so, and names the tablets,
//! before the first of them is touched, so that a master that starts after a
//! crash finishes or undoes the work. It is encoded as protobuf and holds
//! Google's own `Table` message, so that fields which this version does not act
//! on survive.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lsm::{Compression, TreeTuning};
use prost::Message;
use row_api::admin;
use row_api::admin::authorized_view::AuthorizedView as Kind;
use row_api::names::TableName;

use crate::authorized_view::AuthorizedView;
use crate::schema::{Family, FamilyId, FamilyPlace, GroupId, TableId, TableSchema};
use crate::value_type;

/// What the keys of table records start with.
pub const PREFIX: &str = "schema/";

/// Where a table is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum TableState {
    /// Damage: a record always says one of the others.
    Unspecified = 0,
    /// Its tablets are being made; nobody sees it, and a restart undoes it.
    Creating = 1,
    /// In use.
    Serving = 2,
    /// Its tablets are being removed; nobody sees it, and a restart finishes it.
    Deleting = 3,
}

/// A table, as it is recorded.
#[derive(Clone, PartialEq, Message)]
pub struct TableRecord {
    /// The table's number.
    #[prost(uint64, tag = "1")]
    pub table_id: u64,
    /// Where it is in its life.
    #[prost(enumeration = "TableState", tag = "2")]
    pub state: i32,
    /// Families, granularity, deletion protection and what else Google's message holds; its name is empty.
    #[prost(message, optional, tag = "3")]
    pub table: Option<admin::Table>,
    /// The number of each family in `table`.
    #[prost(btree_map = "string, uint32", tag = "4")]
    pub family_ids: BTreeMap<String, u32>,
    /// The number that the next new family gets.
    #[prost(uint32, tag = "5")]
    pub next_family_id: u32,
    /// While creating or deleting: the tablets that may exist.
    #[prost(message, repeated, tag = "6")]
    pub tablets: Vec<IntendedTablet>,
    /// Authorized views by id; their names are empty.
    #[prost(btree_map = "string, message", tag = "7")]
    pub authorized_views: BTreeMap<String, admin::AuthorizedView>,
    /// While deleting: whether what the tablets hold is kept for a while.
    #[prost(bool, tag = "8")]
    pub is_kept: bool,
    /// Its locality groups; the default one where something of it was chosen.
    #[prost(message, repeated, tag = "9")]
    pub groups: Vec<LocalityGroup>,
    /// The number that the last locality group got.
    #[prost(uint32, tag = "10")]
    pub last_group_id: u32,
    /// Families that are not in the default group, or are being moved.
    #[prost(btree_map = "string, message", tag = "11")]
    pub places: BTreeMap<String, PlaceRecord>,
}

/// A locality group: families whose cells are stored beside each other, apart from others'.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct LocalityGroup {
    /// Its number; 0 is the default group.
    #[prost(uint32, tag = "1")]
    pub group: u32,
    /// What operators call it.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Whether blocks are stored as they are, not compressed.
    #[prost(bool, tag = "3")]
    pub is_raw: bool,
    /// Bytes of a block of new SSTables; 0 is the server's default.
    #[prost(uint32, tag = "4")]
    pub block_bytes: u32,
    /// Whether blocks are kept in memory.
    #[prost(bool, tag = "5")]
    pub in_memory: bool,
}

/// Where a family's cells are, as it is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct PlaceRecord {
    /// The number of their group.
    #[prost(uint32, tag = "1")]
    pub group: u32,
    /// The number of the one that they are being moved to.
    #[prost(uint32, optional, tag = "2")]
    pub moving_to: Option<u32>,
}

impl LocalityGroup {
    /// How its cells are stored.
    fn tuning(&self) -> (GroupId, TreeTuning) {
        let tuning = TreeTuning {
            block_bytes: usize::try_from(self.block_bytes).ok().filter(|bytes| *bytes != 0),
            compression: if self.is_raw { Compression::Raw } else { Compression::Lz4 },
            in_memory: self.in_memory,
        };
        (GroupId(self.group), tuning)
    }
}

/// A tablet that a creation makes or a deletion removes.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct IntendedTablet {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub tablet: u64,
    /// Where its rows end.
    #[prost(bytes = "bytes", tag = "2")]
    pub end: bytes::Bytes,
    /// The server that has it.
    #[prost(string, tag = "3")]
    pub server: String,
}

/// A record that describes no table: damage, or a newer format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTableRecord {
    /// The record's key.
    pub key: String,
    /// What is wrong with it.
    pub found: String,
}

impl fmt::Display for BadTableRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lock service's record {} is damaged: {}", self.key, self.found)
    }
}

impl std::error::Error for BadTableRecord {}

/// Where the record of the table `name` stands.
pub fn key(name: &TableName) -> String {
    format!("{PREFIX}{name}")
}

/// The name of the table whose record stands at `key`.
///
/// # Errors
///
/// [`BadTableRecord`] where it is no such key.
pub fn name_of_key(key: &str) -> Result<TableName, BadTableRecord> {
    let bad = |found: String| BadTableRecord { key: key.to_owned(), found };
    let name = key.strip_prefix(PREFIX).ok_or_else(|| bad("it is no table's key".to_owned()))?;
    TableName::parse("name", name).map_err(|error| bad(error.to_string()))
}

impl TableRecord {
    /// A table that is being created and has no family yet.
    pub fn new(table_id: TableId, tablets: Vec<IntendedTablet>) -> Self {
        Self {
            table_id: table_id.0,
            state: TableState::Creating.into(),
            table: Some(admin::Table::default()),
            family_ids: BTreeMap::new(),
            next_family_id: 1,
            tablets,
            authorized_views: BTreeMap::new(),
            is_kept: false,
            groups: Vec::new(),
            last_group_id: 0,
            places: BTreeMap::new(),
        }
    }

    /// Reads the record that stands at `key`.
    ///
    /// # Errors
    ///
    /// [`BadTableRecord`] where the bytes are no record.
    pub fn read(key: &str, bytes: &[u8]) -> Result<Self, BadTableRecord> {
        let bad = |found: String| BadTableRecord { key: key.to_owned(), found };
        let record = Self::decode(bytes).map_err(|error| bad(error.to_string()))?;
        if record.state() == TableState::Unspecified {
            return Err(bad("its state is missing".to_owned()));
        }
        let table = record.table.as_ref().ok_or_else(|| bad("its table is missing".to_owned()))?;
        match table.column_families.keys().find(|name| !record.family_ids.contains_key(*name)) {
            Some(family) => Err(bad(format!("family {family:?} has no id"))),
            None => Ok(record),
        }
    }

    /// The table's description in Google's terms.
    pub fn table(&self) -> &admin::Table {
        self.table.as_ref().expect("a record is made and read with its table")
    }

    /// The same, to change it.
    pub fn table_mut(&mut self) -> &mut admin::Table {
        self.table.get_or_insert_default()
    }

    /// Gives the table a family, under a number that it never had before.
    pub fn add_family(&mut self, name: &str, family: admin::ColumnFamily) {
        self.family_ids.insert(name.to_owned(), self.next_family_id);
        self.next_family_id += 1;
        self.table_mut().column_families.insert(name.to_owned(), family);
    }

    /// Takes a family away; false if there is none of that name.
    pub fn drop_family(&mut self, name: &str) -> bool {
        self.family_ids.remove(name);
        self.places.remove(name);
        self.table_mut().column_families.remove(name).is_some()
    }

    /// Where the cells of the family `name` are.
    pub fn place(&self, name: &str) -> FamilyPlace {
        let place = self.places.get(name).copied().unwrap_or_default();
        FamilyPlace { group: GroupId(place.group), moving_to: place.moving_to.map(GroupId) }
    }

    /// Says where the cells of the family `name` are.
    pub fn set_place(&mut self, name: &str, place: FamilyPlace) {
        if place == FamilyPlace::default() {
            self.places.remove(name);
        } else {
            let moving_to = place.moving_to.map(|group| group.0);
            self.places.insert(name.to_owned(), PlaceRecord { group: place.group.0, moving_to });
        }
    }

    /// The schema that tablets work with.
    pub fn schema(&self) -> TableSchema {
        let families = self.table().column_families.iter().filter_map(|(name, family)| {
            let id = FamilyId(*self.family_ids.get(name)?);
            // A rule without content keeps everything, as no rule does.
            let gc_rule = family.gc_rule.clone().filter(|rule| rule.rule.is_some());
            let aggregate = family.value_type.as_ref().and_then(value_type::aggregate);
            Some((name.clone(), Family { id, place: self.place(name), gc_rule, aggregate }))
        });
        TableSchema {
            table_id: TableId(self.table_id),
            families: families.collect(),
            next_family_id: FamilyId(self.next_family_id),
            group_tunings: self.groups.iter().map(LocalityGroup::tuning).collect(),
            authorized_views: self.authorized_views.iter().filter_map(data_view).collect(),
            change_retention_us: self.table().change_stream_config.as_ref().and_then(retention_us),
        }
    }
}

/// How long `config` has changes kept, cut to µs.
fn retention_us(config: &admin::ChangeStreamConfig) -> Option<u64> {
    let period = Duration::try_from(config.retention_period?).ok()?;
    u64::try_from(period.as_micros()).ok()
}

fn data_view((id, view): (&String, &admin::AuthorizedView)) -> Option<(String, Arc<AuthorizedView>)> {
    let Kind::SubsetView(subset) = view.authorized_view.as_ref()?;
    Some((id.clone(), Arc::new(AuthorizedView::new(subset))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_of_a_dropped_name_gets_a_new_number() {
        let mut record = TableRecord::new(TableId(4), Vec::new());
        record.add_family("f", admin::ColumnFamily::default());
        let before = record.schema().family("f").unwrap().id;
        assert!(record.drop_family("f"));
        assert!(!record.drop_family("f"));
        record.add_family("f", admin::ColumnFamily::default());
        let record = TableRecord::read("schema/x", &record.encode_to_vec()).unwrap();
        assert_ne!(record.schema().family("f").unwrap().id, before);
    }

    #[test]
    fn damage_is_named() {
        let error = TableRecord::read("schema/x", b"\xff").unwrap_err();
        assert!(error.to_string().starts_with("the lock service's record schema/x is damaged"), "{error}");
        assert!(TableRecord::read("schema/x", b"").is_err());
    }
}
