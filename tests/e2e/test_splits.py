"""Tablets that split, again and again, under writers, counters and scans: nobody sees an error, a gap or a row twice."""

import random
import re
import threading
import time

import pytest
from google.cloud.bigtable.data import BigtableDataClient, ReadRowsQuery, SetCell
from google.cloud.bigtable.data.read_modify_write_rules import IncrementRule

from conftest import INSTANCE, PROJECT, create_table, table_admin
from hayloft import Hayloft

SECONDS = 12
WRITERS = 4
COUNTERS = 3


def value_of(key):
    """A row's value, which does not get smaller on disk."""
    return random.Random(key).randbytes(2000)


class Traffic:
    """Clients that note what was acknowledged and how long the longest call took."""

    def __init__(self, table, writers=WRITERS, counters=COUNTERS, scanners=1, readers=1):
        self.table = table
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.keys, self.counts, self.failures = set(), [0] * counters, []
        self.scans, self.longest = 0, 0.0
        jobs = [(self.write, i) for i in range(writers)] + [(self.count_up, i) for i in range(counters)]
        jobs += [(self.scan, i) for i in range(scanners)] + [(self.read, i) for i in range(readers)]
        self.threads = [threading.Thread(target=self.guard, args=job) for job in jobs]

    def guard(self, job, index):
        try:
            number = 0
            while not self.done.is_set():
                job(index, number)
                number += 1
        except Exception as error:  # Whatever it is, the test is to show it.
            self.failures.append(f"{job.__name__}: {error!r}")
            self.done.set()

    def run(self, seconds):
        """Runs all of it for so long, or until something fails."""
        for thread in self.threads:
            thread.start()
        self.done.wait(seconds)
        self.done.set()
        for thread in self.threads:
            thread.join(60)
        assert not self.failures, self.failures

    def check(self, table):
        """All that was acknowledged is in `table`."""
        found = {row.row_key: row for row in table.read_rows(ReadRowsQuery())}
        assert self.keys <= found.keys()
        for index, count in enumerate(self.counts):
            value = found[b"%d000-counter" % (index * 4)].cells[0].value
            assert int.from_bytes(value, "big") == count

    def timed(self, call, *arguments, **options):
        began = time.monotonic()
        answer = call(*arguments, retryable_errors=(), operation_timeout=20, **options)
        self.longest = max(self.longest, time.monotonic() - began)
        return answer

    def write(self, index, number):
        key = b"%04d-%d-%d" % (number * 7919 % 10_000, index, number)
        self.timed(self.table.mutate_row, key, SetCell("f", b"q", value_of(key), timestamp_micros=1000))
        with self.lock:
            self.keys.add(key)

    def count_up(self, index, number):
        began = time.monotonic()
        row = self.table.read_modify_write_row(b"%d000-counter" % (index * 4), IncrementRule("f", b"n"))
        self.longest = max(self.longest, time.monotonic() - began)
        counted = int.from_bytes(row.cells[0].value, "big")
        assert counted == number + 1, f"counter {index} is {counted} after {number} increments"
        self.counts[index] = counted

    def read(self, _, number):
        with self.lock:
            key = next(iter(self.keys), None)
        if key is not None:
            row = self.timed(self.table.read_row, key)
            assert row is not None and row.cells[0].value == value_of(key), f"{key} is not there"

    def scan(self, _, number):
        with self.lock:
            known = set(self.keys)
        found = [row.row_key for row in self.table.read_rows_stream(ReadRowsQuery(), retryable_errors=())]
        assert all(a < b for a, b in zip(found, found[1:])), "a scan repeated a row or lost the order"
        missing = known.difference(found)
        assert not missing, f"a scan missed {len(missing)} rows, {sorted(missing)[:3]}"
        self.scans += 1

    def summary(self, server):
        """What was done, and how long `server` held writers up, in a line."""
        longest, count = longest_hold(server)
        return (
            f"{len(self.keys)} rows, {sum(self.counts)} increments, {self.scans} scans; "
            f"longest call {self.longest * 1000:.0f} ms; writers held {count} times, at most {longest:.1f} ms"
        )


@pytest.mark.timeout(300)
def test_splits_under_traffic_are_seen_by_nobody(tmp_path, monkeypatch, capsys):
    env = {"HAYLOFT_ROWS_TABLET_MAX": "256KiB", "HAYLOFT_ROWS_MEMTABLES": "1MiB"}
    server = Hayloft(tmp_path / "data", tmp_path / "hayloft.log", env=env).start()
    try:
        monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
        with BigtableDataClient(project=PROJECT) as client:
            create_table(table_admin(server.bigtable), "t", families=["f"])
            table = client.get_table(INSTANCE, "t")
            traffic = Traffic(table)
            traffic.run(SECONDS)
            boundaries = [key for key, _ in table.sample_row_keys()]
            assert len(boundaries) > 2, boundaries
            assert boundaries == sorted(boundaries[:-1]) + [b""]
            with capsys.disabled():
                print(f"\n    {len(boundaries)} tablets, {traffic.summary(server)}", end="")
            server.kill()
            server.start()
            monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
        with BigtableDataClient(project=PROJECT) as client:
            traffic.check(client.get_table(INSTANCE, "t"))
        assert server.stop() == 0
    finally:
        server.kill()


def longest_hold(server):
    """The longest time that writers of a tablet waited for others to take its place, in ms, and how often they did."""
    units = {"s": 1000, "ms": 1, "µs": 0.001, "ns": 0.000001}
    held = re.findall(r"writers of a tablet have waited.*?elapsed=([\d.]+)(s|ms|µs|ns)", server.log_path.read_text())
    return max((float(time_) * units[unit] for time_, unit in held), default=0), len(held)
