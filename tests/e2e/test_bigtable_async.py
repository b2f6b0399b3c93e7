"""The official Python data client, asynchronous: a code path of its own in the library."""

import asyncio

import pytest
import pytest_asyncio
from google.api_core import exceptions
from google.cloud.bigtable.data import (
    BigtableDataClientAsync,
    ReadRowsQuery,
    RowMutationEntry,
    RowRange,
    SetCell,
    row_filters,
)
from google.cloud.bigtable.data.mutations import DeleteAllFromRow
from google.cloud.bigtable.data.read_modify_write_rules import AppendValueRule, IncrementRule

from conftest import INSTANCE, PROJECT, create_table
from rows import cells, keys


@pytest_asyncio.fixture
async def table(emulator_environment, admin, new_table_id):
    """A table with the family `cf`, through the asynchronous client."""
    table_id = new_table_id()
    create_table(admin, table_id, splits=[b"m"])
    async with BigtableDataClientAsync(project=PROJECT) as client:
        async with client.get_table(INSTANCE, table_id) as table:
            yield table


async def test_a_row_reads_back_as_written(table):
    await table.mutate_row("row", [SetCell("cf", "a", b"one", 1000), SetCell("cf", "b", b"two", 2000)])
    assert cells(await table.read_row("row")) == [("cf", "a", 1000, b"one"), ("cf", "b", 2000, b"two")]
    assert await table.row_exists("row")
    assert await table.read_row("nobody") is None


async def test_bulk_writes_and_a_streamed_scan_agree(table):
    wanted = [f"row{number:04}".encode() for number in range(1500)]
    await table.bulk_mutate_rows([RowMutationEntry(key, SetCell("cf", "q", key, 1000)) for key in wanted])
    stream = await table.read_rows_stream(ReadRowsQuery())
    assert [row.row_key async for row in stream] == wanted


async def test_ranges_limits_and_filters_combine(table):
    entries = [RowMutationEntry(key, SetCell("cf", "q", key, 1000)) for key in "abcdefghijklmnopqrstuvwxyz"]
    await table.bulk_mutate_rows(entries)
    query = ReadRowsQuery(row_ranges=RowRange("c", "x"), limit=3, row_filter=row_filters.ValueRegexFilter("[aeiou]"))
    assert keys(await table.read_rows(query)) == [b"e", b"i", b"o"]


async def test_many_reads_at_once_answer_each_its_own_row(table):
    entries = [RowMutationEntry(f"row{n:03}", SetCell("cf", "q", b"%d" % n, 1000)) for n in range(200)]
    await table.bulk_mutate_rows(entries)
    rows = await asyncio.gather(*(table.read_row(f"row{n:03}") for n in range(200)))
    assert [row[0].value for row in rows] == [b"%d" % n for n in range(200)]


async def test_many_counters_at_once_lose_nothing(table):
    await asyncio.gather(*(table.read_modify_write_row("row", IncrementRule("cf", "n")) for _ in range(300)))
    row = await table.read_modify_write_row("row", AppendValueRule("cf", "log", b"end"))
    assert row["cf", b"log"][0].value == b"end"
    assert int((await table.read_row("row"))["cf", b"n"][0]) == 300


async def test_one_of_many_conditional_creates_wins(table):
    def create(number):
        return table.check_and_mutate_row("row", None, false_case_mutations=SetCell("cf", "q", b"%d" % number))

    existed = await asyncio.gather(*(create(number) for number in range(50)))
    assert sorted(existed) == [False] + [True] * 49
    [winner] = cells(await table.read_row("row"))
    assert winner[3] == b"%d" % existed.index(False)


async def test_the_batcher_deletes_and_writes(table):
    await table.mutate_row("doomed", SetCell("cf", "q", b"v"))
    async with table.mutations_batcher() as batcher:
        await batcher.append(RowMutationEntry("doomed", DeleteAllFromRow()))
        await batcher.append(RowMutationEntry("kept", SetCell("cf", "q", b"v")))
    assert keys(await table.read_rows(ReadRowsQuery())) == [b"kept"]


async def test_a_sharded_read_covers_every_tablet(table):
    for key in "az":
        await table.mutate_row(key, SetCell("cf", "q", b"v"))
    sharded = ReadRowsQuery().shard(await table.sample_row_keys())
    assert keys(await table.read_rows_sharded(sharded)) == [b"a", b"z"]


async def test_a_refusal_reaches_the_caller(table):
    with pytest.raises(exceptions.GoogleAPICallError, match="nosuch"):
        await table.mutate_row("row", SetCell("nosuch", "q", b"v"))
