//! The tables that exist, as this process knows them.
//!
//! A copy in memory of the lock service's table records, shared by the gateway
//! and the tablets of a process. The master publishes each change here once it
//! is durable there; a process of its own follows the lock service's records
//! and publishes the same way. A table that is being created or deleted is not
//! in it, so nobody sees half a table.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use row_api::names::TableName;

use crate::metadata;
use crate::schema::{Family, FamilyId, TableId, TableSchema};

/// A table that can be read and written. Its schema changes under its readers.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: TableName,
    /// Its number.
    pub id: TableId,
    schema: ArcSwap<TableSchema>,
}

impl Table {
    /// A table called `name`, for tablets whose table is not published yet.
    pub fn new(name: TableName, schema: TableSchema) -> Self {
        Self { name, id: schema.table_id, schema: ArcSwap::from_pointee(schema) }
    }

    /// Its schema now.
    pub fn schema(&self) -> Arc<TableSchema> {
        self.schema.load_full()
    }
}

/// The tables of one process, by name and by number.
#[derive(Debug)]
pub struct Catalog {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    by_name: HashMap<String, Arc<Table>>,
    by_id: HashMap<TableId, Arc<Table>>,
}

impl Catalog {
    /// A catalog that holds METADATA alone.
    pub fn new() -> Self {
        let catalog = Self { tables: RwLock::default() };
        let family = Family { id: metadata::FAMILY_ID, gc_rule: None };
        catalog.publish(
            &metadata::metadata_table_name(),
            TableSchema {
                table_id: metadata::METADATA_TABLE,
                families: [(metadata::FAMILY.to_owned(), family)].into(),
                next_family_id: FamilyId(metadata::FAMILY_ID.0 + 1),
            },
        );
        catalog
    }

    /// The table of that full name.
    pub fn by_name(&self, name: &str) -> Option<Arc<Table>> {
        self.tables.read().by_name.get(name).cloned()
    }

    /// The table of that number.
    pub fn by_id(&self, id: TableId) -> Option<Arc<Table>> {
        self.tables.read().by_id.get(&id).cloned()
    }

    /// All tables, METADATA included, in order of their names.
    pub fn tables(&self) -> Vec<Arc<Table>> {
        let mut tables: Vec<_> = self.tables.read().by_id.values().cloned().collect();
        tables.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        tables
    }

    /// Makes the table visible, or gives it another schema, at once for every reader of this process.
    pub fn publish(&self, name: &TableName, schema: TableSchema) {
        let mut tables = self.tables.write();
        if let Some(table) = tables.by_id.get(&schema.table_id) {
            table.schema.store(Arc::new(schema));
            return;
        }
        let table = Arc::new(Table::new(name.clone(), schema));
        tables.by_name.insert(name.to_string(), Arc::clone(&table));
        tables.by_id.insert(table.id, table);
    }

    /// Takes the table out of sight.
    pub fn withdraw(&self, id: TableId) {
        let mut tables = self.tables.write();
        let Some(table) = tables.by_id.remove(&id) else { return };
        let name = table.name.to_string();
        if tables.by_name.get(&name).is_some_and(|named| named.id == id) {
            tables.by_name.remove(&name);
        }
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use row_api::names::InstanceName;

    fn name(table: &str) -> TableName {
        let instance = InstanceName { project: "p".to_owned(), instance: "i".to_owned() };
        TableName { instance, table: table.to_owned() }
    }

    fn schema(id: u64, next_family_id: u32) -> TableSchema {
        TableSchema { table_id: TableId(id), families: [].into(), next_family_id: FamilyId(next_family_id) }
    }

    #[test]
    fn a_new_schema_reaches_those_who_hold_the_table() {
        let catalog = Catalog::new();
        catalog.publish(&name("t"), schema(5, 1));
        let held = catalog.by_name("projects/p/instances/i/tables/t").unwrap();
        catalog.publish(&name("t"), schema(5, 2));
        assert_eq!(held.schema().next_family_id, FamilyId(2));
    }

    #[test]
    fn withdrawing_a_table_leaves_its_successor_of_the_same_name() {
        let catalog = Catalog::new();
        catalog.publish(&name("t"), schema(5, 1));
        assert_eq!(catalog.tables().len(), 2);
        catalog.withdraw(TableId(5));
        assert!(catalog.by_name("projects/p/instances/i/tables/t").is_none());
        catalog.publish(&name("t"), schema(6, 1));
        catalog.withdraw(TableId(5));
        assert_eq!(catalog.by_name("projects/p/instances/i/tables/t").unwrap().id, TableId(6));
    }
}
