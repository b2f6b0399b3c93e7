"""Cells through the memcached door: read through, written through, invalidated by whoever writes."""

import base64
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from google.cloud.bigtable.data import BigtableDataClient
from google.cloud.bigtable.data.mutations import DeleteAllFromFamily, DeleteAllFromRow, SetCell
from google.cloud.bigtable_admin_v2 import types as admin_types

import pictures
from caching import ENVIRONMENT, INSTANCE_NAME, Talk, cell_key, metric
from conftest import INSTANCE, PROJECT, create_table, table_admin
from hayloft import Hayloft
from rows import values

pytestmark = pytest.mark.hayloft_only("memcached has no rows")


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """A server whose keys name tables of the tests' instance."""
    home = tmp_path_factory.mktemp("cached")
    hayloft = Hayloft(home / "data", home / "hayloft.log", env=ENVIRONMENT).start()
    yield hayloft
    died = not hayloft.running()
    hayloft.kill()
    assert not died, hayloft.log_tail(60)


@pytest.fixture(scope="module")
def cached_data(cached):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGTABLE_EMULATOR_HOST", cached.bigtable)
        with BigtableDataClient(project=PROJECT) as client:
            yield client


@pytest.fixture
def table(cached, cached_data, request):
    """A table of the test's own."""
    table_id = "t" + str(abs(hash(request.node.name)) % 10**9)
    create_table(table_admin(cached.bigtable), table_id, families=["cf", "other"])
    return cached_data.get_table(INSTANCE, table_id)


@pytest.fixture
def talk(cached):
    talk = Talk(cached.memcached_pair)
    yield talk
    talk.close()


def put(table, row, value, qualifier=b"q", family="cf"):
    table.mutate_row(row, [SetCell(family, qualifier, value)])


def newest(table, row):
    return values(table.read_row(row))


def wait_until(holds, what, seconds=20):
    """Seconds it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() < started + seconds, what
        time.sleep(0.002)
    return time.monotonic() - started


def follow(cached, talk, table):
    """Has the table's changes followed: what is cached stays from here on."""
    talk.value(cell_key(table.table_id, b"nothing"))
    wait_until(lambda: metric(cached, "hayloft_cache_followed", table=f"{INSTANCE_NAME}/tables/{table.table_id}"), "followed")


def test_a_cell_is_read_once_and_then_from_memory(cached, talk, table):
    follow(cached, talk, table)
    changes = metric(cached, "hayloft_cache_changes_total", by="other")
    put(table, b"row", b"value")
    wait_until(lambda: metric(cached, "hayloft_cache_changes_total", by="other") > changes, "the change is known")
    key = cell_key(table.table_id, b"row")
    assert talk.value(key) == b"value"
    reads = metric(cached, "hayloft_cache_origin_calls_total", verb="read")
    for _ in range(20):
        assert talk.value(key) == b"value"
    assert talk.ask(f"mg {key} v f s k Oabc") == f"VA 5 f0 s5 k{key} Oabc"
    assert talk.line() == "value"
    absent = cell_key(table.table_id, b"row", b"nothing")
    assert [talk.value(absent) for _ in range(5)] == [None] * 5
    assert talk.ask(f"mg {absent} v") == "EN"
    assert metric(cached, "hayloft_cache_origin_calls_total", verb="read") == reads + 1


def test_what_is_set_is_in_the_table_with_flags_and_expiry_beside(talk, table):
    key = cell_key(table.table_id, b"row")
    assert talk.store(f"set {key} 7 1000 {{}}", b"one") == "STORED"
    row = newest(table, b"row")
    assert row["cf:q"] == b"one"
    companion = row["cf:q\0memcached"]
    assert companion[0] == 1 and int.from_bytes(companion[1:5], "little") == 7
    assert 900 < int.from_bytes(companion[5:9], "little") - time.time() < 1100
    assert talk.ask(f"mg {key} v f") == "VA 3 f7"
    assert talk.line() == "one"
    assert talk.ask(f"touch {key} 1") == "TOUCHED"
    time.sleep(2.1)
    assert talk.value(key) is None
    assert talk.store(f"add {key} 0 0 {{}}", b"two") == "STORED"
    assert talk.store(f"add {key} 0 0 {{}}", b"three") == "NOT_STORED"
    assert newest(table, b"row")["cf:q"] == b"two"
    talk.send(f"set {key} 0 0 4 noreply\r\nfour\r\n")
    assert talk.value(key) == b"four"


def test_classic_writes_are_row_operations(talk, table):
    key = cell_key(table.table_id, b"row")
    assert talk.store(f"replace {key} 0 0 {{}}", b"x") == "NOT_STORED"
    assert talk.store(f"append {key} 0 0 {{}}", b"x") == "NOT_STORED"
    assert talk.ask(f"incr {key} 1") == "NOT_FOUND"
    assert talk.ask(f"delete {key}") == "NOT_FOUND"
    assert talk.ask(f"touch {key} 0") == "NOT_FOUND"
    put(table, b"row", b"10")
    assert talk.ask(f"incr {key} 5") == "15"
    assert talk.ask(f"decr {key} 20") == "0"
    assert talk.store(f"append {key} 0 0 {{}}", b"a") == "STORED"
    assert talk.store(f"prepend {key} 0 0 {{}}", b"b") == "STORED"
    assert newest(table, b"row") == {"cf:q": b"b0a"}
    assert talk.value(key) == b"b0a"
    assert talk.ask(f"incr {key} 1") == "CLIENT_ERROR cannot increment or decrement non-numeric value"
    cas = int(talk.ask(f"gets {key}").split()[4])
    assert (talk.line(), talk.line()) == ("b0a", "END")
    assert talk.store(f"cas {key} 0 0 {{}} {cas + 1}", b"no") == "EXISTS"
    assert talk.store(f"cas {key} 3 0 {{}} {cas}", b"yes") == "STORED"
    assert talk.store(f"cas {key} 0 0 {{}} {cas}", b"no") == "EXISTS"
    assert talk.store(f"replace {key} 0 0 {{}}", b"again") == "STORED"
    assert talk.ask(f"gat 1000 {key}") == f"VALUE {key} 0 5"
    assert (talk.line(), talk.line()) == ("again", "END")
    assert talk.ask(f"delete {key}") == "DELETED"
    assert newest(table, b"row") == {}
    assert talk.value(key) is None


def test_meta_writes_are_row_operations(talk, table):
    key = cell_key(table.table_id, b"row")
    assert talk.store(f"ms {key} {{}} F5 T0 c Ox", b"one").startswith("HD c")
    assert talk.ask(f"ma {key}") == "CLIENT_ERROR cannot increment or decrement non-numeric value"
    assert talk.store(f"ms {key} {{}} ME", b"two") == "NS"
    assert talk.store(f"ms {key} {{}} MA", b"two") == "HD"
    assert talk.ask(f"mg {key} v f") == "VA 6 f5"
    assert talk.line() == "onetwo"
    assert talk.ask(f"md {key} q\r\nmn") == "MN"
    assert talk.ask(f"ma {key} N0 J41 v") == "VA 2"
    assert talk.line() == "41"
    assert talk.ask(f"ma {key} D1 v") == "VA 2"
    assert talk.line() == "42"
    assert newest(table, b"row")["cf:q"] == b"42"
    for line in (f"ma {key} E5", f"md {key} I", f"md {key} x"):
        assert talk.ask(line).startswith("CLIENT_ERROR ")
    assert talk.ask(f"md {key}") == "HD"
    assert talk.ask(f"md {key}") == "NF"


def test_increments_from_everywhere_add_up(cached, table):
    key = cell_key(table.table_id, b"counter")
    put(table, b"counter", b"0")

    def count(_):
        talk = Talk(cached.memcached_pair)
        done = [talk.ask(f"incr {key} 1") for _ in range(25)]
        talk.close()
        return done

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(int(n) for numbers in pool.map(count, range(8)) for n in numbers)
    assert answers == list(range(1, 201))
    assert newest(table, b"counter")["cf:q"] == b"200"


def test_any_bytes_are_a_cell(talk, table):
    row, qualifier = b"a:b %\x00\xff\n", b"\x01: q"
    put(table, row, b"value", qualifier)
    assert talk.value(cell_key(table.table_id, row, qualifier)) == b"value"
    raw = b"row:" + table.table_id.encode() + b":a%3Ab %25\x00\xff\n:cf:\x01%3A q"
    encoded = base64.b64encode(raw).decode()
    assert talk.ask(f"mg {encoded} b k v") == f"VA 5 k{encoded} b"
    assert talk.line() == "value"


def test_keys_that_cannot_be_are_refused_and_the_pipeline_stays_in_order(talk, table):
    key = cell_key(table.table_id, b"row")
    put(table, b"row", b"cell")
    talk.send(
        f"set plain 0 0 1\r\n1\r\nget plain {key} plain\r\nset {key} 0 0 3\r\nnew\r\nget {key} plain\r\n"
        f"get row:x\r\nset row:x 0 0 2\r\nxx\r\ndelete photo:1-2-3:thumb\r\nget plain\r\n"
        f"get row:no-such-table:r:cf:q\r\nget {cell_key(table.table_id, b'row', family='none')}\r\nmn\r\n"
    )
    got = [talk.line() for _ in range(6)]
    assert got == ["STORED", "VALUE plain 0 1", "1", f"VALUE {key} 0 4", "cell", "VALUE plain 0 1"]
    assert [talk.line() for _ in range(7)] == ["1", "END", "STORED", f"VALUE {key} 0 3", "new", "VALUE plain 0 1", "1"]
    assert talk.line() == "END"
    refusals = [talk.line() for _ in range(3)]
    assert all(line.startswith("CLIENT_ERROR ") for line in refusals), refusals
    assert [talk.line() for _ in range(3)] == ["VALUE plain 0 1", "1", "END"]
    assert "no-such-table" in talk.line()
    last = talk.line()
    assert last == "END" or "none" in last
    assert talk.line() == "MN"


def test_many_cells_are_read_with_few_calls(cached, talk, table):
    follow(cached, talk, table)
    rows = [b"row-%03d" % number for number in range(200)]
    for row in rows[:150]:
        put(table, row, b"v" + row)
    calls = metric(cached, "hayloft_cache_origin_calls_total", verb="read")
    keys = [cell_key(table.table_id, row) for row in rows]
    talk.send("get " + " ".join(keys) + "\r\n")
    found = {}
    while (line := talk.line()) != "END":
        found[line.split()[1]] = talk.line()
    assert found == {key: "v" + row.decode() for key, row in zip(keys[:150], rows)}
    assert metric(cached, "hayloft_cache_origin_calls_total", verb="read") == calls + 2


def test_a_thousand_clients_on_a_cold_key_are_one_read(cached, talk, table):
    follow(cached, talk, table)
    changes = metric(cached, "hayloft_cache_changes_total", by="other")
    put(table, b"hot", b"x" * 1000)
    wait_until(lambda: metric(cached, "hayloft_cache_changes_total", by="other") > changes, "the change is known")
    key = cell_key(table.table_id, b"hot")
    herd = [Talk(cached.memcached_pair, timeout=60) for _ in range(1000)]
    read = metric(cached, "hayloft_cache_origin_keys_total")
    for client in herd:
        client.send(f"get {key}\r\n")
    for client in herd:
        assert client.line() == f"VALUE {key} 0 1000"
        assert (client.line(), client.line()) == ("x" * 1000, "END")
        client.close()
    assert metric(cached, "hayloft_cache_origin_keys_total") == read + 1


def test_writes_through_any_door_evict_within_milliseconds(cached, talk, table):
    follow(cached, talk, table)
    key, other = cell_key(table.table_id, b"row"), cell_key(table.table_id, b"row", b"p", "other")
    lags = []
    for number in range(30):
        put(table, b"row", b"%d" % number)
        lags.append(wait_until(lambda: talk.value(key) == b"%d" % number, "the new value"))
    assert sorted(lags)[len(lags) // 2] < 0.1, lags
    put(table, b"row", b"other", b"p", "other")
    assert wait_until(lambda: talk.value(other) == b"other", "another column") < 5
    table.mutate_row(b"row", [DeleteAllFromFamily("other")])
    wait_until(lambda: talk.value(other) is None, "a deleted family")
    assert talk.value(key) == b"29"
    table.mutate_row(b"row", [DeleteAllFromRow()])
    wait_until(lambda: talk.value(key) is None, "a deleted row")
    put(table, b"row", b"back")
    wait_until(lambda: talk.value(key) == b"back", "a row that is back")
    name = f"{INSTANCE_NAME}/tables/{table.table_id}"
    table_admin(cached.bigtable).drop_row_range(request={"name": name, "row_key_prefix": b"ro"})
    wait_until(lambda: talk.value(key) is None, "dropped rows")


def test_own_changes_do_not_evict_what_was_written(cached, talk, table):
    follow(cached, talk, table)
    own = metric(cached, "hayloft_cache_changes_total", by="own")
    calls = metric(cached, "hayloft_cache_origin_calls_total", verb="read")
    key = cell_key(table.table_id, b"row")
    for number in range(50):
        assert talk.store(f"set {key} {number} 0 {{}}", b"%d" % number) == "STORED"
        assert talk.value(key) == b"%d" % number
    wait_until(lambda: metric(cached, "hayloft_cache_changes_total", by="own") >= own + 50, "own changes come back")
    assert talk.value(key) == b"49"
    assert metric(cached, "hayloft_cache_origin_calls_total", verb="read") == calls


def test_entries_expire_by_the_age_of_their_family(cached, cached_data, talk):
    age = admin_types.GcRule(max_age={"seconds": 2})
    create_table(table_admin(cached.bigtable), "aged", families={"cf": age})
    table = cached_data.get_table(INSTANCE, "aged")
    follow(cached, talk, table)
    key = cell_key("aged", b"row")
    assert talk.store(f"set {key} 0 0 {{}}", b"v") == "STORED"
    assert talk.value(key) == b"v"
    time.sleep(2.2)
    assert talk.value(key) is None


def test_photos_are_read_once_in_every_size(cached, talk):
    picture = pictures.jpeg(800, 600)
    answer = requests.post(cached.url("photos", "/photos"), data=picture, headers={"Content-Type": "image/jpeg"}, timeout=30)
    photo = answer.json()["id"]
    reads = metric(cached, "hayloft_cache_origin_calls_total", origin="photos")
    for size in ("original", "large", "medium", "small", "thumb"):
        expected = requests.get(cached.url("photos", f"/photos/{photo}/{size}"), timeout=30).content
        assert talk.value(f"photo:{photo}:{size}") == expected == talk.value(f"photo:{photo}:{size}")
    assert metric(cached, "hayloft_cache_origin_calls_total", origin="photos") == reads + 5
    nobody = photo[:-1] + ("0" if photo[-1] != "0" else "1")
    assert talk.value(f"photo:{nobody}:thumb") is None
    assert talk.ask(f"get photo:{photo}:huge").startswith("CLIENT_ERROR ")
    assert talk.ask(f"delete photo:{photo}:thumb").startswith("CLIENT_ERROR ")


def test_flush_all_and_restart_leave_the_rows(tmp_path):
    server = Hayloft(tmp_path / "data", tmp_path / "log", env=ENVIRONMENT).start()
    try:
        create_table(table_admin(server.bigtable), "t", families=["cf"])
        talk = Talk(server.memcached_pair)
        keys = [cell_key("t", b"row-%d" % number) for number in range(20)]
        for key in keys:
            assert talk.store(f"set {key} 3 0 {{}}", key.encode()) == "STORED"
        assert talk.ask("flush_all") == "OK"
        assert talk.value(keys[0]) == keys[0].encode()
        server.kill()
        server.start()
        talk = Talk(server.memcached_pair)
        for key in keys:
            assert talk.ask(f"get {key}") == f"VALUE {key} 3 {len(key)}"
            assert (talk.line(), talk.line()) == (key, "END")
    finally:
        server.kill()


def test_an_origin_that_is_gone_is_an_error_and_nobody_is_stuck(tmp_path):
    env = {**ENVIRONMENT, "HAYLOFT_ORIGINS_TIMEOUT": "1s", "HAYLOFT_ORIGINS_STALENESS_MAX": "2s"}
    origin = Hayloft(tmp_path / "origin", tmp_path / "origin.log", env=env).start()
    cache = Hayloft(
        tmp_path / "cache",
        tmp_path / "cache.log",
        env={**env, "HAYLOFT_ORIGINS_ROWS": f"http://{origin.bigtable}", "HAYLOFT_ORIGINS_PHOTOS": origin.photos},
    )
    try:
        cache.start()
        create_table(table_admin(origin.bigtable), "t", families=["cf"])
        talk, key = Talk(cache.memcached_pair), cell_key("t", b"row")
        assert talk.store(f"set {key} 0 0 {{}}", b"v") == "STORED"
        wait_until(lambda: metric(cache, "hayloft_cache_followed") == 1, "followed")
        assert talk.store(f"set {key} 0 0 {{}}", b"w") == "STORED"
        origin.kill()
        assert talk.value(key) == b"w"
        time.sleep(2.5)
        started = time.monotonic()
        assert talk.ask(f"get {key}").startswith("SERVER_ERROR ")
        assert talk.store(f"set {key} 0 0 {{}}", b"x").startswith("SERVER_ERROR ")
        assert talk.store("set plain 0 0 {}", b"x") == "STORED"
        assert time.monotonic() - started < 5
        assert metric(cache, "hayloft_cache_followed") == 0
    finally:
        origin.kill()
        cache.kill()
