//! Random tables and filters, read through the engine and through the model.

use proptest::prelude::*;
use proptest::sample::select;
use row_api::admin;
use row_api::admin::gc_rule::Rule;
use row_api::data;
use row_api::data::column_range::{EndQualifier, StartQualifier};
use row_api::data::row_filter::Filter as Kind;
use row_api::data::value_range::{EndValue, StartValue};
use tablet_server::check_and_mutate::CheckAndMutate;
use tablet_server::filter::Filter;
use tablet_server::row::Row;
use tablet_server::row_scan::{ScanOptions, read_row};
use tablet_server::row_set::RowSet;

use super::model::{self, ModelCell, PATTERNS};
use super::{Table, chain, condition, filter, interleave, key, set};

/// In the order of their creation, which is not that of their names.
const FAMILIES: [&str; 3] = ["fb", "fa", "gone"];
const ROWS: [&str; 4] = ["a", "a\0", "ab", "x"];
const QUALIFIERS: [&str; 5] = ["", "a", "a\0", "ab", "b"];
const VALUES: [&str; 5] = ["", "a", "x", "x\n", "b"];

#[derive(Clone, Debug)]
struct Written {
    row: &'static str,
    family: usize,
    qualifier: &'static str,
    milliseconds: i64,
    value: &'static str,
}

fn written() -> impl Strategy<Value = Written> {
    (select(&ROWS[..]), 0..FAMILIES.len(), select(&QUALIFIERS[..]), 1..6i64, select(&VALUES[..])).prop_map(
        |(row, family, qualifier, milliseconds, value)| Written {
            row,
            family,
            qualifier,
            milliseconds,
            value,
        },
    )
}

fn pattern() -> impl Strategy<Value = &'static str> {
    select(PATTERNS).prop_map(|(pattern, _)| pattern)
}

/// A pattern for row keys, which must not be empty.
fn row_pattern() -> impl Strategy<Value = &'static str> {
    pattern().prop_map(|pattern| if pattern.is_empty() { "a|x" } else { pattern })
}

fn column_range() -> impl Strategy<Value = Kind> {
    let end = || (0..3u8, select(&QUALIFIERS[..]));
    (select(&["fa", "fb", "gone", "none"][..]), end(), end()).prop_map(|(family, start, end)| {
        Kind::ColumnRangeFilter(data::ColumnRange {
            family_name: family.to_owned(),
            start_qualifier: match start.0 {
                0 => None,
                1 => Some(StartQualifier::StartQualifierClosed(key(start.1))),
                _ => Some(StartQualifier::StartQualifierOpen(key(start.1))),
            },
            end_qualifier: match end.0 {
                0 => None,
                1 => Some(EndQualifier::EndQualifierClosed(key(end.1))),
                _ => Some(EndQualifier::EndQualifierOpen(key(end.1))),
            },
        })
    })
}

fn value_range() -> impl Strategy<Value = Kind> {
    let end = || (0..3u8, select(&VALUES[..]));
    (end(), end()).prop_map(|(start, end)| {
        Kind::ValueRangeFilter(data::ValueRange {
            start_value: match start.0 {
                0 => None,
                1 => Some(StartValue::StartValueClosed(key(start.1))),
                _ => Some(StartValue::StartValueOpen(key(start.1))),
            },
            end_value: match end.0 {
                0 => None,
                1 => Some(EndValue::EndValueClosed(key(end.1))),
                _ => Some(EndValue::EndValueOpen(key(end.1))),
            },
        })
    })
}

fn simple_filter() -> impl Strategy<Value = data::RowFilter> {
    prop_oneof![
        Just(Kind::PassAllFilter(true)),
        Just(Kind::BlockAllFilter(true)),
        row_pattern().prop_map(|pattern| Kind::RowKeyRegexFilter(key(pattern))),
        pattern().prop_map(|pattern| Kind::FamilyNameRegexFilter(pattern.to_owned())),
        pattern().prop_map(|pattern| Kind::ColumnQualifierRegexFilter(key(pattern))),
        pattern().prop_map(|pattern| Kind::ValueRegexFilter(key(pattern))),
        column_range(),
        value_range(),
        select(&["", "a", "`", "`\n"][..])
            .prop_map(|mask| Kind::ValueBitmaskFilter(data::ValueBitmask { mask: key(mask) })),
        Just(Kind::Sink(true)),
        (0..6i64, 0..6i64).prop_map(|(start, end)| Kind::TimestampRangeFilter(data::TimestampRange {
            start_timestamp_micros: start * 1_000,
            end_timestamp_micros: end * 1_000,
        })),
        (0..6i32).prop_map(Kind::CellsPerRowOffsetFilter),
        (1..6i32).prop_map(Kind::CellsPerRowLimitFilter),
        (1..4i32).prop_map(Kind::CellsPerColumnLimitFilter),
        Just(Kind::StripValueTransformer(true)),
        select(&["one", "two"][..]).prop_map(|label| Kind::ApplyLabelTransformer(label.to_owned())),
    ]
    .prop_map(filter)
}

fn any_filter() -> impl Strategy<Value = data::RowFilter> {
    simple_filter().prop_recursive(4, 24, 4, |inner| {
        let group = prop::collection::vec(inner.clone(), 2..5);
        let branch = prop::option::of(inner.clone());
        prop_oneof![
            3 => group.clone().prop_map(chain),
            2 => group.prop_map(interleave),
            1 => (inner, branch.clone(), branch).prop_map(|(predicate, on_match, otherwise)| {
                condition(predicate, on_match, otherwise)
            }),
        ]
    })
}

/// How many versions each family keeps.
fn versions_kept() -> impl Strategy<Value = [Option<i32>; 2]> {
    [prop::option::of(1..4i32), prop::option::of(1..4i32)]
}

struct Case {
    table: Table,
    /// Rows with the cells that no rule hides.
    stored: Vec<(&'static str, Vec<ModelCell>)>,
}

/// Writes the cells, flushes after some of them, drops the last family.
fn case(cells: &[Written], flush_after: &[prop::sample::Index], kept: [Option<i32>; 2]) -> Case {
    let mut table = Table::new(&FAMILIES);
    let flushes: Vec<usize> = flush_after.iter().map(|at| at.index(cells.len().max(1))).collect();
    for (index, cell) in cells.iter().enumerate() {
        let family = FAMILIES[cell.family];
        table.mutate(cell.row, vec![set(family, cell.qualifier, cell.milliseconds, cell.value)]);
        if flushes.contains(&index) {
            table.tree.flush().unwrap();
        }
    }
    table.schema.families.remove("gone");
    for (name, kept) in FAMILIES.iter().zip(kept) {
        table.schema.families.get_mut(*name).unwrap().gc_rule =
            kept.map(|count| admin::GcRule { rule: Some(Rule::MaxNumVersions(count)) });
    }
    let rows = ROWS.iter().map(|row| (*row, stored(cells, row, kept))).collect();
    Case { table, stored: rows }
}

fn stored(cells: &[Written], row: &str, kept: [Option<i32>; 2]) -> Vec<ModelCell> {
    let mut stored: Vec<ModelCell> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.row == row && cell.family < kept.len()) {
        let model = ModelCell {
            family: (u32::try_from(cell.family).unwrap(), FAMILIES[cell.family].to_owned()),
            qualifier: cell.qualifier.into(),
            timestamp_us: cell.milliseconds * 1_000,
            value: cell.value.into(),
            label: None,
        };
        stored.retain(|older| older.position() != model.position());
        stored.push(model);
    }
    stored.sort_by(|a, b| a.position().cmp(&b.position()));
    let columns = stored.chunk_by(|a, b| a.family == b.family && a.qualifier == b.qualifier);
    columns
        .flat_map(|column| {
            let count = kept[column[0].family.0 as usize].unwrap_or(i32::MAX);
            column.iter().take(usize::try_from(count).unwrap()).cloned()
        })
        .collect()
}

fn as_model(row: &Row) -> (Vec<u8>, Vec<ModelCell>) {
    let cells = row.cells.iter().map(|cell| ModelCell {
        family: (cell.family_id.0 - 1, cell.family.to_string()),
        qualifier: cell.qualifier.to_vec(),
        timestamp_us: cell.timestamp_us,
        value: cell.value.to_vec(),
        label: cell.label.as_ref().map(ToString::to_string),
    });
    (row.key.to_vec(), cells.collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn reads_are_what_the_model_says(
        cells in prop::collection::vec(written(), 0..60),
        flush_after in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        kept in versions_kept(),
        asked in any_filter(),
        budget_bytes in select(&[1usize, 300, 1 << 20][..]),
        rows_limit in prop::option::of(1..4usize),
        reversed in any::<bool>(),
    ) {
        let Case { table, stored } = case(&cells, &flush_after, kept);
        // A chain may label its cells once only, and no sink stands in a condition,
        // which the strategy does not know.
        let Ok(compiled) = Filter::compile("filter", Some(&asked), &table.schema) else { return Ok(()) };

        let mut expect: Vec<(Vec<u8>, Vec<ModelCell>)> = stored
            .iter()
            .map(|(row, cells)| (row.as_bytes().to_vec(), model::apply(&asked, row.as_bytes(), cells)))
            .collect();
        for (row, cells) in &expect {
            let read = read_row(
                &table.trees, &table.snapshot(), &table.schema, row, &compiled, &table.options(),
            ).unwrap();
            let read = read.map_or_else(Vec::new, |row| as_model(&row).1);
            prop_assert_eq!(&read, cells, "row {}", row.escape_ascii());
            prop_assert_eq!(predicate_matches(&table, row, &asked), !cells.is_empty());
        }

        expect.retain(|(_, cells)| !cells.is_empty());
        expect.sort();
        if reversed {
            expect.reverse();
        }
        expect.truncate(rows_limit.unwrap_or(usize::MAX));
        let rows_limit = rows_limit.map(|limit| u64::try_from(limit).unwrap());
        let options = ScanOptions { reversed, rows_limit, ..table.options() };
        let mut scan = table.scan(RowSet::all(), Some(&asked), options);
        let read: Vec<_> = Table::drain(&mut scan, budget_bytes).iter().map(as_model).collect();
        prop_assert_eq!(read, expect);
    }
}

fn predicate_matches(table: &Table, row: &[u8], predicate: &data::RowFilter) -> bool {
    let request = data::CheckAndMutateRowRequest {
        row_key: row.to_vec().into(),
        predicate_filter: Some(predicate.clone()),
        true_mutations: vec![set("fa", "q", 1, "v")],
        ..data::CheckAndMutateRowRequest::default()
    };
    let checked = CheckAndMutate::check(&table.schema, request).unwrap();
    checked.matches(&table.trees, &table.snapshot(), &table.schema, &table.options()).unwrap()
}
