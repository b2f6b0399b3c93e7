"""`hayloft serve` as an operator meets it: addresses, signals, refusals, settings, health."""

import signal
import socket
import subprocess
import threading
import time

import grpc
import pytest
import requests
from google.api_core import exceptions
from google.cloud.bigtable_v2 import BigtableClient
from google.cloud.bigtable_v2.services.bigtable.transports import BigtableGrpcTransport
from pymemcache.client.base import Client

from conftest import create_table, table_admin
from hayloft import DOORS, binary, clean_environment, door_flags, host_port

REFUSAL_SECONDS = 20


def run(*words, env=None):
    """Runs the binary to its end."""
    return subprocess.run(
        [binary(), *words], capture_output=True, text=True, timeout=REFUSAL_SECONDS, env=clean_environment(env)
    )


@pytest.fixture
def refused(tmp_path):
    """Runs `serve` where it must refuse to start; returns what it said, on one line of standard error."""

    def refused(*flags, doors=None, env=None, data_dir=tmp_path / "refused"):
        words = ["serve", "--data-dir", str(data_dir), *(door_flags() if doors is None else doors), *flags]
        done = run(*words, env=env)
        assert done.returncode not in (0, -signal.SIGABRT, 101), f"exit code {done.returncode}: {done.stderr}"
        assert "ready" not in done.stdout.split()
        assert "panicked" not in done.stderr
        assert done.stderr.strip(), "no word of what is wrong"
        return done.stderr

    return refused


# --- starting


def test_it_prints_each_door_and_then_ready(new_server):
    server = new_server().start()
    assert [line.split()[0] for line in server.lines] == [*server.addresses, "ready"]
    assert set(server.addresses) == set(DOORS)
    for address in server.addresses.values():
        host, port = host_port(address)
        assert host == "127.0.0.1" and port != 0
        socket.create_connection((host, port), timeout=5).close()


def test_it_creates_its_data_directory(new_server, tmp_path):
    new_server(data_dir=tmp_path / "deep" / "er" / "data").start()
    assert any((tmp_path / "deep" / "er" / "data").iterdir())


def test_help_and_version_are_readable():
    for words in (["--help"], ["serve", "--help"]):
        done = run(*words)
        assert done.returncode == 0 and not done.stderr
    for door in DOORS:
        assert f"--{door}-listen" in done.stdout
    assert run("--version").stdout.startswith("hayloft ")


def test_config_prints_a_file_that_serve_accepts(new_server, tmp_path):
    printed = run("config").stdout
    file = tmp_path / "hayloft.toml"
    file.write_text(printed)
    new_server("--config", str(file)).start()


# --- stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_it_with_0(new_server, number):
    server = new_server().start()
    server.process.send_signal(number)
    assert server.process.wait(20) == 0


@pytest.mark.parametrize("door", DOORS)
def test_an_idle_client_does_not_hold_it_up(new_server, door):
    server = new_server().start()
    with socket.create_connection(host_port(server.addresses[door])):
        time.sleep(0.2)  # so that the server has accepted it
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10


def test_sigterm_finishes_what_is_in_flight(new_server):
    server = new_server().start()
    with socket.create_connection(host_port(server.photos), timeout=20) as connection:
        connection.sendall(b"GET /photos/nonsense HTTP/1.1\r\nHost: hayloft\r\n")
        time.sleep(0.2)  # the request is begun, not finished
        server.process.send_signal(signal.SIGTERM)
        connection.sendall(b"\r\n")
        answer = connection.recv(1000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 404")
    assert server.process.wait(20) == 0


def test_writers_at_sigterm_lose_nothing_acknowledged(new_server):
    server = new_server().start()
    name = create_table(table_admin(server.bigtable), "stopped").name
    acknowledged = []

    def write():
        client = BigtableClient(transport=BigtableGrpcTransport(channel=grpc.insecure_channel(server.bigtable)))
        try:
            while True:
                key = b"row%06d" % len(acknowledged)
                set_cell = {"family_name": "cf", "column_qualifier": b"q", "timestamp_micros": 1000, "value": key}
                request = {"table_name": name, "row_key": key, "mutations": [{"set_cell": set_cell}]}
                client.mutate_row(request=request, retry=None, timeout=20)
                acknowledged.append(key)
        except exceptions.GoogleAPICallError:
            client.transport.close()

    writer = threading.Thread(target=write)
    writer.start()
    while len(acknowledged) < 200:
        time.sleep(0.01)
    assert server.stop() == 0
    writer.join(30)
    server.start()
    client = BigtableClient(transport=BigtableGrpcTransport(channel=grpc.insecure_channel(server.bigtable)))
    found = {chunk.row_key for answer in client.read_rows(table_name=name) for chunk in answer.chunks}
    client.transport.close()
    assert set(acknowledged) <= found


# --- refusing to start


def test_a_second_server_on_the_data_directory_is_refused(new_server, refused):
    server = new_server().start()
    told = refused(data_dir=server.data_dir)
    assert str(server.data_dir) in told
    assert any(word in told for word in ("use", "lock", "another", "running"))
    assert server.running()
    requests.get(server.url("console", "/healthz"), timeout=5).raise_for_status()


def test_the_data_directory_is_free_again_after_a_kill(new_server):
    server = new_server().start()
    server.kill()
    server.start()


@pytest.mark.parametrize("door", DOORS)
def test_an_address_others_can_reach_is_refused(refused, door):
    flags = door_flags()
    flags[flags.index(f"--{door}-listen") + 1] = "0.0.0.0:0"
    told = refused(doors=flags)
    assert "--insecure" in told and "0.0.0.0" in told


def test_insecure_allows_it(new_server):
    server = new_server("--insecure", doors=door_flags("0.0.0.0:0")).start()
    _, port = host_port(server.console)
    requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).raise_for_status()


def test_a_port_in_use_is_told_with_its_address(refused):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        flags = door_flags()
        flags[flags.index("--photos-listen") + 1] = address
        assert address in refused(doors=flags)


def test_a_data_directory_that_is_a_file_is_told(refused, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    assert str(tmp_path / "file") in refused(data_dir=tmp_path / "file")


@pytest.mark.parametrize(
    "flags",
    [["--colour", "red"], ["--bigtable-listen", "everywhere"], ["--photos-listen", "127.0.0.1:99999"]],
    ids=["unknown", "no address", "port too high"],
)
def test_a_wrong_flag_is_told_by_name(refused, flags):
    assert flags[0] in refused(*flags, doors=[])


# --- settings

WRONG_FILES = {
    "unknown key": ('data_dri = "x"\n', ["hayloft.toml:1", "data_dri", "data_dir"]),
    "unknown table": ("\n[fruit]\napple = 1\n", ["hayloft.toml:2", "fruit"]),
    "out of range": ('[memcached]\nitem_max = "3GiB"\n', ["hayloft.toml:2", "memcached.item_max", "1.0 GiB"]),
    "wrong type": ("[bigtable]\nlisten = 8086\n", ["hayloft.toml:2", "bigtable.listen", "address"]),
    "no TOML": ("this is = = no toml\n", ["hayloft.toml", "1"]),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_configuration_is_refused_with_place_and_range(refused, tmp_path, name):
    text, expected = WRONG_FILES[name]
    file = tmp_path / "hayloft.toml"
    file.write_text(text)
    told = refused("--config", str(file))
    assert [word for word in expected if word not in told] == [], told


def test_a_configuration_that_is_not_there_is_refused(refused, tmp_path):
    assert "nowhere.toml" in refused("--config", str(tmp_path / "nowhere.toml"))


def test_a_wrong_environment_variable_is_refused_by_name(refused):
    assert "HAYLOFT_MEMCACHED_MEMORY" in refused(env={"HAYLOFT_MEMCACHED_MEMORY": "lots"})
    assert "HAYLOFT_MEMCACHED_MEMROY" in refused(env={"HAYLOFT_MEMCACHED_MEMROY": "1GiB"})


def test_flags_override_the_environment_and_the_environment_the_file(new_server, tmp_path):
    file = tmp_path / "hayloft.toml"
    file.write_text('[memcached]\nmemory = "32MiB"\nlisten = "127.0.0.1:1"\n[console]\nlisten = "127.0.0.1:0"\n')
    env = {"HAYLOFT_MEMCACHED_LISTEN": "127.0.0.1:2", "HAYLOFT_MEMCACHED_MEMORY": "48MiB"}
    server = new_server("--config", str(file), env=env).start()
    client = Client(server.memcached_pair, timeout=5)
    assert int(client.stats()[b"limit_maxbytes"]) == 48 << 20
    client.close()


def test_a_setting_takes_effect_on_its_door(new_server):
    server = new_server(env={"HAYLOFT_PHOTOS_UPLOAD_MAX": "10KiB"}).start()
    answer = requests.post(server.url("photos", "/photos"), data=b"\xff\xd8\xff" + bytes(20_000), timeout=10)
    assert answer.status_code == 413
    assert "10" in answer.text


# --- ephemeral


def test_ephemeral_leaves_nothing_behind(new_server, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    server = new_server("--ephemeral", env={"TMPDIR": str(scratch)}).start()
    create_table(table_admin(server.bigtable), "gone")
    assert server.stop() == 0
    assert not server.data_dir.exists() or not any(server.data_dir.iterdir())
    assert not any(scratch.iterdir())
    server.start()
    assert list(table_admin(server.bigtable).list_tables(parent="projects/barn/instances/loft")) == []


def test_ephemeral_serves_all_doors(new_server):
    server = new_server("--ephemeral").start()
    create_table(table_admin(server.bigtable), "there")
    client = Client(server.memcached_pair, timeout=5)
    client.set("k", b"v")
    assert client.get("k") == b"v"
    client.close()
    assert requests.get(server.url("photos", "/photos/nonsense"), timeout=5).status_code == 404


# --- the console


def test_health_readiness_and_metrics(server):
    for path in ("/healthz", "/readyz"):
        answer = requests.get(server.url("console", path), timeout=5)
        assert answer.status_code == 200 and answer.text.strip()
    answer = requests.get(server.url("console", "/metrics"), timeout=5)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    names = {line.split("{")[0].split()[0] for line in answer.text.splitlines() if line and not line.startswith("#")}
    assert names, "no metric"
    assert all(name.startswith(("hayloft_", "process_")) for name in names), sorted(names)
    for line in answer.text.splitlines():
        if line and not line.startswith("#"):
            float(line.rsplit(" ", 1)[1])


def test_an_unknown_page_of_the_console_is_404(server):
    assert requests.get(server.url("console", "/nowhere"), timeout=5).status_code == 404


def test_nothing_unexpected_is_logged(new_server):
    server = new_server().start()
    create_table(table_admin(server.bigtable), "quiet")
    assert server.stop() == 0
    log = server.log_path.read_text()
    assert not [line for line in log.splitlines() if "ERROR" in line or "WARN" in line or "panicked" in line], log


def test_memory_is_modest_at_rest(new_server):
    server = new_server().start()
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        [resident] = [line for line in status if line.startswith("VmRSS")]
    assert int(resident.split()[1]) < 200_000, resident
