//! ReadModifyWriteRow: appends and increments over the newest cells of a row.
//!
//! Rules apply in order, a later one to what an earlier one made; each column
//! gets one new cell, at the server's clock or just after its newest cell,
//! whichever is later. Increments wrap, as 64-bit integers do.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use lsm::{Snapshot, WriteBatch};
use row_api::data;
use row_api::data::read_modify_write_rule::Rule;
use tonic::Status;

use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::group_trees::GroupTrees;
use crate::mutation::clock_timestamp;
use crate::row_scan::{ScanOptions, read_row};
use crate::schema::{FamilyId, TableSchema};
use crate::{cell_key, limits};

/// A checked ReadModifyWriteRow.
#[derive(Clone, Debug)]
pub struct ReadModifyWrite {
    row_key: Bytes,
    rules: Vec<ColumnRule>,
}

#[derive(Clone, Debug)]
struct ColumnRule {
    family: FamilyId,
    qualifier: Bytes,
    change: Change,
}

#[derive(Clone, Debug)]
enum Change {
    Append(Bytes),
    Increment(i64),
}

/// A column's newest cell, while rules change it.
struct NewestCell<'a> {
    family_name: &'a str,
    timestamp_us: i64,
    value: Bytes,
}

impl ReadModifyWrite {
    /// Checks the row key and the rules, which stand in `row_key` and `rules`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT, NOT_FOUND for a family that the table does not have.
    pub fn check(
        schema: &TableSchema,
        row_key: Bytes,
        rules: Vec<data::ReadModifyWriteRule>,
    ) -> std::result::Result<Self, Status> {
        limits::check_row_key("row_key", &row_key)?;
        limits::check_mutation_count("rules", rules.len())?;
        let rules = rules
            .into_iter()
            .enumerate()
            .map(|(index, rule)| ColumnRule::check(schema, &format!("rules[{index}]"), rule))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self { row_key, rules })
    }

    /// The row.
    pub fn row_key(&self) -> &Bytes {
        &self.row_key
    }

    /// The families that it changes.
    pub fn families(&self) -> impl Iterator<Item = FamilyId> {
        self.rules.iter().map(|rule| rule.family)
    }

    /// Reads the row at `snapshot`, adds the new cells to `batch`, and gives
    /// them as the answer's row. The caller holds the row's lock, exclusive.
    ///
    /// # Errors
    ///
    /// [`Error`]; nothing was added to `batch`.
    pub fn apply(
        &self,
        trees: &Arc<GroupTrees>,
        snapshot: &Snapshot,
        schema: &TableSchema,
        now_us: i64,
        batch: &mut WriteBatch,
    ) -> Result<data::Row> {
        let mut columns: BTreeMap<(FamilyId, &Bytes), NewestCell<'_>> = BTreeMap::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let column = (rule.family, &rule.qualifier);
            let cell = match columns.remove(&column) {
                Some(cell) => cell,
                None => self.newest_cell(trees, snapshot, schema, rule, now_us)?,
            };
            columns.insert(column, NewestCell { value: rule.change.apply(index, &cell.value)?, ..cell });
        }
        self.encode(trees, &columns, batch);
        Ok(answer(&self.row_key, columns))
    }

    /// The column's newest cell that is no garbage, at the timestamp that its
    /// successor gets; an empty value where there is none.
    fn newest_cell<'a>(
        &self,
        trees: &Arc<GroupTrees>,
        snapshot: &Snapshot,
        schema: &'a TableSchema,
        rule: &ColumnRule,
        now_us: i64,
    ) -> Result<NewestCell<'a>> {
        let options = ScanOptions { now_us, ..ScanOptions::default() };
        let filter = Filter::newest_of_column(rule.family, rule.qualifier.clone());
        let row = read_row(trees, snapshot, schema, &self.row_key, &filter, &options)?;
        let cell = row.and_then(|mut row| row.cells.pop());
        let clock_us = clock_timestamp(now_us);
        let timestamp_us = cell.as_ref().map_or(clock_us, |cell| {
            let after = cell.timestamp_us.checked_add(limits::TIMESTAMP_GRANULE_US);
            clock_us.max(after.unwrap_or(cell.timestamp_us))
        });
        Ok(NewestCell {
            // A family that was dropped since the check reads as empty.
            family_name: schema.family_name(rule.family).unwrap_or_default(),
            timestamp_us,
            value: cell.map(|cell| cell.value).unwrap_or_default(),
        })
    }

    fn encode(
        &self,
        trees: &GroupTrees,
        columns: &BTreeMap<(FamilyId, &Bytes), NewestCell<'_>>,
        batch: &mut WriteBatch,
    ) {
        let mut key = cell_key::row_prefix(&self.row_key);
        let row_bytes = key.len();
        for ((family, qualifier), cell) in columns {
            key.truncate(row_bytes);
            cell_key::push_family(&mut key, *family);
            cell_key::push_escaped(&mut key, qualifier);
            cell_key::push_timestamp(&mut key, cell.timestamp_us);
            trees.each_of(*family, |tree| batch.put(tree, &key, &cell.value));
        }
    }
}

impl ColumnRule {
    fn check(
        schema: &TableSchema,
        field: &str,
        rule: data::ReadModifyWriteRule,
    ) -> std::result::Result<Self, Status> {
        let name = format_args!("{field}.family_name");
        let family = schema.find_family(name, &rule.family_name)?;
        family.check_plain(name)?;
        limits::check_qualifier(format_args!("{field}.column_qualifier"), &rule.column_qualifier)?;
        let change = match rule.rule {
            Some(Rule::AppendValue(value)) => {
                limits::check_value(format_args!("{field}.append_value"), &value)?;
                Change::Append(value)
            }
            Some(Rule::IncrementAmount(amount)) => Change::Increment(amount),
            None => return Err(limits::refuse(field, "is empty, it must append or increment")),
        };
        Ok(Self { family: family.id, qualifier: rule.column_qualifier, change })
    }
}

impl Change {
    /// What becomes of `value` by the rule number `index`.
    fn apply(&self, index: usize, value: &Bytes) -> Result<Bytes> {
        match self {
            Self::Append(more) => {
                let found = value.len() + more.len();
                if found > limits::CELL_BYTES_MAX {
                    let field = format!("rules[{index}].append_value");
                    return Err(Error::CellTooLarge { field, found, bytes_max: limits::CELL_BYTES_MAX });
                }
                let mut appended = BytesMut::with_capacity(found);
                appended.extend_from_slice(value);
                appended.extend_from_slice(more);
                Ok(appended.freeze())
            }
            Self::Increment(amount) => {
                let old = match <[u8; 8]>::try_from(&value[..]) {
                    Ok(bytes) => i64::from_be_bytes(bytes),
                    Err(_) if value.is_empty() => 0,
                    Err(_) => {
                        let field = format!("rules[{index}].increment_amount");
                        return Err(Error::NotAnInteger { field, found: value.len() });
                    }
                };
                Ok(Bytes::copy_from_slice(&old.wrapping_add(*amount).to_be_bytes()))
            }
        }
    }
}

/// The answer's row: one cell a column, in the order of the row.
fn answer(row_key: &Bytes, columns: BTreeMap<(FamilyId, &Bytes), NewestCell<'_>>) -> data::Row {
    let mut families: Vec<data::Family> = Vec::new();
    for ((_, qualifier), cell) in columns {
        let column = data::Column {
            qualifier: qualifier.clone(),
            cells: vec![data::Cell {
                timestamp_micros: cell.timestamp_us,
                value: cell.value,
                ..data::Cell::default()
            }],
        };
        match families.last_mut() {
            Some(family) if family.name == cell.family_name => family.columns.push(column),
            _ => families.push(data::Family { name: cell.family_name.to_owned(), columns: vec![column] }),
        }
    }
    data::Row { key: row_key.clone(), families }
}
