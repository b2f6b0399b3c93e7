//! What a batch adds to a change tree, gathered while its rows are encoded.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use row_api::data;
use row_api::data::mutation::{Mutation, SetCell};

use super::ChangeLog;
use super::change::StoredChange;
use crate::mutation::RowMutations;
use crate::schema::TableSchema;

/// Takes down what a batch does to rows, where the tablet has a change log.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    into: Option<Record>,
}

/// What a batch does to rows, and the log that is to hold it.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) log: Arc<ChangeLog>,
    schema: Arc<TableSchema>,
    /// Of each row, the value of an entry.
    pub(crate) changes: Vec<Vec<u8>>,
}

impl Recorder {
    /// One that takes nothing down.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// One for a batch whose changes go into `log`.
    pub(crate) fn new(log: Arc<ChangeLog>, schema: Arc<TableSchema>) -> Self {
        Self { into: Some(Record { log, schema, changes: Vec::new() }) }
    }

    /// Notes the mutations of `row`, whose cells without a timestamp get `now_us`.
    pub(crate) fn note(&mut self, row: &RowMutations, now_us: i64) {
        if let Some(record) = &mut self.into {
            let mutations = row.to_messages(&record.schema, now_us);
            record.push(row.row_key().clone(), mutations);
        }
    }

    /// Notes that the cells of `row` were set.
    pub(crate) fn note_cells(&mut self, row: &data::Row) {
        if let Some(record) = &mut self.into {
            record.push(row.key.clone(), set_cells(row));
        }
    }

    /// Notes that all of the row was deleted.
    pub(crate) fn note_deletion(&mut self, row_key: Bytes) {
        if let Some(record) = &mut self.into {
            let deletion = Mutation::DeleteFromRow(data::mutation::DeleteFromRow {});
            record.push(row_key, vec![deletion.into()]);
        }
    }

    /// What there is to write; none where it is nothing.
    pub(crate) fn into_record(self) -> Option<Record> {
        self.into.filter(|record| !record.changes.is_empty())
    }
}

impl Record {
    fn push(&mut self, row_key: Bytes, mutations: Vec<data::Mutation>) {
        // All of them may have been of families that are no more.
        if !mutations.is_empty() {
            self.changes.push(StoredChange { row_key, mutations }.encode_to_vec());
        }
    }
}

/// The cells of `row` as mutations.
fn set_cells(row: &data::Row) -> Vec<data::Mutation> {
    let mut mutations = Vec::new();
    for family in &row.families {
        for column in &family.columns {
            mutations.extend(column.cells.iter().map(|cell| {
                let set = SetCell {
                    family_name: family.name.clone(),
                    column_qualifier: column.qualifier.clone(),
                    timestamp_micros: cell.timestamp_micros,
                    value: cell.value.clone(),
                };
                data::Mutation::from(Mutation::SetCell(set))
            }));
        }
    }
    mutations
}
