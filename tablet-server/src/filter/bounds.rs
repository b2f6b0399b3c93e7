//! Which columns of a row a filter can depend on.
//!
//! The claim, for each node and any set of columns that covers its bounds: what
//! the filter makes of a row's cells is what it makes of those in the set. For a
//! run of leaves it holds because column filters before the first filter that
//! counts the row's cells commute with all else there, and nothing else gets
//! past them; an interleave and a condition look at a row only through their parts,
//! and a sink lets out what reaches it and no more.

use std::ops::Bound;

use bytes::Bytes;
use lsm::KeyRange;

use super::leaf::Leaf;
use super::node::Node;
use crate::cell_key;
use crate::key_ranges::KeyRanges;
use crate::schema::FamilyId;

/// The bounds of `nodes` in sequence: those of the first, because what follows
/// sees only what that one passes. Leaves that follow leaves count as one run.
pub(super) fn of_chain(nodes: &[Node]) -> KeyRanges {
    let mut bounds = KeyRanges::all();
    for node in nodes {
        bounds = bounds.intersection(&of_node(node));
        let narrows_on = matches!(node, Node::Leaves(leaves) if !leaves.iter().any(counts_row));
        if !narrows_on {
            break;
        }
    }
    bounds
}

fn of_node(node: &Node) -> KeyRanges {
    match node {
        Node::Leaves(leaves) => of_leaves(leaves),
        Node::Chain(nodes) => of_chain(nodes),
        Node::Interleave(nodes) => union(nodes.iter()),
        Node::Condition { predicate, on_match, otherwise } => union(
            [Some(predicate), on_match.as_ref(), otherwise.as_ref()].into_iter().flatten().map(AsRef::as_ref),
        ),
        Node::Sink => KeyRanges::all(),
    }
}

fn union<'a>(nodes: impl Iterator<Item = &'a Node>) -> KeyRanges {
    KeyRanges::union(nodes.flat_map(|node| of_node(node).into_ranges()).collect())
}

fn of_leaves(leaves: &[Leaf]) -> KeyRanges {
    let mut bounds = KeyRanges::all();
    let mut families: Option<&[FamilyId]> = None;
    for leaf in leaves {
        match leaf {
            Leaf::BlockAll => return KeyRanges::default(),
            Leaf::Families(ids) => {
                families = Some(ids);
                bounds = bounds.intersection(&KeyRanges::union(ids.iter().map(|id| family(*id)).collect()));
            }
            Leaf::ColumnRange { family: None, .. } => return KeyRanges::default(),
            Leaf::ColumnRange { family: Some(id), start, end } => {
                bounds = bounds.intersection(&KeyRanges::union(vec![columns(*id, start, end)]));
            }
            Leaf::ViewColumns(view) => {
                let ranges = view.ranges().map(|(id, start, end)| columns(id, &start, &end)).collect();
                bounds = bounds.intersection(&KeyRanges::union(ranges));
            }
            Leaf::Qualifier(pattern) => {
                if let (Some(ids), Some(qualifier)) = (families, pattern.literal()) {
                    let only = Bound::Included(Bytes::copy_from_slice(qualifier));
                    let ranges = ids.iter().map(|id| columns(*id, &only, &only)).collect();
                    bounds = bounds.intersection(&KeyRanges::union(ranges));
                }
            }
            leaf if counts_row(leaf) => break,
            _ => {}
        }
    }
    bounds
}

fn counts_row(leaf: &Leaf) -> bool {
    matches!(leaf, Leaf::CellsPerRowOffset(_) | Leaf::CellsPerRowLimit(_))
}

/// The keys of a family's cells, behind the row's prefix.
fn family(id: FamilyId) -> KeyRange {
    columns(id, &Bound::Unbounded, &Bound::Unbounded)
}

/// The keys of a range of columns, behind the row's prefix.
fn columns(id: FamilyId, start: &Bound<Bytes>, end: &Bound<Bytes>) -> KeyRange {
    let mut prefix = Vec::new();
    cell_key::push_family(&mut prefix, id);
    let column = |qualifier: &Bytes| {
        let mut key = prefix.clone();
        cell_key::push_escaped(&mut key, qualifier);
        key
    };
    let start = match start {
        Bound::Unbounded => prefix.clone(),
        Bound::Included(qualifier) => column(qualifier),
        Bound::Excluded(qualifier) => cell_key::into_successor(column(qualifier)),
    };
    let end = match end {
        Bound::Unbounded => cell_key::into_successor(prefix.clone()),
        Bound::Included(qualifier) => cell_key::into_successor(column(qualifier)),
        Bound::Excluded(qualifier) => column(qualifier),
    };
    KeyRange { start: start.into(), end: end.into() }
}
