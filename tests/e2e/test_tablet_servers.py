"""Several tablet servers in a process: tablets split, move and merge under traffic that sees nothing of it."""

import json
import random
import subprocess
import threading
import time

import pytest
from google.cloud.bigtable.data import BigtableDataClient, ReadRowsQuery, SetCell

from conftest import INSTANCE, PROJECT, create_table, table_admin
from hayloft import Hayloft, binary
from test_splits import Traffic

SECONDS = 15
ENV = {
    "HAYLOFT_ROWS_TABLET_MAX": "512KiB",
    "HAYLOFT_ROWS_MEMTABLES": "3MiB",
    "HAYLOFT_ROWS_MERGE_AFTER": "1s",
}


def admin(server, *words):
    """`hayloft admin tablets ...` at `server`; its exit code and output."""
    console = server.addresses["console"]
    command = [binary(), "admin", "tablets", *words, "--console", console]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stdout + ran.stderr


def tablets(server):
    code, out = admin(server, "list", "--json")
    assert code == 0, out
    return json.loads(out)


class Mover(threading.Thread):
    """Moves a tablet, any one, METADATA's too, again and again, and splits some."""

    def __init__(self, server, done):
        super().__init__()
        self.server, self.done = server, done
        self.moves, self.splits, self.failures = 0, 0, []

    def run(self):
        random_ = random.Random(7)
        while not self.done.is_set():
            tablet = random_.choice(tablets(self.server))
            if random_.random() < 0.1:
                code, out = admin(self.server, "split", str(tablet["tablet"]))
                self.splits += code == 0
            else:
                others = {f"tablet-server-{i}" for i in (1, 2, 3)} - {tablet["server"]}
                code, out = admin(self.server, "move", str(tablet["tablet"]), random_.choice(sorted(others)))
                self.moves += code == 0
            # It may have been split or merged since it was listed, or hold too little.
            if code and "no tablet" not in out and "too little" not in out and "not served just now" not in out:
                self.failures.append(out)
            time.sleep(0.05)


@pytest.mark.timeout(300)
def test_moves_merges_and_splits_under_traffic_are_seen_by_nobody(tmp_path, monkeypatch, capsys):
    flags = ["--tablet-servers", "3"]
    server = Hayloft(tmp_path / "data", tmp_path / "hayloft.log", flags=flags, env=ENV).start()
    try:
        monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
        with BigtableDataClient(project=PROJECT) as client:
            admin_client = table_admin(server.bigtable)
            create_table(admin_client, "t", families=["f"])
            create_table(admin_client, "small", families=["f"], splits=[b"b", b"c", b"d"])
            table, small = client.get_table(INSTANCE, "t"), client.get_table(INSTANCE, "small")
            for key in (b"a", b"b", b"c", b"d"):
                small.mutate_row(key, SetCell("f", b"q", b"v"))
            traffic = Traffic(table, writers=7, counters=4, scanners=2, readers=3)
            assert len(traffic.threads) == 16
            mover = Mover(server, traffic.done)
            mover.start()
            traffic.run(SECONDS)
            mover.join(60)
            assert not mover.failures, mover.failures
            assert mover.moves > 5
            listed = tablets(server)
            assert {tablet["server"] for tablet in listed} == {f"tablet-server-{i}" for i in (1, 2, 3)}
            of_small = [tablet for tablet in listed if tablet["table"].endswith("/small")]
            assert len(small.read_rows(ReadRowsQuery())) == 4
            with capsys.disabled():
                print(
                    f"\n    {len(listed)} tablets, {len(of_small)} of the 4 small ones, {mover.moves} moves, "
                    f"{mover.splits} splits by hand, {traffic.summary(server)}",
                    end="",
                )
            server.kill()
            server.start()
            monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
        with BigtableDataClient(project=PROJECT) as client:
            traffic.check(client.get_table(INSTANCE, "t"))
        assert server.stop() == 0
        # With fewer servers than before: the others give their tablets away.
        server.flags = []
        server.start()
        monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
        deadline = time.monotonic() + 60
        while {tablet["server"] for tablet in tablets(server)} != {"tablet-server-1"}:
            assert time.monotonic() < deadline, tablets(server)
            time.sleep(1)
        with BigtableDataClient(project=PROJECT) as client:
            traffic.check(client.get_table(INSTANCE, "t"))
        assert server.stop() == 0
    finally:
        server.kill()


def test_tablets_are_listed_moved_and_refused_by_name(tmp_path):
    server = Hayloft(tmp_path / "data", tmp_path / "hayloft.log", flags=["--tablet-servers", "2"]).start()
    try:
        create_table(table_admin(server.bigtable), "t", families=["f"])
        listed = next(tablet for tablet in tablets(server) if tablet["table"].endswith("/t"))
        number, there = listed["tablet"], listed["server"]
        other = "tablet-server-2" if there == "tablet-server-1" else "tablet-server-1"
        code, out = admin(server, "move", str(number), other)
        assert code == 0 and f"tablet {number} is tablet" in out, out
        assert any(tablet["server"] == other for tablet in tablets(server) if tablet["table"].endswith("/t"))
        code, out = admin(server, "list")
        assert code == 0 and "tablets/t" not in out and "/tables/t [, )" in out, out
        for words, why in (
            (("move", str(number), there), "no tablet"),
            (("move", "x", there), "invalid value"),
            (("split", "999999"), "there is no tablet 999999"),
        ):
            code, out = admin(server, *words)
            assert code != 0 and why in out, out
        assert server.stop() == 0
        code, out = admin(server, "list")
        assert code == 1 and "cannot reach a server" in out, out
    finally:
        server.kill()
