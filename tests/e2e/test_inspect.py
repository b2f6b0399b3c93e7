"""`hayloft inspect` and `hayloft salvage` on a data directory: sound, and with a flipped bit in each kind of file."""

import json
import pathlib
import random
import shutil
import subprocess

import pytest
from google.cloud.bigtable.data import BigtableDataClient, ReadRowsQuery

from conftest import INSTANCE, PROJECT, create_table, table_admin
from hayloft import Hayloft, binary, clean_environment
from rows import keys, put

ROWS = 60


def run(*arguments):
    """Exit code, standard output and standard error of a `hayloft` command."""
    command = [binary(), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment(), check=False)
    return done.returncode, done.stdout, done.stderr


def table_of(server, patch):
    patch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
    return BigtableDataClient(project=PROJECT)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A data directory with tables, manifests and a log, left by a server that was killed."""
    home = tmp_path_factory.mktemp("inspect")
    server = Hayloft(home / "data", home / "hayloft.log", env={"HAYLOFT_ROWS_MEMTABLES": "1MiB"}).start()
    bits = random.Random(1)
    try:
        create_table(table_admin(server.bigtable), "inspected", {"cf": None})
        with pytest.MonkeyPatch.context() as patch, table_of(server, patch) as client:
            with client.get_table(INSTANCE, "inspected") as table:
                for row in range(ROWS):
                    put(table, b"row-%03d" % row, (b"q", bits.randbytes(40_000)))
    finally:
        server.kill()
    return home / "data"


@pytest.fixture
def data(written, tmp_path):
    """A copy of it, to damage."""
    return pathlib.Path(shutil.copytree(written, tmp_path / "data"))


def files(data, kind):
    """The files of a kind, the largest first."""
    found = (data / "tablet-server" / {"sst": "tables", "log": "log", "manifest": "manifests"}[kind]).glob(f"*.{kind}")
    return sorted(found, key=lambda path: (-path.stat().st_size, path.name))


def frames_end(path):
    return json.loads(run("inspect", "log", path, "--json")[1])["end"]


def flip(path, offset):
    """Flips a bit."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def snapshot(data):
    return {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}


def test_a_sound_directory_is_verified_and_nothing_changes(data):
    before = snapshot(data)
    code, out, err = run("inspect", "verify", data)
    assert (code, err) == (0, "")
    assert "sound" in out.splitlines()[-1] and "0 tables" not in out
    code, out, _ = run("inspect", "verify", data / "tablet-server", "--json")
    verdict = json.loads(out)
    assert code == 0 and verdict["sound"] and verdict["table_count"] > 0 and verdict["batch_count"] > 0
    code, out, _ = run("salvage", data)
    assert code == 0 and "nothing to do" in out
    assert snapshot(data) == before


def test_each_kind_of_file_is_shown(data):
    table = next(path for path in files(data, "sst"))
    code, out, _ = run("inspect", "sstable", table, "--verify")
    assert code == 0 and "entries" in out
    code, out, _ = run("inspect", "sstable", table, "--keys", "--limit", "2", "--hex", "--json")
    shown = json.loads(out)
    assert code == 0 and len(shown["writes"]) == 2 and shown["damages"] == []
    assert bytes.fromhex(shown["writes"][0]["key"]).startswith(b"row-")
    start = shown["writes"][1]["key"]
    code, out, _ = run("inspect", "sstable", table, "--keys", "--from", start, "--hex", "--json")
    assert json.loads(out)["writes"][0]["key"] == start
    segments = [run("inspect", "log", path, "--keys", "--json") for path in files(data, "log")]
    assert all(code == 0 for code, _, _ in segments)
    assert any(json.loads(out)["writes"] for _, out, _ in segments)
    for manifest in files(data, "manifest"):
        code, out, _ = run("inspect", "manifest", manifest)
        assert code == 0 and "redo point" in out
        assert "tree" in json.loads(run("inspect", "manifest", manifest, "--json")[1])


@pytest.mark.parametrize("kind", ["sst", "log", "manifest"])
def test_a_flipped_bit_is_found_with_file_and_offset(data, kind):
    path = files(data, kind)[0]
    flip(path, 60 if kind == "manifest" else 5_000)
    command = {"sst": ["sstable", "--verify"], "log": ["log"], "manifest": ["manifest"]}[kind]
    for arguments in ([*command, path], ["verify", data]):
        code, out, err = run("inspect", *arguments)
        assert code == 1, (arguments, out, err)
        assert path.name in err and "offset" in err, (arguments, err)
    assert "DAMAGED" in run("inspect", "verify", data)[1].splitlines()[-1]
    assert json.loads(run("inspect", "verify", data, "--json")[1])["sound"] is False


def test_a_missing_table_is_found(data):
    path = files(data, "sst")[0]
    path.unlink()
    code, _, err = run("inspect", "verify", data)
    assert code == 1 and path.name in err


@pytest.mark.parametrize(
    "arguments",
    [[], ["verify"], ["sstable"], ["shelf", "x"], ["log", "x", "--limit", "1"], ["sstable", "x", "--limit", "many"]],
)
def test_a_wrong_use_exits_with_2(arguments):
    assert run("inspect", *arguments)[0] == 2


def test_a_directory_without_an_engine_is_refused(tmp_path):
    code, _, err = run("inspect", "verify", tmp_path)
    assert code == 1 and "holds no engine" in err


def test_a_damaged_log_stops_the_server_and_a_salvage_starts_it_again(data, tmp_path):
    log = files(data, "log")[0]
    flip(log, frames_end(log) // 2)
    server = Hayloft(data, tmp_path / "refused.log")
    with pytest.raises(AssertionError, match="exited with 1"):
        server.start()
    assert log.name in server.log_tail(100)
    before = snapshot(data)
    code, out, err = run("salvage", data)
    assert (code, err) == (0, "") and "nothing was changed" in out
    assert "lost: sequences" in out and log.name in out
    assert snapshot(data) == before
    code, out, err = run("salvage", data, "--write")
    assert (code, err) == (0, "") and "written" in out
    assert list(log.parent.glob("*.log-damaged")), "the damaged segment is kept"
    assert run("inspect", "verify", data)[0] == 0
    server = Hayloft(data, tmp_path / "salvaged.log").start()
    try:
        with pytest.MonkeyPatch.context() as patch, table_of(server, patch) as client:
            with client.get_table(INSTANCE, "inspected") as table:
                found = keys(table.read_rows(ReadRowsQuery()))
        # One group is lost, of one row's write at a time.
        assert ROWS - 1 <= len(found) <= ROWS
    finally:
        assert server.stop() == 0
