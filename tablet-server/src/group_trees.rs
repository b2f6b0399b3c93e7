//! The trees of a tablet's locality groups, and which family's cells are where
//! (the paper, section 6).
//!
//! A tablet has one tree a group. That of the default group is always there;
//! others are made when something is first written to their families, so a
//! table without groups has one tree and pays nothing. All of a row's cells go
//! into one batch, whatever the trees, and reads see all trees at one snapshot.
//!
//! A family is read in one tree. While it moves to another group what is
//! written to it goes to both, and its cells are copied behind
//! (`tablet/groups.rs`); what it leaves behind afterwards is hidden from
//! reads, and dropped by compactions.

use std::collections::BTreeMap;

use lsm::{Engine, KeyRange, Tree, TreeFormat, TreeId, TreeTuning};

use crate::aggregate::CellAggregates;
use crate::cell_key;
use crate::filter::Filter;
use crate::key_ranges;
use crate::schema::{FamilyId, FamilyPlace, GroupId, TableSchema, TabletId};
use crate::tablet_trees::{group_of, group_tree_id};

/// Locality groups of a table, the default one aside.
pub const GROUP_COUNT_MAX: usize = 16;

/// What the trees of tablets are made with.
pub fn tree_format() -> TreeFormat {
    TreeFormat { filter_key: cell_key::FILTER_KEY, merge_operator: Some(CellAggregates::NAME.to_owned()) }
}

/// A tablet's trees of cells at one moment.
#[derive(Clone, Debug)]
pub struct GroupTrees {
    default: Tree,
    /// Those of other groups that have one, in the order of their numbers.
    others: Vec<(GroupId, Tree)>,
    /// Families that are not in the default group or are being moved, in the order of their numbers.
    places: Vec<(FamilyId, FamilyPlace)>,
    tunings: BTreeMap<GroupId, TreeTuning>,
    /// Families from here on are not known yet: nothing of them is here.
    next_family: FamilyId,
}

/// Which of a tablet's trees a read looks into: bit 0 is the default group's, the others follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TreeSet(u32);

impl TreeSet {
    const DEFAULT: Self = Self(1);

    /// The trees' places.
    pub(crate) fn places(self) -> impl Iterator<Item = usize> {
        (0..=GROUP_COUNT_MAX).filter(move |place| self.0 >> place & 1 == 1)
    }
}

impl GroupTrees {
    /// One tree for all families.
    pub fn single(tree: Tree) -> Self {
        Self {
            default: tree,
            others: Vec::new(),
            places: Vec::new(),
            tunings: BTreeMap::new(),
            next_family: FamilyId(u32::MAX),
        }
    }

    /// The trees of `tablet` that are in `engine`, beside `default`, with families as `schema`
    /// places them; nothing is known of families without one.
    pub(crate) fn open(
        engine: &Engine,
        tablet: TabletId,
        default: Tree,
        schema: Option<&TableSchema>,
    ) -> Self {
        let mut trees = Self { next_family: FamilyId(0), ..Self::single(default) };
        if let Some(schema) = schema {
            trees.arrange(schema);
            trees.find(engine, tablet);
        }
        trees
    }

    /// The same trees with families as `schema` places them.
    pub(crate) fn arranged(&self, schema: &TableSchema) -> Self {
        let mut arranged = self.clone();
        arranged.arrange(schema);
        arranged
    }

    fn arrange(&mut self, schema: &TableSchema) {
        let placed = schema.families.values().filter(|family| family.place != FamilyPlace::default());
        self.places = placed.map(|family| (family.id, family.place)).collect();
        self.places.sort_unstable_by_key(|(family, _)| *family);
        self.tunings.clone_from(&schema.group_tunings);
        self.next_family = self.next_family.max(schema.next_family_id);
    }

    /// Takes in the trees of its groups that are in `engine`.
    pub(crate) fn find(&mut self, engine: &Engine, tablet: TabletId) {
        let find = |group| Some((group, engine.tree(group_tree_id(tablet, group))?));
        self.others = self.groups().into_iter().filter_map(find).collect();
    }

    /// Makes the trees of its groups that are not in `engine` yet, durably. May wait for the disk.
    ///
    /// # Errors
    ///
    /// [`lsm::Error`]; some may have been made.
    pub(crate) fn create(&mut self, engine: &Engine, tablet: TabletId) -> lsm::Result<()> {
        for group in self.groups() {
            let id = group_tree_id(tablet, group);
            if engine.tree(id).is_none() {
                engine.create_tree(id, tree_format())?;
            }
        }
        self.find(engine, tablet);
        Ok(())
    }

    /// The groups that hold a family, or are to, the default one aside.
    fn groups(&self) -> Vec<GroupId> {
        let both = |(_, place): &(FamilyId, FamilyPlace)| [Some(place.group), place.moving_to];
        let mut groups: Vec<_> = self.places.iter().flat_map(both).flatten().collect();
        groups.retain(|group| *group != GroupId::DEFAULT);
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Whether families are placed and groups tuned alike in both, as far as both know them.
    pub(crate) fn is_arranged_as(&self, other: &Self) -> bool {
        self.places == other.places && self.tunings == other.tunings && self.next_family == other.next_family
    }

    /// Whether it is not known yet what families there are.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.next_family == FamilyId(0)
    }

    /// Whether something is to be done before `family` can be written.
    pub fn lacks(&self, family: FamilyId) -> bool {
        if family >= self.next_family {
            return true;
        }
        let place = self.place(family);
        place != FamilyPlace::default()
            && [Some(place.group), place.moving_to]
                .into_iter()
                .flatten()
                .any(|group| self.tree(group).is_none())
    }

    fn place(&self, family: FamilyId) -> FamilyPlace {
        match self.places.binary_search_by_key(&family, |(family, _)| *family) {
            Ok(at) => self.places[at].1,
            Err(_) => FamilyPlace::default(),
        }
    }

    /// The tree of `group`, if it has one.
    pub(crate) fn tree(&self, group: GroupId) -> Option<&Tree> {
        match group {
            GroupId::DEFAULT => Some(&self.default),
            group => self.others.iter().find(|(other, _)| *other == group).map(|(_, tree)| tree),
        }
    }

    /// All trees, each with its group.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (GroupId, &Tree)> {
        let others = self.others.iter().map(|(group, tree)| (*group, tree));
        std::iter::once((GroupId::DEFAULT, &self.default)).chain(others)
    }

    /// How the tree of `group` is to be written and kept.
    pub(crate) fn tuning(&self, group: GroupId) -> TreeTuning {
        self.tunings.get(&group).copied().unwrap_or_default()
    }

    /// Calls `write` with each tree that what changes all families goes to.
    pub(crate) fn each(&self, mut write: impl FnMut(TreeId)) {
        self.iter().for_each(|(_, tree)| write(tree.id()));
    }

    /// Calls `write` with each tree that what changes `family` goes to.
    pub(crate) fn each_of(&self, family: FamilyId, mut write: impl FnMut(TreeId)) {
        if self.places.is_empty() {
            return write(self.default.id());
        }
        let place = self.place(family);
        let groups = [Some(place.group), place.moving_to];
        groups.into_iter().flatten().filter_map(|group| self.tree(group)).for_each(|tree| write(tree.id()));
    }

    /// Whether cells of `family` in the tree of `group` matter to readers or writers.
    pub(crate) fn uses(&self, group: GroupId, family: FamilyId) -> bool {
        let place = self.place(family);
        family >= self.next_family || place.group == group || place.moving_to == Some(group)
    }

    /// The families that are being moved, each from one group to another.
    pub(crate) fn moves(&self) -> Vec<(FamilyId, GroupId, GroupId)> {
        let moves =
            |(family, place): &(FamilyId, FamilyPlace)| Some((*family, place.group, place.moving_to?));
        self.places.iter().filter_map(moves).collect()
    }

    /// Which of the trees, as [`GroupTrees::at`] counts them, holds the cells of `family` for readers.
    pub(crate) fn place_of(&self, family: FamilyId) -> Option<usize> {
        if self.places.is_empty() {
            return Some(0);
        }
        match self.place(family).group {
            GroupId::DEFAULT => Some(0),
            group => self.others.iter().position(|(other, _)| *other == group).map(|at| at + 1),
        }
    }

    /// The tree at a place.
    pub(crate) fn at(&self, place: usize) -> &Tree {
        match place {
            0 => &self.default,
            place => &self.others[place - 1].1,
        }
    }

    /// The trees that hold something that `filter` can depend on: what it makes of
    /// a row's cells is what it makes of those within its bounds.
    pub(crate) fn needed(&self, schema: &TableSchema, filter: &Filter) -> TreeSet {
        if self.places.is_empty() {
            return TreeSet::DEFAULT;
        }
        let matters = |family: FamilyId| {
            let cells = family_range(family);
            filter.bounds().ranges().iter().any(|range| key_ranges::intersection(range, &cells).is_some())
        };
        let families = schema.families.values().map(|family| family.id).filter(|family| matters(*family));
        let places = families.filter_map(|family| self.place_of(family));
        TreeSet(places.fold(0, |set, place| set | 1 << place))
    }
}

/// What the cell keys of `family` are behind a row's prefix.
fn family_range(family: FamilyId) -> KeyRange {
    let mut prefix = Vec::new();
    cell_key::push_family(&mut prefix, family);
    let end = cell_key::into_successor(prefix.clone());
    KeyRange { start: prefix.into(), end: end.into() }
}

/// The trees of `tablet` in `engine` that are of groups which the table does not
/// have any more; one without families may get some again.
pub(crate) fn unused_trees(engine: &Engine, tablet: TabletId, trees: &GroupTrees) -> Vec<TreeId> {
    let is_unused = |tree: &TreeId| {
        group_of(*tree).is_some_and(|group| group != GroupId::DEFAULT && !trees.tunings.contains_key(&group))
    };
    crate::tablet_trees::trees_of(engine, tablet).into_iter().filter(is_unused).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use lsm::Options;
    use row_api::data::RowFilter;
    use row_api::data::row_filter::{Chain, Filter as Kind, Interleave};

    use super::*;

    /// A tablet whose family `a` is in the default group, `b` in group 1 and `c` on its way from 1 to 2.
    fn trees() -> (TableSchema, GroupTrees) {
        let mut schema = TableSchema::with_families(&["a", "b", "c"]);
        let place = |group, moving_to: Option<u32>| FamilyPlace {
            group: GroupId(group),
            moving_to: moving_to.map(GroupId),
        };
        schema.families.get_mut("b").unwrap().place = place(1, None);
        schema.families.get_mut("c").unwrap().place = place(1, Some(2));
        let options = Options { merge_operators: vec![Arc::new(CellAggregates)], ..Options::default() };
        let files = Arc::new(vfs::SimulatedFileSystem::new());
        let engine = Engine::open(files, Path::new("/engine"), 1, options).unwrap();
        let tablet = TabletId(7);
        let default = engine.create_tree(group_tree_id(tablet, GroupId::DEFAULT), tree_format()).unwrap();
        let mut trees = GroupTrees::open(&engine, tablet, default, Some(&schema));
        assert!(trees.lacks(FamilyId(2)) && trees.lacks(FamilyId(9)) && !trees.lacks(FamilyId(1)));
        trees.create(&engine, tablet).unwrap();
        assert!(!trees.lacks(FamilyId(2)) && !trees.lacks(FamilyId(3)));
        (schema, trees)
    }

    #[test]
    fn a_family_is_read_in_one_tree_and_written_to_two_while_it_moves() {
        let (_, trees) = trees();
        let written = |family| {
            let mut places = Vec::new();
            trees.each_of(FamilyId(family), |tree| places.push(group_of(tree).unwrap().0));
            places
        };
        assert_eq!([1, 2, 3].map(written), [vec![0], vec![1], vec![1, 2]]);
        assert_eq!([1, 2, 3].map(|family| trees.place_of(FamilyId(family))), [Some(0), Some(1), Some(1)]);
        assert!(trees.uses(GroupId(2), FamilyId(3)) && !trees.uses(GroupId(0), FamilyId(3)));
        assert!(trees.uses(GroupId(0), FamilyId(9)), "a family that is newer than the trees");
    }

    #[test]
    fn a_read_looks_into_the_trees_that_its_filter_reaches() {
        let (schema, trees) = trees();
        let family = |name: &str| RowFilter::from(Kind::FamilyNameRegexFilter(name.to_owned()));
        let of = |filters| Kind::Interleave(Interleave { filters });
        for (filter, expected) in [
            (Kind::PassAllFilter(true), &[0, 1][..]),
            (Kind::BlockAllFilter(true), &[]),
            (Kind::FamilyNameRegexFilter("a".to_owned()), &[0]),
            (Kind::FamilyNameRegexFilter("[bc]".to_owned()), &[1]),
            (Kind::FamilyNameRegexFilter("x".to_owned()), &[]),
            (of(vec![family("b"), family("c")]), &[1]),
            (of(vec![family("a"), Kind::PassAllFilter(true).into()]), &[0, 1]),
            (
                Kind::Chain(Chain { filters: vec![family("a"), of(vec![family("a"), family("b")]).into()] }),
                &[0],
            ),
            // What comes first decides which cells there are to be counted.
            (
                Kind::Chain(Chain { filters: vec![Kind::CellsPerRowLimitFilter(1).into(), family("a")] }),
                &[0, 1],
            ),
        ] {
            let compiled = Filter::compile("filter", Some(&filter.clone().into()), &schema).unwrap();
            let places: Vec<_> = trees.needed(&schema, &compiled).places().collect();
            assert_eq!(places, expected, "{filter:?}");
        }
    }
}
