"""Random requests to Hayloft and to Google's emulator: the same answers, and the same rows afterwards."""

import pathlib
import shutil
import socket
import subprocess
import time

import grpc
import pytest
from google.cloud.bigtable_v2 import BigtableClient
from google.cloud.bigtable_v2.services.bigtable.transports import BigtableGrpcTransport

from conftest import create_table, table_admin
from differential import FAMILIES, KEYS, Server, described, requests
from hayloft import dies_with_us

SDK = pathlib.Path("/usr/lib/google-cloud-sdk/platform/bigtable-emulator/cbtemulator")
REQUESTS = 1500
EVERYTHING = ("read_rows", {"rows": {}})


@pytest.fixture(scope="module")
def emulator_address():
    """host:port of an emulator of this module's own."""
    found = shutil.which("cbtemulator") or (SDK if SDK.exists() else None)
    if not found:
        pytest.skip("cbtemulator is not installed (Google Cloud SDK, component bigtable)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = dies_with_us([str(found), "-host", "127.0.0.1", "-port", str(port)])
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < deadline and process.poll() is None, "the emulator does not answer"
            time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


def at(address, table_id):
    """The server at `address`, with a new table there."""
    table = create_table(table_admin(address), table_id, [*FAMILIES, "counts"])
    client = BigtableClient(transport=BigtableGrpcTransport(channel=grpc.insecure_channel(address)))
    return Server(client, table.name)


@pytest.mark.hayloft_only("it is what Hayloft is compared with here")
@pytest.mark.timeout(900)
def test_random_requests_have_the_same_outcome_as_at_the_emulator(
    emulator_address, bigtable_address, new_table_id, pytestconfig
):
    table_id, first_seed = new_table_id(), pytestconfig.getoption("--seed")
    rounds = pytestconfig.getoption("--rounds")
    ours, theirs = at(bigtable_address, table_id), at(emulator_address, table_id)
    for seed in range(first_seed, first_seed + rounds):
        for number, (rpc, request) in enumerate(requests(seed, REQUESTS)):
            check(ours, theirs, rpc, request, f"seed {seed}, request {number}")
            if rpc != "read_modify_write_row" and number % 10 == 0:
                check(ours, theirs, *EVERYTHING, f"seed {seed}, all rows after request {number}")
        assert any(ours.outcome(*EVERYTHING)) and len(KEYS) >= len(ours.outcome(*EVERYTHING))


def check(ours, theirs, rpc, request, where):
    here, there = ours.outcome(rpc, request), theirs.outcome(rpc, request)
    assert here == there, f"{where}\n{described(rpc, request)}\nHayloft:  {here}\nemulator: {there}"
