//! Mutations, read-modify-writes and checks by example.

use lsm::WriteBatch;
use row_api::data;
use row_api::data::read_modify_write_rule::Rule;
use tablet_server::check_and_mutate::CheckAndMutate;
use tablet_server::read_modify_write::ReadModifyWrite;

use super::{Table, delete_column, delete_family, delete_row, key, lines, set};

fn table() -> Table {
    let table = Table::new(&["a", "b"]);
    table.mutate("r", (1..=5).map(|at| set("a", "q", at, "old")).collect());
    table.mutate("r", vec![set("a", "qq", 1, "old"), set("b", "q", 1, "old")]);
    table.mutate("r\0", vec![set("a", "q", 1, "neighbour")]);
    table
}

#[track_caller]
fn check(mutations: Vec<data::Mutation>, expect: &str) {
    let table = table();
    table.mutate("r", mutations);
    let expect = lines(expect) + "r\\x00 a:q@1=neighbour\n";
    assert_eq!(table.text(None), expect, "in the memtable");
    table.tree.flush().unwrap();
    table.tree.compact().unwrap();
    assert_eq!(table.text(None), expect, "in SSTables");
}

#[test]
fn deletes_reach_as_far_as_they_say() {
    let (q5, q4, q3, q2, q1) =
        ("r a:q@5=old\n", "r a:q@4=old\n", "r a:q@3=old\n", "r a:q@2=old\n", "r a:q@1=old\n");
    let rest = "r a:qq@1=old\nr b:q@1=old\n";
    check(vec![delete_column("a", "q", None)], rest);
    check(vec![delete_column("a", "q", Some((2, 4)))], &[q5, q4, q1, rest].concat());
    check(vec![delete_column("a", "q", Some((0, 4)))], &[q5, q4, rest].concat());
    check(vec![delete_column("a", "q", Some((4, 0)))], &[q3, q2, q1, rest].concat());
    check(vec![delete_family("a")], "r b:q@1=old");
    check(vec![delete_row()], "");
}

#[test]
fn mutations_apply_in_order() {
    check(vec![delete_row(), set("b", "new", 7, "v")], "r b:new@7=v");
    check(vec![set("b", "new", 7, "v"), delete_row()], "");
    check(
        vec![delete_family("a"), set("a", "q", 3, "again"), set("a", "q", 3, "and again")],
        "r a:q@3=and again\nr b:q@1=old",
    );
}

#[test]
fn the_clock_is_cut_to_the_millisecond() {
    let mut table = Table::new(&["a"]);
    table.now_us = 1_234_567_891;
    let mut now = set("a", "q", 0, "v");
    if let Some(data::mutation::Mutation::SetCell(set)) = &mut now.mutation {
        set.timestamp_micros = -1;
    }
    table.mutate("r", vec![now]);
    assert_eq!(table.read(None)[0].cells[0].timestamp_us, 1_234_567_000);
}

fn rule(family: &str, qualifier: &str, rule: Rule) -> data::ReadModifyWriteRule {
    data::ReadModifyWriteRule {
        family_name: family.to_owned(),
        column_qualifier: key(qualifier),
        rule: Some(rule),
    }
}

fn append(text: &str) -> Rule {
    Rule::AppendValue(key(text))
}

/// Applies the rules to row `r`; a line a cell of the answer.
fn read_modify_write(table: &Table, rules: Vec<data::ReadModifyWriteRule>) -> Result<String, tonic::Status> {
    let checked = ReadModifyWrite::check(&table.schema, key("r"), rules)?;
    let mut batch = WriteBatch::new();
    let answer = checked.apply(&table.trees, &table.snapshot(), &table.schema, table.now_us, &mut batch)?;
    table.write(batch);
    let mut lines = String::new();
    for family in answer.families {
        for column in family.columns {
            for cell in column.cells {
                let (qualifier, at) = (column.qualifier.escape_ascii(), cell.timestamp_micros / 1_000);
                lines.push_str(&format!("{}:{qualifier}@{at}={}\n", family.name, cell.value.escape_ascii()));
            }
        }
    }
    Ok(lines)
}

#[test]
fn rules_build_on_each_other_and_on_the_newest_cell() {
    let mut table = table();
    table.now_us = 100_000_000;
    let answer = read_modify_write(
        &table,
        vec![
            rule("b", "n", Rule::IncrementAmount(2)),
            rule("a", "q", append("+")),
            rule("b", "n", Rule::IncrementAmount(-3)),
            rule("a", "new", append("first")),
        ],
    );
    assert_eq!(
        answer.unwrap(),
        lines(
            r"a:new@100000=first
                a:q@100000=old+
                b:n@100000=\xff\xff\xff\xff\xff\xff\xff\xff"
        )
    );
    assert!(table.text(None).contains("r a:q@100000=old+\nr a:q@5=old\n"), "older versions stay");
}

#[test]
fn a_new_cell_is_newer_than_one_from_the_future() {
    let mut table = Table::new(&["a"]);
    table.now_us = 1_000_000;
    table.mutate("r", vec![set("a", "q", 5_000, "future")]);
    assert_eq!(read_modify_write(&table, vec![rule("a", "q", append("!"))]).unwrap(), "a:q@5001=future!\n");
    assert_eq!(table.text(None), lines("r a:q@5001=future!\nr a:q@5000=future"));
}

#[test]
fn increments_wrap_and_want_eight_bytes() {
    let table = table();
    let increment = |amount| read_modify_write(&table, vec![rule("b", "n", Rule::IncrementAmount(amount))]);
    increment(i64::MAX).unwrap();
    assert!(increment(1).unwrap().trim_end().ends_with(r"=\x80\x00\x00\x00\x00\x00\x00\x00"));
    let before = table.text(None);
    let rules = vec![rule("a", "new", append("x")), rule("a", "q", Rule::IncrementAmount(1))];
    let status = read_modify_write(&table, rules).unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "rules[1].increment_amount: the cell holds 3 bytes, an increment needs 8 (a big-endian integer)"
    );
    assert_eq!(table.text(None), before, "nothing was written");
}

#[test]
fn rules_are_refused_by_path() {
    let table = table();
    let refused = |rules| {
        let status = read_modify_write(&table, rules).unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let invalid = tonic::Code::InvalidArgument;
    assert_eq!(refused(vec![]), (invalid, "rules: is empty, at least 1 is needed".to_owned()));
    assert_eq!(
        refused(vec![data::ReadModifyWriteRule { rule: None, ..rule("a", "q", append("")) }]),
        (invalid, "rules[0]: is empty, it must append or increment".to_owned())
    );
    assert_eq!(
        refused(vec![rule("a", "q", append("")), rule("c", "q", append(""))]),
        (tonic::Code::NotFound, "rules[1].family_name: unknown family \"c\"".to_owned())
    );
}

#[test]
fn a_check_without_a_predicate_asks_for_any_cell() {
    let table = table();
    let request = |row: &str| data::CheckAndMutateRowRequest {
        row_key: key(row),
        true_mutations: vec![set("a", "q", 1, "v")],
        ..data::CheckAndMutateRowRequest::default()
    };
    for (row, expect) in [("r", true), ("r\0", true), ("q", false), ("r1", false)] {
        let checked = CheckAndMutate::check(&table.schema, request(row)).unwrap();
        let matched =
            checked.matches(&table.trees, &table.snapshot(), &table.schema, &table.options()).unwrap();
        assert_eq!(matched, expect, "{row:?}");
        assert_eq!(checked.mutations(matched).is_some(), expect, "nothing to do otherwise");
    }
    let none = data::CheckAndMutateRowRequest { true_mutations: Vec::new(), ..request("r") };
    let status = CheckAndMutate::check(&table.schema, none).unwrap_err();
    assert_eq!(
        status.message(),
        "true_mutations: is empty and so is false_mutations, at least 1 mutation is needed"
    );
}
