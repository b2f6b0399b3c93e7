"""Every filter, through the official client, against results worked out by hand.

One table serves all: FARM below, as {row: {family: {qualifier: {timestamp in µs: value}}}}.
"""

import datetime

import pytest
from google.api_core import exceptions
from google.cloud.bigtable.data import ReadRowsQuery, SetCell
from google.cloud.bigtable.data import row_filters as f

from conftest import INSTANCE, create_table

FARM = {
    "barn": {
        "a": {"one": {3000: b"new", 2000: b"mid", 1000: b"old"}, "two": {2000: b"22"}},
        "b": {"one": {1000: b"x\n\xff"}, "three": {4000: b"", 2000: b"under"}},
    },
    "byre": {"a": {"one": {1000: b"old"}}},
    "coop": {"b": {"two": {2000: b"22"}, "x.y": {1000: b"dot"}}},
}


@pytest.fixture(scope="module")
def farm(admin, data_client):
    """The table every test here reads."""
    created = create_table(admin, "farm", ["a", "b"])
    table = data_client.get_table(INSTANCE, "farm")
    for key, families in FARM.items():
        table.mutate_row(
            key,
            [
                SetCell(family, qualifier, value, timestamp_us)
                for family, columns in families.items()
                for qualifier, versions in columns.items()
                for timestamp_us, value in versions.items()
            ],
        )
    yield table
    admin.delete_table(name=created.name)


def read(table, row_filter):
    """Filtered cells as `row family:qualifier@milliseconds` words, a label after `~`.

    Families may come in any order, so they are sorted here; within one, the order is the server's.
    """
    words = []
    for row in table.read_rows(ReadRowsQuery(row_filter=row_filter)):
        for cell in sorted(row, key=lambda cell: cell.family):
            word = f"{row.row_key.decode()} {cell.family}:{cell.qualifier.decode()}@{cell.timestamp_micros // 1000}"
            words.append(word + "".join(f"~{label}" for label in cell.labels))
    return words


def at(milliseconds):
    """A moment so many milliseconds into 1970."""
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc)


BARN = [
    "barn a:one@3",
    "barn a:one@2",
    "barn a:one@1",
    "barn a:two@2",
    "barn b:one@1",
    "barn b:three@4",
    "barn b:three@2",
]
BYRE = ["byre a:one@1"]
COOP = ["coop b:two@2", "coop b:x.y@1"]
ALL = BARN + BYRE + COOP

ONE = f.ColumnQualifierRegexFilter("one")
FAMILY_A = f.FamilyNameRegexFilter("a")
NEWEST = f.CellsColumnLimitFilter(1)

CASES = {
    "pass all": (f.PassAllFilter(True), ALL),
    "block all": (f.BlockAllFilter(True), []),
    "row key": (f.RowKeyRegexFilter("b.*"), BARN + BYRE),
    "row key matches in full": (f.RowKeyRegexFilter("bar"), []),
    "row key alternatives": (f.RowKeyRegexFilter("byre|coop"), BYRE + COOP),
    "family": (FAMILY_A, BARN[:4] + BYRE),
    "family matches in full": (f.FamilyNameRegexFilter("[a-z]+x"), []),
    "qualifier": (ONE, ["barn a:one@3", "barn a:one@2", "barn a:one@1", "barn b:one@1", "byre a:one@1"]),
    "qualifier with an escaped dot": (f.ColumnQualifierRegexFilter(rb"x\.y"), ["coop b:x.y@1"]),
    "qualifier class": (f.ColumnQualifierRegexFilter("t[hw].*"), [BARN[3], BARN[5], BARN[6], COOP[0]]),
    "value": (f.ValueRegexFilter("old"), ["barn a:one@1", "byre a:one@1"]),
    "value: the empty regex matches the empty value": (f.ValueRegexFilter(""), ["barn b:three@4"]),
    "value: a dot matches no newline": (f.ValueRegexFilter(b"x.*"), []),
    "value: any byte": (f.ValueRegexFilter(rb"x\C*"), ["barn b:one@1"]),
    "value of raw bytes": (f.ValueRegexFilter(b"x\n\xff"), ["barn b:one@1"]),
    "literal value": (f.LiteralValueFilter(b"x\n\xff"), ["barn b:one@1"]),
    "qualifier range": (f.ColumnRangeFilter("b", "one", "three"), ["barn b:one@1", "barn b:three@4", "barn b:three@2"]),
    "qualifier range, open": (
        f.ColumnRangeFilter("b", "one", "two", inclusive_start=False, inclusive_end=False),
        ["barn b:three@4", "barn b:three@2"],
    ),
    "qualifier range to the end": (f.ColumnRangeFilter("b", "two"), COOP),
    "timestamp range is half-open": (
        f.TimestampRangeFilter(at(2), at(3)),
        ["barn a:one@2", "barn a:two@2", "barn b:three@2", "coop b:two@2"],
    ),
    "timestamps from": (f.TimestampRangeFilter(start=at(3)), ["barn a:one@3", "barn b:three@4"]),
    "value range": (f.ValueRangeFilter(b"mid", b"old"), ["barn a:one@3", "barn a:one@2", "barn a:one@1", *BYRE]),
    "value range, open": (
        f.ValueRangeFilter(b"mid", b"old", inclusive_start=False, inclusive_end=False),
        ["barn a:one@3"],
    ),
    "value range from": (f.ValueRangeFilter(b"under"), ["barn b:one@1", "barn b:three@2"]),
    "value bitmask": (f.ValueBitmaskFilter(b"\x30\x32"), ["barn a:two@2", "coop b:two@2"]),
    "value bitmask of another length than any value": (f.ValueBitmaskFilter(b"\x00" * 9), []),
    "newest of each column": (
        NEWEST,
        ["barn a:one@3", "barn a:two@2", "barn b:one@1", "barn b:three@4", *BYRE, *COOP],
    ),
    "two newest of each column": (f.CellsColumnLimitFilter(2), BARN[:2] + BARN[3:] + BYRE + COOP),
    "strip keeps the cell": (f.StripValueTransformerFilter(True), ALL),
    "chain narrows": (f.RowFilterChain([ONE, FAMILY_A, NEWEST]), ["barn a:one@3", *BYRE]),
    "chain applies in order": (f.RowFilterChain([f.ValueRegexFilter("mid|old"), NEWEST]), ["barn a:one@2", *BYRE]),
    "label": (
        f.RowFilterChain([f.ValueRegexFilter("old"), f.ApplyLabelFilter("aged")]),
        ["barn a:one@1~aged", "byre a:one@1~aged"],
    ),
    "condition picks a branch for each row": (
        f.ConditionalRowFilter(f.ColumnQualifierRegexFilter("two"), NEWEST, f.ApplyLabelFilter("single")),
        ["barn a:one@3", "barn a:two@2", "barn b:one@1", "barn b:three@4", "byre a:one@1~single", *COOP],
    ),
    "condition without a false branch": (f.ConditionalRowFilter(ONE, FAMILY_A), BARN[:4] + BYRE),
}


@pytest.mark.parametrize("name", CASES)
def test_filter(farm, name):
    row_filter, expected = CASES[name]
    assert read(farm, row_filter) == expected


@pytest.mark.hayloft_only("the emulator counts a family at a time")
@pytest.mark.parametrize(
    ("row_filter", "expected"),
    [
        (f.CellsRowLimitFilter(5), BARN[:5] + BYRE + COOP),
        (f.CellsRowOffsetFilter(1), BARN[1:] + COOP[1:]),
        (f.RowFilterChain([f.CellsRowOffsetFilter(3), f.CellsRowLimitFilter(2)]), BARN[3:5]),
    ],
    ids=["limit", "offset", "offset then limit"],
)
def test_cells_of_a_row_are_counted_across_families(farm, row_filter, expected):
    assert read(farm, row_filter) == expected


def test_interleave_keeps_a_cell_that_two_branches_yield(farm):
    aged = f.RowFilterChain([f.ValueRegexFilter("old"), f.ApplyLabelFilter("aged")])
    found = read(farm, f.RowFilterUnion([aged, f.RowFilterChain([ONE, FAMILY_A])]))
    assert sorted(found) == sorted(
        ["barn a:one@3", "barn a:one@2", "barn a:one@1", "barn a:one@1~aged", "byre a:one@1", "byre a:one@1~aged"]
    )
    assert [word.split("~")[0] for word in found] == [
        "barn a:one@3",
        "barn a:one@2",
        "barn a:one@1",
        "barn a:one@1",
        "byre a:one@1",
        "byre a:one@1",
    ]


@pytest.mark.hayloft_only("the emulator has no sinks")
def test_a_sink_lets_cells_out_past_what_follows(farm):
    aged = f.RowFilterChain([f.ValueRegexFilter("old"), f.ApplyLabelFilter("aged"), f.SinkFilter(True)])
    found = read(farm, f.RowFilterChain([FAMILY_A, f.RowFilterUnion([aged, f.PassAllFilter(True)]), NEWEST]))
    assert sorted(found) == sorted(
        ["barn a:one@3", "barn a:one@1~aged", "barn a:two@2", "byre a:one@1", "byre a:one@1~aged"]
    )


def test_strip_empties_values_only(farm):
    rows = farm.read_rows(ReadRowsQuery(row_filter=f.StripValueTransformerFilter(True)))
    assert {cell.value for row in rows for cell in row} == {b""}


def test_strip_comes_after_what_precedes_it_in_a_chain(farm):
    stripped = f.RowFilterChain([f.ValueRegexFilter("mid"), f.StripValueTransformerFilter(True)])
    [row] = farm.read_rows(ReadRowsQuery(row_filter=stripped))
    assert [cell.value for cell in row] == [b""]


def test_a_sample_takes_some_rows_whole(table):
    for number in range(200):
        table.mutate_row(f"row{number:03}", [SetCell("cf", "a", b"", 1000), SetCell("cf", "b", b"", 1000)])
    rows = table.read_rows(ReadRowsQuery(row_filter=f.RowSampleFilter(0.5)))
    assert 50 < len(rows) < 150
    assert all(len(row) == 2 for row in rows)


REFUSED = {
    "a sample of everything": {"row_sample_filter": 1.5},
    "an unclosed group": {"value_regex_filter": b"("},
    "a chain of one": {"chain": {"filters": [{"pass_all_filter": True}]}},
    "an interleave of one": {"interleave": {"filters": [{"pass_all_filter": True}]}},
    "pass all, not": {"pass_all_filter": False},
    "no cells of a column": {"cells_per_column_limit_filter": 0},
    "no cells of a row": {"cells_per_row_limit_filter": 0},
    "a negative offset": {"cells_per_row_offset_filter": -1},
    "a label in capitals": {"apply_label_transformer": "Loud"},
    "a label of 16 letters": {"apply_label_transformer": "sixteen-letters-"},
    "a timestamp range off the millisecond": {"timestamp_range_filter": {"start_timestamp_micros": 1500}},
    "a condition without a predicate": {"condition": {"true_filter": {"pass_all_filter": True}}},
    "a sink in a condition": {"condition": {"predicate_filter": {"sink": True}}},
    "a sink, not": {"sink": False},
    "20 KiB and more": {"value_regex_filter": b"x" * 20481},
}


@pytest.mark.hayloft_only("the emulator accepts most of these")
@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_filter_is_refused(raw_data, farm, name):
    request = {"table_name": farm.table_name, "filter": REFUSED[name]}
    with pytest.raises(exceptions.InvalidArgument) as caught:
        list(raw_data.read_rows(request=request))
    assert len(caught.value.message.split()) >= 3
