//! Authorized views: the part of a table that a request which names one is held to.
//!
//! Reads see the view's rows and columns as if there were no others, before any
//! filter of theirs. Writes to anything else are refused, and so are deletes that
//! would reach beyond it, so a view shows nothing of what it hides. Families stand
//! by name: a family that is dropped and made again is in the view as before.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::ops::Bound;

use bytes::Bytes;
use row_api::admin::authorized_view::{FamilySubsets, SubsetView};
use row_api::data;
use row_api::data::mutation::Mutation;
use tonic::Status;

use crate::cell_key;
use crate::row_set::RowSet;
use crate::schema::{FamilyId, TableSchema};

/// Part of a table, to look up in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizedView {
    rows: RowSet,
    families: BTreeMap<String, Qualifiers>,
}

/// Columns of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Qualifiers {
    /// Sorted, and none that a prefix covers.
    exact: Vec<Bytes>,
    /// Sorted, and none that another covers.
    prefixes: Vec<Bytes>,
}

/// The columns of a view, by the ids that its families have in one schema.
#[derive(Clone, Debug, Default)]
pub(crate) struct ViewColumns(HashMap<FamilyId, Qualifiers>);

impl AuthorizedView {
    /// The view that `subset` describes.
    pub fn new(subset: &SubsetView) -> Self {
        let families = subset.family_subsets.iter();
        Self {
            rows: RowSet::of_prefixes(&subset.row_prefixes),
            families: families.map(|(name, subset)| (name.clone(), Qualifiers::new(subset))).collect(),
        }
    }

    /// Its rows.
    pub fn rows(&self) -> &RowSet {
        &self.rows
    }

    /// Its columns in a table of that schema.
    pub(crate) fn columns(&self, schema: &TableSchema) -> ViewColumns {
        let families = self.families.iter();
        let by_id = families.filter_map(|(name, columns)| Some((schema.family(name)?.id, columns.clone())));
        ViewColumns(by_id.collect())
    }

    /// Refuses a write to the row `row_key`, which stands at `field`, where it is not in the view.
    ///
    /// # Errors
    ///
    /// PERMISSION_DENIED.
    pub fn check_row(&self, field: impl Display, row_key: &[u8]) -> Result<(), Status> {
        if self.rows.contains(row_key) {
            return Ok(());
        }
        Err(denied(field, "the row is not in the authorized view"))
    }

    /// Refuses `mutations`, which stand at `field`, where one reaches beyond the view.
    ///
    /// # Errors
    ///
    /// PERMISSION_DENIED.
    pub fn check_mutations(&self, field: &str, mutations: &[data::Mutation]) -> Result<(), Status> {
        for (place, mutation) in mutations.iter().enumerate() {
            let field = format_args!("{field}[{place}]");
            match &mutation.mutation {
                Some(Mutation::SetCell(set)) => {
                    self.check_column(field, &set.family_name, &set.column_qualifier)?;
                }
                Some(Mutation::DeleteFromColumn(delete)) => {
                    self.check_column(field, &delete.family_name, &delete.column_qualifier)?;
                }
                Some(Mutation::DeleteFromFamily(delete)) if !self.has_all_of(&delete.family_name) => {
                    return Err(denied(field, "not all of the family is in the authorized view"));
                }
                Some(Mutation::DeleteFromRow(_)) => {
                    let why = "an authorized view deletes columns and families, not rows";
                    return Err(denied(field, why));
                }
                Some(Mutation::AddToCell(add)) => {
                    self.check_column(field, &add.family_name, raw(add.column_qualifier.as_ref()))?;
                }
                Some(Mutation::MergeToCell(merge)) => {
                    self.check_column(field, &merge.family_name, raw(merge.column_qualifier.as_ref()))?;
                }
                Some(Mutation::DeleteFromFamily(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Refuses `rules`, which stand at `field`, where one changes what is not in the view.
    ///
    /// # Errors
    ///
    /// PERMISSION_DENIED.
    pub fn check_rules(&self, field: &str, rules: &[data::ReadModifyWriteRule]) -> Result<(), Status> {
        rules.iter().enumerate().try_for_each(|(place, rule)| {
            self.check_column(format_args!("{field}[{place}]"), &rule.family_name, &rule.column_qualifier)
        })
    }

    fn check_column(&self, field: impl Display, family: &str, qualifier: &[u8]) -> Result<(), Status> {
        if self.families.get(family).is_some_and(|columns| columns.contains(qualifier)) {
            return Ok(());
        }
        Err(denied(field, "the column is not in the authorized view"))
    }

    fn has_all_of(&self, family: &str) -> bool {
        self.families.get(family).is_some_and(|columns| columns.prefixes.iter().any(Bytes::is_empty))
    }
}

impl Qualifiers {
    fn new(subset: &FamilySubsets) -> Self {
        let mut sorted = subset.qualifier_prefixes.clone();
        sorted.sort_unstable();
        let mut prefixes: Vec<Bytes> = Vec::with_capacity(sorted.len());
        for prefix in sorted {
            if !prefixes.last().is_some_and(|before| prefix.starts_with(before)) {
                prefixes.push(prefix);
            }
        }
        let mut columns = Self { exact: Vec::new(), prefixes };
        let mut exact = subset.qualifiers.clone();
        exact.retain(|qualifier| !columns.contains(qualifier));
        exact.sort_unstable();
        exact.dedup();
        columns.exact = exact;
        columns
    }

    fn contains(&self, qualifier: &[u8]) -> bool {
        // No prefix covers another, so none but the last one at or before it can cover it.
        let after = self.prefixes.partition_point(|prefix| prefix <= qualifier);
        let is_covered = after > 0 && qualifier.starts_with(&self.prefixes[after - 1]);
        is_covered || self.exact.binary_search_by(|exact| (**exact).cmp(qualifier)).is_ok()
    }

    fn ranges(&self) -> impl Iterator<Item = (Bound<Bytes>, Bound<Bytes>)> {
        let exact =
            self.exact.iter().map(|only| (Bound::Included(only.clone()), Bound::Included(only.clone())));
        let prefixes = self.prefixes.iter().map(|prefix| {
            let end = cell_key::into_successor(prefix.to_vec());
            let end = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end.into()) };
            (Bound::Included(prefix.clone()), end)
        });
        exact.chain(prefixes)
    }
}

impl ViewColumns {
    /// Whether the column is one of them.
    pub(crate) fn contains(&self, family: FamilyId, qualifier: &[u8]) -> bool {
        self.0.get(&family).is_some_and(|columns| columns.contains(qualifier))
    }

    /// Each family's ranges of qualifiers.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (FamilyId, Bound<Bytes>, Bound<Bytes>)> {
        self.0.iter().flat_map(|(id, columns)| columns.ranges().map(|(start, end)| (*id, start, end)))
    }
}

/// A qualifier that an aggregate mutation carries; another kind of value is refused elsewhere.
fn raw(value: Option<&data::Value>) -> &[u8] {
    match value.and_then(|value| value.kind.as_ref()) {
        Some(data::value::Kind::RawValue(qualifier)) => qualifier,
        _ => &[],
    }
}

fn denied(field: impl Display, why: &str) -> Status {
    Status::permission_denied(format!("{field}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use row_api::data::mutation::{DeleteFromColumn, DeleteFromFamily, DeleteFromRow, SetCell};

    fn bytes(list: &[&'static str]) -> Vec<Bytes> {
        list.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
    }

    fn view(rows: &[&'static str], families: &[(&str, &[&'static str], &[&'static str])]) -> AuthorizedView {
        let subset = |exact: &[&'static str], prefixes: &[&'static str]| FamilySubsets {
            qualifiers: bytes(exact),
            qualifier_prefixes: bytes(prefixes),
        };
        AuthorizedView::new(&SubsetView {
            row_prefixes: bytes(rows),
            family_subsets: families
                .iter()
                .map(|(name, exact, prefixes)| ((*name).to_owned(), subset(exact, prefixes)))
                .collect(),
        })
    }

    #[test]
    fn a_column_is_in_the_view_by_name_or_prefix() {
        let view = view(&[""], &[("f", &["x", "ab", "", "x"], &["b", "a", "bc"]), ("all", &["q"], &[""])]);
        let schema = TableSchema::with_families(&["f", "g", "all"]);
        let columns = view.columns(&schema);
        for (family, qualifier, expected) in [
            ("f", "a", true),
            ("f", "abc", true),
            ("f", "b", true),
            ("f", "bcd", true),
            ("f", "c", false),
            ("f", "x", true),
            ("f", "xy", false),
            ("f", "", true),
            ("all", "anything", true),
            ("g", "a", false),
        ] {
            let id = schema.family(family).unwrap().id;
            assert_eq!(columns.contains(id, qualifier.as_bytes()), expected, "{family}:{qualifier}");
        }
        assert_eq!(columns.ranges().count(), 5);
    }

    #[test]
    fn a_view_without_rows_or_families_has_none() {
        let nothing = view(&[], &[]);
        assert!(nothing.rows().is_empty());
        assert!(nothing.check_row("row_key", b"r").is_err());
        assert!(nothing.check_mutations("mutations", &[]).is_ok());
    }

    #[test]
    fn a_write_stays_within_the_view() {
        let view = view(&["ab", "b"], &[("f", &["q"], &["p"]), ("all", &[], &[""])]);
        for (row, expected) in
            [("ab", true), ("abc", true), ("b", true), ("bz", true), ("a", false), ("c", false)]
        {
            assert_eq!(view.check_row("row_key", row.as_bytes()).is_ok(), expected, "{row}");
        }
        let set = |family: &str, qualifier: &'static str| {
            let family_name = family.to_owned();
            Mutation::SetCell(SetCell {
                family_name,
                column_qualifier: qualifier.into(),
                ..SetCell::default()
            })
        };
        let delete = |family: &str, qualifier: &'static str| {
            let (family_name, column_qualifier) = (family.to_owned(), qualifier.into());
            Mutation::DeleteFromColumn(DeleteFromColumn { family_name, column_qualifier, time_range: None })
        };
        let drop =
            |family: &str| Mutation::DeleteFromFamily(DeleteFromFamily { family_name: family.to_owned() });
        let of = |mutation| data::Mutation::from(mutation);
        for (mutation, expected) in [
            (set("f", "q"), true),
            (set("f", "px"), true),
            (set("f", "x"), false),
            (set("g", "q"), false),
            (delete("f", "q"), true),
            (delete("f", "x"), false),
            (drop("all"), true),
            (drop("f"), false),
            (Mutation::DeleteFromRow(DeleteFromRow {}), false),
        ] {
            let mutations = [of(set("f", "q")), of(mutation.clone())];
            let outcome = view.check_mutations("mutations", &mutations);
            assert_eq!(outcome.is_ok(), expected, "{mutation:?}");
            if let Err(status) = outcome {
                assert_eq!(status.code(), tonic::Code::PermissionDenied);
                assert!(status.message().starts_with("mutations[1]: "), "{status}");
            }
        }
    }
}
