"""The older Python client (`Client`, `instance`, `table`, `row.commit()`), still what most code uses."""

import datetime

import pytest
from google.cloud.bigtable import Client, column_family, row_filters
from google.cloud.bigtable.row_set import RowSet

from conftest import INSTANCE, PROJECT

EARLY = datetime.datetime(2001, 1, 1, tzinfo=datetime.timezone.utc)
LATER = datetime.datetime(2002, 1, 1, tzinfo=datetime.timezone.utc)


@pytest.fixture(scope="module")
def instance(emulator_environment):
    """The instance nobody created, from a client with admin rights."""
    client = Client(project=PROJECT, admin=True)
    yield client.instance(INSTANCE)
    client.close()


@pytest.fixture
def table(instance, new_table_id):
    """A table made by the legacy client."""
    table = instance.table(new_table_id())
    table.create(column_families={"cf": None})
    return table


def write(table, key, **columns):
    """Commits one direct row whose cells are all of the year 2001."""
    row = table.direct_row(key)
    for column, value in columns.items():
        row.set_cell("cf", column, value, timestamp=EARLY)
    assert row.commit().code == 0


def test_the_quick_start_of_the_documentation_works(table):
    assert table.exists()
    rows = []
    for number, greeting in enumerate(["Hello World!", "Hello Cloud Bigtable!", "Hello Python!"]):
        row = table.direct_row(f"greeting{number}")
        row.set_cell("cf", "greeting", greeting)
        rows.append(row)
    assert [status.code for status in table.mutate_rows(rows)] == [0, 0, 0]
    first = table.read_row("greeting0", row_filters.CellsColumnLimitFilter(1))
    assert first.cell_value("cf", b"greeting") == b"Hello World!"
    found = table.read_rows(filter_=row_filters.CellsColumnLimitFilter(1))
    assert [row.row_key for row in found] == [b"greeting0", b"greeting1", b"greeting2"]


def test_tables_are_created_with_splits_listed_and_deleted(instance, new_table_id):
    table = instance.table(new_table_id())
    assert not table.exists()
    table.create(initial_split_keys=[b"g", b"p"], column_families={"cf": column_family.MaxVersionsGCRule(1)})
    assert table.table_id in [each.table_id for each in instance.list_tables()]
    table.delete()
    assert not table.exists()


@pytest.mark.parametrize(
    "rule",
    [
        column_family.MaxVersionsGCRule(3),
        column_family.MaxAgeGCRule(datetime.timedelta(days=5)),
        column_family.GCRuleUnion(
            [column_family.MaxVersionsGCRule(2), column_family.MaxAgeGCRule(datetime.timedelta(hours=1))]
        ),
        column_family.GCRuleIntersection(
            [column_family.MaxVersionsGCRule(2), column_family.MaxAgeGCRule(datetime.timedelta(hours=1))]
        ),
    ],
    ids=["versions", "age", "union", "intersection"],
)
def test_a_gc_rule_is_kept_as_given(table, rule):
    table.column_family("ruled", gc_rule=rule).create()
    assert table.list_column_families()["ruled"].gc_rule == rule


def test_families_are_created_updated_and_deleted(table):
    family = table.column_family("extra", gc_rule=column_family.MaxVersionsGCRule(1))
    family.create()
    table.column_family("extra", gc_rule=column_family.MaxVersionsGCRule(2)).update()
    assert table.list_column_families()["extra"].gc_rule == column_family.MaxVersionsGCRule(2)
    family.delete()
    assert set(table.list_column_families()) == {"cf"}


@pytest.mark.hayloft_only("the emulator collects once a minute and hides nothing")
def test_reads_hide_what_the_gc_rule_would_collect(table):
    table.column_family("one", gc_rule=column_family.MaxVersionsGCRule(1)).create()
    row = table.direct_row("row")
    row.set_cell("one", "q", b"old", timestamp=EARLY)
    row.set_cell("one", "q", b"new", timestamp=LATER)
    row.commit()
    assert [cell.value for cell in table.read_row("row").find_cells("one", b"q")] == [b"new"]


def test_direct_rows_set_and_delete(table):
    write(table, "row", a=b"1", b=b"2", c=b"3")
    row = table.direct_row("row")
    row.delete_cell("cf", "a")
    row.delete_cells("cf", ["b"])
    row.commit()
    assert table.read_row("row").to_dict().keys() == {b"cf:c"}
    row = table.direct_row("row")
    row.delete()
    row.commit()
    assert table.read_row("row") is None


def test_a_conditional_row_takes_its_branch(table):
    write(table, "row", q=b"yes")
    row = table.conditional_row("row", filter_=row_filters.ValueRegexFilter(b"yes"))
    row.set_cell("cf", "matched", b"1", timestamp=EARLY, state=True)
    row.set_cell("cf", "unmatched", b"1", timestamp=EARLY, state=False)
    assert row.commit() is True
    assert table.read_row("row").to_dict().keys() == {b"cf:q", b"cf:matched"}


def test_an_append_row_counts_and_appends(table):
    row = table.append_row("row")
    row.increment_cell_value("cf", "n", 41)
    row.append_cell_value("cf", "log", b"one")
    row.commit()
    row = table.append_row("row")
    row.increment_cell_value("cf", "n", 1)
    row.append_cell_value("cf", "log", b",two")
    result = row.commit()
    assert result["cf"][b"n"][0][0] == (42).to_bytes(8, "big")
    assert result["cf"][b"log"][0][0] == b"one,two"


def test_row_sets_select(table):
    for key in ("user#1", "user#2", "item#1", "user#3"):
        write(table, key, q=b"v")
    wanted = RowSet()
    wanted.add_row_range_with_prefix("user#")
    wanted.add_row_key(b"item#1")
    assert [row.row_key for row in table.read_rows(row_set=wanted)] == [b"item#1", b"user#1", b"user#2", b"user#3"]
    assert [row.row_key for row in table.read_rows(start_key=b"user#2", end_inclusive=True, end_key=b"user#3")] == [
        b"user#2",
        b"user#3",
    ]


def test_drop_by_prefix_drops_only_the_prefix(table):
    for key in ("user#1", "user#2", "users", "item#1"):
        write(table, key, q=b"v")
    table.drop_by_prefix("user#", timeout=20)
    assert [row.row_key for row in table.read_rows()] == [b"item#1", b"users"]


def test_truncate_drops_all_rows_and_keeps_the_families(table):
    write(table, "row", q=b"v")
    table.truncate(timeout=20)
    assert list(table.read_rows()) == []
    write(table, "row", q=b"again")
    assert table.read_row("row").cell_value("cf", b"q") == b"again"


def test_sample_row_keys_ends_at_the_end(table):
    samples = list(table.sample_row_keys())
    assert samples[-1].row_key == b""


def test_the_batcher_commits_on_close(table):
    with table.mutations_batcher(flush_count=100) as batcher:
        for number in range(350):
            row = table.direct_row(f"row{number:03}")
            row.set_cell("cf", "q", b"v", timestamp=EARLY)
            batcher.mutate(row)
    assert len(list(table.read_rows())) == 350
