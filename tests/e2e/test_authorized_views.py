"""Authorized views: made by Google's admin client, read and written through by its data clients."""

import pytest
from google.api_core import exceptions
from google.cloud.bigtable.data import DeleteAllFromFamily, DeleteAllFromRow, ReadRowsQuery, RowMutationEntry, SetCell
from google.cloud.bigtable.data.exceptions import MutationsExceptionGroup
from google.cloud.bigtable.data.read_modify_write_rules import IncrementRule
from google.cloud.bigtable.data.row_filters import CellsRowLimitFilter, ColumnQualifierRegexFilter
from google.cloud.bigtable_admin_v2 import types
from google.iam.v1 import policy_pb2
from google.protobuf import field_mask_pb2

from conftest import INSTANCE
from rows import keys, put

pytestmark = pytest.mark.hayloft_only("the emulator has no authorized views")

Shown = types.AuthorizedView.ResponseView
SUBSET = {
    "row_prefixes": [b"open"],
    "family_subsets": {"cf": {"qualifiers": [b"name"], "qualifier_prefixes": [b"pub-"]}},
}


def create(admin, table, view_id="view", subset=SUBSET, **fields):
    """CreateAuthorizedView, to its end."""
    view = types.AuthorizedView(subset_view=subset, **fields)
    request = {"parent": table.table_name, "authorized_view_id": view_id, "authorized_view": view}
    return admin.create_authorized_view(request=request).result(timeout=10)


@pytest.fixture
def table(new_table):
    """A table with rows in and out of the view, each with columns in and out of it."""
    made = new_table(["cf", "other"])
    for row in ("open-1", "open-2", "shut"):
        put(made, row, ("name", b"n"), ("pub-1", b"p"), ("secret", b"s"))
        put(made, row, ("name", b"o"), family="other")
    return made


@pytest.fixture
def view(admin, data_client, table):
    """The data client's handle on the view."""
    create(admin, table)
    return data_client.get_authorized_view(INSTANCE, table.table_id, "view")


# --- the admin's side


def test_a_created_view_is_got_and_listed_as_much_as_asked(admin, table):
    created = create(admin, table)
    assert created.name == f"{table.table_name}/authorizedViews/view" and created.etag
    for shown, etag, subset in [(0, True, False), (Shown.NAME_ONLY, False, False), (Shown.FULL, True, True)]:
        got = admin.get_authorized_view(request={"name": created.name, "view": shown})
        assert (bool(got.etag), "subset_view" in got) == (etag, subset)
    create(admin, table, "another")
    listed = admin.list_authorized_views(request={"parent": table.table_name, "page_size": 1})
    assert [found.name.rsplit("/", 1)[1] for found in listed] == ["another", "view"]
    with pytest.raises(exceptions.AlreadyExists):
        create(admin, table)


@pytest.mark.parametrize(
    ("view_id", "subset", "outcome", "message"),
    [
        ("has space", SUBSET, exceptions.InvalidArgument, "authorized_view_id: "),
        ("x" * 51, SUBSET, exceptions.InvalidArgument, "authorized_view_id: 51 characters, at most 50"),
        ("view", None, exceptions.InvalidArgument, "subset_view: is missing"),
        ("view", {"family_subsets": {"ghost": {}}}, exceptions.NotFound, "ghost"),
        ("view", {"row_prefixes": [b"x" * 4097]}, exceptions.InvalidArgument, r"row_prefixes\[0\]: 4097 bytes, at most"),
    ],
    ids=lambda value: value[:9] if isinstance(value, str) else "",
)
def test_a_malformed_view_is_refused_by_field(admin, table, view_id, subset, outcome, message):
    with pytest.raises(outcome, match=message):
        create(admin, table, view_id, subset)


def test_a_view_is_updated_under_its_etag(admin, table):
    created = create(admin, table)
    mask = field_mask_pb2.FieldMask(paths=["subset_view.row_prefixes"])
    change = types.AuthorizedView(name=created.name, etag=created.etag, subset_view={"row_prefixes": [b"shut"]})
    changed = admin.update_authorized_view(authorized_view=change, update_mask=mask).result(timeout=10)
    assert list(changed.subset_view.row_prefixes) == [b"shut"] and "cf" in changed.subset_view.family_subsets
    with pytest.raises(exceptions.Aborted):
        admin.update_authorized_view(authorized_view=change, update_mask=mask)
    with pytest.raises(exceptions.Aborted):
        admin.delete_authorized_view(request={"name": created.name, "etag": created.etag})
    admin.delete_authorized_view(request={"name": created.name, "etag": changed.etag})
    with pytest.raises(exceptions.NotFound):
        admin.get_authorized_view(name=created.name)


def test_a_protected_view_keeps_its_table(admin, table):
    created = create(admin, table, deletion_protection=True)
    for call in (admin.delete_authorized_view, admin.delete_table):
        with pytest.raises(exceptions.FailedPrecondition, match="deletion_protection"):
            call(name=created.name if call == admin.delete_authorized_view else table.table_name)
    mask = field_mask_pb2.FieldMask(paths=["deletion_protection"])
    admin.update_authorized_view(authorized_view={"name": created.name}, update_mask=mask)


def test_a_view_has_a_policy_of_its_own(admin, table):
    created = create(admin, table)
    policy = policy_pb2.Policy(bindings=[policy_pb2.Binding(role="roles/bigtable.reader", members=["allUsers"])])
    made = admin.set_iam_policy(request={"resource": created.name, "policy": policy})
    assert admin.get_iam_policy(resource=created.name) == made
    assert not admin.get_iam_policy(resource=table.table_name).bindings
    admin.delete_authorized_view(name=created.name)
    create(admin, table)
    assert not admin.get_iam_policy(resource=created.name).bindings


# --- through the view


def test_a_read_sees_the_view_and_nothing_else(view):
    rows = view.read_rows(ReadRowsQuery())
    assert keys(rows) == [b"open-1", b"open-2"]
    assert [(cell.family, cell.qualifier) for cell in rows[0]] == [("cf", b"name"), ("cf", b"pub-1")]
    assert view.read_row("shut") is None
    assert view.read_row("open-1", row_filter=ColumnQualifierRegexFilter(b"secret")) is None
    limited = view.read_rows(ReadRowsQuery(row_filter=CellsRowLimitFilter(1)))
    assert [[cell.qualifier for cell in row] for row in limited] == [[b"name"], [b"name"]]
    assert view.row_exists("open-2") and not view.row_exists("shut")
    assert view.sample_row_keys()[-1][0] == b""


def test_a_write_beyond_the_view_is_refused(view, table):
    view.mutate_row("open-1", SetCell("cf", "pub-2", b"new"))
    for row, mutation in [
        ("shut", SetCell("cf", "name", b"no")),
        ("open-1", SetCell("cf", "secret", b"no")),
        ("open-1", SetCell("other", "name", b"no")),
        ("open-1", DeleteAllFromFamily("cf")),
        ("open-1", DeleteAllFromRow()),
    ]:
        with pytest.raises(exceptions.PermissionDenied):
            view.mutate_row(row, mutation)
    with pytest.raises(MutationsExceptionGroup) as caught:
        change = SetCell("cf", "name", b"bulk")
        view.bulk_mutate_rows([RowMutationEntry(row, change) for row in ("open-1", "shut")])
    [failed] = caught.value.exceptions
    assert failed.index == 1 and isinstance(failed.__cause__, exceptions.PermissionDenied)
    assert [cell.value for cell in table.read_row("shut").get_cells("cf", "name")] == [b"n"]


def test_a_transaction_stays_within_the_view(view):
    change = SetCell("cf", "name", b"changed")
    assert not view.check_and_mutate_row("open-1", ColumnQualifierRegexFilter(b"secret"), false_case_mutations=change)
    assert view.read_row("open-1").get_cells("cf", "name")[0].value == b"changed"
    with pytest.raises(exceptions.PermissionDenied):
        view.check_and_mutate_row("open-1", None, true_case_mutations=SetCell("cf", "secret", b"no"))
    assert view.read_modify_write_row("open-1", IncrementRule("cf", "pub-n", 2))
    with pytest.raises(exceptions.PermissionDenied):
        view.read_modify_write_row("open-1", IncrementRule("cf", "secret", 2))


def test_what_is_no_view_is_not_found(data_client, table):
    with pytest.raises(exceptions.NotFound, match="Authorized view not found"):
        data_client.get_authorized_view(INSTANCE, table.table_id, "nonesuch").read_rows(ReadRowsQuery())
