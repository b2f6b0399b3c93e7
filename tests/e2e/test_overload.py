"""More requests than the door has room for: official clients come back when they are told to, and succeed."""

import socket
import struct
import threading
import time

import grpc
import pytest
import requests
from google.cloud.bigtable.data import BigtableDataClient, SetCell
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from conftest import INSTANCE, PROJECT, create_table, table_admin
from hayloft import host_port

REFUSED = 'hayloft_bigtable_requests_refused_total{code="Unavailable"}'


def frame(kind, flags, stream, payload=b""):
    """An HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header as HPACK has it without a table."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Hoarder:
    """A client that sends most of a large request and then nothing: the door holds what came."""

    def __init__(self, address, size):
        head = {
            b":method": b"POST",
            b":scheme": b"http",
            b":path": b"/google.bigtable.v2.Bigtable/MutateRow",
            b":authority": b"door",
            b"content-type": b"application/grpc",
            b"te": b"trailers",
        }
        self.socket = socket.create_connection(host_port(address))
        headers = b"".join(literal(name, value) for name, value in head.items())
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
        # The door's windows are as large as it says once its settings are acknowledged.
        self.socket.recv(9)
        self.socket.sendall(frame(4, 1, 0) + frame(1, 4, 1, headers))
        body = b"\0" + struct.pack(">I", size + 1000) + bytes(size)
        for start in range(0, len(body), 16384):
            self.socket.sendall(frame(0, 0, 1, body[start : start + 16384]))

    def leave(self):
        self.socket.close()


def refused(server):
    """How many requests the door has turned away."""
    lines = requests.get(server.url("console", "/metrics"), timeout=10).text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith(REFUSED))


@pytest.mark.timeout(120)
def test_a_client_comes_back_after_an_overload_and_its_write_is_there(new_server, monkeypatch):
    server = new_server(env={"HAYLOFT_BIGTABLE_IN_FLIGHT_MAX": "1MiB"}).start()
    create_table(table_admin(server.bigtable), "t")
    monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
    hoarder = Hoarder(server.bigtable, 900_000)
    with BigtableDataClient(project=PROJECT) as client:
        table = client.get_table(INSTANCE, "t")
        value = b"v" * 300_000

        def write():
            table.mutate_row(b"row", SetCell("cf", b"q", value, 1000), operation_timeout=60)

        writer = threading.Thread(target=write)
        writer.start()
        deadline = time.monotonic() + 20
        while refused(server) < 3:
            assert time.monotonic() < deadline and writer.is_alive(), "the write was not turned away"
            time.sleep(0.02)
        hoarder.leave()
        writer.join(60)
        assert not writer.is_alive()
        assert table.read_row(b"row").cells[0].value == value
    assert server.stop() == 0


@pytest.mark.timeout(120)
def test_a_refusal_says_when_to_come_back(new_server):
    server = new_server(env={"HAYLOFT_BIGTABLE_IN_FLIGHT_MAX": "1MiB"}).start()
    hoarder = Hoarder(server.bigtable, 900_000)
    with grpc.insecure_channel(server.bigtable) as channel:
        mutate_row = channel.unary_unary("/google.bigtable.v2.Bigtable/MutateRow")
        deadline = time.monotonic() + 20
        # Until all that the other one sent has arrived, there is room.
        while True:
            with pytest.raises(grpc.RpcError) as raised:
                mutate_row(bytes(300_000), timeout=10)
            if raised.value.code() == grpc.StatusCode.UNAVAILABLE:
                break
            assert time.monotonic() < deadline
        (detail,) = rpc_status.from_call(raised.value).details
        hint = error_details_pb2.RetryInfo()
        assert detail.Unpack(hint) and 0 < hint.retry_delay.ToTimedelta().total_seconds() < 1
    hoarder.leave()
    assert server.stop() == 0
