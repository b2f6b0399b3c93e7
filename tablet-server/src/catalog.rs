//! The tables that exist, and the app profiles of their instances, as this process knows them.
//!
//! A copy in memory of the lock service's records of tables and instances, shared by the gateway
//! and the tablets of a process. The master publishes each change here once it
//! is durable there; a process of its own follows the lock service's records
//! and publishes the same way. A table that is being created or deleted is not
//! in it, so nobody sees half a table.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use row_api::names::{InstanceName, TableName};
use tonic::Status;

use crate::app_profiles::{Access, AppProfiles};
use crate::metadata;
use crate::schema::{Family, FamilyId, TableId, TableSchema};

/// A table that can be read and written. Its schema, and its instance's app
/// profiles, change under its readers.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: TableName,
    /// Its number.
    pub id: TableId,
    schema: ArcSwap<TableSchema>,
    app_profiles: Arc<ArcSwap<AppProfiles>>,
}

impl Table {
    /// Its schema now.
    pub fn schema(&self) -> Arc<TableSchema> {
        self.schema.load_full()
    }

    /// Refuses a request under the app profile `id` that is not to be answered.
    ///
    /// # Errors
    ///
    /// As [`AppProfiles::check`].
    pub fn check_app_profile(&self, id: &str, access: Access) -> Result<(), Status> {
        self.app_profiles.load().check(&self.name.instance, id, access)
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
    /// Of instances that have a table or were ever created.
    app_profiles: HashMap<InstanceName, Arc<ArcSwap<AppProfiles>>>,
}

impl Catalog {
    /// A catalog that holds METADATA alone.
    pub fn new() -> Self {
        let catalog = Self { tables: RwLock::default() };
        let family = Family::new(metadata::FAMILY_ID);
        catalog.publish(
            &metadata::metadata_table_name(),
            TableSchema {
                families: [(metadata::FAMILY.to_owned(), family)].into(),
                next_family_id: FamilyId(metadata::FAMILY_ID.0 + 1),
                ..TableSchema::new(metadata::METADATA_TABLE)
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
        let app_profiles = Arc::clone(tables.app_profiles.entry(name.instance.clone()).or_default());
        let id = schema.table_id;
        let schema = ArcSwap::from_pointee(schema);
        let table = Arc::new(Table { name: name.clone(), id, schema, app_profiles });
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
        // Two of the owners are `table` and the map itself.
        let is_last = |profiles: &Arc<ArcSwap<AppProfiles>>| {
            **profiles.load() == AppProfiles::Any && Arc::strong_count(profiles) <= 2
        };
        if tables.app_profiles.get(&table.name.instance).is_some_and(is_last) {
            tables.app_profiles.remove(&table.name.instance);
        }
    }

    /// Makes the app profiles of `instance` count from the next request on.
    pub fn publish_app_profiles(&self, instance: &InstanceName, profiles: AppProfiles) {
        let mut tables = self.tables.write();
        let is_kept = profiles != AppProfiles::Any
            || tables.by_id.values().any(|table| table.name.instance == *instance);
        if is_kept {
            tables.app_profiles.entry(instance.clone()).or_default().store(Arc::new(profiles));
        } else {
            tables.app_profiles.remove(instance);
        }
    }

    /// The app profiles of `instance`.
    pub fn app_profiles(&self, instance: &InstanceName) -> Arc<AppProfiles> {
        self.tables.read().app_profiles.get(instance).map(|profiles| profiles.load_full()).unwrap_or_default()
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
        TableSchema { next_family_id: FamilyId(next_family_id), ..TableSchema::new(TableId(id)) }
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
    fn app_profiles_reach_the_tables_of_their_instance_and_outlive_them() {
        let catalog = Catalog::new();
        catalog.publish(&name("t"), schema(5, 1));
        let held = catalog.by_id(TableId(5)).unwrap();
        let instance = held.name.instance.clone();
        held.check_app_profile("a", Access::Read).unwrap();
        catalog.publish_app_profiles(&instance, AppProfiles::Known([].into()));
        assert!(held.check_app_profile("a", Access::Read).is_err());
        catalog.withdraw(TableId(5));
        catalog.publish(&name("u"), schema(6, 1));
        let later = catalog.by_id(TableId(6)).unwrap();
        assert!(later.check_app_profile("a", Access::Read).is_err());
        catalog.publish_app_profiles(&instance, AppProfiles::Any);
        assert!(later.check_app_profile("a", Access::Read).is_ok());
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
