"""Writers at full speed while readers of the cache check: nothing is older than it may be, through kills of both sides.

Two kinds of rows. Some are written through the row API: a value read from the cache may be older than the last
acknowledged write by the lag that the cache reports, and no more. The others are written through the cache itself:
a value may not be older at all.
"""

import bisect
import random
import socket
import threading
import time

import pytest
from google.api_core import exceptions

from caching import ENVIRONMENT, INSTANCE_NAME, Talk, cell_key, metric
from conftest import create_table, table_admin
from hayloft import DOORS, Hayloft
from test_change_streams import data_client

pytestmark = pytest.mark.hayloft_only("memcached has no rows")

SECONDS = 16
ROWS_EACH = 12
ROW_WRITERS, CACHE_WRITERS, READERS = 3, 2, 4
TABLE = "stale"
# Two processes read one clock, but not at the same instant.
CLOCK_SLACK = 0.02


class Row:
    """A row's acknowledged values, numbers that only grow, and when each was acknowledged."""

    def __init__(self, name):
        self.name = name
        self.key = cell_key(TABLE, name)
        self.times, self.numbers = [], []

    def acknowledge(self, number):
        self.times.append(time.time())
        self.numbers.append(number)

    def floor(self, moment):
        """The number that had been acknowledged at that moment."""
        place = bisect.bisect_left(self.times, moment)
        return self.numbers[place - 1] if place else 0


class Run:
    """What all threads of a run share."""

    def __init__(self, origin, cache):
        self.origin, self.cache = origin, cache
        self.done = threading.Event()
        self.failures, self.reads, self.writes, self.oldest = [], 0, 0, 0.0
        # Everything committed before is known to the cache: reported before the reads that it is used for.
        self.known_until = 0.0

    def guard(self, body, *arguments):
        while not self.done.is_set() and not self.failures:
            try:
                body(*arguments)
            except (OSError, KeyError, ValueError, IndexError, exceptions.GoogleAPICallError, RuntimeError):
                # A side is being killed, or starts again.
                time.sleep(0.05)
            except AssertionError as failure:
                self.failures.append(str(failure))

    def write_rows(self, rows, numbers):
        client = data_client(self.origin.bigtable)
        while not self.done.is_set():
            for row in rows:
                number = numbers[row.name] = numbers.get(row.name, 0) + 1
                cell = {"family_name": "cf", "column_qualifier": b"q", "timestamp_micros": -1, "value": b"%d" % number}
                client.mutate_row(
                    table_name=f"{INSTANCE_NAME}/tables/{TABLE}",
                    row_key=row.name,
                    mutations=[{"set_cell": cell}],
                    retry=None,
                    timeout=5,
                )
                row.acknowledge(number)
                self.writes += 1

    def write_cache(self, rows, numbers):
        talk = Talk(self.cache.memcached_pair, timeout=10)
        while not self.done.is_set():
            for row in rows:
                number = numbers[row.name] = numbers.get(row.name, 0) + 1
                answer = talk.store(f"set {row.key} 0 0 {{}}", b"%d" % number)
                if answer == "STORED":
                    row.acknowledge(number)
                    self.writes += 1
                elif not answer.startswith("SERVER_ERROR"):
                    raise OSError(answer)

    def read(self, by_rows, by_cache):
        talk = Talk(self.cache.memcached_pair, timeout=10)
        while not self.done.is_set():
            is_own = random.random() < 0.5
            row = random.choice(by_cache if is_own else by_rows)
            known_until = self.known_until - CLOCK_SLACK
            started = time.time()
            floor = row.floor(started if is_own else known_until)
            value = int(talk.value(row.key) or 0)
            assert value >= floor, f"{row.name} own={is_own}: read {value}, {floor} was acknowledged {started - known_until:.3f} s before"
            if not is_own and value < row.floor(started):
                at = row.times[bisect.bisect_right(row.numbers, value)]
                self.oldest = max(self.oldest, started - at)
            self.reads += 1

    def watch_lag(self):
        while not self.done.is_set():
            before = time.time()
            lag = metric(self.cache, "hayloft_cache_lag_seconds", table=f"{INSTANCE_NAME}/tables/{TABLE}")
            if lag:
                self.known_until = max(self.known_until, before - lag)
            time.sleep(0.02)


def fixed_doors():
    """Doors that stay where they are when the server starts again."""
    flags = []
    for door in DOORS:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            flags += [f"--{door}-listen", "127.0.0.1:%d" % probe.getsockname()[1]]
    return flags


@pytest.mark.timeout(180)
def test_nothing_is_older_than_reported_through_kills(tmp_path, capsys):
    env = {**ENVIRONMENT, "HAYLOFT_ROWS_TABLET_MAX": "64KiB", "HAYLOFT_ORIGINS_STALENESS_MAX": "3s"}
    origin = Hayloft(tmp_path / "origin", tmp_path / "origin.log", env=env, doors=fixed_doors()).start()
    cache_env = {**env, "HAYLOFT_ORIGINS_ROWS": f"http://{origin.bigtable}", "HAYLOFT_ORIGINS_PHOTOS": origin.photos}
    cache = Hayloft(tmp_path / "cache", tmp_path / "cache.log", env=cache_env, doors=fixed_doors())
    try:
        cache.start()
        create_table(table_admin(origin.bigtable), TABLE, families=["cf"])
        rows = [Row(b"row-%02d" % number) for number in range(ROWS_EACH * (ROW_WRITERS + CACHE_WRITERS))]
        shares = [rows[start : start + ROWS_EACH] for start in range(0, len(rows), ROWS_EACH)]
        by_rows, by_cache = sum(shares[:ROW_WRITERS], []), sum(shares[ROW_WRITERS:], [])
        run = Run(origin, cache)
        threads = [threading.Thread(target=run.guard, args=(run.watch_lag,))]
        for place, share in enumerate(shares):
            body = run.write_rows if place < ROW_WRITERS else run.write_cache
            threads.append(threading.Thread(target=run.guard, args=(body, share, {})))
        threads += [threading.Thread(target=run.guard, args=(run.read, by_rows, by_cache)) for _ in range(READERS)]
        for thread in threads:
            thread.start()
        for killed in (None, origin, cache):
            if killed:
                killed.kill()
                killed.start()
            time.sleep(SECONDS / 3)
        run.done.set()
        for thread in threads:
            thread.join()
        assert not run.failures, run.failures
        assert run.reads > 500 and run.writes > 200, (run.reads, run.writes)
        with capsys.disabled():
            print(f"\n    {run.reads} reads, {run.writes} writes, oldest value {run.oldest * 1000:.0f} ms", end="")
    finally:
        origin.kill()
        cache.kill()
