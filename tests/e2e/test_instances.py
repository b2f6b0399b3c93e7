"""Instances, clusters, app profiles, policies and operations, by Google's admin clients, across kills."""

import itertools
import re
import time

import pytest
from google.api_core import exceptions
from google.cloud.bigtable import Client, enums
from google.cloud.bigtable.data import BigtableDataClient, ReadRowsQuery, RowMutationEntry, SetCell
from google.cloud.bigtable.data.read_modify_write_rules import IncrementRule
from google.cloud.bigtable.data.row_filters import ValueRegexFilter
from google.cloud.bigtable_admin_v2 import types
from google.iam.v1 import policy_pb2
from google.protobuf import field_mask_pb2
from google.type import expr_pb2

from conftest import INSTANCE, PROJECT, create_table, instance_admin, table_admin

pytestmark = pytest.mark.hayloft_only("the emulator serves no instances")

PARENT = f"projects/{PROJECT}"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def instances(bigtable_address):
    """The instance admin client."""
    client = instance_admin(bigtable_address)
    yield client
    client.transport.close()


@pytest.fixture(scope="module")
def legacy(emulator_environment):
    """The older client, with its admin side."""
    return Client(project=PROJECT, admin=True)


def cluster(zone="us-central1-b", **fields):
    """A cluster in `zone`, of one node unless told otherwise."""
    return types.Cluster(location=f"{PARENT}/locations/{zone}", **({"serve_nodes": 1} | fields))


def create(instances, instance_id, clusters=None, **fields):
    """CreateInstance, to its end."""
    request = {
        "parent": PARENT,
        "instance_id": instance_id,
        "instance": types.Instance(**({"display_name": "An instance"} | fields)),
        "clusters": clusters or {f"{instance_id}-c1": cluster()},
    }
    return instances.create_instance(request=request).result(timeout=10)


@pytest.fixture
def new_instance(instances):
    """Creates instances that are deleted with the test; gives their names."""
    made = []

    def make(clusters=None, **fields):
        made.append(create(instances, f"instance-{next(_numbers)}", clusters, **fields).name)
        return made[-1]

    yield make
    for name in made:
        try:
            instances.delete_instance(name=name)
        except exceptions.NotFound:
            pass


def mask(*paths):
    """A field mask."""
    return field_mask_pb2.FieldMask(paths=paths)


def routed(cluster_id=None, transactions=False, **fields):
    """An app profile to one cluster, or to any."""
    if cluster_id is None:
        return types.AppProfile(multi_cluster_routing_use_any={}, **fields)
    single = {"cluster_id": cluster_id, "allow_transactional_writes": transactions}
    return types.AppProfile(single_cluster_routing=single, **fields)


# --- instances


def test_a_created_instance_is_got_and_listed(instances, new_instance):
    name = new_instance(display_name="Barn", labels={"env": "test"}, edition=types.Instance.Edition.ENTERPRISE_PLUS)
    got = instances.get_instance(name=name)
    assert (got.display_name, dict(got.labels), got.state) == ("Barn", {"env": "test"}, types.Instance.State.READY)
    assert got.type_ == types.Instance.Type.PRODUCTION and got.edition == types.Instance.Edition.ENTERPRISE_PLUS
    assert got.create_time is not None
    listed = instances.list_instances(parent=PARENT)
    assert name in [instance.name for instance in listed.instances] and not listed.failed_locations


def test_the_operation_of_a_creation_tells_what_was_asked(instances, new_instance):
    request = types.CreateInstanceRequest(
        parent=PARENT,
        instance_id=f"instance-{next(_numbers)}",
        instance={"display_name": "Asked for"},
        clusters={"asked-for-c1": cluster()},
    )
    operation = instances.create_instance(request=request)
    assert operation.metadata.original_request == request
    assert operation.metadata.request_time <= operation.metadata.finish_time
    assert operation.result().name == f"{PARENT}/instances/{request.instance_id}"
    again = instances.transport.operations_client.get_operation(operation.operation.name)
    assert again == operation.operation and again.done
    instances.delete_instance(name=operation.result().name)


def test_a_second_instance_of_the_name_already_exists(instances, new_instance):
    name = new_instance()
    with pytest.raises(exceptions.AlreadyExists, match=name):
        create(instances, name.rsplit("/", 1)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parent": "barn"}, "parent: "),
        ({"instance_id": "Upper-case"}, "instance_id: "),
        ({"instance_id": "short"}, "instance_id: 5 characters, at least 6"),
        ({"instance_id": "x" * 34}, "instance_id: 34 characters, at most 33"),
        ({"instance": {"display_name": "abc"}}, "instance.display_name: 3 characters, at least 4"),
        ({"instance": {"display_name": "x" * 31}}, "instance.display_name: 31 characters, at most 30"),
        ({"instance": {"display_name": "Good", "labels": {"Bad": "x"}}}, r'instance.labels\["Bad"\]: '),
        ({"clusters": {}}, "clusters: is empty"),
        ({"clusters": {"c": cluster()}}, r'clusters\["c"\]: 1 characters, at least 6'),
        ({"clusters": {"a-cluster": types.Cluster(serve_nodes=1)}}, r'clusters\["a-cluster"\].location: '),
        ({"clusters": {"a-cluster": cluster(serve_nodes=-1)}}, r'clusters\["a-cluster"\].serve_nodes: -1'),
        ({"clusters": {"cluster-1": cluster(), "cluster-2": cluster()}}, "a zone has 1 cluster"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_instance_is_refused_by_field(instances, change, message):
    request = {
        "parent": PARENT,
        "instance_id": "never-created",
        "instance": {"display_name": "Never created"},
        "clusters": {"a-cluster": cluster()},
    }
    with pytest.raises(exceptions.InvalidArgument, match=message):
        instances.create_instance(request=request | change)


def test_updates_change_what_they_name(instances, new_instance):
    name = new_instance(labels={"env": "test"})
    update = types.Instance(name=name, display_name="Renamed", labels={"team": "hay"})
    operation = instances.partial_update_instance(instance=update, update_mask=mask("display_name"))
    assert operation.metadata.original_request.instance == update
    got = operation.result()
    assert (got.display_name, dict(got.labels)) == ("Renamed", {"env": "test"})
    got = instances.partial_update_instance(instance=update, update_mask=mask("labels")).result()
    assert dict(got.labels) == {"team": "hay"}
    got = instances.update_instance(request=types.Instance(name=name, display_name="Put whole"))
    assert (got.display_name, dict(got.labels)) == ("Put whole", {"team": "hay"})
    assert instances.get_instance(name=name) == got
    for paths in [(), ("name",), ("colour",)]:
        with pytest.raises(exceptions.InvalidArgument, match="update_mask: "):
            instances.partial_update_instance(instance=update, update_mask=mask(*paths))


def test_a_development_instance_grows_up_and_never_back(instances, new_instance):
    development, production = types.Instance.Type.DEVELOPMENT, types.Instance.Type.PRODUCTION
    name = new_instance(type_=development, clusters={"dev-c1": cluster(serve_nodes=0)})
    for type_, outcome in [(production, None), (development, exceptions.FailedPrecondition)]:
        update = {"instance": {"name": name, "type_": type_}, "update_mask": mask("type")}
        if outcome:
            with pytest.raises(outcome):
                instances.partial_update_instance(request=update)
        else:
            assert instances.partial_update_instance(request=update).result().type_ == type_


def test_a_deleted_instance_is_gone_with_its_tables(instances, admin, new_instance):
    name = new_instance()
    created = admin.create_table(parent=name, table_id="table", table={"column_families": {"cf": {}}})
    instances.delete_instance(name=name)
    for call in (
        lambda: instances.get_instance(name=name),
        lambda: instances.delete_instance(name=name),
        lambda: admin.get_table(name=created.name),
        lambda: list(admin.list_tables(parent=name)),
        lambda: admin.create_table(parent=name, table_id="table", table={}),
    ):
        with pytest.raises(exceptions.NotFound):
            call()
    assert name not in [instance.name for instance in instances.list_instances(parent=PARENT).instances]
    create(instances, name.rsplit("/", 1)[1])
    assert list(admin.list_tables(parent=name)) == []


def test_a_protected_table_keeps_its_instance(instances, admin, new_instance):
    name = new_instance()
    protected = {"column_families": {"cf": {}}, "deletion_protection": True}
    table = admin.create_table(parent=name, table_id="table", table=protected)
    with pytest.raises(exceptions.FailedPrecondition, match="deletion_protection"):
        instances.delete_instance(name=name)
    with pytest.raises(exceptions.FailedPrecondition, match="deletion_protection"):
        admin.modify_column_families(request={"name": table.name, "modifications": [{"id": "cf", "drop": True}]})
    admin.update_table(table={"name": table.name, "deletion_protection": False}, update_mask=mask("deletion_protection"))


# --- clusters


def test_clusters_come_and_go(instances, new_instance):
    name = new_instance()
    first = instances.list_clusters(parent=name).clusters[0]
    request = {"parent": name, "cluster_id": "second-cluster", "cluster": cluster("europe-west1-b", serve_nodes=3)}
    operation = instances.create_cluster(request=request)
    assert operation.metadata.original_request.cluster_id == "second-cluster"
    second = operation.result()
    assert (second.serve_nodes, second.state) == (3, types.Cluster.State.READY)
    assert second.default_storage_type == types.StorageType.SSD
    assert instances.get_cluster(name=second.name) == second
    assert {found.name for found in instances.list_clusters(parent=name).clusters} == {first.name, second.name}
    assert second in instances.list_clusters(parent=f"{PARENT}/instances/-").clusters
    with pytest.raises(exceptions.AlreadyExists):
        instances.create_cluster(request=request)
    instances.delete_cluster(name=second.name)
    with pytest.raises(exceptions.NotFound):
        instances.get_cluster(name=second.name)
    with pytest.raises(exceptions.FailedPrecondition, match="last cluster"):
        instances.delete_cluster(name=first.name)


def test_nodes_and_autoscaling_are_updated(instances, new_instance):
    name = instances.list_clusters(parent=new_instance()).clusters[0].name
    assert instances.update_cluster(request=types.Cluster(name=name, serve_nodes=5)).result().serve_nodes == 5
    scaling = {
        "autoscaling_limits": {"min_serve_nodes": 2, "max_serve_nodes": 8},
        "autoscaling_targets": {"cpu_utilization_percent": 50},
    }
    scaled = types.Cluster(name=name, cluster_config={"cluster_autoscaling_config": scaling})
    operation = instances.partial_update_cluster(cluster=scaled, update_mask=mask("cluster_config"))
    assert operation.metadata.original_request.cluster == scaled
    config = operation.result().cluster_config.cluster_autoscaling_config
    assert config.autoscaling_targets.storage_utilization_gib_per_node == 2560
    path = "cluster_config.cluster_autoscaling_config"
    manual = types.Cluster(name=name, serve_nodes=4)
    got = instances.partial_update_cluster(cluster=manual, update_mask=mask("serve_nodes", path)).result()
    assert (got.serve_nodes, "cluster_config" in got) == (4, False)
    for change, message in [
        (types.Cluster(name=name, serve_nodes=-2), "serve_nodes: -2, at least 1"),
        (types.Cluster(name=name, location=f"{PARENT}/locations/elsewhere"), "location: cannot be changed"),
    ]:
        with pytest.raises(exceptions.InvalidArgument, match=message):
            instances.update_cluster(request=change)


def test_a_tables_states_are_those_of_its_instances_clusters(instances, admin, new_instance):
    name = new_instance({"cluster-a": cluster("zone-a"), "cluster-b": cluster("zone-b")})
    table = admin.create_table(parent=name, table_id="table", table={})
    view = types.Table.View.REPLICATION_VIEW
    states = admin.get_table(request={"name": table.name, "view": view}).cluster_states
    assert set(states) == {"cluster-a", "cluster-b"}


# --- app profiles


def test_app_profiles_are_made_changed_and_removed(instances, new_instance):
    name = new_instance({"cluster-a": cluster("zone-a"), "cluster-b": cluster("zone-b")})
    made = instances.create_app_profile(parent=name, app_profile_id="one", app_profile=routed("cluster-a", True))
    assert made.etag and instances.get_app_profile(name=made.name) == made
    assert made.standard_isolation.priority == types.AppProfile.Priority.PRIORITY_HIGH
    with pytest.raises(exceptions.AlreadyExists):
        instances.create_app_profile(parent=name, app_profile_id="one", app_profile=routed())
    listed = instances.list_app_profiles(request={"parent": name, "page_size": 1})
    assert [profile.name.rsplit("/", 1)[1] for profile in listed] == ["default", "one"]

    described = types.AppProfile(name=made.name, description="described", etag=made.etag)
    changed = instances.update_app_profile(app_profile=described, update_mask=mask("description")).result()
    assert changed.description == "described" and changed.etag != made.etag
    with pytest.raises(exceptions.Aborted):
        instances.update_app_profile(app_profile=described, update_mask=mask("description"))

    anywhere = routed(name=made.name)
    request = {"app_profile": anywhere, "update_mask": mask("multi_cluster_routing_use_any")}
    with pytest.raises(exceptions.FailedPrecondition, match="ignore_warnings"):
        instances.update_app_profile(request=request)
    changed = instances.update_app_profile(request=request | {"ignore_warnings": True}).result()
    assert "multi_cluster_routing_use_any" in changed and changed.description == "described"

    instances.delete_app_profile(name=made.name, ignore_warnings=True)
    with pytest.raises(exceptions.NotFound):
        instances.get_app_profile(name=made.name)
    with pytest.raises(exceptions.FailedPrecondition, match="default"):
        instances.delete_app_profile(name=f"{name}/appProfiles/default", ignore_warnings=True)


@pytest.mark.parametrize(
    ("profile_id", "profile", "outcome"),
    [
        ("has space", routed(), exceptions.InvalidArgument),
        ("x" * 51, routed(), exceptions.InvalidArgument),
        ("unrouted", types.AppProfile(), exceptions.InvalidArgument),
        ("astray", routed("nonesuch"), exceptions.NotFound),
        ("wordy", routed(description="x" * 1025), exceptions.InvalidArgument),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_app_profile_is_refused(instances, new_instance, profile_id, profile, outcome):
    with pytest.raises(outcome, match="app_profile"):
        instances.create_app_profile(parent=new_instance(), app_profile_id=profile_id, app_profile=profile)


def test_requests_do_what_their_app_profile_allows(instances, admin, data_client, new_instance):
    name = new_instance({"cluster-a": cluster("zone-a"), "cluster-b": cluster("zone-b")})
    instances.create_app_profile(parent=name, app_profile_id="one", app_profile=routed("cluster-a", True))
    instances.create_app_profile(parent=name, app_profile_id="any", app_profile=routed())
    boost = routed("cluster-a", data_boost_isolation_read_only={"compute_billing_owner": "HOST_PAYS"})
    instances.create_app_profile(parent=name, app_profile_id="boost", app_profile=boost)
    admin.create_table(parent=name, table_id="table", table={"column_families": {"cf": {}}})
    instance_id = name.rsplit("/", 1)[1]

    def under(profile):
        return data_client.get_table(instance_id, "table", app_profile_id=profile)

    increment = IncrementRule("cf", "n", 1)
    under("one").read_modify_write_row("row", increment)
    under("any").mutate_row("row", SetCell("cf", "q", b"v"))
    with pytest.raises(exceptions.FailedPrecondition, match="Single-row transactions are not allowed"):
        under("any").read_modify_write_row("row", increment)
    assert under("boost").read_row("row") is not None
    with pytest.raises(exceptions.FailedPrecondition, match="Writes are not allowed"):
        under("boost").mutate_row("row", SetCell("cf", "q", b"v"))
    with pytest.raises(exceptions.NotFound, match="App profile not found"):
        under("nonesuch").read_row("row")
    with pytest.raises(exceptions.NotFound, match="App profile not found"):
        under("nonesuch").mutate_row("row", SetCell("cf", "q", b"v"))


# --- the older client


def test_the_older_client_manages_an_instance(legacy):
    instance = legacy.instance("older-client", instance_type=enums.Instance.Type.PRODUCTION, labels={"by": "older"})
    hdd = {"serve_nodes": 1, "default_storage_type": enums.StorageType.HDD}
    clusters = [instance.cluster(f"older-c{n}", location_id=f"zone-{n}", **hdd) for n in (1, 2)]
    instance.create(clusters=clusters).result(timeout=10)
    try:
        alike = legacy.instance("older-client")
        alike.reload()
        assert (alike.display_name, alike.labels) == ("older-client", {"by": "older"})
        alike.display_name = "Foo Bar Baz"
        alike.update().result(timeout=10)
        found, failed = alike.list_clusters()
        assert {cluster.cluster_id for cluster in found} == {"older-c1", "older-c2"} and not failed

        scaled = instance.cluster("older-c3", location_id="zone-3", min_serve_nodes=1, max_serve_nodes=8,
                                  cpu_utilization_percent=20, default_storage_type=enums.StorageType.HDD)  # fmt: skip
        scaled.create().result(timeout=10)
        scaled.min_serve_nodes = 2
        scaled.update().result(timeout=10)
        scaled.reload()
        assert (scaled.min_serve_nodes, scaled.max_serve_nodes, scaled.cpu_utilization_percent) == (2, 8, 20)
        scaled.disable_autoscaling(serve_nodes=3).result(timeout=10)
        scaled.reload()
        assert (scaled.serve_nodes, scaled.min_serve_nodes) == (3, 0)
        scaled.delete()
        assert not scaled.exists()

        profile = instance.app_profile("older_profile", routing_policy_type=enums.RoutingPolicyType.ANY,
                                       multi_cluster_ids=["older-c1", "older-c2"])  # fmt: skip
        profile.create(ignore_warnings=True)
        profile.multi_cluster_ids.pop()
        profile.update().result(timeout=10)
        profile.reload()
        assert profile.multi_cluster_ids == ["older-c1"]
        with pytest.raises(exceptions.FailedPrecondition, match="older_profile"):
            instance.cluster("older-c1").delete()
        profile.delete(ignore_warnings=True)
        assert not profile.exists()
    finally:
        instance.delete()
    assert not instance.exists()


# --- operations


def test_operations_are_listed_by_resource_filter_and_page(instances, new_instance):
    name = new_instance()
    client = instances.transport.operations_client
    for display_name in ("Once", "Twice", "Thrice"):
        update = {"name": name, "display_name": display_name + "!"}
        instances.partial_update_instance(instance=update, update_mask=mask("display_name"))
    listed = list(client.list_operations(f"operations/{name}", ""))
    assert len(listed) == 4 and all(operation.done for operation in listed)
    numbers = [int(re.search(r"\d+$", operation.name)[0]) for operation in listed]
    assert numbers == sorted(numbers, reverse=True)
    updates = list(client.list_operations(f"operations/{name}", "metadata.@type:UpdateInstanceMetadata AND done:true"))
    assert [operation.name for operation in updates] == [operation.name for operation in listed[:3]]
    with pytest.raises(exceptions.InvalidArgument, match="filter: "):
        list(client.list_operations(f"operations/{name}", "colour:red"))
    client.cancel_operation(listed[0].name)
    assert client.get_operation(listed[0].name) == listed[0]
    client.delete_operation(listed[0].name)
    for call in (client.get_operation, client.delete_operation, client.cancel_operation):
        with pytest.raises(exceptions.NotFound):
            call(listed[0].name)


# --- policies


def test_policies_are_kept_under_their_etags(instances, admin, new_instance):
    name = new_instance()
    table = admin.create_table(parent=name, table_id="table", table={}).name
    for client, resource in ((instances, name), (admin, table)):
        empty = client.get_iam_policy(resource=resource)
        assert not empty.bindings and empty.etag
        binding = policy_pb2.Binding(role="roles/bigtable.reader", members=["user:ada@example.com"])
        policy = policy_pb2.Policy(etag=empty.etag, bindings=[binding])
        made = client.set_iam_policy(request={"resource": resource, "policy": policy})
        assert list(made.bindings) == [binding] and made.etag != empty.etag
        assert client.get_iam_policy(resource=resource) == made
        with pytest.raises(exceptions.Aborted, match="etag"):
            client.set_iam_policy(request={"resource": resource, "policy": policy})
        for version, outcome in ((1, exceptions.InvalidArgument), (3, None)):
            condition = expr_pb2.Expr(title="always", expression="true")
            conditional = policy_pb2.Binding(role=binding.role, members=binding.members, condition=condition)
            request = {"resource": resource, "policy": policy_pb2.Policy(version=version, bindings=[conditional])}
            if outcome:
                with pytest.raises(outcome, match="policy.version"):
                    client.set_iam_policy(request=request)
            else:
                assert client.set_iam_policy(request=request).version == 3
        with pytest.raises(exceptions.InvalidArgument, match="requested_policy_version"):
            client.get_iam_policy(resource=resource)
        options = {"requested_policy_version": 3}
        assert client.get_iam_policy(request={"resource": resource, "options": options}).version == 3
        with pytest.raises(exceptions.InvalidArgument, match=r"policy.bindings\[0\].members\[0\]: "):
            wrong = policy_pb2.Policy(bindings=[policy_pb2.Binding(role="roles/x", members=["ada"])])
            client.set_iam_policy(request={"resource": resource, "policy": wrong})
    admin.delete_table(name=table)
    with pytest.raises(exceptions.NotFound):
        admin.get_iam_policy(resource=table)
    admin.create_table(parent=name, table_id="table", table={})
    assert not admin.get_iam_policy(resource=table).bindings


def test_every_permission_is_granted_on_what_is_there(instances, admin, new_instance):
    name = new_instance()
    table = admin.create_table(parent=name, table_id="table", table={}).name
    asked = ["bigtable.tables.readRows", "bigtable.tables.mutateRows"]
    assert list(admin.test_iam_permissions(resource=table, permissions=asked).permissions) == asked
    assert list(instances.test_iam_permissions(resource=name, permissions=asked).permissions) == asked
    assert not admin.test_iam_permissions(resource=f"{table}-not", permissions=asked).permissions
    with pytest.raises(exceptions.InvalidArgument, match=r"permissions\[0\]: "):
        instances.test_iam_permissions(resource=name, permissions=["bigtable.*"])


# --- kills


def test_instances_profiles_and_operations_survive_a_kill(new_server, monkeypatch):
    server = new_server().start()
    monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
    instances = instance_admin(server.bigtable)
    names = [create(instances, f"kept-instance-{n}", {f"kept-{n}-c1": cluster()}).name for n in (1, 2)]
    gone = create(instances, "gone-instance").name
    made = instances.create_app_profile(parent=names[0], app_profile_id="kept", app_profile=routed())
    change = {"name": made.name, "description": "changed"}
    operation = instances.update_app_profile(app_profile=change, update_mask=mask("description"))
    for name in names:
        table_admin(server.bigtable).create_table(parent=name, table_id="t", table={"column_families": {"cf": {}}})
        with BigtableDataClient(project=PROJECT) as client:
            client.get_table(name.rsplit("/", 1)[1], "t").mutate_row("row", SetCell("cf", "q", name.encode()))
    create_table(table_admin(server.bigtable), "implicit")
    instances.delete_instance(name=gone)
    policy = policy_pb2.Policy(bindings=[policy_pb2.Binding(role="roles/x", members=["allUsers"])])
    policy = instances.set_iam_policy(request={"resource": names[0], "policy": policy})
    before = instances.list_instances(parent=PARENT)
    assert len(before.instances) == 3

    server.kill()
    server.start()
    monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
    instances = instance_admin(server.bigtable)
    assert instances.list_instances(parent=PARENT) == before
    with pytest.raises(exceptions.NotFound):
        instances.get_instance(name=gone)
    assert instances.get_iam_policy(resource=names[0]) == policy
    assert instances.get_app_profile(name=made.name) == operation.result()
    assert instances.transport.operations_client.get_operation(operation.operation.name) == operation.operation
    with BigtableDataClient(project=PROJECT) as client:
        for name in names:
            row = client.get_table(name.rsplit("/", 1)[1], "t").read_row("row")
            assert [cell.value for cell in row] == [name.encode()]
        with pytest.raises(exceptions.NotFound, match="App profile not found"):
            client.get_table("kept-instance-2", "t", app_profile_id="kept").read_row("row")


# --- load


def test_hot_tablets_are_those_that_were_read(new_server, monkeypatch):
    server = new_server().start()
    monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.bigtable)
    instances, admin = instance_admin(server.bigtable), table_admin(server.bigtable)
    busy = create_table(admin, "busy", splits=[b"m"])
    create_table(admin, "idle")
    parent = instances.list_clusters(parent=f"{PARENT}/instances/{INSTANCE}").clusters[0].name
    hot, deadline = [], time.monotonic() + 30
    with BigtableDataClient(project=PROJECT) as client, client.get_table(INSTANCE, "busy") as table:
        table.bulk_mutate_rows([RowMutationEntry(f"row{n}", SetCell("cf", "q", b"v" * 100)) for n in range(5000)])
        while not hot and time.monotonic() < deadline:
            for _ in range(50):
                # Work for the server alone: all rows are looked at, and none is returned.
                assert not table.read_rows(ReadRowsQuery(row_filter=ValueRegexFilter(b"(.*x){3}")))
            hot = list(instances.list_hot_tablets(parent=parent))
    assert [(tablet.table_name, tablet.start_key, tablet.end_key) for tablet in hot] == [(busy.name, "m", "")]
    assert 1 <= hot[0].node_cpu_usage_percent <= 100 and hot[0].start_time < hot[0].end_time
    assert hot[0].name.startswith(f"{parent}/hotTablets/")
    for change, outcome in [
        ({"parent": f"{parent}-not"}, exceptions.NotFound),
        ({"parent": PARENT}, exceptions.InvalidArgument),
        ({"page_size": -1}, exceptions.InvalidArgument),
        ({"start_time": {"seconds": 1}}, exceptions.InvalidArgument),
        ({"start_time": hot[0].end_time, "end_time": hot[0].start_time}, exceptions.InvalidArgument),
    ]:
        with pytest.raises(outcome):
            list(instances.list_hot_tablets(request={"parent": parent} | change))
