"""Aggregate families: sums, minima, maxima and unique counts that AddToCell and MergeToCell change unread."""

import random
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.api_core import exceptions
from google.cloud.bigtable import Client
from google.cloud.bigtable.data import (
    BigtableDataClient,
    MutationsExceptionGroup,
    ReadRowsQuery,
    RowMutationEntry,
    SetCell,
    row_filters,
)
from google.cloud.bigtable.data.mutations import AddToCell, DeleteAllFromFamily, DeleteRangeFromColumn
from google.cloud.bigtable.data.read_modify_write_rules import IncrementRule
from google.cloud.bigtable_admin_v2 import types as admin_types

from conftest import INSTANCE, PROJECT, create_table, table_admin
from rows import cells, put
from test_cbt import CBT, cbt  # noqa: F401 - a fixture

INT64 = {"int64_type": {"encoding": {"big_endian_bytes": {}}}}
HOUR = 3_600_000_000


def aggregate(aggregator, input_type=INT64, **more):
    """A family that gathers `input_type` by `aggregator`."""
    value_type = {"aggregate_type": {aggregator: {}, "input_type": input_type}}
    return admin_types.ColumnFamily({"value_type": value_type, **more})


FAMILIES = {
    "sum": aggregate("sum"),
    "min": aggregate("min"),
    "max": aggregate("max"),
    "unique": aggregate("hllpp_unique_count"),
    "plain": admin_types.ColumnFamily(),
}


def numbers(row):
    """{(family, qualifier, timestamp in µs): integer} of a row's aggregates."""
    return {cell[:3]: struct.unpack(">q", cell[3])[0] for cell in cells(row) if len(cell[3]) == 8}


@pytest.fixture
def tallies(new_table):
    """A table with a family of each kind."""
    return new_table(FAMILIES)


def merge_to_cell(raw_data, table, key, family, state, qualifier=b"q", timestamp_micros=0):
    """MergeToCell, which the friendlier clients do not have."""
    mutation = {
        "merge_to_cell": {
            "family_name": family,
            "column_qualifier": {"raw_value": qualifier},
            "timestamp": {"raw_timestamp_micros": timestamp_micros},
            "input": {"raw_value": state} if state is not None else {},
        }
    }
    raw_data.mutate_row(request={"table_name": table.table_name, "row_key": key, "mutations": [mutation]})


def test_sums_gather_what_is_added_a_timestamp_each(tallies):
    for number in (5, -9, 7):
        tallies.mutate_row("r", AddToCell("sum", "q", number, HOUR))
    tallies.mutate_row("r", AddToCell("sum", "q", 1, 2 * HOUR))
    assert numbers(tallies.read_row("r")) == {("sum", "q", HOUR): 3, ("sum", "q", 2 * HOUR): 1}
    latest = tallies.read_row("r", row_filter=row_filters.CellsColumnLimitFilter(1))
    assert numbers(latest) == {("sum", "q", 2 * HOUR): 1}


@pytest.mark.hayloft_only("its minima and maxima are what was written last")
def test_minima_and_maxima_keep_the_extremes(tallies):
    for number in (5, -9, 7, 6):
        tallies.mutate_row("r", [AddToCell("min", "q", number, HOUR), AddToCell("max", "q", number, HOUR)])
    assert numbers(tallies.read_row("r")) == {("max", "q", HOUR): 7, ("min", "q", HOUR): -9}


@pytest.mark.hayloft_only("what it does at the last integer is not known to be production's")
def test_a_sum_wraps_around(tallies):
    tallies.mutate_row("r", [AddToCell("sum", "q", 2**63 - 1, 0), AddToCell("sum", "q", 1, 0)])
    assert numbers(tallies.read_row("r")) == {("sum", "q", 0): -(2**63)}


def test_adds_and_sets_share_a_mutation_and_a_batch(tallies):
    put(tallies, "r", ("name", b"oats", 1000), family="plain")
    entries = [
        RowMutationEntry(f"r{n % 3}", [AddToCell("sum", "q", n, 0), SetCell("plain", "last", b"%d" % n, 1000)])
        for n in range(30)
    ]
    tallies.bulk_mutate_rows(entries)
    assert numbers(tallies.read_row("r1")) == {("sum", "q", 0): sum(range(1, 30, 3))}
    matched = tallies.check_and_mutate_row(
        "r1",
        row_filters.ValueRangeFilter(start_value=struct.pack(">q", 100), inclusive_start=True),
        true_case_mutations=AddToCell("max", "seen", 1, 0),
        false_case_mutations=AddToCell("max", "seen", 2, 0),
    )
    assert matched and numbers(tallies.read_row("r1"))[("max", "seen", 0)] == 1


def test_deletes_reach_aggregates_and_adds_begin_anew(tallies):
    tallies.mutate_row("r", [AddToCell("sum", "q", n, n * HOUR) for n in range(1, 5)])
    some = DeleteRangeFromColumn("sum", b"q", 2 * HOUR, 4 * HOUR)
    tallies.mutate_row("r", [some, AddToCell("sum", "q", 10, 3 * HOUR)])
    assert numbers(tallies.read_row("r")) == {
        ("sum", "q", 4 * HOUR): 4,
        ("sum", "q", 3 * HOUR): 10,
        ("sum", "q", HOUR): 1,
    }
    tallies.mutate_row("r", [DeleteAllFromFamily("sum"), AddToCell("sum", "q", 6, HOUR)])
    assert numbers(tallies.read_row("r")) == {("sum", "q", HOUR): 6}


@pytest.mark.hayloft_only("it has no MergeToCell and no unique counts")
def test_states_merge_into_cells(tallies, raw_data):
    for family in ("sum", "min", "max", "unique"):
        tallies.mutate_row("one", [AddToCell(family, "q", n, 0) for n in (4, 8, 15)])
        tallies.mutate_row("two", [AddToCell(family, "q", n, 0) for n in (15, 16)])
        tallies.mutate_row("all", [AddToCell(family, "q", n, 0) for n in (4, 8, 15, 15, 16)])
    states = {family: state for family, _, _, state in cells(tallies.read_row("two"))}
    for family, state in states.items():
        merge_to_cell(raw_data, tallies, b"one", family, state)
        merge_to_cell(raw_data, tallies, b"one", family, None)
    assert cells(tallies.read_row("one")) == cells(tallies.read_row("all"))


@pytest.mark.hayloft_only("it has no unique counts")
def test_a_unique_count_is_a_sketch_as_bigquery_reads_it(tallies):
    tallies.mutate_row("r", [AddToCell("unique", "q", 0, 0)])
    ((_, _, _, sketch),) = cells(tallies.read_row("r"))
    # The golden bytes of tablet-server/tests/golden/unique_counts.txt: `integers 0 1`.
    assert sketch.hex() == "087010011802200882070b1001180f20143203a2a721"
    for start in range(0, 30_000, 10_000):
        tallies.mutate_row("r", [AddToCell("unique", "q", n, 0) for n in range(start, start + 10_000)])
    ((_, _, _, sketch),) = cells(tallies.read_row("r"))
    assert 32_768 < len(sketch) < 32_900


@pytest.mark.hayloft_only("it lets clients set what is an aggregate")
def test_what_is_not_added_is_refused(tallies, raw_data):
    def refused(mutation):
        with pytest.raises(exceptions.GoogleAPICallError) as refusal:
            tallies.mutate_row("r", mutation, retryable_errors=())
        assert refusal.value.code == 400
        return refusal.value.message

    assert "mutations[0].set_cell.family_name: is an aggregate family" in refused(SetCell("sum", "q", b"12345678", 0))
    assert "mutations[0].add_to_cell.family_name: is no aggregate family" in refused(AddToCell("plain", "q", 1, 0))
    assert "mutations[0].add_to_cell.timestamp" in refused(AddToCell("sum", "q", 1, 1500))
    with pytest.raises(exceptions.InvalidArgument, match="is an aggregate family"):
        tallies.read_modify_write_row("r", IncrementRule("sum", "q"))
    with pytest.raises(exceptions.InvalidArgument, match="4 bytes, an integer has 8"):
        merge_to_cell(raw_data, tallies, b"r", "sum", b"1234")
    with pytest.raises(exceptions.InvalidArgument, match="is no serialized sketch"):
        merge_to_cell(raw_data, tallies, b"r", "unique", b"\xff")
    with pytest.raises(MutationsExceptionGroup) as group:
        entries = [("good", AddToCell("sum", "q", 1, 0)), ("bad", AddToCell("nope", "q", 1, 0))]
        tallies.bulk_mutate_rows([RowMutationEntry(*entry) for entry in entries])
    assert [failed.index for failed in group.value.exceptions] == [1]
    assert tallies.read_row("r") is None and numbers(tallies.read_row("good")) == {("sum", "q", 0): 1}


def test_a_table_shows_its_value_types(admin, tallies):
    for table in (admin.get_table(name=tallies.table_name), legacy_table(tallies.table_name)):
        types = {name: family.value_type.aggregate_type for name, family in table.column_families.items()}
        assert [name for name, of in types.items() if "sum" in of] == ["sum"]
        assert types["max"].input_type.int64_type.encoding.big_endian_bytes is not None
        assert not table.column_families["plain"].value_type


def legacy_table(name):
    """GetTable through the older client's admin."""
    client = Client(project=PROJECT, admin=True)
    try:
        return client.table_admin_client.get_table(request={"name": name})
    finally:
        client.close()


@pytest.mark.hayloft_only("it changes value types")
def test_a_value_type_is_for_life(admin, tallies):
    def update(family, value_type):
        modification = {"id": family, "update": {"value_type": value_type}, "update_mask": {"paths": ["value_type"]}}
        admin.modify_column_families(request={"name": tallies.table_name, "modifications": [modification]})

    update("sum", aggregate("sum").value_type)
    others = [("sum", aggregate("max").value_type), ("sum", {}), ("plain", FAMILIES["sum"].value_type)]
    for family, value_type in others:
        with pytest.raises(exceptions.InvalidArgument, match="value_type"):
            update(family, value_type)
    modification = {"id": "sum", "update": {"gc_rule": {"max_num_versions": 1}}}
    table = admin.modify_column_families(request={"name": tallies.table_name, "modifications": [modification]})
    assert "sum" in table.column_families["sum"].value_type.aggregate_type
    tallies.mutate_row("r", [AddToCell("sum", "q", 1, HOUR), AddToCell("sum", "q", 2, 2 * HOUR)])
    assert numbers(tallies.read_row("r")) == {("sum", "q", 2 * HOUR): 2}
    # A family of the same name, made again, may be another one.
    again = [{"id": "sum", "drop": True}, {"id": "sum", "create": aggregate("max")}]
    admin.modify_column_families(request={"name": tallies.table_name, "modifications": again})
    tallies.mutate_row("r", [AddToCell("sum", "q", 7, HOUR), AddToCell("sum", "q", 3, HOUR)])
    assert numbers(tallies.read_row("r")) == {("sum", "q", HOUR): 7}


@pytest.mark.hayloft_only("it takes types that no cell can have")
@pytest.mark.parametrize(
    "family, code, why",
    [
        (aggregate("sum", {"int64_type": {}}), 400, "int64_type.encoding: must be big_endian_bytes"),
        (aggregate("max", {"bytes_type": {"encoding": {"raw": {}}}}), 400, "must be int64_type"),
        (aggregate("sum", {"int64_type": {"encoding": {"ordered_code_bytes": {}}}}), 501, "only built for big_endian"),
        (admin_types.ColumnFamily({"value_type": {"float64_type": {}}}), 400, "has no encoding"),
        (admin_types.ColumnFamily({"value_type": {"struct_type": {}}}), 501, "struct_type: not built"),
    ],
)
def test_types_that_cells_cannot_have_are_refused(admin, new_table_id, family, code, why):
    with pytest.raises(exceptions.GoogleAPICallError, match=why) as refusal:
        create_table(admin, new_table_id(), {"f": family})
    assert refusal.value.code == code


@pytest.mark.skipif(CBT is None, reason="cbt is not on PATH (it comes with the Google Cloud CLI)")
def test_cbt_creates_aggregates_and_adds_to_them(cbt):  # noqa: F811 - a fixture
    cbt("createtable", "cbt-tallies", "families=total:never:intsum,least:maxversions=1:intmin")
    try:
        for number in ("5", "-8"):
            cbt("addtocell", "cbt-tallies", "r", f"total:q={number}@1000", f"least:q={number}@1000")
        printed = cbt("read", "cbt-tallies")
        assert r'"\xff\xff\xff\xff\xff\xff\xff\xfd"' in printed and r'"\xff\xff\xff\xff\xff\xff\xff\xf8"' in printed
    finally:
        cbt("deletetable", "cbt-tallies")


def test_adds_under_splits_and_a_kill_count_once(new_server, monkeypatch):
    """Whatever tablets do meanwhile, what was acknowledged is there, and once."""
    env = {"HAYLOFT_ROWS_TABLET_MAX": "256KiB", "HAYLOFT_ROWS_MEMTABLES": "1MiB"}
    server = new_server("--tablet-servers", "2", env=env).start()
    monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
    create_table(table_admin(server.bigtable), "busy", FAMILIES)
    rows = [f"row-{n:02}" for n in range(40)]
    is_split = threading.Event()
    rounds = [0] * 4

    def work(table, worker):
        values = random.Random(worker)
        began = time.monotonic()
        while rounds[worker] < 20 or not (is_split.is_set() or time.monotonic() > began + 30):
            number = rounds[worker]
            mutations = [AddToCell("sum", "q", 1, 0), AddToCell("max", "q", number * 10 + worker, 0)]
            filler = SetCell("plain", f"{worker}-{number % 20}", values.randbytes(2000), 0)
            table.bulk_mutate_rows([RowMutationEntry(row, [*mutations, filler]) for row in rows])
            rounds[worker] += 1
            if worker == 0 and len(table.sample_row_keys()) > 2:
                is_split.set()

    with BigtableDataClient(project=PROJECT) as client:
        table = client.get_table(INSTANCE, "busy")
        with ThreadPoolExecutor(len(rounds)) as workers:
            for done in [workers.submit(work, table, worker) for worker in range(len(rounds))]:
                done.result()
        assert is_split.is_set()
        most = max(rounds_of * 10 + worker - 10 for worker, rounds_of in enumerate(rounds))
        expected = dict.fromkeys(rows, {("max", "q", 0): most, ("sum", "q", 0): sum(rounds)})
        assert {row.row_key.decode(): numbers(row) for row in table.read_rows(ReadRowsQuery())} == expected
    server.kill()
    server.start()
    monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
    with BigtableDataClient(project=PROJECT) as client:
        again = client.get_table(INSTANCE, "busy").read_rows(ReadRowsQuery())
        assert {row.row_key.decode(): numbers(row) for row in again} == expected
