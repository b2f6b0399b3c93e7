"""Google's generated table admin client: tables, families, row ranges, and what is refused."""

import pytest
from google.api_core import exceptions
from google.cloud.bigtable.data import ReadRowsQuery, RowMutationEntry, SetCell
from google.cloud.bigtable_admin_v2 import types

from conftest import create_table, instance_admin
from rows import keys, put

ONE_VERSION = types.GcRule(max_num_versions=1)


def modify(admin, table, *modifications):
    """ModifyColumnFamilies with plain dictionaries."""
    request = {"name": table.table_name, "modifications": list(modifications)}
    return admin.modify_column_families(request=request)


def families(admin, table):
    """The table's families as GetTable tells them."""
    return admin.get_table(request={"name": table.table_name, "view": types.Table.View.SCHEMA_VIEW}).column_families


# --- tables


def test_create_answers_the_table_with_its_families(admin, instance_name, new_table_id):
    table_id = new_table_id()
    created = create_table(admin, table_id, {"plain": None, "one": ONE_VERSION}, splits=[b"k"])
    assert created.name == f"{instance_name}/tables/{table_id}"
    got = admin.get_table(name=created.name)
    assert set(got.column_families) == {"plain", "one"}
    assert got.column_families["one"].gc_rule.max_num_versions == 1


@pytest.mark.hayloft_only("the emulator leaves it unspecified")
def test_a_table_keeps_time_in_milliseconds(admin, new_table):
    table = admin.get_table(name=new_table().table_name)
    assert table.granularity == types.Table.TimestampGranularity.MILLIS


def test_list_names_the_instances_own_tables_sorted(admin, instance_name, new_table_id):
    made = {create_table(admin, new_table_id()).name for _ in range(3)}
    listed = [table.name for table in admin.list_tables(parent=instance_name)]
    assert made <= set(listed)
    assert all(name.startswith(f"{instance_name}/tables/") for name in listed)
    assert list(admin.list_tables(parent="projects/other/instances/empty")) == []


@pytest.mark.hayloft_only("the emulator lists all in one page")
def test_list_pages(admin, instance_name, new_table_id):
    made = {create_table(admin, new_table_id()).name for _ in range(5)}
    pages = list(admin.list_tables(request={"parent": instance_name, "page_size": 2}).pages)
    assert all(len(page.tables) <= 2 for page in pages)
    assert made <= {table.name for page in pages for table in page.tables}


def test_a_second_table_of_the_name_already_exists(admin, new_table_id):
    table_id = new_table_id()
    create_table(admin, table_id)
    with pytest.raises(exceptions.AlreadyExists, match=table_id):
        create_table(admin, table_id)


def test_a_deleted_table_is_gone_and_its_name_free(admin, data_client, new_table):
    table = new_table()
    put(table, "row", ("q", b"v"))
    admin.delete_table(name=table.table_name)
    with pytest.raises(exceptions.NotFound):
        admin.get_table(name=table.table_name)
    with pytest.raises(exceptions.NotFound):
        admin.delete_table(name=table.table_name)
    create_table(admin, table.table_id)
    assert table.read_rows(ReadRowsQuery()) == []


@pytest.mark.hayloft_only("the emulator checks no name")
@pytest.mark.parametrize("table_id", ["", "has space", "a/b", "x" * 51, "ünïcode"], ids=repr)
def test_a_malformed_table_id_is_refused(admin, table_id):
    with pytest.raises(exceptions.InvalidArgument):
        create_table(admin, table_id)


@pytest.mark.hayloft_only("the emulator checks no name")
@pytest.mark.parametrize("family", ["", "has space", "a:b", "x" * 65], ids=repr)
def test_a_malformed_family_name_is_refused(admin, new_table_id, family):
    with pytest.raises(exceptions.InvalidArgument, match="(?i)famil"):
        create_table(admin, new_table_id(), [family])


# --- families


def test_families_are_modified_in_one_request(admin, new_table):
    table = new_table({"keep": None, "loosen": ONE_VERSION, "drop": None})
    modify(
        admin,
        table,
        {"id": "new", "create": {"gc_rule": {"max_num_versions": 7}}},
        {"id": "loosen", "update": {"gc_rule": {"max_num_versions": 9}}},
        {"id": "drop", "drop": True},
    )
    found = families(admin, table)
    assert set(found) == {"keep", "new", "loosen"}
    assert found["new"].gc_rule.max_num_versions == 7
    assert found["loosen"].gc_rule.max_num_versions == 9


@pytest.mark.hayloft_only("the emulator is not atomic")
def test_a_bad_modification_leaves_all_as_they_were(admin, new_table):
    table = new_table(["cf"])
    with pytest.raises(exceptions.NotFound, match="ghost"):
        modify(admin, table, {"id": "new", "create": {}}, {"id": "ghost", "drop": True})
    assert set(families(admin, table)) == {"cf"}


def test_a_family_created_twice_already_exists(admin, new_table):
    table = new_table(["cf"])
    with pytest.raises(exceptions.AlreadyExists, match="cf"):
        modify(admin, table, {"id": "cf", "create": {}})


def test_a_dropped_family_takes_its_cells(admin, new_table):
    table = new_table(["left", "right"])
    put(table, "both", ("q", b"v"), family="left")
    put(table, "both", ("q", b"v"), family="right")
    put(table, "only", ("q", b"v"), family="right")
    modify(admin, table, {"id": "right", "drop": True})
    assert keys(table.read_rows(ReadRowsQuery())) == [b"both"]
    modify(admin, table, {"id": "right", "create": {}})
    [row] = table.read_rows(ReadRowsQuery())
    assert [cell.family for cell in row] == ["left"]


def test_nested_gc_rules_come_back_as_given(admin, new_table):
    old = types.GcRule(max_age={"seconds": 3600})
    versions = types.GcRule(max_num_versions=2)
    nested = types.GcRule(union={"rules": [versions, {"intersection": {"rules": [old, versions]}}]})
    table = new_table({"cf": nested})
    assert families(admin, table)["cf"].gc_rule == nested


@pytest.mark.hayloft_only("in the emulator an intersection has no effect")
def test_an_intersection_hides_only_what_both_rules_name(admin, new_table):
    old = types.GcRule(max_age={"seconds": 3600})
    rule = types.GcRule(intersection={"rules": [old, types.GcRule(max_num_versions=1)]})
    table = new_table({"cf": rule})
    put(table, "row", ("q", b"second", 2000), ("q", b"first", 1000))
    assert [cell.value for cell in table.read_row("row")] == [b"second"]


@pytest.mark.hayloft_only("the emulator collects once a minute and hides nothing")
def test_an_age_rule_hides_old_cells(new_table):
    table = new_table({"cf": types.GcRule(max_age={"seconds": 3600})})
    put(table, "row", ("old", b"v", 1000), ("new", b"v"))
    assert [cell.qualifier for cell in table.read_row("row")] == [b"new"]


# --- row ranges


def test_drop_row_range_drops_a_prefix_across_tablets(admin, new_table):
    table = new_table(splits=[b"b2"])
    entries = [RowMutationEntry(key, SetCell("cf", "q", b"v")) for key in ("a", "b1", "b2", "b3", "c")]
    table.bulk_mutate_rows(entries)
    admin.drop_row_range(request={"name": table.table_name, "row_key_prefix": b"b"})
    assert keys(table.read_rows(ReadRowsQuery())) == [b"a", b"c"]


def test_drop_row_range_drops_everything(admin, new_table):
    table = new_table(splits=[b"m"])
    put(table, "a", ("q", b"v"))
    put(table, "z", ("q", b"v"))
    admin.drop_row_range(request={"name": table.table_name, "delete_all_data_from_table": True})
    assert table.read_rows(ReadRowsQuery()) == []
    put(table, "a", ("q", b"again"))
    assert keys(table.read_rows(ReadRowsQuery())) == [b"a"]


@pytest.mark.hayloft_only("the emulator answers UNKNOWN")
def test_drop_row_range_wants_a_target(admin, new_table):
    with pytest.raises(exceptions.InvalidArgument):
        admin.drop_row_range(request={"name": new_table().table_name})


# --- what is not there


@pytest.mark.hayloft_only("the emulator dies of it")
def test_what_is_absent_says_so_in_a_sentence(admin, instance_name):
    with pytest.raises(exceptions.MethodNotImplemented) as caught:
        list(admin.list_schema_bundles(parent=f"{instance_name}/tables/t"))
    assert len(caught.value.message.split()) >= 4


@pytest.mark.hayloft_only("the emulator serves no instances")
def test_an_instance_nobody_created_is_listed_once_it_has_a_table(bigtable_address, instance_name, new_table):
    new_table()
    listed = instance_admin(bigtable_address).list_instances(parent=instance_name.split("/instances/")[0])
    assert instance_name in [instance.name for instance in listed.instances]
