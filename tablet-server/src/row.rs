//! A row as reads give it, before it is cut into chunks.

use std::sync::Arc;

use bytes::Bytes;

use crate::schema::FamilyId;

/// A row with the cells that a read returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The row's key.
    pub key: Bytes,
    /// Its cells, by family (in the order of their creation), qualifier, newest first.
    pub cells: Vec<Cell>,
}

/// One cell. Cheap to clone: all its parts are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The family's number, which orders the cells.
    pub family_id: FamilyId,
    /// The family's name.
    pub family: Arc<str>,
    /// The column's qualifier.
    pub qualifier: Bytes,
    /// The timestamp, µs.
    pub timestamp_us: i64,
    /// The content, shared with the engine.
    pub value: Bytes,
    /// What a filter called it.
    pub label: Option<Arc<str>>,
}

impl Row {
    /// Bytes the row takes in an answer, roughly.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.cells.iter().map(Cell::bytes).sum::<usize>()
    }
}

impl Cell {
    /// Bytes the cell takes in an answer, roughly: a column's names are counted
    /// for each of its cells.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.qualifier.len() + self.value.len()
    }
}

/// What a read looks at, or returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Rows that have a cell stored.
    pub row_count: u64,
    /// Cells that GC rules do not hide.
    pub cell_count: u64,
}

impl Seen {
    /// What was added since it was `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            row_count: self.row_count - earlier.row_count,
            cell_count: self.cell_count - earlier.cell_count,
        }
    }
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, more: Self) {
        self.row_count += more.row_count;
        self.cell_count += more.cell_count;
    }
}
