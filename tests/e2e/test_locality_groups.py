"""Locality groups by `hayloft admin tables groups`, while Google's clients see the same rows as ever."""

import datetime
import json
import subprocess
import time

import pytest
from google.cloud.bigtable.data import BigtableDataClient, ReadRowsQuery, SetCell, row_filters
from google.protobuf import timestamp_pb2

from conftest import INSTANCE, PROJECT, create_table, instance_admin, table_admin
from hayloft import binary
from test_splits import Traffic

PARENT = f"projects/{PROJECT}/instances/{INSTANCE}"
ROWS = [b"row-%03d" % i for i in range(200)]
MOVE_SECONDS = 30


def admin(server, *words):
    """`hayloft admin tables ...` at `server`; its exit code and output."""
    command = [binary(), "admin", "tables", *words, "--console", server.console]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stdout + ran.stderr


def groups(server, table):
    """The groups of `table` with their families, and whether some family is on its way."""
    code, out = admin(server, "groups", "list", table, "--json")
    assert code == 0, out
    shown = json.loads(out)
    families = {
        group["group"]: {name for name, place in shown["families"].items() if place["group"] == group["group"]}
        for group in shown["groups"]
    }
    return families, any(place["moving_to"] for place in shown["families"].values())


def set_group(server, table, group, *flags):
    """Sets a group, and waits until its families are there."""
    code, out = admin(server, "groups", "set", table, group, *flags)
    assert code == 0, out
    deadline = time.monotonic() + MOVE_SECONDS
    while groups(server, table)[1]:
        assert time.monotonic() < deadline, "the families do not get there"
        time.sleep(0.05)
    return out


def cells(table, **query):
    """What a read gives, as plain values."""
    rows = table.read_rows(ReadRowsQuery(**query))
    return [(row.row_key, [(cell.family, cell.qualifier, cell.value) for cell in row.cells]) for row in rows]


@pytest.fixture
def hayloft(new_server, monkeypatch):
    """A server that the official clients find, and again after each `begin`."""
    server = new_server()

    def start():
        server.start()
        monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
        return server

    server.begin = start
    return start()


def test_a_family_moves_to_a_group_of_its_own_and_survives_a_kill(hayloft):
    create_table(table_admin(hayloft.bigtable), "pages", families=["anchor", "contents"], splits=[b"row-100"])
    with BigtableDataClient(project=PROJECT) as client:
        table = client.get_table(INSTANCE, "pages")
        for row in ROWS:
            changes = [SetCell("anchor", b"q", row, 1000), SetCell("contents", b"q", b"page" * 500, 1000)]
            table.mutate_row(row, changes)
        before = cells(table)
        flags = ("--families", "contents", "--compression", "none", "--block-size", "64KiB", "--in-memory")
        out = set_group(hayloft, "pages", "big", *flags)
        assert "big" in out and "none" in out and "in memory" in out, out
        assert groups(hayloft, "pages")[0] == {"default": {"anchor"}, "big": {"contents"}}
        assert cells(table) == before
        only = row_filters.FamilyNameRegexFilter("anchor")
        assert [len(row) for _, row in cells(table, row_filter=only)] == [1] * len(ROWS)
        table.mutate_row(b"row-999", SetCell("contents", b"q", b"new", 1000))
    hayloft.kill()
    hayloft.begin()
    assert groups(hayloft, PARENT + "/tables/pages")[0] == {"default": {"anchor"}, "big": {"contents"}}
    with BigtableDataClient(project=PROJECT) as client:
        table = client.get_table(INSTANCE, "pages")
        assert cells(table) == before + [(b"row-999", [("contents", b"q", b"new")])]
        table_admin(hayloft.bigtable).drop_row_range(
            request={"name": f"{PARENT}/tables/pages", "row_key_prefix": b"row-1"}
        )
        assert len(cells(table)) == 101


def test_refusals_say_what_is_wrong(hayloft):
    create_table(table_admin(hayloft.bigtable), "t", families=["f"])
    for words, expected in [
        (("set", "nowhere", "g"), "there is no table nowhere"),
        (("set", "t", "g", "--families", "x"), "there is no column family"),
        (("set", "t", "g", "--block-size", "17"), "block_bytes: 17"),
        (("set", "t", "a/b"), "letters, digits"),
        (("set", "t", "g", "--compression", "zip"), "possible values: lz4, none"),
        (("delete", "t", "g"), "there is no locality group"),
    ]:
        code, out = admin(hayloft, "groups", *words)
        assert code != 0 and expected in out, (words, out)
    set_group(hayloft, "t", "g", "--family", "f")
    code, out = admin(hayloft, "groups", "delete", "t", "g")
    assert code != 0 and "families f are in" in out, out
    set_group(hayloft, "t", "default", "--family", "f")
    code, out = admin(hayloft, "groups", "delete", "t", "g")
    assert code == 0, out
    assert groups(hayloft, "t")[0] == {"default": {"f"}}
    code, out = admin(hayloft, "list")
    assert code == 0 and PARENT + "/tables/t" in out, out


def test_a_restored_table_has_its_groups(hayloft):
    client = table_admin(hayloft.bigtable)
    create_table(client, "source", families=["f", "g"])
    set_group(hayloft, "source", "apart", "--families", "g", "--in-memory")
    with BigtableDataClient(project=PROJECT) as data:
        for row in ROWS[:20]:
            data.get_table(INSTANCE, "source").mutate_row(row, [SetCell("f", b"q", b"1"), SetCell("g", b"q", b"2")])
        expected = cells(data.get_table(INSTANCE, "source"))
    clusters = instance_admin(hayloft.bigtable).list_clusters(parent=PARENT).clusters
    expires = timestamp_pb2.Timestamp()
    expires.FromDatetime(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=2))
    backup = {"source_table": f"{PARENT}/tables/source", "expire_time": expires}
    made = client.create_backup(parent=clusters[0].name, backup_id="b", backup=backup).result(30)
    client.restore_table(request={"parent": PARENT, "table_id": "restored", "backup": made.name}).result(30)
    assert groups(hayloft, "restored")[0] == {"default": {"f"}, "apart": {"g"}}
    with BigtableDataClient(project=PROJECT) as data:
        assert cells(data.get_table(INSTANCE, "restored")) == expected


@pytest.mark.timeout(300)
def test_moves_to_and_fro_under_traffic_are_seen_by_nobody(new_server, monkeypatch, capsys):
    env = {"HAYLOFT_ROWS_TABLET_MAX": "1MiB", "HAYLOFT_ROWS_MEMTABLES": "2MiB"}
    server = new_server("--tablet-servers", "2", env=env).start()
    monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
    with BigtableDataClient(project=PROJECT) as client:
        create_table(table_admin(server.bigtable), "t", families=["f"])
        table = client.get_table(INSTANCE, "t")
        traffic = Traffic(table, writers=4, counters=2, scanners=1, readers=2)
        for thread in traffic.threads:
            thread.start()
        deadline, moves = time.monotonic() + 12, 0
        while time.monotonic() < deadline and not traffic.done.is_set():
            set_group(server, "t", "apart" if moves % 2 == 0 else "default", "--families", "f")
            moves += 1
        traffic.done.set()
        for thread in traffic.threads:
            thread.join(60)
        assert not traffic.failures, traffic.failures
        assert moves >= 2
        with capsys.disabled():
            print(f"\n    {moves} moves, {traffic.summary(server)}", end="")
        server.kill()
        server.start()
        monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
    with BigtableDataClient(project=PROJECT) as client:
        traffic.check(client.get_table(INSTANCE, "t"))
