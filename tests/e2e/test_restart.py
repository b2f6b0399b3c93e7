"""After a stop and after a kill, everything acknowledged is there again."""

import time

import pytest
import requests
from google.cloud.bigtable.data import BigtableDataClient, ReadRowsQuery, RowMutationEntry, SetCell
from google.cloud.bigtable.data.mutations import DeleteAllFromRow
from google.cloud.bigtable.data.read_modify_write_rules import IncrementRule
from google.cloud.bigtable_admin_v2 import types

from conftest import INSTANCE, PROJECT, create_table, table_admin
from pictures import jpeg
from rows import cells, keys


def connect(server):
    """A data client for a server of the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
        return BigtableDataClient(project=PROJECT)


@pytest.fixture(params=["stop", "kill"])
def restart(request):
    """Ends a server in one way or the other and starts it again."""

    def restart(server):
        if request.param == "stop":
            assert server.stop() == 0
        else:
            server.kill()
        return server.start()

    return restart


def test_tables_families_and_rules_come_back(new_server, restart):
    server = new_server().start()
    rule = types.GcRule(union={"rules": [{"max_num_versions": 3}, {"max_age": {"seconds": 60}}]})
    made = create_table(table_admin(server.bigtable), "kept", {"plain": None, "ruled": rule}, splits=[b"m"])
    dropped = create_table(table_admin(server.bigtable), "dropped")
    table_admin(server.bigtable).delete_table(name=dropped.name)
    restart(server)
    admin = table_admin(server.bigtable)
    assert [table.name for table in admin.list_tables(parent=f"projects/{PROJECT}/instances/{INSTANCE}")] == [made.name]
    families = admin.get_table(name=made.name).column_families
    assert set(families) == {"plain", "ruled"} and families["ruled"].gc_rule == rule
    with connect(server) as client, client.get_table(INSTANCE, "kept") as table:
        assert [key for key, _ in table.sample_row_keys()] == [b"m", b""]


def test_rows_deletes_and_counters_come_back(new_server, restart):
    server = new_server().start()
    create_table(table_admin(server.bigtable), "kept", splits=[b"row500"])
    with connect(server) as client, client.get_table(INSTANCE, "kept") as table:
        table.bulk_mutate_rows(
            [RowMutationEntry(f"row{n:03}", SetCell("cf", "n", b"%d" % n, 1000)) for n in range(1000)]
        )
        table.mutate_row("row007", DeleteAllFromRow())
        table.mutate_row("row008", SetCell("cf", "n", b"newer", 2000))
        for _ in range(10):
            table.read_modify_write_row("row009", IncrementRule("cf", "hits", 3))
        before = {row.row_key: cells(row) for row in table.read_rows(ReadRowsQuery())}
    restart(server)
    with connect(server) as client, client.get_table(INSTANCE, "kept") as table:
        after = {row.row_key: cells(row) for row in table.read_rows(ReadRowsQuery())}
        assert after == before
        assert len(after) == 999
        assert int(table.read_row("row009")["cf", b"hits"][0]) == 30
        assert int(table.read_modify_write_row("row009", IncrementRule("cf", "hits"))["cf", b"hits"][0]) == 31


def test_dropped_rows_and_families_stay_dropped(new_server, restart):
    server = new_server().start()
    admin = table_admin(server.bigtable)
    name = create_table(admin, "kept", ["cf", "extra"]).name
    with connect(server) as client, client.get_table(INSTANCE, "kept") as table:
        for key in ("a1", "a2", "b1"):
            table.mutate_row(key, [SetCell("cf", "q", b"v", 1000), SetCell("extra", "q", b"v", 1000)])
        admin.drop_row_range(request={"name": name, "row_key_prefix": b"a"})
        admin.modify_column_families(request={"name": name, "modifications": [{"id": "extra", "drop": True}]})
        table.mutate_row("a2", SetCell("cf", "q", b"after", 1000))
    restart(server)
    with connect(server) as client, client.get_table(INSTANCE, "kept") as table:
        rows = table.read_rows(ReadRowsQuery())
        assert keys(rows) == [b"a2", b"b1"]
        assert [cells(row) for row in rows] == [[("cf", "q", 1000, b"after")], [("cf", "q", 1000, b"v")]]


def test_photos_and_deletions_come_back(new_server, restart):
    server = new_server().start()
    data = jpeg(400, 250)
    made = [requests.post(server.url("photos", "/photos"), data=data, timeout=30).json()["id"] for _ in range(5)]
    requests.delete(server.url("photos", f"/photos/{made[0]}"), timeout=10).raise_for_status()
    small = requests.get(server.url("photos", f"/photos/{made[1]}/small"), timeout=10)
    restart(server)
    assert requests.get(server.url("photos", f"/photos/{made[0]}/original"), timeout=10).status_code == 404
    for photo in made[1:]:
        answer = requests.get(server.url("photos", f"/photos/{photo}/original"), timeout=10)
        assert answer.status_code == 200 and answer.content == data
    again = requests.get(server.url("photos", f"/photos/{made[1]}/small"), timeout=10)
    assert again.content == small.content
    assert again.headers["ETag"] == small.headers["ETag"]
    assert again.headers["Last-Modified"] == small.headers["Last-Modified"]
    fresh = requests.post(server.url("photos", "/photos"), data=data, timeout=30).json()["id"]
    assert fresh not in made


def test_photos_come_back_without_their_index_files(new_server):
    server = new_server().start()
    data = jpeg(400, 250)
    made = [requests.post(server.url("photos", "/photos"), data=data, timeout=30).json()["id"] for _ in range(3)]
    assert server.stop() == 0
    indexes = [path for path in server.data_dir.rglob("*") if path.is_file() and "index" in path.name]
    assert indexes, sorted(str(path) for path in server.data_dir.rglob("*"))
    for path in indexes:
        path.unlink()
    server.start()
    for photo in made:
        assert requests.get(server.url("photos", f"/photos/{photo}/original"), timeout=10).content == data


def test_rows_come_back_through_many_small_sstables(new_server, restart):
    server = new_server(env={"HAYLOFT_ROWS_MEMTABLES": "1MiB"}).start()
    create_table(table_admin(server.bigtable), "kept")
    filler = bytes(range(256)) * 40
    with connect(server) as client, client.get_table(INSTANCE, "kept") as table:
        for version in range(1, 4):
            for start in range(0, 600, 100):
                table.bulk_mutate_rows(
                    [
                        RowMutationEntry(
                            f"row{n:03}", SetCell("cf", "q", b"%d.%d" % (n, version) + filler, 1000 * version)
                        )
                        for n in range(start, start + 100)
                    ]
                )
        for number in range(0, 600, 3):
            table.mutate_row(f"row{number:03}", DeleteAllFromRow())
    restart(server)
    with connect(server) as client, client.get_table(INSTANCE, "kept") as table:
        found = {row.row_key: [cell.value for cell in row] for row in table.read_rows(ReadRowsQuery())}
    assert found == {
        b"row%03d" % n: [b"%d.%d" % (n, version) + filler for version in (3, 2, 1)] for n in range(600) if n % 3
    }


def test_a_restart_is_quick(new_server, restart):
    server = new_server().start()
    create_table(table_admin(server.bigtable), "kept")
    began = time.monotonic()
    restart(server)
    assert time.monotonic() - began < 5


def test_clients_reconnect_by_themselves(new_server, restart):
    server = new_server().start()
    server.doors = [part for name, address in server.addresses.items() for part in (f"--{name}-listen", address)]
    create_table(table_admin(server.bigtable), "kept")
    with connect(server) as client, client.get_table(INSTANCE, "kept") as table:
        table.mutate_row("row", SetCell("cf", "q", b"v", 1000))
        restart(server)
        assert cells(table.read_row("row")) == [("cf", "q", 1000, b"v")]
