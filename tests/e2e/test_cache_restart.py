"""What the cache keeps over a restart, what an operator sees of it, and its other ways in."""

import socket
import ssl
import subprocess

import pytest
from google.cloud.bigtable.data import BigtableDataClient
from google.cloud.bigtable.data.mutations import SetCell
from pymemcache.client.base import Client

from caching import ENVIRONMENT, Talk, cell_key
from conftest import INSTANCE, PROJECT, create_table, table_admin
from hayloft import DOORS, ROOT, binary, clean_environment

pytestmark = pytest.mark.hayloft_only("they are Hayloft's own settings and commands")

CERTIFICATES = ROOT / "cache-proxy" / "tests" / "golden" / "tls"


def client(server):
    return Client(server.memcached_pair, timeout=10, default_noreply=False)


def fill(server, count=2000):
    cache = client(server)
    cache.set_many({f"plain:{number}": b"v" * 100 + b"%d" % number for number in range(count)})
    cache.delete("plain:0")
    cache.close()


def top(server, *flags):
    command = [binary(), "admin", "cache", "top", "--console", server.console, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=clean_environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- restarts


def test_a_clean_stop_keeps_plain_items(new_server):
    server = new_server().start()
    fill(server)
    cache = client(server)
    cache.set("flagged", b"kept", expire=3600, flags=7)
    cache.set("gone", b"gone", expire=-1)
    _, token = cache.gets("flagged")
    cache.close()
    assert server.stop() == 0
    server.start()
    cache = client(server)
    found = cache.get_many([f"plain:{number}" for number in range(2000)])
    assert len(found) == 1999 and "plain:0" not in found
    assert all(value.endswith(key.removeprefix("plain:").encode()) for key, value in found.items())
    assert cache.raw_command(b"get flagged", b"END\r\n").startswith(b"VALUE flagged 7 4\r\nkept")
    assert cache.get("gone") is None
    assert cache.cas("flagged", b"new", token), "who read before the stop may write after it"
    assert cache.gets("flagged")[1] != token


def test_a_crash_keeps_none_and_nothing_of_the_stop_before(new_server):
    server = new_server().start()
    fill(server)
    assert server.stop() == 0
    server.start()
    cache = client(server)
    assert cache.get("plain:1")
    cache.set("plain:1", b"newer")
    cache.close()
    server.kill()
    server.start()
    cache = client(server)
    assert cache.get_many([f"plain:{number}" for number in range(2000)]) == {}


def test_a_cell_that_was_cached_before_a_stop_is_read_anew(new_server):
    server = new_server(env=ENVIRONMENT).start()
    create_table(table_admin(server.bigtable), "cells")

    def write(value):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
            with BigtableDataClient(project=PROJECT) as data, data.get_table(INSTANCE, "cells") as table:
                table.mutate_row("r", [SetCell("cf", "q", value)])

    def read():
        talk = Talk(server.memcached_pair)
        value = talk.value(cell_key("cells", "r"))
        talk.close()
        return value

    write(b"before")
    assert read() == read() == b"before"
    cache = client(server)
    cache.set("plain", b"v")
    assert cache.stats()[b"curr_items"] == 2
    cache.close()
    assert server.stop() == 0
    server.start()
    assert client(server).stats()[b"curr_items"] == 1, "nobody followed what became of the cell"
    write(b"after")
    assert read() == b"after"


def test_a_server_that_is_told_not_to_starts_cold_and_forgets_what_was_saved(new_server):
    server = new_server().start()
    fill(server)
    assert server.stop() == 0
    server.env = {"HAYLOFT_MEMCACHED_WARM_RESTART": "false"}
    server.start()
    assert client(server).get("plain:1") is None
    assert server.stop() == 0
    server.env = None
    server.start()
    assert client(server).get("plain:1") is None


def test_what_was_flushed_stays_away(new_server):
    server = new_server().start()
    fill(server)
    cache = client(server)
    cache.flush_all()
    cache.close()
    assert server.stop() == 0
    server.start()
    assert client(server).stats()[b"curr_items"] == 0


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_file_is_not_believed(new_server, damage):
    server = new_server().start()
    fill(server)
    assert server.stop() == 0
    file = server.data_dir / "cache" / "items"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    server.start()
    assert client(server).get_many([f"plain:{number}" for number in range(2000)]) == {}
    assert not file.exists()


# --- what an operator sees


def test_top_shows_hot_keys_and_prefixes(new_server):
    server = new_server().start()
    talk = Talk(server.memcached_pair)
    talk.store("set hot:1 0 0 {}", b"value")
    for _ in range(2000):
        assert talk.value("hot:1") == b"value"
    shown = top(server)
    assert shown.startswith("1 items, ") and "gets 2000  hits 100.0 %" in shown
    assert [line for line in shown.splitlines() if line.endswith("  hot:1")], shown
    assert '"hot_keys"' in top(server, "--json")
    talk.close()


def test_top_says_what_is_wrong_where_no_server_is():
    command = [binary(), "admin", "cache", "top", "--console", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=clean_environment())
    assert done.returncode == 1 and "127.0.0.1:1" in done.stderr and not done.stdout


# --- other ways in


def test_users_must_say_who_they_are(new_server, tmp_path):
    users = tmp_path / "users"
    users.write_text("ann:secret\n")
    server = new_server("--memcached-users-file", str(users)).start()
    talk = Talk(server.memcached_pair)
    assert talk.ask("get k") == "CLIENT_ERROR unauthenticated"
    talk.close()
    talk = Talk(server.memcached_pair)
    assert talk.store("set auth 0 0 {}", b"ann wrong") == "CLIENT_ERROR authentication failure"
    assert talk.store("set auth 0 0 {}", b"ann secret") == "STORED"
    assert talk.store("set k 0 0 {}", b"v") == "STORED"
    talk.close()


def test_a_unix_socket_and_udp_lead_to_the_same_items(new_server, tmp_path):
    path = tmp_path / "cache.sock"
    server = new_server("--memcached-unix-socket", str(path), "--memcached-udp-listen", "127.0.0.1:0").start()
    client(server).set("k", b"v")
    assert path.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as unix:
        unix.settimeout(10)
        unix.connect(str(path))
        unix.sendall(b"get k\r\n")
        assert unix.recv(100) == b"VALUE k 0 1\r\nv\r\nEND\r\n"
    host, port = server.addresses["memcached-udp"].split(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(10)
        udp.sendto(b"\x00\x05\x00\x00\x00\x01\x00\x00get k\r\n", (host, int(port)))
        assert udp.recv(100) == b"\x00\x05\x00\x00\x00\x01\x00\x00VALUE k 0 1\r\nv\r\nEND\r\n"
    assert server.stop() == 0
    assert not path.exists()


def test_tls_lets_users_in_from_other_machines(new_server, tmp_path):
    users = tmp_path / "users"
    users.write_text("ann:secret\n")
    flags = ["--memcached-tls-chain-file", str(CERTIFICATES / "first.chain.pem"), "--memcached-tls-key-file", str(CERTIFICATES / "first.key.pem")]
    doors = [part for door in DOORS for part in (f"--{door}-listen", "127.0.0.1:0")]
    doors[doors.index("--memcached-listen") + 1] = "0.0.0.0:0"
    with pytest.raises(AssertionError, match="--insecure"):
        new_server(*flags, doors=doors).start()
    server = new_server(*flags, "--memcached-users-file", str(users), doors=doors).start()
    context = ssl.create_default_context(cafile=str(CERTIFICATES / "first.chain.pem"))
    port = server.memcached_pair[1]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(b"set auth 0 0 10\r\nann secret\r\nset k 0 0 1\r\nv\r\nget k\r\n")
            got = b""
            while b"END\r\n" not in got:
                got += connection.recv(100)
    assert got == b"STORED\r\nSTORED\r\nVALUE k 0 1\r\nv\r\nEND\r\n"


def test_udp_that_others_can_reach_and_half_of_tls_are_refused(new_server, tmp_path):
    for flags, said in (
        (("--memcached-udp-listen", "0.0.0.0:0"), "--insecure"),
        (("--memcached-tls-key-file", str(tmp_path / "key.pem")), "together"),
    ):
        with pytest.raises(AssertionError, match=said):
            new_server(*flags).start()
