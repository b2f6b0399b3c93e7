"""The official Python data client, synchronous: writes, reads, conditions, counters, refusals."""

import base64
import datetime
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.api_core import exceptions
from google.cloud.bigtable.data import (
    MutationsExceptionGroup,
    ReadRowsQuery,
    RowMutationEntry,
    RowRange,
    SetCell,
    row_filters,
)
from google.cloud.bigtable.data.mutations import (
    DeleteAllFromFamily,
    DeleteAllFromRow,
    DeleteRangeFromColumn,
)
from google.cloud.bigtable.data.read_modify_write_rules import AppendValueRule, IncrementRule
from google.cloud.bigtable_v2 import types

from conftest import INSTANCE
from rows import cells, keys, put, values

# What Go and Java clients send to say that they can read backwards.
REVERSE_SCANS = [("bigtable-features", base64.urlsafe_b64encode(bytes([0x08, 0x01])).decode())]
KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
def letters(table):
    """A table whose rows are `a` to `j`, each with one cell."""
    entries = [RowMutationEntry(key, SetCell("cf", "letter", key, 1000)) for key in "abcdefghij"]
    table.bulk_mutate_rows(entries)
    return table


def read_raw(raw_data, table, **request):
    """ReadRows as the wire has it: [(key, value)] from responses whose rows are one chunk each."""
    stream = raw_data.read_rows(request={"table_name": table.table_name, **request}, metadata=REVERSE_SCANS)
    return [(chunk.row_key, chunk.value) for response in stream for chunk in response.chunks]


# --- writing


def test_a_row_reads_back_as_written(table):
    put(table, "row", ("a", b"one", 1000), ("b", b"\x00\xff", 2000), ("a", b"two", 3000))
    assert cells(table.read_row("row")) == [
        ("cf", "a", 3000, b"two"),
        ("cf", "a", 1000, b"one"),
        ("cf", "b", 2000, b"\x00\xff"),
    ]


def test_families_and_qualifiers_come_sorted(new_table):
    table = new_table(["zebra", "ant"])
    for family in ("zebra", "ant"):
        put(table, "row", ("b", b""), ("a", b""), (b"\xff\x00", b""), family=family)
    row = table.read_row("row")
    found = [(cell.family, cell.qualifier) for cell in row]
    assert sorted(found[:3]) == found[:3] and sorted(found[3:]) == found[3:]
    assert {family for family, _ in found[:3]} != {family for family, _ in found[3:]}
    assert len(found) == 6


def test_a_missing_row_is_none(table):
    assert table.read_row("nobody") is None
    assert not table.row_exists("nobody")


def test_a_write_to_the_same_cell_replaces_it(table):
    put(table, "row", ("q", b"first", 5000))
    put(table, "row", ("q", b"second", 5000))
    assert cells(table.read_row("row")) == [("cf", "q", 5000, b"second")]


def test_the_client_clock_stamps_a_cell_in_milliseconds(table):
    before = datetime.datetime.now(datetime.timezone.utc).timestamp()
    put(table, "row", ("q", b"now"))
    [(_, _, timestamp_us, _)] = cells(table.read_row("row"))
    assert timestamp_us % 1000 == 0
    assert before - 1 <= timestamp_us / 1e6 <= before + 60


def test_the_server_clock_stamps_a_cell_when_asked(table):
    before = datetime.datetime.now(datetime.timezone.utc).timestamp()
    table.mutate_row("row", SetCell("cf", "q", b"v", timestamp_micros=-1))
    [(_, _, timestamp_us, _)] = cells(table.read_row("row"))
    assert timestamp_us % 1000 == 0
    assert before - 1 <= timestamp_us / 1e6 <= before + 60


def test_an_empty_value_is_a_cell(table):
    put(table, "row", ("q", b"", 1000))
    assert cells(table.read_row("row")) == [("cf", "q", 1000, b"")]


def test_an_empty_qualifier_is_a_column(table):
    put(table, "row", ("", b"v", 1000))
    assert cells(table.read_row("row")) == [("cf", "", 1000, b"v")]


def test_a_key_of_any_bytes_is_a_key(table):
    odd = [b"\x00", b"\x00\x00", b"\x00\xff", b"a\x00b", b"\xff", b"\xff\xff"]
    for key in odd:
        table.mutate_row(key, SetCell("cf", "q", key, 1000))
    rows = table.read_rows(ReadRowsQuery())
    assert keys(rows) == sorted(odd)
    assert [row[0].value for row in rows] == sorted(odd)


def test_mutations_of_one_row_apply_in_order(table):
    put(table, "row", ("old", b"x", 1000))
    table.mutate_row(
        "row",
        [SetCell("cf", "lost", b"x", 1000), DeleteAllFromRow(), SetCell("cf", "kept", b"y", 1000)],
    )
    assert values(table.read_row("row")) == {"cf:kept": b"y"}


@pytest.mark.hayloft_only("the emulator sends it in one chunk, over the client's 4 MiB limit")
def test_a_cell_of_sixteen_megabytes_survives(table):
    big = bytes(range(256)) * (16 * MIB // 256)
    put(table, "row", ("q", big, 1000))
    [(_, _, _, value)] = cells(table.read_row("row"))
    assert value == big


def test_a_wide_row_survives(table):
    columns = [(f"q{number:05}", b"%d" % number, 1000) for number in range(5000)]
    put(table, "row", *columns)
    assert [(q, v, t) for _, q, t, v in cells(table.read_row("row"))] == columns


# --- deleting


def test_delete_of_a_column_leaves_its_neighbours(table):
    put(table, "row", ("a", b"", 1000), ("b", b"", 1000), ("b", b"", 2000), ("c", b"", 1000))
    table.mutate_row("row", DeleteRangeFromColumn("cf", b"b"))
    assert list(values(table.read_row("row"))) == ["cf:a", "cf:c"]


def test_delete_of_a_time_range_is_half_open(table):
    put(table, "row", *[("q", b"", stamp) for stamp in (1000, 2000, 3000, 4000)])
    table.mutate_row("row", DeleteRangeFromColumn("cf", b"q", 2000, 4000))
    assert [stamp for _, _, stamp, _ in cells(table.read_row("row"))] == [4000, 1000]


def test_delete_of_a_family_leaves_the_others(new_table):
    table = new_table(["left", "right"])
    put(table, "row", ("q", b"l", 1000), family="left")
    put(table, "row", ("q", b"r", 1000), family="right")
    table.mutate_row("row", DeleteAllFromFamily("left"))
    assert values(table.read_row("row")) == {"right:q": b"r"}


def test_delete_of_a_row_leaves_nothing(letters):
    letters.mutate_row("c", DeleteAllFromRow())
    assert letters.read_row("c") is None
    assert keys(letters.read_rows(ReadRowsQuery(limit=3))) == [b"a", b"b", b"d"]


def test_a_write_after_a_delete_is_seen(table):
    put(table, "row", ("q", b"old", 5000))
    table.mutate_row("row", DeleteAllFromRow())
    put(table, "row", ("q", b"new", 4000))
    assert cells(table.read_row("row")) == [("cf", "q", 4000, b"new")]


def test_delete_of_a_missing_row_succeeds(table):
    table.mutate_row("nobody", DeleteAllFromRow())
    assert table.read_row("nobody") is None


# --- bulk


def test_bulk_writes_every_row(table):
    entries = [RowMutationEntry(f"row{n:04}", SetCell("cf", "n", b"%d" % n, 1000)) for n in range(2000)]
    table.bulk_mutate_rows(entries)
    rows = table.read_rows(ReadRowsQuery())
    assert [(row.row_key, row[0].value) for row in rows] == [(b"row%04d" % n, b"%d" % n) for n in range(2000)]


def test_bulk_reports_the_one_bad_entry_and_applies_the_rest(table):
    entries = [
        RowMutationEntry("good1", SetCell("cf", "q", b"v", 1000)),
        RowMutationEntry("bad", SetCell("missing", "q", b"v", 1000)),
        RowMutationEntry("good2", SetCell("cf", "q", b"v", 1000)),
    ]
    with pytest.raises(MutationsExceptionGroup) as caught:
        table.bulk_mutate_rows(entries)
    [failure] = caught.value.exceptions
    assert failure.index == 1
    assert keys(table.read_rows(ReadRowsQuery())) == [b"good1", b"good2"]


@pytest.mark.hayloft_only("the emulator answers INTERNAL")
def test_a_bad_bulk_entry_is_not_found_or_invalid_and_names_the_family(raw_data, table):
    entry = {"row_key": b"k", "mutations": [{"set_cell": {"family_name": "missing", "column_qualifier": b"q"}}]}
    [response] = raw_data.mutate_rows(request={"table_name": table.table_name, "entries": [entry]})
    [result] = response.entries
    assert result.status.code in (3, 5, 9)  # INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION
    assert "missing" in result.status.message


def test_two_bulk_entries_of_one_row_apply_in_order(table):
    table.bulk_mutate_rows([RowMutationEntry("row", SetCell("cf", "q", b"%d" % number, 1000)) for number in range(50)])
    assert cells(table.read_row("row")) == [("cf", "q", 1000, b"49")]


def test_the_batcher_flushes_what_it_was_given(table):
    with table.mutations_batcher(flush_interval=1) as batcher:
        for number in range(500):
            batcher.append(RowMutationEntry(f"row{number:03}", SetCell("cf", "q", b"v", 1000)))
    assert len(table.read_rows(ReadRowsQuery())) == 500


# --- reading ranges


@pytest.mark.parametrize(
    ("row_range", "expected"),
    [
        (RowRange("c", "f"), "cde"),
        (RowRange("c", "f", end_is_inclusive=True), "cdef"),
        (RowRange("c", "f", start_is_inclusive=False), "de"),
        (RowRange(start_key="h"), "hij"),
        (RowRange(end_key="c"), "ab"),
        (RowRange("c", "c\x00"), "c"),
        (RowRange("x", "z"), ""),
    ],
    ids=["half-open", "closed", "open", "to the end", "from the start", "one key", "empty"],
)
def test_a_range_reads_its_rows(letters, row_range, expected):
    assert keys(letters.read_rows(ReadRowsQuery(row_ranges=row_range))) == [c.encode() for c in expected]


def test_keys_and_ranges_merge_sorted_without_repeats(letters):
    query = ReadRowsQuery(row_keys=["j", "a", "d", "nobody"], row_ranges=[RowRange("c", "e"), RowRange("d", "f")])
    assert keys(letters.read_rows(query)) == [b"a", b"c", b"d", b"e", b"j"]


def test_a_limit_counts_rows(letters):
    assert keys(letters.read_rows(ReadRowsQuery(limit=3))) == [b"a", b"b", b"c"]
    assert len(letters.read_rows(ReadRowsQuery(limit=100))) == 10


def test_a_limit_counts_only_rows_that_the_filter_leaves(letters):
    query = ReadRowsQuery(limit=2, row_filter=row_filters.RowKeyRegexFilter("[c-z]"))
    assert keys(letters.read_rows(query)) == [b"c", b"d"]


def test_a_stream_gives_rows_one_by_one(letters):
    seen = []
    for row in letters.read_rows_stream(ReadRowsQuery()):
        seen.append(row.row_key)
        if len(seen) == 4:
            break
    assert seen == [b"a", b"b", b"c", b"d"]


def test_a_scan_larger_than_one_message_arrives_whole(table):
    value = b"x" * (64 * KIB)
    for start in range(0, 300, 50):
        table.bulk_mutate_rows(
            [RowMutationEntry(f"row{n:03}", SetCell("cf", "q", value, 1000)) for n in range(start, start + 50)]
        )
    rows = table.read_rows(ReadRowsQuery())
    assert len(rows) == 300
    assert all(row[0].value == value for row in rows)


def test_a_reversed_read_goes_from_the_end(raw_data, letters):
    rows = read_raw(raw_data, letters, reversed=True)
    assert [key for key, _ in rows] == [c.encode() for c in "jihgfedcba"]


def test_a_reversed_read_honours_range_and_limit(raw_data, letters):
    in_range = {"row_ranges": [{"start_key_open": b"b", "end_key_closed": b"h"}], "row_keys": [b"a", b"j"]}
    rows = read_raw(raw_data, letters, reversed=True, rows=in_range, rows_limit=4)
    assert [key for key, _ in rows] == [b"j", b"h", b"g", b"f"]


def test_a_reversed_read_keeps_the_order_inside_a_row(raw_data, table):
    put(table, "row", ("a", b"new", 2000), ("a", b"old", 1000), ("b", b"b", 1000))
    assert [value for _, value in read_raw(raw_data, table, reversed=True)] == [b"new", b"old", b"b"]


def test_an_empty_range_is_no_rows(letters):
    assert letters.read_rows(ReadRowsQuery(row_ranges=RowRange("aa", "ab"))) == []


def test_sharded_reads_cover_the_table(new_table):
    table = new_table(splits=[b"f", b"p"])
    put(table, "a", ("q", b"v"))
    put(table, "g", ("q", b"v"))
    put(table, "z", ("q", b"v"))
    sharded = ReadRowsQuery().shard(table.sample_row_keys())
    assert keys(table.read_rows_sharded(sharded)) == [b"a", b"g", b"z"]


def test_a_scan_crosses_tablets_both_ways(raw_data, new_table):
    table = new_table(splits=[b"d", b"h"])
    table.bulk_mutate_rows([RowMutationEntry(key, SetCell("cf", "q", b"v", 1000)) for key in "abcdefghij"])
    forwards = [c.encode() for c in "abcdefghij"]
    assert keys(table.read_rows(ReadRowsQuery())) == forwards
    assert [key for key, _ in read_raw(raw_data, table, reversed=True)] == forwards[::-1]
    assert keys(table.read_rows(ReadRowsQuery(row_ranges=RowRange("c", "i"), limit=4))) == forwards[2:6]


# --- conditions


def test_check_and_mutate_takes_the_branch_that_matched(table):
    put(table, "row", ("state", b"open", 1000))
    is_open = row_filters.RowFilterChain(
        filters=[row_filters.ColumnQualifierRegexFilter("state"), row_filters.ValueRegexFilter("open")]
    )
    branches = {
        "true_case_mutations": SetCell("cf", "state", b"closed", 1000),
        "false_case_mutations": SetCell("cf", "state", b"open", 1000),
    }
    assert table.check_and_mutate_row("row", is_open, **branches) is True
    assert values(table.read_row("row"))["cf:state"] == b"closed"
    assert table.check_and_mutate_row("row", is_open, **branches) is False
    assert values(table.read_row("row"))["cf:state"] == b"open"


def test_check_and_mutate_without_a_predicate_asks_whether_the_row_has_cells(table):
    create = {"false_case_mutations": SetCell("cf", "q", b"created", 1000)}
    assert table.check_and_mutate_row("row", None, **create) is False
    assert table.check_and_mutate_row("row", None, **create) is True


@pytest.mark.hayloft_only("the emulator accepts a request without mutations")
def test_check_and_mutate_wants_a_mutation(raw_data, table):
    with pytest.raises(exceptions.InvalidArgument):
        raw_data.check_and_mutate_row(request={"table_name": table.table_name, "row_key": b"row"})


# --- read-modify-write


def test_increment_starts_at_zero_and_adds_up(table):
    rule = IncrementRule("cf", "hits", 5)
    assert int(table.read_modify_write_row("row", rule)[0]) == 5
    assert int(table.read_modify_write_row("row", IncrementRule("cf", "hits", -7))[0]) == -2
    assert int(table.read_row("row")["cf", b"hits"][0]) == -2


def test_append_extends_the_value(table):
    table.read_modify_write_row("row", AppendValueRule("cf", "log", b"one,"))
    row = table.read_modify_write_row("row", AppendValueRule("cf", "log", b"two,"))
    assert values(row) == {"cf:log": b"one,two,"}


def test_rules_of_one_request_apply_in_order(table):
    rules = [AppendValueRule("cf", "q", b"a"), AppendValueRule("cf", "q", b"b"), IncrementRule("cf", "n", 3)]
    row = table.read_modify_write_row("row", rules)
    assert values(row) == {"cf:n": (3).to_bytes(8, "big"), "cf:q": b"ab"}


def test_a_counter_under_concurrent_clients_loses_nothing(table):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: table.read_modify_write_row("row", IncrementRule("cf", "n")), range(400)))
    assert int(table.read_row("row")["cf", b"n"][0]) == 400


@pytest.mark.hayloft_only("the emulator answers UNKNOWN")
def test_increment_of_a_value_that_is_no_counter_is_refused(table):
    put(table, "row", ("n", b"seven", 1000))
    with pytest.raises((exceptions.InvalidArgument, exceptions.FailedPrecondition)):
        table.read_modify_write_row("row", IncrementRule("cf", "n"))
    assert cells(table.read_row("row")) == [("cf", "n", 1000, b"seven")]


# --- sampling


@pytest.mark.hayloft_only("the emulator samples rows at random")
def test_samples_name_the_splits_and_the_end(new_table):
    table = new_table(splits=[b"g", b"p"])
    samples = table.sample_row_keys()
    assert [key for key, _ in samples] == [b"g", b"p", b""]
    offsets = [offset for _, offset in samples]
    assert offsets == sorted(offsets)


@pytest.mark.hayloft_only("the emulator samples rows at random")
@pytest.mark.parametrize(
    ("row_range", "expected"),
    [
        (RowRange("h", "j"), [b"j"]),
        (RowRange("a", "h"), [b"g", b"h"]),
        (RowRange("g", "p"), [b"p"]),
        (RowRange("h"), [b"p", b""]),
        (RowRange(None, "g", end_is_inclusive=True), [b"g"]),
    ],
    ids=str,
)
def test_samples_of_a_range_end_with_its_end(new_table, row_range, expected):
    table = new_table(splits=[b"g", b"p"])
    assert [key for key, _ in table.sample_row_keys(row_range=row_range)] == expected


def test_ping_and_warm_answers(raw_data, instance_name):
    raw_data.ping_and_warm(request={"name": instance_name})


# --- refusals


@pytest.mark.hayloft_only("the emulator answers UNKNOWN")
def test_an_unknown_family_is_refused_by_name(table):
    with pytest.raises(exceptions.GoogleAPICallError) as caught:
        table.mutate_row("row", SetCell("nosuch", "q", b"v", 1000))
    assert isinstance(caught.value, (exceptions.NotFound, exceptions.InvalidArgument, exceptions.FailedPrecondition))
    assert "nosuch" in str(caught.value)


@pytest.mark.hayloft_only("the emulator is not atomic")
def test_a_bad_second_mutation_leaves_the_first_unapplied(table):
    with pytest.raises(exceptions.GoogleAPICallError):
        table.mutate_row("row", [SetCell("cf", "q", b"v", 1000), SetCell("nosuch", "q", b"v", 1000)])
    assert table.read_row("row") is None


@pytest.mark.hayloft_only("the emulator enforces no limit")
def test_a_row_key_over_4_kib_is_refused(table):
    put(table, "k" * 4096, ("q", b"v", 1000))
    with pytest.raises(exceptions.InvalidArgument, match="(?i)key.*4|4.*key"):
        table.mutate_row("k" * 4097, SetCell("cf", "q", b"v", 1000))


@pytest.mark.hayloft_only("the emulator enforces no limit")
def test_a_qualifier_over_16_kib_is_refused(table):
    put(table, "row", ("q" * 16384, b"v", 1000))
    with pytest.raises(exceptions.InvalidArgument, match="(?i)qualifier"):
        table.mutate_row("row", SetCell("cf", "q" * 16385, b"v", 1000))


@pytest.mark.hayloft_only("the emulator takes an empty key in bulk")
def test_an_empty_row_key_is_refused(raw_data, table):
    set_cell = {"set_cell": {"family_name": "cf", "column_qualifier": b"q", "timestamp_micros": 1000}}
    with pytest.raises(exceptions.InvalidArgument, match="(?i)key"):
        raw_data.mutate_row(request={"table_name": table.table_name, "row_key": b"", "mutations": [set_cell]})


@pytest.mark.hayloft_only("the emulator answers UNKNOWN")
@pytest.mark.parametrize("timestamp_us", [1, 1500, -2, -1000], ids=str)
def test_a_timestamp_off_the_granularity_is_refused(raw_data, table, timestamp_us):
    set_cell = {"family_name": "cf", "column_qualifier": b"q", "timestamp_micros": timestamp_us}
    request = {"table_name": table.table_name, "row_key": b"row", "mutations": [{"set_cell": set_cell}]}
    with pytest.raises(exceptions.InvalidArgument, match="(?i)timestamp"):
        raw_data.mutate_row(request=request)


def test_a_mutation_list_must_not_be_empty(raw_data, table):
    with pytest.raises(exceptions.InvalidArgument):
        raw_data.mutate_row(request={"table_name": table.table_name, "row_key": b"row", "mutations": []})


def test_a_missing_table_is_not_found(data_client):
    ghost = data_client.get_table(INSTANCE, "ghost")
    with pytest.raises(exceptions.NotFound, match="ghost"):
        ghost.read_row("row")
    with pytest.raises(exceptions.NotFound, match="ghost"):
        ghost.mutate_row("row", SetCell("cf", "q", b"v", 1000))


def test_a_malformed_range_is_refused(raw_data, table):
    backwards = {"row_ranges": [{"start_key_closed": b"z", "end_key_open": b"a"}]}
    with pytest.raises(exceptions.InvalidArgument):
        read_raw(raw_data, table, rows=backwards)


@pytest.mark.hayloft_only("the emulator takes it for no limit")
def test_a_negative_limit_is_refused(raw_data, table):
    with pytest.raises(exceptions.InvalidArgument):
        read_raw(raw_data, table, rows_limit=-1)


def test_what_is_absent_says_so_in_a_sentence(raw_data, instance_name):
    with pytest.raises(exceptions.MethodNotImplemented) as caught:
        raw_data.prepare_query(request={"instance_name": instance_name, "query": "SELECT 1"})
    assert len(caught.value.message.split()) >= 4


# --- what newer protos have


def set_cell(timestamp_micros, origin):
    """A SetCell whose timestamp says where it comes from."""
    cell = {"family_name": "cf", "column_qualifier": b"q", "value": b"v", "timestamp_micros": timestamp_micros}
    return {"set_cell": cell, "timestamp_origin": origin}


@pytest.mark.hayloft_only("the emulator does not know the field")
def test_a_clients_own_timestamp_is_cut_and_a_users_is_refused(raw_data, table):
    origins = types.Mutation.TimestampOrigin
    request = {"table_name": table.table_name, "row_key": b"row"}
    for origin in (origins.TIMESTAMP_ORIGIN_UNSPECIFIED, origins.USER_SPECIFIED):
        with pytest.raises(exceptions.InvalidArgument, match="timestamp_micros: 1234567, must be a multiple of 1000"):
            raw_data.mutate_row(request=request | {"mutations": [set_cell(1234567, origin)]})
    raw_data.mutate_row(request=request | {"mutations": [set_cell(1234567, origins.CLIENT_AUTO_GENERATED)]})
    entries = [{"row_key": b"bulk", "mutations": [set_cell(7654321, origins.CLIENT_AUTO_GENERATED)]}]
    [answer] = raw_data.mutate_rows(request={"table_name": table.table_name, "entries": entries})
    assert answer.entries[0].status.code == 0
    assert [cell.timestamp_micros for cell in table.read_row("row")] == [1234000]
    assert [cell.timestamp_micros for cell in table.read_row("bulk")] == [7654000]


@pytest.mark.hayloft_only("the emulator gives none")
def test_a_read_tells_what_it_saw_in_its_last_message(raw_data, table):
    for row in ("a", "b", "c"):
        table.mutate_row(row, [SetCell("cf", "q", b"v", 1000), SetCell("cf", "r", b"v", 1000)])
    full = types.ReadRowsRequest.RequestStatsView.REQUEST_STATS_FULL
    request = {"table_name": table.table_name, "request_stats_view": full}
    for rows, filter_, seen, returned in [
        ({}, {}, (3, 6), (3, 6)),
        ({"row_keys": [b"b"]}, {"cells_per_row_limit_filter": 1}, (1, 1), (1, 1)),
        ({}, {"value_regex_filter": b"x"}, (3, 6), (0, 0)),
        ({"row_keys": [b"z"]}, {}, (0, 0), (0, 0)),
    ]:
        messages = list(raw_data.read_rows(request=request | {"rows": rows, "filter": filter_}))
        assert not any("request_stats" in message for message in messages[:-1])
        view = messages[-1].request_stats.full_read_stats_view
        counts = view.read_iteration_stats
        assert (counts.rows_seen_count, counts.cells_seen_count) == seen
        assert (counts.rows_returned_count, counts.cells_returned_count) == returned
        assert view.request_latency_stats.frontend_server_latency.total_seconds() > 0
    plain = list(raw_data.read_rows(request={"table_name": table.table_name}))
    assert not any("request_stats" in message for message in plain)
    with pytest.raises(exceptions.InvalidArgument, match="request_stats_view: 9, "):
        list(raw_data.read_rows(request=request | {"request_stats_view": 9}))
