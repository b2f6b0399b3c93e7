//! Which trees of an engine are a tablet's, and what becomes of each where
//! other tablets take the tablet's place.
//!
//! A tree's number:
//!
//! ```text
//! BITS    FIELD
//!  0..48  the tablet's number
//! 48..64  which of its trees: 0 the cells of its default locality group, 1 its
//!         changes, n + 1 the cells of its locality group n
//! ```

use std::collections::HashSet;

use lsm::{Engine, KeyRange, TreeId};

use crate::row_set::RowRange;
use crate::schema::{GroupId, TabletId};

const TABLET_BITS: u32 = 48;

/// The kind of trees that hold changes.
const CHANGES: u64 = 1;

/// The tree that holds the cells of `tablet`'s default locality group, which every tablet has.
pub(crate) fn tree_id(tablet: TabletId) -> TreeId {
    group_tree_id(tablet, GroupId::DEFAULT)
}

/// The tree that holds the cells of a locality group of `tablet`, if there are any.
pub(crate) fn group_tree_id(tablet: TabletId, group: GroupId) -> TreeId {
    let kind = match group {
        GroupId::DEFAULT => 0,
        GroupId(number) => u64::from(number) + CHANGES,
    };
    TreeId(kind << TABLET_BITS | tablet.0)
}

/// The locality group whose cells `tree` holds, if it holds cells.
pub(crate) fn group_of(tree: TreeId) -> Option<GroupId> {
    match tree.0 >> TABLET_BITS {
        0 => Some(GroupId::DEFAULT),
        CHANGES => None,
        kind => u32::try_from(kind - CHANGES).ok().map(GroupId),
    }
}

/// The tree that holds `tablet`'s changes, where its table has a change stream.
pub(crate) fn change_tree_id(tablet: TabletId) -> TreeId {
    TreeId(CHANGES << TABLET_BITS | tablet.0)
}

/// The trees of `tablet` that are in `engine`.
pub(crate) fn trees_of(engine: &Engine, tablet: TabletId) -> Vec<TreeId> {
    let ids = engine.trees().into_iter().map(|tree| tree.id());
    ids.filter(|id| tablet_of(*id) == tablet).collect()
}

/// The tree that is for `tablet` what `tree` is for another tablet.
pub(crate) fn counterpart(tree: TreeId, tablet: TabletId) -> TreeId {
    TreeId(tree.0 >> TABLET_BITS << TABLET_BITS | tablet.0)
}

/// What a tablet of `rows` takes of a tree that holds these rows and others:
/// all changes, for they are not in the order of rows, and whoever reads them looks at the row.
pub(crate) fn part_of(tree: TreeId, rows: &RowRange) -> KeyRange {
    if holds_cells(tree) { rows.cell_keys() } else { KeyRange::default() }
}

/// The tablets in `engine` that have a tree which cannot become one with its neighbour's.
pub(crate) fn unmergeable(engine: &Engine) -> HashSet<TabletId> {
    let ids = engine.trees().into_iter().map(|tree| tree.id());
    ids.filter(|id| !can_unite(*id)).map(tablet_of).collect()
}

/// Whether trees like `tree`, of tablets that follow each other, can become one:
/// what was taken whole of one tree would be there twice.
fn can_unite(tree: TreeId) -> bool {
    holds_cells(tree)
}

fn holds_cells(tree: TreeId) -> bool {
    group_of(tree).is_some()
}

fn tablet_of(tree: TreeId) -> TabletId {
    TabletId(tree.0 & ((1 << TABLET_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counterpart_is_of_the_same_kind() {
        assert_eq!(counterpart(tree_id(TabletId(7)), TabletId(9)), tree_id(TabletId(9)));
        assert_eq!(counterpart(change_tree_id(TabletId(7)), TabletId(9)), change_tree_id(TabletId(9)));
    }

    #[test]
    fn each_group_has_a_tree_of_its_own() {
        let tablet = TabletId(7);
        assert_eq!(group_tree_id(tablet, GroupId::DEFAULT), TreeId(7));
        for group in [GroupId::DEFAULT, GroupId(1), GroupId::MAX] {
            let tree = group_tree_id(tablet, group);
            assert_eq!((group_of(tree), tablet_of(tree)), (Some(group), tablet));
            assert_ne!(tree, change_tree_id(tablet));
        }
        assert_eq!(group_of(change_tree_id(tablet)), None);
    }

    #[test]
    fn each_child_takes_its_rows_and_all_changes() {
        let rows = RowRange { start: "m".into(), end: "n".into() };
        assert_eq!(part_of(tree_id(TabletId(7)), &rows), rows.cell_keys());
        assert_eq!(part_of(change_tree_id(TabletId(7)), &rows), KeyRange::default());
        assert!(can_unite(tree_id(TabletId(7))) && !can_unite(change_tree_id(TabletId(7))));
    }
}
