"""Backups, restores and tables that come back, by Google's clients, with a restart and kills in between."""

import datetime
import time

import pytest
from google.api_core import exceptions
from google.cloud.bigtable import Client
from google.cloud.bigtable.data import BigtableDataClient, ReadRowsQuery, SetCell
from google.protobuf import timestamp_pb2

from conftest import INSTANCE, PROJECT, create_table, table_admin

ROWS = [b"row-%02d" % i for i in range(40)]
PARENT = f"projects/{PROJECT}/instances/{INSTANCE}"


@pytest.fixture
def hayloft(new_server, monkeypatch):
    """A server that the official clients find."""
    server = new_server(env={"HAYLOFT_ROWS_TABLET_SERVERS": "2"})

    def start():
        server.start()
        monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
        return server

    server.begin = start
    start()
    return server


def in_days(days):
    """So many days from now."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days))
    return stamp


def write(table_id, value):
    """Writes every row."""
    with BigtableDataClient(project=PROJECT) as client, client.get_table(INSTANCE, table_id) as table:
        for row in ROWS:
            table.mutate_row(row, SetCell("cf", b"q", value, timestamp_micros=1000))


def values(table_id):
    """What the rows hold."""
    with BigtableDataClient(project=PROJECT) as client, client.get_table(INSTANCE, table_id) as table:
        return {row.row_key: row.cells[0].value for row in table.read_rows(ReadRowsQuery())}


def cluster_of(hayloft):
    """The id of the cluster that nobody created."""
    client = Client(project=PROJECT, admin=True)
    clusters, _ = client.instance(INSTANCE).list_clusters()
    return clusters[0].cluster_id


@pytest.mark.hayloft_only("the emulator dies of it")
def test_the_older_client_backs_up_and_restores_over_a_restart(hayloft):
    admin = table_admin(hayloft.bigtable)
    create_table(admin, "t", splits=[b"row-10", b"row-30"])
    write("t", b"old")
    instance = Client(project=PROJECT, admin=True).instance(INSTANCE)
    expire = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=3)
    backup = instance.table("t").backup("b", cluster_id=cluster_of(hayloft), expire_time=expire)
    backup.create().result(30)
    write("t", b"new")
    instance.table("t").delete()
    assert hayloft.stop() == 0

    hayloft.begin()
    instance = Client(project=PROJECT, admin=True).instance(INSTANCE)
    backup = instance.table("t").backup("b", cluster_id=cluster_of(hayloft))
    backup.reload()
    assert backup.source_table == f"{PARENT}/tables/t" and backup.size_bytes > 0
    assert [found.backup_id for found in instance.table("t").list_backups()] == ["b"]
    backup.restore("r").result(30)
    assert values("r") == dict.fromkeys(ROWS, b"old")
    backup.update_expire_time(expire + datetime.timedelta(days=1))
    backup.delete()
    assert not backup.exists()
    assert values("r") == dict.fromkeys(ROWS, b"old")


@pytest.mark.hayloft_only("the emulator dies of it")
def test_a_backup_is_found_copied_and_restored_by_the_generated_client(hayloft):
    admin = table_admin(hayloft.bigtable)
    create_table(admin, "t")
    write("t", b"v")
    cluster = f"{PARENT}/clusters/{cluster_of(hayloft)}"
    made = admin.create_backup(
        parent=cluster, backup_id="b", backup={"source_table": f"{PARENT}/tables/t", "expire_time": in_days(2)}
    )
    assert made.result(30).state.name == "READY"
    assert made.metadata.name == f"{cluster}/backups/b"
    copied = admin.copy_backup(
        parent=cluster, backup_id="copy", source_backup=f"{cluster}/backups/b", expire_time=in_days(9)
    )
    assert copied.result(30).source_backup == f"{cluster}/backups/b"

    def listed(**request):
        found = admin.list_backups(request={"parent": f"{PARENT}/clusters/-", **request})
        return [backup.name.rsplit("/", 1)[1] for backup in found]

    assert listed(order_by="name") == ["b", "copy"]
    assert listed(order_by="expire_time desc", page_size=1) == ["copy", "b"]
    assert listed(filter="name:copy") == ["copy"]
    assert listed(filter='source_table="t" AND state:READY AND NOT name:copy') == ["b"]

    policy = admin.get_iam_policy(request={"resource": f"{cluster}/backups/b"})
    assert admin.set_iam_policy(request={"resource": f"{cluster}/backups/b", "policy": policy})
    request = {"resource": f"{cluster}/backups/b", "permissions": ["bigtable.backups.get"]}
    assert admin.test_iam_permissions(request=request).permissions == ["bigtable.backups.get"]

    restored = admin.restore_table(
        request={"parent": PARENT, "table_id": "r", "backup": f"{cluster}/backups/copy"}
    )
    table = restored.result(30)
    assert table.name == f"{PARENT}/tables/r" and list(table.column_families) == ["cf"]
    assert restored.metadata.optimize_table_operation_name
    assert values("r") == dict.fromkeys(ROWS, b"v")
    info = admin.get_table(name=f"{PARENT}/tables/r").restore_info
    assert info.backup_info.backup == f"{cluster}/backups/copy"


@pytest.mark.hayloft_only("the emulator dies of it")
def test_a_deleted_table_comes_back_after_a_kill(hayloft):
    admin = table_admin(hayloft.bigtable)
    create_table(admin, "t")
    write("t", b"v")
    name = f"{PARENT}/tables/t"
    admin.delete_table(name=name)
    with pytest.raises(exceptions.NotFound):
        admin.get_table(name=name)
    hayloft.kill()

    hayloft.begin()
    admin = table_admin(hayloft.bigtable)
    assert admin.undelete_table(name=name).result(30).name == name
    assert values("t") == dict.fromkeys(ROWS, b"v")
    with pytest.raises(exceptions.AlreadyExists):
        admin.undelete_table(name=name)


@pytest.mark.hayloft_only("the emulator dies of it")
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"backup_id": "no spaces"}, exceptions.InvalidArgument),
        ({"parent": f"{PARENT}/clusters/absent"}, exceptions.NotFound),
        ({"backup": {"source_table": f"{PARENT}/tables/absent", "expire_time": in_days(2)}}, exceptions.NotFound),
        ({"backup": {"source_table": f"{PARENT}/tables/t", "expire_time": in_days(91)}}, exceptions.InvalidArgument),
        ({"backup": {"source_table": f"{PARENT}/tables/t"}}, exceptions.InvalidArgument),
        ({"backup": {"source_table": "t", "expire_time": in_days(2)}}, exceptions.InvalidArgument),
    ],
)
def test_a_backup_that_cannot_be_is_refused(hayloft, change, error):
    admin = table_admin(hayloft.bigtable)
    create_table(admin, "t")
    request = {
        "parent": f"{PARENT}/clusters/{cluster_of(hayloft)}",
        "backup_id": "b",
        "backup": {"source_table": f"{PARENT}/tables/t", "expire_time": in_days(2)},
    }
    with pytest.raises(error) as caught:
        admin.create_backup(request={**request, **change})
    assert len(caught.value.message.split()) >= 3


@pytest.mark.hayloft_only("the emulator dies of it")
def test_writes_go_on_while_backups_are_made(hayloft):
    admin = table_admin(hayloft.bigtable)
    create_table(admin, "t")
    write("t", b"v" * 20_000)
    longest = 0.0
    with BigtableDataClient(project=PROJECT) as client, client.get_table(INSTANCE, "t") as table:
        running = [
            admin.create_backup(
                parent=f"{PARENT}/clusters/{cluster_of(hayloft)}",
                backup_id=f"b{i}",
                backup={"source_table": f"{PARENT}/tables/t", "expire_time": in_days(2)},
            )
            for i in range(5)
        ]
        while not all(operation.done() for operation in running):
            began = time.monotonic()
            table.mutate_row(b"busy", SetCell("cf", b"q", b"w"), retryable_errors=(), operation_timeout=20)
            longest = max(longest, time.monotonic() - began)
    print(f"longest write beside backups: {longest * 1000:.1f} ms")
    assert all(operation.result(30).state.name == "READY" for operation in running)
