//! Filters over filters, applied to the cells of one row that are in memory.

use bytes::Bytes;

use super::leaf::{Column, Leaf, LeafStates, Next, Transform};
use crate::error::{Error, Result};
use crate::limits;
use crate::row::Cell;

/// Cells that a row's filter may copy in all. Interleaves nested in a chain
/// multiply; beyond this the filter is at fault, not the row.
const COPIES_MAX: usize = limits::ROW_BYTES_MAX / size_of::<Cell>();

/// A filter.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Simple filters in sequence.
    Leaves(Vec<Leaf>),
    /// Filters in sequence.
    Chain(Vec<Node>),
    /// Filters side by side.
    Interleave(Vec<Node>),
    /// One of two filters, by whether a third passes anything. An absent one passes nothing.
    Condition { predicate: Box<Node>, on_match: Option<Box<Node>>, otherwise: Option<Box<Node>> },
    /// The way out: cells go from here straight into the whole filter's output,
    /// and none to what follows.
    Sink,
}

impl Node {
    /// The filters `nodes` in sequence.
    pub(super) fn chain(nodes: Vec<Self>) -> Self {
        let mut joined = Self::join_leaves(nodes);
        if joined.len() == 1 { joined.remove(0) } else { Self::Chain(joined) }
    }

    /// Flattens chains within the chain `nodes` and joins neighbouring leaves.
    pub(super) fn join_leaves(nodes: Vec<Self>) -> Vec<Self> {
        let mut joined: Vec<Self> = Vec::with_capacity(nodes.len());
        for node in nodes {
            let parts = match node {
                Self::Chain(inner) => Self::join_leaves(inner),
                other => vec![other],
            };
            for part in parts {
                match (joined.last_mut(), part) {
                    (Some(Self::Leaves(before)), Self::Leaves(more)) => before.extend(more),
                    (_, part) => joined.push(part),
                }
            }
        }
        joined
    }
}

/// One row on its way through a filter.
pub(super) struct Evaluation<'a> {
    row_key: &'a Bytes,
    sample_seed: u64,
    copies_left: usize,
    /// What sinks have let out.
    sunk: Vec<Cell>,
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(row_key: &'a Bytes, sample_seed: u64) -> Self {
        Self { row_key, sample_seed, copies_left: COPIES_MAX, sunk: Vec::new() }
    }

    /// What the whole filter, `nodes` in sequence, leaves of `cells`, and what its
    /// sinks let out on the way.
    pub(super) fn whole(mut self, nodes: &[Node], cells: Vec<Cell>) -> Result<Vec<Cell>> {
        let mut passed = self.chain(nodes, cells)?;
        if self.sunk.is_empty() {
            return Ok(passed);
        }
        self.sunk.append(&mut passed);
        // Stable: sinks in their order, then what came through.
        self.sunk.sort_by(|a, b| position(a).cmp(&position(b)));
        Ok(self.sunk)
    }

    /// What `nodes`, in sequence, leave of `cells`.
    fn chain(&mut self, nodes: &[Node], cells: Vec<Cell>) -> Result<Vec<Cell>> {
        let mut cells = cells;
        for node in nodes {
            cells = self.apply(node, &cells)?;
            if cells.is_empty() {
                break;
            }
        }
        Ok(cells)
    }

    fn apply(&mut self, node: &Node, cells: &[Cell]) -> Result<Vec<Cell>> {
        match node {
            Node::Leaves(leaves) => self.leaves(leaves, cells),
            Node::Chain(nodes) => match nodes.split_first() {
                Some((first, rest)) => {
                    let passed = self.apply(first, cells)?;
                    self.chain(rest, passed)
                }
                None => Ok(cells.to_vec()),
            },
            Node::Interleave(nodes) => {
                let mut pool = Vec::new();
                for node in nodes {
                    pool.append(&mut self.apply(node, cells)?);
                }
                // Stable: copies of one cell stand in the order of their filters.
                pool.sort_by(|a, b| position(a).cmp(&position(b)));
                Ok(pool)
            }
            Node::Condition { predicate, on_match, otherwise } => {
                let matched = !self.apply(predicate, cells)?.is_empty();
                match if matched { on_match } else { otherwise } {
                    Some(node) => self.apply(node, cells),
                    None => Ok(Vec::new()),
                }
            }
            Node::Sink => {
                self.charge(cells.len())?;
                self.sunk.extend_from_slice(cells);
                Ok(Vec::new())
            }
        }
    }

    fn leaves(&mut self, leaves: &[Leaf], cells: &[Cell]) -> Result<Vec<Cell>> {
        let mut passed = Vec::new();
        let mut states = LeafStates::default();
        if !states.start_row(leaves, self.row_key, self.sample_seed) {
            return Ok(passed);
        }
        let transform = Transform::of(leaves);
        'columns: for column_cells in cells.chunk_by(same_column) {
            let first = &column_cells[0];
            if !states.start_column(leaves, Column { family: first.family_id, qualifier: &first.qualifier }) {
                continue;
            }
            for cell in column_cells {
                let verdict = states.judge(leaves, cell.timestamp_us, &cell.value);
                if verdict.take {
                    self.charge(1)?;
                    let mut cell = cell.clone();
                    transform.apply(&mut cell);
                    passed.push(cell);
                }
                match verdict.next {
                    Next::Cell => {}
                    Next::Column => break,
                    Next::Row => break 'columns,
                }
            }
        }
        Ok(passed)
    }

    /// Counts cells that are about to be copied.
    fn charge(&mut self, cell_count: usize) -> Result<()> {
        match self.copies_left.checked_sub(cell_count) {
            Some(left) => {
                self.copies_left = left;
                Ok(())
            }
            None => {
                let row_key = self.row_key.clone();
                Err(Error::RowTooLarge { row_key, bytes_max: limits::ROW_BYTES_MAX })
            }
        }
    }
}

fn same_column(a: &Cell, b: &Cell) -> bool {
    a.family_id == b.family_id && a.qualifier == b.qualifier
}

/// Where a cell stands in its row.
fn position(cell: &Cell) -> (u32, &[u8], std::cmp::Reverse<i64>) {
    (cell.family_id.0, &cell.qualifier, std::cmp::Reverse(cell.timestamp_us))
}
