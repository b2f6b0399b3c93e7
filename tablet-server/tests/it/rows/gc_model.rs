//! Random columns and garbage collection rules: reads show what the model keeps,
//! before and after compactions, and a compaction leaves that and nothing else.
//!
//! The model has no idea of an order in which versions are looked at: of a column's
//! timestamps each rule marks some, and groups unite or intersect what their rules mark.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lsm::KeyRange;
use proptest::prelude::*;
use proptest::sample::select;
use row_api::admin;
use row_api::admin::gc_rule::{Intersection, Rule, Union};
use tablet_server::gc;

use super::{Table, delete_column, delete_row, set};

const FAMILY: &str = "f";
const ROWS: [&str; 3] = ["a", "a\0", "b"];
const QUALIFIERS: [&str; 3] = ["", "q", "q\0"];
/// Cells are at most so old when rules are first applied, ms.
const AGES_MS: i64 = 24;

/// A row and a qualifier, by their places.
type Column = (usize, usize);

#[derive(Clone, Debug)]
enum Step {
    /// Sets the cell that is so old, ms, at the first time that rules are applied.
    Set(Column, i64),
    /// Deletes the column's cells between these ages.
    DeleteColumn(Column, i64, i64),
    DeleteRow(usize),
    Flush,
}

/// What is stored: each column's timestamps, ms.
type Stored = BTreeMap<Column, BTreeSet<i64>>;

fn column() -> impl Strategy<Value = Column> {
    (0..ROWS.len(), 0..QUALIFIERS.len())
}

fn step() -> impl Strategy<Value = Step> {
    // Some are of the future.
    let age = || -2..AGES_MS;
    prop_oneof![
        12 => (column(), age()).prop_map(|(column, age)| Step::Set(column, age)),
        2 => (column(), age(), 1..6i64).prop_map(|(column, age, length)| Step::DeleteColumn(column, age, length)),
        1 => (0..ROWS.len()).prop_map(Step::DeleteRow),
        2 => Just(Step::Flush),
    ]
}

fn rule() -> impl Strategy<Value = admin::GcRule> {
    let age = |ms: i32| prost_types::Duration { seconds: 0, nanos: ms * 1_000_000 };
    let simple = prop_oneof![
        (1..6i32).prop_map(Rule::MaxNumVersions),
        select(&[1, 2, 5, 10, 20, 40][..]).prop_map(move |ms| Rule::MaxAge(age(ms))),
    ]
    .prop_map(|rule| admin::GcRule { rule: Some(rule) });
    simple.prop_recursive(3, 12, 3, |inner| {
        let group = prop::collection::vec(inner, 1..4);
        prop_oneof![
            group.clone().prop_map(|rules| Rule::Union(Union { rules })),
            group.prop_map(|rules| Rule::Intersection(Intersection { rules })),
        ]
        .prop_map(|rule| admin::GcRule { rule: Some(rule) })
    })
}

/// The timestamps, ms, of a column that `rule` says are garbage at `now_us`.
fn garbage(rule: &admin::GcRule, column: &BTreeSet<i64>, now_us: i64) -> BTreeSet<i64> {
    let of = |rule: &admin::GcRule| garbage(rule, column, now_us);
    match rule.rule.as_ref().unwrap() {
        Rule::MaxNumVersions(kept) => column.iter().rev().skip(*kept as usize).copied().collect(),
        Rule::MaxAge(age) => {
            let oldest_us = now_us - age.seconds * 1_000_000 - i64::from(age.nanos) / 1_000;
            column.iter().copied().filter(|ms| ms * 1_000 < oldest_us).collect()
        }
        Rule::Union(group) => group.rules.iter().flat_map(of).collect(),
        Rule::Intersection(group) => {
            let marked: Vec<_> = group.rules.iter().map(of).collect();
            column.iter().copied().filter(|ms| marked.iter().all(|set| set.contains(ms))).collect()
        }
    }
}

/// What `rule` leaves, as rows are read: by row, qualifier, newest first.
fn live(stored: &Stored, rule: &admin::GcRule, now_us: i64) -> Vec<(String, String, i64)> {
    let mut cells = Vec::new();
    for ((row, qualifier), column) in stored {
        let garbage = garbage(rule, column, now_us);
        let kept = column.iter().rev().filter(|ms| !garbage.contains(ms));
        cells.extend(kept.map(|ms| (ROWS[*row].to_owned(), QUALIFIERS[*qualifier].to_owned(), *ms)));
    }
    cells
}

fn read(table: &Table) -> Vec<(String, String, i64)> {
    let mut cells = Vec::new();
    for row in table.read(None) {
        for cell in row.cells {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let ms = cell.timestamp_us / 1_000;
            assert_eq!(cell.value, format!("{ms}").as_bytes());
            cells.push((text(&row.key), text(&cell.qualifier), ms));
        }
    }
    cells
}

fn apply(table: &Table, stored: &mut Stored, step: &Step, first_ms: i64) {
    match step {
        Step::Set(column, age) => {
            let ms = first_ms - age;
            table.mutate(ROWS[column.0], vec![set(FAMILY, QUALIFIERS[column.1], ms, &ms.to_string())]);
            stored.entry(*column).or_default().insert(ms);
        }
        Step::DeleteColumn(column, age, length) => {
            let (start, end) = (first_ms - age, first_ms - age + length);
            let deletion = delete_column(FAMILY, QUALIFIERS[column.1], Some((start, end)));
            table.mutate(ROWS[column.0], vec![deletion]);
            stored.entry(*column).or_default().retain(|ms| !(start..end).contains(ms));
        }
        Step::DeleteRow(row) => {
            table.mutate(ROWS[*row], vec![delete_row()]);
            stored.retain(|column, _| column.0 != *row);
        }
        Step::Flush => table.tree.flush().unwrap(),
    }
}

fn cells_on_disk(table: &Table) -> usize {
    let mut cells = table.tree.iter(&table.snapshot(), KeyRange::default());
    let mut count = 0;
    while cells.next().unwrap() {
        count += 1;
    }
    count
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn expired_cells_never_show_and_compactions_remove_them_and_nothing_else(
        first in prop::collection::vec(step(), 0..60),
        more in prop::collection::vec((column(), -2..AGES_MS), 0..12),
        rule in rule(),
        pauses_ms in prop::collection::vec(0..12i64, 1..4),
    ) {
        gc::check_rule("gc_rule", &rule).unwrap();
        let mut table = Table::new(&[FAMILY]);
        let mut stored = Stored::new();
        let first_ms = table.now_us / 1_000;
        for step in &first {
            apply(&table, &mut stored, step, first_ms);
        }
        table.schema.families.get_mut(FAMILY).unwrap().gc_rule = Some(rule.clone());
        let mut more = more.iter();
        for pause_ms in pauses_ms {
            table.now_us += pause_ms * 1_000;
            prop_assert_eq!(read(&table), live(&stored, &rule, table.now_us));

            let now_us = table.now_us;
            let decisions = gc::keep_decisions(Arc::new(table.schema.clone()), Arc::new(move || now_us));
            table.tree.set_keep_decision(decisions);
            table.tree.compact().unwrap();
            let kept = live(&stored, &rule, table.now_us);
            prop_assert_eq!(read(&table), kept.clone());
            prop_assert_eq!(cells_on_disk(&table), kept.len(), "what is garbage takes no space");

            // What is newer makes more garbage of what is there, and brings nothing back.
            for (column, age) in more.by_ref().take(4) {
                apply(&table, &mut stored, &Step::Set(*column, *age), first_ms);
            }
        }
    }
}
