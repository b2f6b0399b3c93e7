"""The memcached door: pymemcache, transcripts of the protocol's edges, and libmemcached's memcapable."""

import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pymemcache import serde
from pymemcache.client.base import Client, PooledClient
from pymemcache.exceptions import MemcacheClientError, MemcacheIllegalInputError, MemcacheServerError

# Debian ships libmemcached's memcapable under a second c.
MEMCAPABLE = shutil.which("memcapable") or shutil.which("memccapable")
MIB = 1024 * 1024


@pytest.fixture
def client(memcached_address):
    """pymemcache over an empty cache."""
    client = Client(memcached_address, timeout=10, connect_timeout=5, default_noreply=False)
    client.flush_all()
    yield client
    client.close()


@pytest.fixture
def talk(memcached_address):
    """Sends raw bytes and returns what comes back once `end` is in it, or the server closes."""
    connections = []

    def talk(sent, end=b"\r\n"):
        if not connections:
            connections.append(socket.create_connection(memcached_address, timeout=10))
        connections[0].sendall(sent)
        got = b""
        while end not in got:
            piece = connections[0].recv(65536)
            if not piece:
                break
            got += piece
        return got

    yield talk
    for connection in connections:
        connection.close()


# --- storing and fetching


def test_set_get_delete(client):
    assert client.set("k", b"v")
    assert client.get("k") == b"v"
    assert client.delete("k")
    assert client.get("k") is None
    assert not client.delete("k")


def test_values_are_any_bytes(client):
    value = bytes(range(256)) + b"\r\nEND\r\n"
    client.set("k", value)
    assert client.get("k") == value
    client.set("empty", b"")
    assert client.get("empty") == b""


def test_add_stores_only_what_is_new_and_replace_only_what_is_there(client):
    assert not client.replace("k", b"v")
    assert client.add("k", b"first")
    assert not client.add("k", b"second")
    assert client.replace("k", b"third")
    assert client.get("k") == b"third"


def test_append_and_prepend_extend_what_is_there(client):
    assert not client.append("k", b"x")
    client.set("k", b"b")
    assert client.append("k", b"c") and client.prepend("k", b"a")
    assert client.get("k") == b"abc"


def test_many_keys_at_once(client):
    items = {f"k{number}": b"%d" % number for number in range(1000)}
    assert client.set_many(items) == []
    assert client.get_many([*items, "missing"]) == items
    assert client.delete_many(list(items))
    assert client.get_many(list(items)) == {}


def test_cas_stores_only_over_what_was_read(client):
    client.set("k", b"one")
    value, token = client.gets("k")
    assert value == b"one"
    assert client.cas("k", b"two", token) is True
    assert client.cas("k", b"three", token) is False
    assert client.cas("missing", b"x", token) is None
    assert client.get("k") == b"two"


def test_gets_many_gives_a_token_for_each(client):
    client.set_many({"a": b"1", "b": b"2"})
    found = client.gets_many(["a", "b", "missing"])
    assert {key: value for key, (value, _) in found.items()} == {"a": b"1", "b": b"2"}
    assert found["a"][1] != found["b"][1]


def test_counters_go_up_and_down(client):
    client.set("n", b"10")
    assert client.incr("n", 5) == 15
    assert client.decr("n", 6) == 9
    assert client.decr("n", 100) == 0
    assert client.incr("missing", 1) is None
    client.set("n", b"18446744073709551615")
    assert client.incr("n", 1) == 0


def test_a_value_that_is_no_number_does_not_count(client):
    client.set("k", b"ten")
    with pytest.raises(MemcacheClientError, match="non-numeric"):
        client.incr("k", 1)


def test_flags_come_back(memcached_address):
    pickling = Client(memcached_address, serde=serde.pickle_serde, default_noreply=False)
    value = {"deep": [1, 2.5, None, "ünïcode"]}
    pickling.set("object", value)
    assert pickling.get("object") == value
    pickling.close()


def test_concurrent_clients_count_exactly(memcached_address, client):
    client.set("n", b"0")
    pool = PooledClient(memcached_address, max_pool_size=8, default_noreply=False)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: pool.incr("n", 1), range(2000)))
    pool.close()
    assert client.get("n") == b"2000"


def test_noreply_commands_take_effect_in_order(client):
    for number in range(200):
        client.set("k", b"%d" % number, noreply=True)
    client.incr("k", 1, noreply=True)
    assert client.get("k") == b"200"


# --- time


def test_an_item_expires(client):
    client.set("soon", b"v", expire=1)
    client.set("never", b"v", expire=0)
    client.set("later", b"v", expire=3600)
    assert client.get("soon") == b"v"
    deadline = time.monotonic() + 5
    while client.get("soon") is not None:
        assert time.monotonic() < deadline, "the item outlived its second"
        time.sleep(0.05)
    assert client.get("never") == client.get("later") == b"v"


def test_a_negative_expiry_is_expired_at_once(client):
    client.set("k", b"v", expire=-1)
    assert client.get("k") is None


def test_more_than_thirty_days_is_a_date(client):
    client.set("past", b"v", expire=30 * 86400 + 1)
    client.set("future", b"v", expire=int(time.time()) + 3600)
    assert client.get("past") is None
    assert client.get("future") == b"v"


def test_touch_and_gat_move_the_expiry(client):
    client.set("k", b"v")
    assert client.touch("k", 100)
    assert client.raw_command(b"gat 100 k missing", b"END\r\n").startswith(b"VALUE k 0 1\r\nv")
    assert client.raw_command(b"gats 100 k", b"END\r\n").startswith(b"VALUE k 0 1 ")
    assert client.touch("k", -1)
    assert client.get("k") is None
    assert not client.touch("missing", 100)


def test_flush_all_empties_the_cache(client):
    client.set("k", b"v")
    client.flush_all()
    assert client.get("k") is None
    client.set("k", b"again")
    assert client.get("k") == b"again"


# --- leases


def test_a_lease_is_filled_by_one_and_void_after_a_delete(talk):
    def token(key):
        word, got_key, token, *_ = talk(b"lease-get " + key + b"\r\n", end=b"END\r\n").split(b"\r\n")[0].split()
        assert (word, got_key) == (b"LVALUE", key)
        return token

    first = token(b"leased")
    assert int(first) > 1
    assert token(b"leased") == b"1"
    assert talk(b"lease-set leased " + first + b" 5 0 3\r\nnew\r\n") == b"STORED\r\n"
    assert talk(b"lease-get leased\r\n", end=b"END\r\n") == b"VALUE leased 5 3\r\nnew\r\nEND\r\n"
    assert talk(b"delete leased\r\n") == b"DELETED\r\n"
    answer = talk(b"lease-get leased\r\n", end=b"END\r\n").split(b"\r\n")
    second = answer[0].split()[2]
    assert int(second) > 1 and answer[1] == b"new", "the deleted value is there as a stale one"
    talk(b"delete leased\r\n")
    assert talk(b"lease-set leased " + second + b" 0 0 3\r\nold\r\n") == b"STALE_STORED\r\n"
    assert talk(b"get leased\r\n") == b"END\r\n"


# --- limits


def test_a_key_of_250_bytes_is_the_longest(client):
    client.set("k" * 250, b"v")
    assert client.get("k" * 250) == b"v"
    with pytest.raises(MemcacheIllegalInputError):
        client.get("k" * 251)


@pytest.mark.parametrize(
    "line",
    [b"get " + b"k" * 251 + b"\r\n", b"delete " + b"k" * 251 + b"\r\n", b"incr " + b"k" * 251 + b" 1\r\n"],
    ids=["get", "delete", "incr"],
)
def test_a_key_of_251_bytes_is_a_client_error(talk, line):
    assert talk(line).startswith(b"CLIENT_ERROR")
    assert talk(b"version\r\n").startswith(b"VERSION ")


def test_a_store_under_a_key_of_251_bytes_is_refused(talk):
    answer = talk(b"set " + b"k" * 251 + b" 0 0 5\r\nhello\r\nverbosity 1\r\n", end=b"OK\r\n")
    assert answer.startswith(b"CLIENT_ERROR")


def test_an_item_over_one_megabyte_is_refused_and_the_old_one_goes(client):
    client.set("k", b"small")
    assert client.set("big", b"x" * (MIB - 1024))
    assert len(client.get("big")) == MIB - 1024
    with pytest.raises(MemcacheServerError, match="too large"):
        client.set("k", b"x" * (MIB + 1))
    assert client.get("k") is None


def test_the_cache_evicts_rather_than_refuse(client):
    value = b"x" * 500_000
    limit = int(client.stats()[b"limit_maxbytes"])
    for number in range(min(limit // len(value) + 100, 4000)):
        assert client.set(f"fill{number}", value)
    assert client.get(f"fill{number}") == value
    assert int(client.stats()[b"bytes"]) <= limit


# --- transcripts


TRANSCRIPTS = {
    "an unknown command": (b"frobnicate\r\n", b"ERROR\r\n"),
    "an empty line": (b"\r\n", b"ERROR\r\n"),
    "get without a key": (b"get\r\n", b"ERROR\r\n"),
    "a length that is no number": (b"set k 0 0 ten\r\n", b"CLIENT_ERROR bad command line format\r\n"),
    "a negative length": (b"set k 0 0 -1\r\n", b"CLIENT_ERROR bad "),
    "an increment by words": (b"incr k many\r\n", b"CLIENT_ERROR invalid numeric delta argument\r\n"),
    "a touch that misses": (b"touch missing 1\r\n", b"NOT_FOUND\r\n"),
    "a delete that misses": (b"delete missing\r\n", b"NOT_FOUND\r\n"),
    "verbosity": (b"verbosity 1\r\n", b"OK\r\n"),
    "a get that misses": (b"get missing\r\n", b"END\r\n"),
    "flags and length": (
        b"set k 4294967295 0 2\r\nhi\r\nget k\r\n",
        b"STORED\r\nVALUE k 4294967295 2\r\nhi\r\nEND\r\n",
    ),
    "bare newlines": (b"set k 1 0 2\nhi\r\nget k\n", b"STORED\r\nVALUE k 1 2\r\nhi\r\nEND\r\n"),
    "noreply then a reply": (b"set k 0 0 1 noreply\r\n1\r\nincr k 4\r\n", b"5\r\n"),
    "several keys": (
        b"set a 0 0 1\r\nA\r\nset b 0 0 1\r\nB\r\nget a missing b\r\n",
        b"STORED\r\nSTORED\r\nVALUE a 0 1\r\nA\r\nVALUE b 0 1\r\nB\r\nEND\r\n",
    ),
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcript(talk, name):
    sent, expected = TRANSCRIPTS[name]
    assert talk(sent, end=expected).startswith(expected)


def test_a_pipeline_is_answered_in_order(talk):
    answer = talk(b"version\r\nget missing\r\nversion\r\nverbosity 1\r\n", end=b"OK\r\n")
    assert [line.split()[0] for line in answer.splitlines()] == [b"VERSION", b"END", b"VERSION", b"OK"]


def test_a_bad_data_chunk_is_told_and_the_next_command_heard(talk):
    answer = talk(b"set k 0 0 2\r\nlong value\r\nverbosity 1\r\n", end=b"OK\r\n")
    assert answer.startswith(b"CLIENT_ERROR bad data chunk\r\n")


def test_quit_closes(talk):
    assert talk(b"quit\r\n") == b""


def test_bytes_sent_one_at_a_time_are_one_command(memcached_address):
    with socket.create_connection(memcached_address, timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"set slow 0 0 4\r\nslow\r\n":
            connection.sendall(bytes([byte]))
        assert connection.recv(100) == b"STORED\r\n"


def test_an_endless_line_is_cut_off(memcached_address):
    with socket.create_connection(memcached_address, timeout=10) as connection:
        try:
            for _ in range(64):
                connection.sendall(b"x" * 65536)
            assert len(connection.recv(4096)) < 200
        except (BrokenPipeError, ConnectionResetError):
            pass


def test_five_hundred_connections_are_served(memcached_address):
    connections = [socket.create_connection(memcached_address, timeout=10) for _ in range(500)]
    for connection in connections:
        connection.sendall(b"version\r\n")
    assert all(connection.recv(100).startswith(b"VERSION ") for connection in connections)
    for connection in connections:
        connection.close()


def test_stats_count(client):
    before = client.stats()
    client.set("k", b"v")
    client.get("k")
    client.get("missing")
    after = client.stats()
    for name, more in ((b"get_hits", 1), (b"get_misses", 1), (b"cmd_set", 1)):
        assert int(after[name]) - int(before[name]) >= more, name
    assert int(after[b"curr_items"]) >= 1
    assert after[b"pid"] and after[b"version"]
    assert client.stats("settings")
    client.stats("items")
    client.stats("slabs")


@pytest.mark.skipif(MEMCAPABLE is None, reason="memcapable is not installed (Debian package libmemcached-tools)")
def test_memcapable_finds_nothing_wrong(memcached_address):
    host, port = memcached_address
    done = subprocess.run(
        [MEMCAPABLE, "-h", host, "-p", str(port), "-a", "-t", "10"], capture_output=True, text=True, timeout=100
    )
    report = done.stdout + done.stderr
    assert done.returncode == 0 and "[FAIL]" not in report, report
