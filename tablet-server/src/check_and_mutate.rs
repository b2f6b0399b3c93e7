//! CheckAndMutateRow: mutations that depend on what a filter finds in the row.

use std::sync::Arc;

use bytes::Bytes;
use lsm::Snapshot;
use row_api::data;
use tonic::Status;

use crate::authorized_view::AuthorizedView;
use crate::error::Result;
use crate::filter::Filter;
use crate::group_trees::GroupTrees;
use crate::limits;
use crate::mutation::RowMutations;
use crate::row_scan::{ScanOptions, read_row};
use crate::schema::{FamilyId, TableSchema};

/// A checked CheckAndMutateRow.
#[derive(Clone, Debug)]
pub struct CheckAndMutate {
    row_key: Bytes,
    /// Passes the first cell of what the request asks about, and what sinks let out.
    predicate: Filter,
    on_match: Option<RowMutations>,
    otherwise: Option<RowMutations>,
}

impl CheckAndMutate {
    /// Checks row key, predicate and both lists of mutations.
    ///
    /// # Errors
    ///
    /// - INVALID_ARGUMENT: a limit, a missing field, no mutation at all.
    /// - NOT_FOUND: a family that the table does not have.
    pub fn check(
        schema: &TableSchema,
        request: data::CheckAndMutateRowRequest,
    ) -> std::result::Result<Self, Status> {
        limits::check_row_key("row_key", &request.row_key)?;
        if request.true_mutations.is_empty() && request.false_mutations.is_empty() {
            return Err(limits::refuse(
                "true_mutations",
                "is empty and so is false_mutations, at least 1 mutation is needed",
            ));
        }
        let row_key = request.row_key;
        let predicate = Filter::compile("predicate_filter", request.predicate_filter.as_ref(), schema)?;
        let check = |field: &str, mutations: Vec<data::Mutation>| {
            let some = !mutations.is_empty();
            some.then(|| RowMutations::check(schema, field, row_key.clone(), mutations)).transpose()
        };
        Ok(Self {
            predicate: predicate.first_cell_only(),
            on_match: check("true_mutations", request.true_mutations)?,
            otherwise: check("false_mutations", request.false_mutations)?,
            row_key,
        })
    }

    /// The same, with a predicate that sees nothing but the columns of `view`.
    #[must_use]
    pub fn in_view(self, view: &AuthorizedView, schema: &TableSchema) -> Self {
        Self { predicate: self.predicate.in_view(view, schema), ..self }
    }

    /// The row.
    pub fn row_key(&self) -> &Bytes {
        &self.row_key
    }

    /// Whether the predicate yields a cell at `snapshot`; without one, whether
    /// the row has any.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::error::Error).
    pub fn matches(
        &self,
        trees: &Arc<GroupTrees>,
        snapshot: &Snapshot,
        schema: &TableSchema,
        options: &ScanOptions,
    ) -> Result<bool> {
        Ok(read_row(trees, snapshot, schema, &self.row_key, &self.predicate, options)?.is_some())
    }

    /// The families that it may change.
    pub fn families(&self) -> impl Iterator<Item = FamilyId> {
        [&self.on_match, &self.otherwise].into_iter().flatten().flat_map(RowMutations::families)
    }

    /// What to apply then: none where the request has no mutations for this case.
    pub fn mutations(&self, matched: bool) -> Option<&RowMutations> {
        if matched { self.on_match.as_ref() } else { self.otherwise.as_ref() }
    }
}
