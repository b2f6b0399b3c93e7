//! Aggregate cells over a real engine: what adds and merges make of them, in
//! memory, in tables, after deletes, under GC rules and after power cuts.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lsm::{Background, Engine, Options, WriteBatch};
use proptest::prelude::*;
use prost::Message;
use row_api::data;
use row_api::data::mutation::{AddToCell, MergeToCell, Mutation};
use row_api::data::value::Kind;
use tablet_server::CountedInput;
use tablet_server::aggregate::{Aggregate, CellAggregates};
use tablet_server::group_trees::{GroupTrees, tree_format};
use tablet_server::mutation::RowMutations;
use tonic::Code;

use super::{Table, delete_column, delete_family, delete_row, key, lines, mutation, set};

const FAMILIES: [(&str, Option<Aggregate>); 5] = [
    ("sum", Some(Aggregate::Sum)),
    ("min", Some(Aggregate::Min)),
    ("max", Some(Aggregate::Max)),
    ("unique", Some(Aggregate::UniqueCount(CountedInput::Int64))),
    ("plain", None),
];

fn table() -> Table {
    let mut table = Table::new(&FAMILIES.map(|(name, _)| name));
    for (name, aggregate) in FAMILIES {
        table.schema.families.get_mut(name).unwrap().aggregate = aggregate;
    }
    table
}

fn value(kind: Kind) -> Option<data::Value> {
    Some(data::Value { r#type: None, kind: Some(kind) })
}

fn add(family: &str, qualifier: &str, milliseconds: i64, number: i64) -> data::Mutation {
    mutation(Mutation::AddToCell(AddToCell {
        family_name: family.to_owned(),
        column_qualifier: value(Kind::RawValue(key(qualifier))),
        timestamp: value(Kind::RawTimestampMicros(milliseconds * 1_000)),
        input: value(Kind::IntValue(number)),
    }))
}

fn merge(family: &str, qualifier: &str, milliseconds: i64, state: Bytes) -> data::Mutation {
    mutation(Mutation::MergeToCell(MergeToCell {
        family_name: family.to_owned(),
        column_qualifier: value(Kind::RawValue(key(qualifier))),
        timestamp: value(Kind::RawTimestampMicros(milliseconds * 1_000)),
        input: value(Kind::RawValue(state)),
    }))
}

/// Rows as a line a cell, the values as integers.
fn numbers(table: &Table) -> String {
    let mut lines = String::new();
    for row in table.read(None) {
        for cell in &row.cells {
            let number = i64::from_be_bytes(cell.value[..].try_into().unwrap());
            let (qualifier, at) = (cell.qualifier.escape_ascii(), cell.timestamp_us / 1_000);
            lines.push_str(&format!(
                "{} {}:{qualifier}@{at}={number}\n",
                row.key.escape_ascii(),
                cell.family
            ));
        }
    }
    lines
}

#[test]
fn cells_gather_what_is_added_a_timestamp_each() {
    let table = table();
    for number in [5, -9, 7] {
        table.mutate("r", ["sum", "min", "max"].map(|family| add(family, "q", 1, number)).to_vec());
    }
    table.mutate("r", vec![add("sum", "q", 2, 1), add("sum", "q", 2, 1), add("sum", "p", 0, 4)]);
    table.mutate("r", vec![merge("sum", "q", 1, Bytes::copy_from_slice(&30_i64.to_be_bytes()))]);
    let expect = lines("r sum:p@0=4\nr sum:q@2=2\nr sum:q@1=33\nr min:q@1=-9\nr max:q@1=7");
    assert_eq!(numbers(&table), expect, "in the memtable");
    table.tree.flush().unwrap();
    table.tree.compact().unwrap();
    assert_eq!(numbers(&table), expect, "in SSTables");
    table.mutate("r", vec![add("sum", "q", 1, -34)]);
    assert_eq!(numbers(&table), expect.replace("@1=33", "@1=-1"), "in both");
}

#[test]
fn what_is_added_after_a_delete_starts_anew() {
    let deletes: [(&str, data::Mutation); 4] = [
        ("a version", delete_column("sum", "q", Some((1, 2)))),
        ("a column", delete_column("sum", "q", None)),
        ("a family", delete_family("sum")),
        ("a row", delete_row()),
    ];
    for (case, delete) in deletes {
        let table = table();
        table.mutate("r", vec![add("sum", "q", 1, 100)]);
        table.mutate("r", vec![add("sum", "q", 1, 10), delete.clone(), add("sum", "q", 1, 1)]);
        assert_eq!(numbers(&table), "r sum:q@1=1\n", "{case}");
        table.mutate("r", vec![add("sum", "q", 1, 2), delete]);
        assert_eq!(numbers(&table), "", "{case}");
        table.tree.flush().unwrap();
        table.mutate("r", vec![add("sum", "q", 1, 3)]);
        table.tree.flush().unwrap();
        table.tree.compact().unwrap();
        assert_eq!(numbers(&table), "r sum:q@1=3\n", "{case}");
    }
}

#[test]
fn a_rule_collects_aggregate_cells_as_others() {
    use row_api::admin::{GcRule, gc_rule::Rule};
    let mut table = table();
    for at in 1..=9 {
        table.mutate("r", vec![add("sum", "q", at, at)]);
        table.tree.flush().unwrap();
        table.mutate("r", vec![add("sum", "q", at, 100)]);
    }
    let family = table.schema.families.get_mut("sum").unwrap();
    family.gc_rule = Some(GcRule { rule: Some(Rule::MaxNumVersions(2)) });
    let expect = lines("r sum:q@9=109\nr sum:q@8=108");
    assert_eq!(numbers(&table), expect);
    let schema = Arc::new(table.schema.clone());
    table.tree.set_keep_decision(tablet_server::gc::keep_decisions(schema, Arc::new(|| 0)));
    table.tree.flush().unwrap();
    table.tree.compact().unwrap();
    // Without any rule, what is left in the tree shows.
    table.schema.families.get_mut("sum").unwrap().gc_rule = None;
    assert_eq!(numbers(&table), expect);
}

#[test]
fn states_of_another_kind_are_refused_before_they_are_written() {
    let table = table();
    let refused = |mutation: data::Mutation| {
        let refused = RowMutations::check(&table.schema, "mutations", key("r"), vec![mutation]);
        let status = refused.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let of = |why: &str| (Code::InvalidArgument, format!("mutations[0].{why}"));
    assert_eq!(
        refused(set("sum", "q", 1, "12345678")),
        of("set_cell.family_name: is an aggregate family, whose cells only AddToCell and MergeToCell change")
    );
    assert_eq!(
        refused(add("plain", "q", 1, 1)),
        of("add_to_cell.family_name: is no aggregate family: it has no value_type of aggregate_type")
    );
    assert_eq!(
        refused(merge("max", "q", 1, key("1234"))),
        of("merge_to_cell.input.raw_value: 4 bytes, an integer has 8 (big-endian)")
    );
    let mut late = AddToCell { family_name: "sum".into(), ..AddToCell::default() };
    late.column_qualifier = value(Kind::RawValue(key("q")));
    late.input = value(Kind::IntValue(1));
    assert_eq!(
        refused(mutation(Mutation::AddToCell(late.clone()))),
        of("add_to_cell.timestamp: is missing, raw_timestamp_micros is needed")
    );
    for timestamp_us in [-1, 1_500] {
        late.timestamp = value(Kind::RawTimestampMicros(timestamp_us));
        let (code, why) = refused(mutation(Mutation::AddToCell(late.clone())));
        assert_eq!(code, Code::InvalidArgument);
        assert!(why.starts_with("mutations[0].add_to_cell.timestamp.raw_timestamp_micros: "), "{why}");
    }
    let (_, why) = refused(add("nope", "q", 1, 1));
    assert_eq!(why, "mutations[0].add_to_cell.family_name: unknown family \"nope\"");
}

#[test]
fn acknowledged_adds_outlive_a_power_cut_and_count_once() {
    let mut files = vfs::SimulatedFileSystem::new();
    let open = |files: &vfs::SimulatedFileSystem, epoch| {
        let options = Options {
            background: Background::Inline,
            merge_operators: vec![Arc::new(CellAggregates)],
            ..Options::default()
        };
        Engine::open(Arc::new(files.clone()), std::path::Path::new("/engine"), epoch, options).unwrap()
    };
    let schema = table().schema;
    let mut engine = open(&files, 1);
    let mut tree = engine.create_tree(super::TREE, tree_format()).unwrap();
    for round in 1..=12_u64 {
        let add = vec![add("sum", "q", 1, 1), add("unique", "q", 1, i64::try_from(round).unwrap())];
        let checked = RowMutations::check(&schema, "mutations", key("r"), add).unwrap();
        let mut batch = WriteBatch::new();
        checked.encode(&GroupTrees::single(tree.clone()), 0, &mut batch);
        engine.write(batch).unwrap().wait().unwrap();
        match round % 4 {
            0 => tree.compact().unwrap(),
            1 => tree.flush().unwrap(),
            _ => {}
        }
        files = files.power_cut(round);
        engine = open(&files, round + 1);
        tree = engine.tree(super::TREE).unwrap();
        let trees = Arc::new(GroupTrees::single(tree.clone()));
        let reader = Table { engine, tree, trees, schema: schema.clone(), now_us: 0 };
        let [row] = &reader.read(None)[..] else { panic!("one row") };
        assert_eq!(row.cells[0].value[..], round.to_be_bytes());
        // The number of values added stands third in a sketch (`08 70 10 n`).
        assert_eq!(u64::from(row.cells[1].value[3]), round);
        Table { engine, tree, .. } = reader;
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add { family: usize, column: u8, at: i64, number: i64 },
    MergeOf { family: usize, column: u8, at: i64, from: u8 },
    DeleteVersions { family: usize, column: u8, start: i64, end: i64 },
    DeleteFamily { family: usize },
    DeleteRow,
    Flush,
    Compact,
}

type Cells = BTreeMap<(usize, u8, i64), Vec<i64>>;

fn any_step() -> impl Strategy<Value = Step> {
    let number = prop_oneof![4 => -9..9_i64, 1 => any::<i64>(), 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    let cell = (0..4_usize, 0..3_u8, 0..3_i64);
    prop_oneof![
        12 => (cell.clone(), number).prop_map(|((family, column, at), number)| Step::Add { family, column, at, number }),
        3 => (cell.clone(), 0..3_u8).prop_map(|((family, column, at), from)| Step::MergeOf { family, column, at, from }),
        1 => (cell, 1..3_i64).prop_map(|((family, column, start), length)| {
            Step::DeleteVersions { family, column, start, end: start + length }
        }),
        1 => (0..4_usize).prop_map(|family| Step::DeleteFamily { family }),
        1 => Just(Step::DeleteRow),
        2 => Just(Step::Flush),
        1 => Just(Step::Compact),
    ]
}

/// The state of a cell that `numbers` were added to, from a table that holds nothing else.
fn state_of(family: usize, numbers: &[i64]) -> Bytes {
    let fresh = table();
    fresh.mutate("r", numbers.iter().map(|number| add(FAMILIES[family].0, "q", 0, *number)).collect());
    fresh.read(None)[0].cells[0].value.clone()
}

fn expected(family: usize, numbers: &[i64]) -> Bytes {
    let folded = match family {
        0 => numbers.iter().copied().reduce(i64::wrapping_add),
        1 => numbers.iter().copied().min(),
        2 => numbers.iter().copied().max(),
        _ => {
            let mut sorted = numbers.to_vec();
            sorted.sort_unstable();
            return state_of(family, &sorted);
        }
    };
    Bytes::copy_from_slice(&folded.unwrap().to_be_bytes())
}

/// Takes `step` in the table and in the model.
fn take(step: Step, table: &Table, cells: &mut Cells) {
    let qualifier = |column: u8| format!("q{column}");
    match step {
        Step::Add { family, column, at, number } => {
            table.mutate("r", vec![add(FAMILIES[family].0, &qualifier(column), at, number)]);
            cells.entry((family, column, at)).or_default().push(number);
        }
        Step::MergeOf { family, column, at, from } => {
            let Some(numbers) = cells.get(&(family, from, at)).cloned() else { return };
            let state = state_of(family, &numbers);
            table.mutate("r", vec![merge(FAMILIES[family].0, &qualifier(column), at, state)]);
            cells.entry((family, column, at)).or_default().extend(numbers);
        }
        Step::DeleteVersions { family, column, start, end } => {
            table
                .mutate("r", vec![delete_column(FAMILIES[family].0, &qualifier(column), Some((start, end)))]);
            cells.retain(|cell, _| (cell.0, cell.1) != (family, column) || !(start..end).contains(&cell.2));
        }
        Step::DeleteFamily { family } => {
            table.mutate("r", vec![delete_family(FAMILIES[family].0)]);
            cells.retain(|cell, _| cell.0 != family);
        }
        Step::DeleteRow => {
            table.mutate("r", vec![delete_row()]);
            cells.clear();
        }
        Step::Flush => table.tree.flush().unwrap(),
        Step::Compact => table.tree.compact().unwrap(),
    }
}

/// A request to change row `r` in every way that aggregates know.
fn request() -> data::MutateRowRequest {
    let sketch = state_of(3, &(0..20).collect::<Vec<_>>());
    let state = Bytes::copy_from_slice(&7_i64.to_be_bytes());
    let mutations = vec![
        add("sum", "q", 1, 5),
        add("unique", "q", 1, 5),
        merge("min", "q", 1, state),
        merge("unique", "q", 1, sketch),
    ];
    data::MutateRowRequest { row_key: key("r"), mutations, ..data::MutateRowRequest::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn cells_are_what_was_added_whatever_the_engine_did_meanwhile(steps in prop::collection::vec(any_step(), 1..60)) {
        let table = table();
        let mut cells = Cells::new();
        // A snapshot keeps compactions from folding across it.
        let mut held = None;
        for (at, step) in steps.into_iter().enumerate() {
            take(step, &table, &mut cells);
            if at % 16 == 7 {
                held = Some(table.snapshot());
            }
        }
        drop(held);
        let found: Vec<_> = table.read(None).into_iter().flat_map(|row| row.cells).collect();
        let found: BTreeMap<_, _> = found
            .into_iter()
            .map(|cell| {
                let family = FAMILIES.iter().position(|(name, _)| *name == &*cell.family).unwrap();
                ((family, cell.qualifier[1] - b'0', cell.timestamp_us / 1_000), cell.value)
            })
            .collect();
        let expected: BTreeMap<_, _> =
            cells.into_iter().map(|(cell, numbers)| (cell, expected(cell.0, &numbers))).collect();
        prop_assert_eq!(found, expected);
    }
    #[test]
    fn damaged_requests_are_refused_or_read_back(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let table = table();
        let mut bytes = request().encode_to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let Ok(request) = data::MutateRowRequest::decode(&bytes[..]) else { return Ok(()) };
        let Ok(checked) = RowMutations::check(&table.schema, "mutations", request.row_key, request.mutations) else {
            return Ok(());
        };
        let mut batch = WriteBatch::new();
        checked.encode(&table.trees, 0, &mut batch);
        table.write(batch);
        let before = table.read(None);
        table.tree.flush().unwrap();
        table.tree.compact().unwrap();
        prop_assert_eq!(table.text(None), super::text(&before));
        // Integers are integers, and sketches are such that can be merged again.
        for cell in before.iter().flat_map(|row| &row.cells) {
            let again = merge(&cell.family, "again", 1, cell.value.clone());
            if &*cell.family != "plain" {
                table.mutate("r", vec![again]);
            }
        }
    }
}
