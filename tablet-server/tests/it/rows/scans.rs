//! Scans: order, steps, limits, and rows that filters leave nothing of.

use row_api::admin;
use row_api::admin::gc_rule::Rule;
use row_api::data::row_filter::Filter as Kind;
use tablet_server::row_scan::ScanOptions;
use tablet_server::row_set::{RowRange, RowSet};

use super::{Table, family, filter, key, lines, set, text};

/// Rows `r00` to `r49`; only each tenth has family `b`.
fn table() -> Table {
    let table = Table::new(&["a", "b"]);
    for row in 0..50 {
        let name = format!("r{row:02}");
        table.mutate(&name, vec![set("a", "q", 1, "v")]);
        if row % 10 == 0 {
            table.mutate(&name, vec![set("b", "q", 1, "v")]);
        }
        if row == 25 {
            table.tree.flush().unwrap();
        }
    }
    table
}

fn keys(rows: &[tablet_server::row::Row]) -> Vec<String> {
    rows.iter().map(|row| row.key.escape_ascii().to_string()).collect()
}

fn range(start: &str, end: &str) -> RowRange {
    RowRange { start: key(start), end: key(end) }
}

fn rows(ranges: &[RowRange]) -> RowSet {
    let asked = row_api::data::RowSet {
        row_keys: Vec::new(),
        row_ranges: ranges
            .iter()
            .map(|range| row_api::data::RowRange {
                start_key: Some(row_api::data::row_range::StartKey::StartKeyClosed(range.start.clone())),
                end_key: Some(row_api::data::row_range::EndKey::EndKeyOpen(range.end.clone())),
            })
            .collect(),
    };
    RowSet::check("rows", Some(&asked)).unwrap()
}

#[test]
fn ranges_come_in_order_and_against_it() {
    let table = table();
    let asked = || rows(&[range("r47", ""), range("r03", "r05"), range("r10", "r10\0"), range("s", "t")]);
    let forward = Table::drain(&mut table.scan(asked(), None, table.options()), 1);
    assert_eq!(keys(&forward), ["r03", "r04", "r10", "r47", "r48", "r49"]);
    let reversed = ScanOptions { reversed: true, ..table.options() };
    let backward = Table::drain(&mut table.scan(asked(), None, reversed), 1);
    assert_eq!(keys(&backward), ["r49", "r48", "r47", "r10", "r04", "r03"]);
    assert_eq!(text(&backward[3..4]), lines("r10 a:q@1=v\nr10 b:q@1=v"), "a row's own order stays");
}

#[test]
fn a_limit_counts_rows_that_are_returned() {
    let table = table();
    for (reversed, expect) in [(false, ["r00", "r10", "r20"]), (true, ["r40", "r30", "r20"])] {
        let options = ScanOptions { reversed, rows_limit: Some(3), ..table.options() };
        let mut scan = table.scan(RowSet::all(), Some(&family("b")), options);
        assert_eq!(keys(&Table::drain(&mut scan, 1)), expect);
    }
}

#[test]
fn long_stretches_without_rows_report_how_far_they_are() {
    let table = table();
    let nothing = filter(Kind::ValueRegexFilter(key("nowhere")));
    let mut scan = table.scan(RowSet::all(), Some(&nothing), table.options());
    let mut reports = Vec::new();
    loop {
        let batch = scan.next_rows(100).unwrap();
        assert!(batch.rows.is_empty());
        if batch.done {
            break;
        }
        reports.push(batch.last_scanned_row_key.unwrap());
    }
    assert!(reports.len() > 5, "{} steps", reports.len());
    assert!(reports.is_sorted());
}

#[test]
fn a_scan_sees_the_moment_it_began_at() {
    let table = table();
    let mut scan = table.scan(RowSet::all(), None, table.options());
    let mut seen = scan.next_rows(1).unwrap().rows;
    table.mutate("r01", vec![super::delete_row()]);
    table.mutate("r000", vec![set("a", "q", 1, "late")]);
    table.tree.flush().unwrap();
    seen.extend(Table::drain(&mut scan, 1 << 20));
    assert_eq!(seen.len(), 50);
}

#[test]
fn expired_versions_never_show() {
    let mut table = Table::new(&["f"]);
    table.now_us = 10_000_000;
    table.mutate("r", (1..=9).map(|second| set("f", "q", second * 1_000, "v")).collect());
    table.mutate("r", vec![set("f", "p", 1_000, "old")]);
    table.mutate("s", vec![set("f", "p", 1_000, "old")]);
    let age =
        |seconds| admin::GcRule { rule: Some(Rule::MaxAge(prost_types::Duration { seconds, nanos: 0 })) };
    let versions = |count| admin::GcRule { rule: Some(Rule::MaxNumVersions(count)) };
    let both = admin::GcRule {
        rule: Some(Rule::Intersection(admin::gc_rule::Intersection { rules: vec![age(3), versions(5)] })),
    };
    let either =
        admin::GcRule { rule: Some(Rule::Union(admin::gc_rule::Union { rules: vec![age(3), versions(2)] })) };
    let mut check = |rule: admin::GcRule, expect: &str| {
        table.schema.families.get_mut("f").unwrap().gc_rule = Some(rule);
        assert_eq!(table.text(None), lines(expect));
    };
    check(age(2), "r f:q@9000=v\nr f:q@8000=v");
    check(versions(1), "r f:p@1000=old\nr f:q@9000=v\ns f:p@1000=old");
    check(either, "r f:q@9000=v\nr f:q@8000=v");
    check(
        both,
        "r f:p@1000=old\nr f:q@9000=v\nr f:q@8000=v\nr f:q@7000=v\nr f:q@6000=v\nr f:q@5000=v\ns f:p@1000=old",
    );
}

#[test]
fn compactions_give_the_space_of_garbage_back() {
    let mut table = Table::new(&["f", "gone"]);
    for version in 1..=50 {
        table.mutate("r", vec![set("f", "q", version, "v"), set("gone", "q", version, "v")]);
    }
    table.schema.families.get_mut("f").unwrap().gc_rule =
        Some(admin::GcRule { rule: Some(Rule::MaxNumVersions(2)) });
    table.schema.families.remove("gone");
    let now_us = table.now_us;
    let schema = std::sync::Arc::new(table.schema.clone());
    table
        .tree
        .set_keep_decision(tablet_server::gc::keep_decisions(schema, std::sync::Arc::new(move || now_us)));
    table.tree.flush().unwrap();
    table.tree.compact().unwrap();
    // Without any rule, what is left in the tree shows.
    table.schema.families.get_mut("f").unwrap().gc_rule = None;
    let id = tablet_server::schema::FamilyId(2);
    table.schema.families.insert("gone".into(), tablet_server::schema::Family::new(id));
    assert_eq!(table.text(None), lines("r f:q@50=v\nr f:q@49=v"));
}
