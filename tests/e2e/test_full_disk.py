"""A disk that is full turns writes away, keeps reads going, and is forgotten once there is space."""

import os
import shutil
import subprocess
import time

import grpc
import pytest
import requests
from google.api_core import exceptions
from google.cloud.bigtable_v2 import BigtableClient, types
from google.cloud.bigtable_v2.services.bigtable.transports import BigtableGrpcTransport

from conftest import create_table, table_admin
from pictures import encode, noise

DISK_BYTES = 192 << 20
# A restart writes what its log holds to tables before it lets go of the log.
FILLER_BYTES = 128 << 20
VALUE_BYTES = 256 << 10
WRITES_MAX = DISK_BYTES // VALUE_BYTES
RECOVERS_WITHIN_SECONDS = 30
# Less than photos leave free on a disk.
SCARCE_BYTES = 40 << 20


@pytest.fixture
def disk(tmp_path):
    """A small disk of the test's own."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(mount)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


class Rows:
    """Writes and reads rows of one table without any retry."""

    def __init__(self, server, table_name):
        transport = BigtableGrpcTransport(channel=grpc.insecure_channel(server.bigtable))
        self.client = BigtableClient(transport=transport)
        self.table_name = table_name

    def write(self, key):
        """Sets a cell that does not compress."""
        cell = {"family_name": "cf", "column_qualifier": b"q", "timestamp_micros": 1000, "value": os.urandom(VALUE_BYTES)}
        mutation = types.Mutation(set_cell=cell)
        self.client.mutate_row(table_name=self.table_name, row_key=key, mutations=[mutation], retry=None, timeout=60)

    def keys(self):
        """Every row key there is."""
        rows = {"filter": {"strip_value_transformer": True}}
        answers = self.client.read_rows(request={"table_name": self.table_name, **rows}, retry=None, timeout=60)
        return {chunk.row_key for answer in answers for chunk in answer.chunks if chunk.row_key}


@pytest.mark.hayloft_only("a disk is filled")
def test_writes_are_turned_away_reads_go_on_and_writes_come_back_with_space(new_server, disk):
    filler = disk / "filler"
    filler.write_bytes(bytes(FILLER_BYTES))
    server = new_server(data_dir=disk / "data").start()
    made = create_table(table_admin(server.bigtable), "full")
    rows, written = Rows(server, made.name), set()
    with pytest.raises(exceptions.ResourceExhausted, match="disk is full"):
        for number in range(WRITES_MAX):
            key = b"row%05d" % number
            rows.write(key)
            written.add(key)
    assert written and written <= rows.keys()
    with pytest.raises(exceptions.ResourceExhausted, match="disk is full"):
        rows.write(b"still full")
    assert written <= rows.keys()

    filler.unlink()
    deadline = time.monotonic() + RECOVERS_WITHIN_SECONDS
    while b"again" not in written:
        try:
            rows.write(b"again")
            written.add(b"again")
        except exceptions.ResourceExhausted:
            assert time.monotonic() < deadline, f"writes are turned away still; {server.log_tail()}"
            time.sleep(0.05)
    assert written <= rows.keys()
    server.kill()
    server.start()
    assert written <= Rows(server, made.name).keys()


@pytest.mark.hayloft_only("a disk is filled")
def test_photos_are_turned_away_while_reads_and_deletes_go_on(new_server, disk):
    server = new_server(data_dir=disk / "data").start()

    def upload():
        data = encode(noise(64, 48), "JPEG")
        return requests.post(server.url("photos", "/photos"), data=data, headers={"Content-Type": "image/jpeg"})

    def read(photo):
        return requests.get(server.url("photos", f"/photos/{photo}/thumb")).status_code

    kept, gone = (upload().json()["id"] for _ in range(2))
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - SCARCE_BYTES))
    refused = upload()
    assert refused.status_code == 507 and "reserve" in refused.text, refused.text
    assert read(kept) == 200
    assert requests.delete(server.url("photos", f"/photos/{gone}")).status_code in (200, 204)
    assert (read(kept), read(gone)) == (200, 404)

    filler.unlink()
    later = upload()
    assert later.status_code == 201, later.text
    server.kill()
    server.start()
    assert (read(kept), read(gone), read(later.json()["id"])) == (200, 404, 200)
