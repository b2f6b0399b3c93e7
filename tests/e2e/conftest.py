"""Fixtures: a server for the session, servers of a test's own, and clients for each door.

`--bigtable HOST:PORT` and `--memcached HOST:PORT` point the suites of that
door at a peer (Google's emulator, memcached) instead, to compare with.
"""

import itertools

import grpc
import pytest
from google.cloud.bigtable.data import BigtableDataClient
from google.cloud.bigtable_admin_v2 import BigtableInstanceAdminClient, BigtableTableAdminClient
from google.cloud.bigtable_admin_v2 import types as admin_types
from google.cloud.bigtable_admin_v2.services.bigtable_instance_admin.transports import (
    BigtableInstanceAdminGrpcTransport,
)
from google.cloud.bigtable_admin_v2.services.bigtable_table_admin.transports import BigtableTableAdminGrpcTransport
from google.cloud.bigtable_v2 import BigtableClient
from google.cloud.bigtable_v2.services.bigtable.transports import BigtableGrpcTransport

from hayloft import Hayloft, host_port

PROJECT = "barn"
INSTANCE = "loft"

_table_numbers = itertools.count(1)


def pytest_addoption(parser):
    parser.addoption("--bigtable", metavar="HOST:PORT", help="test this Bigtable server, not Hayloft")
    parser.addoption("--memcached", metavar="HOST:PORT", help="test this memcached, not Hayloft")
    parser.addoption("--kills", type=int, default=4, help="how often the crash test kills the server")
    parser.addoption("--rounds", type=int, default=1, help="seeds of the test of random requests beside the emulator")
    parser.addoption("--seed", type=int, default=1, help="first seed of tests that have one")


def pytest_collection_modifyitems(config, items):
    if not (config.getoption("--bigtable") or config.getoption("--memcached")):
        return
    for item in items:
        if marker := item.get_closest_marker("hayloft_only"):
            item.add_marker(pytest.mark.skip(reason=f"the peer differs: {marker.args[0]}"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The session's server. Suites share it and keep apart by table, key and photo."""
    home = tmp_path_factory.mktemp("server")
    hayloft = Hayloft(home / "data", home / "hayloft.log").start()
    yield hayloft
    died = not hayloft.running()
    hayloft.kill()
    assert not died, f"the server died during the tests; {hayloft.log_tail(60)}"


@pytest.fixture
def new_server(tmp_path):
    """Makes servers of the test's own, not started yet; each is ended with the test."""
    made = []

    def make(*flags, data_dir=tmp_path / "data", env=None, doors=None):
        log = tmp_path / f"hayloft-{len(made)}.log"
        made.append(Hayloft(data_dir, log, flags, env, doors))
        return made[-1]

    yield make
    for hayloft in made:
        hayloft.kill()


@pytest.fixture(scope="session")
def bigtable_address(request):
    """host:port of the Bigtable door under test."""
    return request.config.getoption("--bigtable") or request.getfixturevalue("server").bigtable


@pytest.fixture(scope="session")
def memcached_address(request):
    """(host, port) of the memcached door under test."""
    peer = request.config.getoption("--memcached")
    return host_port(peer) if peer else request.getfixturevalue("server").memcached_pair


@pytest.fixture(scope="session")
def emulator_environment(bigtable_address):
    """Sets what every official client reads to find the server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGTABLE_EMULATOR_HOST", bigtable_address)
        yield


def table_admin(address):
    """Google's generated table admin client over plaintext."""
    return BigtableTableAdminClient(transport=BigtableTableAdminGrpcTransport(channel=grpc.insecure_channel(address)))


def instance_admin(address):
    """Google's generated instance admin client over plaintext."""
    channel = grpc.insecure_channel(address)
    return BigtableInstanceAdminClient(transport=BigtableInstanceAdminGrpcTransport(channel=channel))


@pytest.fixture(scope="session")
def admin(bigtable_address):
    """The table admin client."""
    client = table_admin(bigtable_address)
    yield client
    client.transport.close()


@pytest.fixture(scope="session")
def raw_data(bigtable_address):
    """Google's generated data client, for requests that the friendlier clients cannot make."""
    client = BigtableClient(transport=BigtableGrpcTransport(channel=grpc.insecure_channel(bigtable_address)))
    yield client
    client.transport.close()


@pytest.fixture(scope="session")
def instance_name():
    """The full name of the instance the suites use; nobody created it."""
    return f"projects/{PROJECT}/instances/{INSTANCE}"


@pytest.fixture(scope="session")
def data_client(emulator_environment):
    """The synchronous data client."""
    with BigtableDataClient(project=PROJECT) as client:
        yield client


def create_table(admin, table_id, families=("cf",), splits=()):
    """Creates a table; `families` is names, or a map of name to GcRule or ColumnFamily."""
    rules = families if isinstance(families, dict) else dict.fromkeys(families)
    column_families = {
        name: rule
        if isinstance(rule, admin_types.ColumnFamily)
        else admin_types.ColumnFamily(gc_rule=rule or admin_types.GcRule())
        for name, rule in rules.items()
    }
    return admin.create_table(
        request={
            "parent": f"projects/{PROJECT}/instances/{INSTANCE}",
            "table_id": table_id,
            "table": admin_types.Table(column_families=column_families),
            "initial_splits": [{"key": key} for key in splits],
        }
    )


@pytest.fixture
def new_table_id(request, admin):
    """A table id nobody uses yet, readable in a failure; dropped with the test if it exists."""
    made = []

    def make():
        stem = "".join(c if c.isalnum() else "-" for c in request.node.name)[:36].strip("-")
        made.append(f"{stem}-{next(_table_numbers)}")
        return made[-1]

    yield make
    for table_id in made:
        try:
            admin.delete_table(name=f"projects/{PROJECT}/instances/{INSTANCE}/tables/{table_id}")
        except Exception:  # noqa: BLE001 - the test dropped it, or never created it
            pass


@pytest.fixture
def new_table(admin, data_client, new_table_id):
    """Creates a table for the test and returns the data client's handle on it."""

    def make(families=("cf",), splits=()):
        table_id = new_table_id()
        create_table(admin, table_id, families, splits)
        return data_client.get_table(INSTANCE, table_id)

    return make


@pytest.fixture
def table(new_table):
    """A table with the one family `cf`, which keeps every version."""
    return new_table()
