"""Change streams with Google's generated clients: enabled, read, resumed, and followed through splits and a kill."""

import datetime
import threading
import time

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.bigtable_admin_v2 import types as admin_types
from google.cloud.bigtable_v2 import BigtableClient
from google.cloud.bigtable_v2 import types as data_types
from google.cloud.bigtable_v2.services.bigtable.transports import BigtableGrpcTransport
from google.protobuf import field_mask_pb2

from conftest import INSTANCE, PROJECT, create_table, table_admin
from hayloft import Hayloft

pytestmark = pytest.mark.hayloft_only("the emulator has no change streams")

WRITERS = 4
ROWS_EACH = 60
DAY = datetime.timedelta(days=1)
TABLE = f"projects/{PROJECT}/instances/{INSTANCE}/tables/"


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def data_client(address):
    return BigtableClient(transport=BigtableGrpcTransport(channel=grpc.insecure_channel(address)))


def connect(server):
    """A client of a server that may be starting again."""
    try:
        return data_client(server.bigtable)
    except KeyError:
        raise exceptions.ServiceUnavailable("it has no address yet") from None


def enable(admin, name, retention):
    """Sets the table's retention of changes; None disables its stream."""
    table = admin_types.Table(name=name)
    if retention is not None:
        table.change_stream_config = admin_types.ChangeStreamConfig(retention_period=retention)
    mask = field_mask_pb2.FieldMask(paths=["change_stream_config"])
    return admin.update_table(table=table, update_mask=mask).result(timeout=30)


def put(client, name, row, value):
    cell = {"family_name": "f", "column_qualifier": b"q", "timestamp_micros": -1, "value": value}
    client.mutate_row(table_name=name, row_key=row, mutations=[{"set_cell": cell}], retry=None, timeout=10)


def partitions(client, name):
    answers = client.generate_initial_change_stream_partitions(table_name=name)
    return [answer.partition for answer in answers]


def read(client, name, partition, **options):
    """The records of a stream that has an end."""
    request = {"table_name": name, "partition": partition, **options}
    return list(client.read_change_stream(request=request, timeout=30))


@pytest.fixture
def streamed(admin, new_table_id):
    """The name of a table with a change stream and a boundary at m."""
    table_id = new_table_id()
    create_table(admin, table_id, families=["f"], splits=[b"m"])
    enable(admin, TABLE + table_id, DAY)
    return TABLE + table_id


def test_changes_are_read_by_partition_and_from_a_token(raw_data, streamed):
    began = now()
    put(raw_data, streamed, b"a", b"1")
    put(raw_data, streamed, b"z", b"2")
    raw_data.mutate_row(table_name=streamed, row_key=b"a", mutations=[{"delete_from_row": {}}])
    left, right = partitions(raw_data, streamed)
    assert (left.row_range.end_key_open, right.row_range.start_key_closed) == (b"m", b"m")

    records = read(raw_data, streamed, left, start_time=began, end_time=now())
    first, second, close = records
    assert close.close_stream.status.code == 0 and not close.close_stream.new_partitions
    assert first.data_change.row_key == b"a" and first.data_change.done
    assert first.data_change.type_ == data_types.ReadChangeStreamResponse.DataChange.Type.USER
    cell = first.data_change.chunks[0].mutation.set_cell
    assert cell.value == b"1" and cell.timestamp_micros > 0
    assert "delete_from_row" in second.data_change.chunks[0].mutation
    assert began <= first.data_change.commit_timestamp <= second.data_change.commit_timestamp <= now()

    token = {"partition": left, "token": first.data_change.token}
    rest = read(raw_data, streamed, left, continuation_tokens={"tokens": [token]}, end_time=now())
    assert [record.data_change.token for record in rest[:-1]] == [second.data_change.token]
    with pytest.raises(exceptions.InvalidArgument, match="token"):
        read(raw_data, streamed, left, continuation_tokens={"tokens": [{"partition": left, "token": "00"}]})
    with pytest.raises(exceptions.OutOfRange):
        read(raw_data, streamed, left, start_time=began - DAY * 2)


def test_the_retention_is_shown_changed_and_cleared(admin, raw_data, streamed):
    assert admin.get_table(name=streamed).change_stream_config.retention_period == DAY
    assert enable(admin, streamed, DAY * 7).change_stream_config.retention_period == DAY * 7
    with pytest.raises(exceptions.InvalidArgument, match="1 to 7 days"):
        enable(admin, streamed, DAY * 8)
    assert "change_stream_config" not in enable(admin, streamed, None)
    with pytest.raises(exceptions.FailedPrecondition):
        partitions(raw_data, streamed)


class Follower:
    """Follows all partitions of a table, each in a thread, from token to token, whatever becomes of the server."""

    def __init__(self, server, name, began):
        self.server, self.name, self.began = server, name, began
        self.lock, self.done = threading.Lock(), threading.Event()
        self.seen, self.closed, self.failures, self.threads = {}, 0, [], []

    def start(self, partition, tokens=None):
        thread = threading.Thread(target=self.guard, args=(partition, tokens), daemon=True)
        self.threads.append(thread)
        thread.start()

    def guard(self, partition, tokens):
        try:
            while not self.done.is_set():
                try:
                    tokens = self.follow(partition, tokens)
                    if tokens is None:
                        return
                except (exceptions.ServiceUnavailable, exceptions.Unknown, exceptions.InternalServerError) as error:
                    tokens = error.tokens
                    time.sleep(0.05)
        except Exception as error:  # Whatever it is, the test is to show it.
            self.failures.append(repr(error))

    def follow(self, partition, tokens):
        """Reads one stream; the tokens to go on from, or None where others have taken over."""
        start = {"continuation_tokens": {"tokens": tokens}} if tokens else {"start_time": self.began}
        request = {"table_name": self.name, "partition": partition, "heartbeat_duration": "0.2s", **start}
        try:
            client = connect(self.server)
            for record in client.read_change_stream(request=request, retry=None, timeout=120):
                if "data_change" in record:
                    change = record.data_change
                    with self.lock:
                        values = [chunk.mutation.set_cell.value for chunk in change.chunks]
                        self.seen.setdefault(change.row_key, []).extend(values)
                    tokens = [{"partition": partition, "token": change.token}]
                elif "heartbeat" in record:
                    tokens = [record.heartbeat.continuation_token]
                else:
                    close = record.close_stream
                    assert close.new_partitions and len(close.new_partitions) == len(close.continuation_tokens)
                    self.closed += 1
                    for child, token in zip(close.new_partitions, close.continuation_tokens):
                        self.start(child, [token])
                    return None
                if self.done.is_set():
                    return None
        except exceptions.GoogleAPICallError as error:
            error.tokens = tokens
            raise
        return tokens


class Writer:
    """Writes to rows of its own, one after the other, and notes what was acknowledged."""

    def __init__(self, server, name, index):
        self.server, self.name, self.index = server, name, index
        self.rows = [b"%03d-%d" % (row * 16, index) for row in range(ROWS_EACH)]
        self.acknowledged = {row: [] for row in self.rows}
        self.unknown = set()

    def run(self, done):
        client, number = None, 0
        while not done.is_set():
            row = self.rows[number * 37 % ROWS_EACH]
            value = b"%d-%06d" % (self.index, number) + b"v" * 1500
            number += 1
            try:
                client = client or connect(self.server)
                put(client, self.name, row, value)
                self.acknowledged[row].append(value)
            except exceptions.GoogleAPICallError:
                self.unknown.add(value)
                client = None
                time.sleep(0.05)


@pytest.mark.timeout(180)
def test_a_stream_is_followed_through_splits_and_a_kill_without_a_gap(tmp_path, capsys):
    env = {"HAYLOFT_ROWS_TABLET_MAX": "128KiB", "HAYLOFT_ROWS_MEMTABLES": "1MiB"}
    server = Hayloft(tmp_path / "data", tmp_path / "hayloft.log", env=env).start()
    try:
        create_table(table_admin(server.bigtable), "t", families=["f"])
        name = TABLE + "t"
        enable(table_admin(server.bigtable), name, DAY)
        follower = Follower(server, name, now())
        for partition in partitions(data_client(server.bigtable), name):
            follower.start(partition)
        writers, done = [Writer(server, name, index) for index in range(WRITERS)], threading.Event()
        threads = [threading.Thread(target=writer.run, args=(done,), daemon=True) for writer in writers]
        for thread in threads:
            thread.start()
        time.sleep(6)
        server.kill()
        server.start()
        time.sleep(5)
        done.set()
        for thread in threads:
            thread.join()
        rows = {row: values for writer in writers for row, values in writer.acknowledged.items() if values}
        deadline = time.monotonic() + 30
        while not follower.failures and time.monotonic() < deadline:
            with follower.lock:
                if all(values[-1] in follower.seen.get(row, []) for row, values in rows.items()):
                    break
            time.sleep(0.1)
        follower.done.set()
        assert not follower.failures, follower.failures
        unknown = set().union(*(writer.unknown for writer in writers))
        for row, values in rows.items():
            seen = [value for value in follower.seen[row] if value not in unknown]
            assert seen == values, f"{row}: {len(seen)} changes seen, {len(values)} acknowledged"
            assert len(set(follower.seen[row])) == len(follower.seen[row]), f"{row}: a change came twice"
        assert follower.closed > 2, "no tablet was split"
        with capsys.disabled():
            count = sum(len(values) for values in rows.values())
            print(f"\n    {count} changes, {follower.closed} streams closed by splits", end="")
        assert server.stop() == 0
    finally:
        server.kill()
