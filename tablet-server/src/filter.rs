//! Row filters: checked once a request, then applied row by row.
//!
//! A filter that is a list of simple filters, or a chain that begins with some,
//! is applied cell by cell while a row is read (`leaf`), and tells the reader
//! to skip the rest of a column or row as soon as nothing of it can pass. What
//! follows (interleaves, conditions and all behind them) works on the cells that
//! passed (`node`). From both, `bounds` derives the columns that can matter at
//! all, so that the others are never read. `tests/it/rows/filter_model.rs` holds all
//! of it to a plain reading of the proto's text.
//!
//! - `compile`: the request's message into a checked tree, with limits.
//! - `pattern`, `re2`, `byte_set`: RE2's patterns over bytes, by the `regex` crate.

mod bounds;
mod byte_set;
mod compile;
mod leaf;
mod node;
mod pattern;
mod re2;

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use row_api::data;
use tonic::Status;

use crate::authorized_view::AuthorizedView;
use crate::error::Result;
use crate::key_ranges::KeyRanges;
use crate::row::Cell;
use crate::schema::{FamilyId, TableSchema};

pub(crate) use leaf::{Column, LeafStates, Next, Transform, Verdict};

use leaf::Leaf;
use node::Node;

/// A checked filter, for tables of the schema it was compiled with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Filter(Arc<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    /// Applied cell by cell.
    head: Vec<Leaf>,
    /// Applied to what passed the head, in order.
    rest: Vec<Node>,
    /// The columns that can matter, as ranges of what follows the row's prefix
    /// in a cell's key.
    bounds: KeyRanges,
}

impl Filter {
    /// Checks `filter`, which stands at `field`; none passes all cells.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT: a limit, a pattern, a range, a missing part, a sink in a
    /// condition, a filter that this version does not know.
    pub fn compile(
        field: &str,
        filter: Option<&data::RowFilter>,
        schema: &TableSchema,
    ) -> std::result::Result<Self, Status> {
        let nodes = match filter {
            Some(filter) => compile::compile(field, filter, schema)?,
            None => Vec::new(),
        };
        Ok(Self::from_nodes(nodes))
    }

    /// The filter that passes all cells.
    pub fn pass_all() -> Self {
        Self::from_nodes(Vec::new())
    }

    /// The filter that passes a column's newest cell.
    pub(crate) fn newest_of_column(family: FamilyId, qualifier: Bytes) -> Self {
        let only = Bound::Included(qualifier);
        let column = Leaf::ColumnRange { family: Some(family), start: only.clone(), end: only };
        Self::from_nodes(vec![Node::Leaves(vec![column, Leaf::CellsPerRowLimit(1)])])
    }

    /// This filter, and of what it passes only a row's first cell.
    #[must_use]
    pub fn first_cell_only(self) -> Self {
        let mut parts = Arc::unwrap_or_clone(self.0);
        let limit = Leaf::CellsPerRowLimit(1);
        match parts.rest.last_mut() {
            None => parts.head.push(limit),
            Some(Node::Leaves(leaves)) => leaves.push(limit),
            Some(_) => parts.rest.push(Node::Leaves(vec![limit])),
        }
        Self(Arc::new(parts))
    }

    /// This filter, over nothing but the columns of `view`.
    #[must_use]
    pub fn in_view(self, view: &AuthorizedView, schema: &TableSchema) -> Self {
        let Parts { head, rest, .. } = Arc::unwrap_or_clone(self.0);
        let columns = Leaf::ViewColumns(Arc::new(view.columns(schema)));
        let leaves = std::iter::once(columns).chain(head).collect();
        Self::from_nodes(std::iter::once(Node::Leaves(leaves)).chain(rest).collect())
    }

    /// Joins chained nodes, simple ones at the front.
    fn from_nodes(nodes: Vec<Node>) -> Self {
        let mut rest = Node::join_leaves(nodes);
        let bounds = bounds::of_chain(&rest);
        let head = match rest.first_mut() {
            Some(Node::Leaves(leaves)) => {
                let leaves = std::mem::take(leaves);
                rest.remove(0);
                leaves
            }
            _ => Vec::new(),
        };
        Self(Arc::new(Parts { head, rest, bounds }))
    }

    /// The columns that can matter, as ranges of what follows the row's prefix
    /// in a cell's key.
    pub(crate) fn bounds(&self) -> &KeyRanges {
        &self.0.bounds
    }

    /// Begins a row; false where nothing of it can pass.
    pub(crate) fn start_row(&self, states: &mut LeafStates, row_key: &[u8], sample_seed: u64) -> bool {
        states.start_row(&self.0.head, row_key, sample_seed)
    }

    /// Begins a column of the row; false where nothing of it can pass or count.
    pub(crate) fn start_column(&self, states: &mut LeafStates, column: Column<'_>) -> bool {
        states.start_column(&self.0.head, column)
    }

    /// Judges the column's next cell.
    pub(crate) fn judge(&self, states: &mut LeafStates, timestamp_us: i64, value: &[u8]) -> Verdict {
        states.judge(&self.0.head, timestamp_us, value)
    }

    /// What becomes of a cell that was taken.
    pub(crate) fn transform(&self) -> Transform {
        Transform::of(&self.0.head)
    }

    /// What remains of the row, of whose cells `cells` were taken.
    ///
    /// # Errors
    ///
    /// [`Error::RowTooLarge`](crate::error::Error::RowTooLarge) where
    /// interleaves multiply the cells beyond measure.
    pub(crate) fn finish_row(
        &self,
        row_key: &Bytes,
        cells: Vec<Cell>,
        sample_seed: u64,
    ) -> Result<Vec<Cell>> {
        if self.0.rest.is_empty() || cells.is_empty() {
            return Ok(cells);
        }
        node::Evaluation::new(row_key, sample_seed).whole(&self.0.rest, cells)
    }
}
