//! Filters by example: those of the proto's own text, and refusals.

use bytes::Bytes;
use row_api::data;
use row_api::data::row_filter::Filter as Kind;
use tablet_server::filter::Filter;

use super::{Table, chain, condition, family, filter, interleave, key, label, lines, qualifier, set};

/// Two families, created against the order of their names.
fn table() -> Table {
    let table = Table::new(&["foo", "far"]);
    table.mutate(
        "r",
        vec![
            set("foo", "bar", 10, "x"),
            set("foo", "bar", 9, "w"),
            set("foo", "blah", 11, "z"),
            set("far", "bar", 7, "a"),
            set("far", "blah", 5, "x"),
        ],
    );
    table
}

#[track_caller]
fn check(filter: &data::RowFilter, expect: &str) {
    assert_eq!(table().text(Some(filter)), lines(expect));
}

fn limit(count: i32) -> data::RowFilter {
    filter(Kind::CellsPerRowLimitFilter(count))
}

fn value(pattern: &str) -> data::RowFilter {
    filter(Kind::ValueRegexFilter(key(pattern)))
}

fn sink() -> data::RowFilter {
    filter(Kind::Sink(true))
}

#[test]
fn an_interleave_pools_and_sorts_what_its_filters_give() {
    // RowFilter.Interleave's example, with labels to tell the copies apart.
    check(
        &interleave(vec![
            chain(vec![family("foo"), filter(Kind::CellsPerColumnLimitFilter(1)), label("f0")]),
            chain(vec![qualifier("bar|blah"), value("x"), label("f1")]),
            chain(vec![family("far"), label("f2")]),
        ]),
        "
        r foo:bar@10=x [f0]
        r foo:bar@10=x [f1]
        r foo:blah@11=z [f0]
        r far:bar@7=a [f2]
        r far:blah@5=x [f1]
        r far:blah@5=x [f2]
        ",
    );
}

#[test]
fn a_condition_takes_one_branch() {
    let found = || chain(vec![family("foo"), value("z")]);
    let missing = || value("nowhere");
    check(&condition(found(), Some(family("far")), Some(family("foo"))), "r far:bar@7=a\nr far:blah@5=x");
    check(&condition(missing(), Some(family("far")), Some(limit(1))), "r foo:bar@10=x");
    check(&condition(found(), None, Some(limit(1))), "");
    check(&condition(missing(), Some(limit(1)), None), "");
}

#[test]
fn cells_are_counted_in_row_order_across_families() {
    let offset = |count| filter(Kind::CellsPerRowOffsetFilter(count));
    check(&limit(4), "r foo:bar@10=x\nr foo:bar@9=w\nr foo:blah@11=z\nr far:bar@7=a");
    check(&offset(3), "r far:bar@7=a\nr far:blah@5=x");
    check(&chain(vec![offset(1), limit(1)]), "r foo:bar@9=w");
    check(&chain(vec![limit(2), family("far")]), "");
    check(&chain(vec![family("far"), limit(1)]), "r far:bar@7=a");
    check(&chain(vec![offset(1), filter(Kind::CellsPerColumnLimitFilter(1)), offset(1)]), {
        "r foo:blah@11=z\nr far:bar@7=a\nr far:blah@5=x"
    });
}

#[test]
fn copies_of_a_cell_count_each() {
    let twice = || interleave(vec![filter(Kind::PassAllFilter(true)), label("copy")]);
    check(&chain(vec![twice(), limit(3)]), "r foo:bar@10=x\nr foo:bar@10=x [copy]\nr foo:bar@9=w");
    check(
        &chain(vec![twice(), qualifier("bar"), filter(Kind::CellsPerColumnLimitFilter(3)), family("foo")]),
        "r foo:bar@10=x\nr foo:bar@10=x [copy]\nr foo:bar@9=w",
    );
}

#[test]
fn stripped_values_are_empty_to_what_follows() {
    let strip = || filter(Kind::StripValueTransformer(true));
    check(&chain(vec![value("z"), strip()]), "r foo:blah@11=");
    check(&chain(vec![strip(), value("z")]), "");
    check(&chain(vec![strip(), value(""), limit(1)]), "r foo:bar@10=");
}

#[test]
fn a_sink_lets_cells_out_past_what_follows() {
    // The example of RowFilter's field sink, and its picture's cells.
    let table = Table::new(&["A", "B"]);
    table.mutate("r", vec![set("A", "A", 1, "w"), set("A", "B", 2, "x"), set("B", "B", 4, "z")]);
    let pass = || filter(Kind::PassAllFilter(true));
    let asked =
        chain(vec![family("A"), interleave(vec![pass(), chain(vec![label("foo"), sink()])]), qualifier("B")]);
    assert_eq!(table.text(Some(&asked)), lines("r A:A@1=w [foo]\nr A:B@2=x [foo]\nr A:B@2=x"));
    let cases = [
        (sink(), "r A:A@1=w\nr A:B@2=x\nr B:B@4=z"),
        (chain(vec![sink(), filter(Kind::BlockAllFilter(true))]), "r A:A@1=w\nr A:B@2=x\nr B:B@4=z"),
        (chain(vec![filter(Kind::BlockAllFilter(true)), sink()]), ""),
        (chain(vec![limit(1), sink(), limit(1)]), "r A:A@1=w"),
        (interleave(vec![chain(vec![family("B"), sink()]), qualifier("A")]), "r A:A@1=w\nr B:B@4=z"),
        (chain(vec![interleave(vec![sink(), pass()]), limit(1)]), {
            "r A:A@1=w\nr A:A@1=w\nr A:B@2=x\nr B:B@4=z"
        }),
    ];
    for (asked, expect) in cases {
        assert_eq!(table.text(Some(&asked)), lines(expect), "{asked:?}");
    }
}

#[test]
fn a_condition_works_on_what_a_sink_left() {
    let asked = chain(vec![
        interleave(vec![chain(vec![family("far"), sink()]), family("foo")]),
        condition(family("far"), None, Some(limit(1))),
    ]);
    check(&asked, "r foo:bar@10=x\nr far:bar@7=a\nr far:blah@5=x");
}

#[test]
fn a_bitmask_matches_values_of_its_length_that_have_its_bits() {
    let table = Table::new(&["f"]);
    for (qualifier, value) in [("0", ""), ("1", "a"), ("2", "b"), ("3", "c"), ("4", "ca"), ("5", "bc")] {
        table.mutate("r", vec![set("f", qualifier, 1, value)]);
    }
    let cases = [
        (&b"\x03"[..], "r f:3@1=c"),
        (b"\x01", "r f:1@1=a\nr f:3@1=c"),
        (b"\0", "r f:1@1=a\nr f:2@1=b\nr f:3@1=c"),
        (b"\x02\x01", "r f:4@1=ca\nr f:5@1=bc"),
        (b"\x02\x02", "r f:5@1=bc"),
        (b"\x80", ""),
        (b"\0\0\0", ""),
        (b"", "r f:0@1="),
    ];
    for (mask, expect) in cases {
        let asked = filter(Kind::ValueBitmaskFilter(data::ValueBitmask { mask: Bytes::from_static(mask) }));
        assert_eq!(table.text(Some(&asked)), lines(expect), "{}", mask.escape_ascii());
    }
}

#[test]
fn samples_take_about_their_share_of_rows_and_the_same_ones_again() {
    let table = Table::new(&["f"]);
    for row in 0..1_000 {
        table.mutate(&format!("row-{row}"), vec![set("f", "q", 1, "v")]);
    }
    let sample = filter(Kind::RowSampleFilter(0.25));
    let first = table.read(Some(&sample));
    assert!((200..300).contains(&first.len()), "{} of 1000", first.len());
    assert_eq!(table.read(Some(&sample)), first);
    let twice = chain(vec![sample.clone(), sample]);
    let both = table.read(Some(&twice)).len();
    assert!((30..100).contains(&both), "samples draw for themselves: {both} of 1000");
}

#[test]
fn filters_that_multiply_cells_without_end_are_stopped() {
    let table = table();
    let twice = || interleave(vec![filter(Kind::PassAllFilter(true)), filter(Kind::PassAllFilter(true))]);
    let hostile = chain((0..60).map(|_| twice()).collect());
    let mut scan = table.scan(tablet_server::row_set::RowSet::all(), Some(&hostile), table.options());
    let error = tonic::Status::from(scan.next_rows(1 << 20).unwrap_err());
    assert_eq!(error.code(), tonic::Code::FailedPrecondition);
}

#[test]
fn refusals_name_the_path() {
    let pass = || filter(Kind::PassAllFilter(true));
    let unknown = data::RowFilter { filter: None, unknown_field: Some(21) };
    let deep = (0..20).fold(pass(), |inner, _| chain(vec![inner, pass()]));
    let cases = [
        (chain(vec![pass()]), "filter.chain.filters: 1 filters, at least 2"),
        (
            chain(vec![pass(), interleave(vec![])]),
            "filter.chain.filters[1].interleave.filters: 0 filters, at least 2",
        ),
        (
            filter(Kind::Condition(Box::default())),
            "filter.condition.predicate_filter: is missing, a condition needs one",
        ),
        (
            chain(vec![pass(), qualifier("(")]),
            "filter.chain.filters[1].column_qualifier_regex_filter: not an RE2 pattern: error: unclosed group",
        ),
        (family("a:b"), "filter.family_name_regex_filter: holds ':', which a family's pattern must not"),
        (filter(Kind::PassAllFilter(false)), "filter.pass_all_filter: false, must be true where it is set"),
        (limit(0), "filter.cells_per_row_limit_filter: 0, at least 1"),
        (filter(Kind::CellsPerRowOffsetFilter(-1)), "filter.cells_per_row_offset_filter: -1, at least 0"),
        (
            filter(Kind::RowSampleFilter(1.0)),
            "filter.row_sample_filter: 1, must be between 0 and 1, both exclusive",
        ),
        (
            filter(Kind::RowSampleFilter(f64::NAN)),
            "filter.row_sample_filter: NaN, must be between 0 and 1, both exclusive",
        ),
        (
            filter(Kind::TimestampRangeFilter(data::TimestampRange {
                start_timestamp_micros: 1_001,
                end_timestamp_micros: 0,
            })),
            "filter.timestamp_range_filter.start_timestamp_micros: 1001, must be a multiple of 1000 (milliseconds)",
        ),
        (label("sixteen-letters-"), "filter.apply_label_transformer: 16 characters, at most 15"),
        (label("Upper"), "filter.apply_label_transformer: \"Upper\" is not of the form [a-z0-9-]+"),
        (
            chain(vec![label("a"), interleave(vec![label("b"), pass()])]),
            "filter.chain: has more than one filter with an apply_label_transformer",
        ),
        (filter(Kind::Sink(false)), "filter.sink: false, must be true where it is set"),
        (
            condition(pass(), Some(chain(vec![pass(), sink()])), None),
            "filter.condition.true_filter.chain.filters[1].sink: stands in a condition, where no sink may",
        ),
        (
            chain(vec![condition(condition(pass(), Some(pass()), None), None, Some(sink())), pass()]),
            "filter.chain.filters[0].condition.false_filter.sink: stands in a condition, where no sink may",
        ),
        (
            interleave(vec![pass(), unknown]),
            "filter.interleave.filters[1]: has field 21, which this version does not know",
        ),
        (filter(Kind::RowKeyRegexFilter(key(""))), "filter.row_key_regex_filter: is empty, as no row key is"),
        (deep, "filter: filters nested within each other, at most 20 deep"),
        (qualifier(&"x".repeat(20_480)), "filter: 20484 bytes, at most 20480"),
    ];
    let table = table();
    for (asked, expect) in cases {
        let status = Filter::compile("filter", Some(&asked), &table.schema).unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::InvalidArgument, expect));
    }
}
