//! A table as tablets see it: its families, their ids and their GC rules.
//!
//! Written by the master into the lock service, read by gateways and tablets.
//! Family ids are never used twice in a table, so that cells of a dropped family
//! cannot come back under a new family of the same name.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use lsm::TreeTuning;
use row_api::admin;
use tonic::Status;

use crate::aggregate::Aggregate;
use crate::authorized_view::AuthorizedView;
use crate::limits;

/// A table's number, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u64);

/// A tablet's number, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TabletId(pub u64);

/// A family's number, never used twice in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FamilyId(pub u32);

/// A locality group's number, never used twice in its table. Families that are
/// in no other one are in the default group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The default group.
    pub const DEFAULT: Self = Self(0);
    /// The last one of a table, for which there is a tree's number (`tablet_trees`).
    pub const MAX: Self = Self(65_534);
}

/// Where a family's cells are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FamilyPlace {
    /// The locality group where they are all, and where they are read.
    pub group: GroupId,
    /// The one that they are being moved to, if they are: what is written goes there, too.
    pub moving_to: Option<GroupId>,
}

/// One column family.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Its number.
    pub id: FamilyId,
    /// Where its cells are.
    pub place: FamilyPlace,
    /// Which of its cells are garbage; none is where this is absent.
    pub gc_rule: Option<admin::GcRule>,
    /// What its cells gather; none where they hold what is set.
    pub aggregate: Option<Aggregate>,
}

impl Family {
    /// A family that keeps everything, whose cells hold what is set.
    pub fn new(id: FamilyId) -> Self {
        Self { id, place: FamilyPlace::default(), gc_rule: None, aggregate: None }
    }

    /// Refuses a write at `field` that sets cells, where these are aggregates.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT.
    pub fn check_plain(&self, field: impl Display) -> Result<(), Status> {
        match self.aggregate {
            None => Ok(()),
            Some(_) => {
                let why = "is an aggregate family, whose cells only AddToCell and MergeToCell change";
                Err(limits::refuse(field, why))
            }
        }
    }

    /// What the cells gather, for a write at `field` that adds to them.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT where they are no aggregates.
    pub fn check_aggregate(&self, field: impl Display) -> Result<Aggregate, Status> {
        let why = "is no aggregate family: it has no value_type of aggregate_type";
        self.aggregate.ok_or_else(|| limits::refuse(field, why))
    }
}

/// A table's schema at one moment. Shared behind an `Arc`, replaced as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSchema {
    /// The table's number.
    pub table_id: TableId,
    /// Families by name.
    pub families: BTreeMap<String, Family>,
    /// The id that the next new family gets.
    pub next_family_id: FamilyId,
    /// How the cells of each locality group are stored; of the default one where that was chosen.
    pub group_tunings: BTreeMap<GroupId, TreeTuning>,
    /// Authorized views by id.
    pub authorized_views: BTreeMap<String, Arc<AuthorizedView>>,
    /// How long changes are kept, µs, where the table has a change stream.
    pub change_retention_us: Option<u64>,
}

impl TableSchema {
    /// A table that has no family yet.
    pub fn new(table_id: TableId) -> Self {
        Self {
            table_id,
            families: BTreeMap::new(),
            next_family_id: FamilyId(1),
            group_tunings: BTreeMap::new(),
            authorized_views: BTreeMap::new(),
            change_retention_us: None,
        }
    }

    /// The family called `name`.
    pub fn family(&self, name: &str) -> Option<&Family> {
        self.families.get(name)
    }

    /// The family called `name`, which stands at `field` of a request.
    ///
    /// # Errors
    ///
    /// NOT_FOUND where the table has none; INVALID_ARGUMENT where no table could.
    pub fn find_family(&self, field: impl Display, name: &str) -> Result<&Family, Status> {
        self.family(name).ok_or_else(|| match limits::check_family_name(&field, name) {
            Ok(()) => Status::not_found(format!("{field}: unknown family {name:?}")),
            Err(malformed) => malformed,
        })
    }

    /// The name of the family `id`, if the table still has it.
    pub fn family_name(&self, id: FamilyId) -> Option<&str> {
        self.families.iter().find(|(_, family)| family.id == id).map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
impl TableSchema {
    /// A table with the families `names`, numbered from 1, that keep everything.
    pub(crate) fn with_families(names: &[&str]) -> Self {
        let mut schema = Self::new(TableId(1));
        for name in names {
            schema.families.insert((*name).to_owned(), Family::new(schema.next_family_id));
            schema.next_family_id.0 += 1;
        }
        schema
    }
}
