"""Random requests for rows, and what two servers make of them.

Requests are valid and come from a seed. What the emulator is known to do
wrong is in `KNOWN_FAULTS`, and the generator stays clear of it; any other
difference is a finding.
"""

import base64
import dataclasses
import random

from google.api_core import exceptions
from google.cloud.bigtable_v2 import types
from google.protobuf.json_format import MessageToJson

FAMILIES = ("a", "b")
QUALIFIERS = (b"", b"q", b"q1", b"qq", b"x\n\xff", b"x.y")
KEYS = (b"barn", b"barn\x00", b"barn#1", b"barn#2", b"byre", b"coop\xff", b"\x00", b"\xff\xff")
VALUES = (b"", b"0", b"old", b"older", b"\x00\xff", b"a\nb", b"x" * 30, bytes(7) + b"\x05")
REGEXES = (b"", b".*", rb"\C*", b"b.*", b"barn", b"q|qq", b"[a-p]+", b"old.*", b"x\xff", rb"x\.y", b"(?i)OLD", b"barn#[12]")

# The emulator reads backward only for clients that say they can take it.
_FLAGS = types.FeatureFlags.serialize(types.FeatureFlags(reverse_scans=True))
_FEATURES = [("bigtable-features", base64.urlsafe_b64encode(_FLAGS).decode())]

KNOWN_FAULTS = {
    "families": "a row's families come in the order of their creation; any order is allowed, so they are sorted here",
    "limit and offset": "cells are counted a family at a time: these filters are generated behind a family filter only",
    "checks": "a filter behind one that lets nothing through is not checked: the one refusal that this generator could"
    " make, an empty regex for row keys, is not generated",
    "sink and bitmask": "both are silently ignored: not generated",
}


@dataclasses.dataclass
class Server:
    """A data client and the table it is about."""

    client: object
    table: str

    def outcome(self, rpc, request):
        """What the request gives, as plain values; a refusal as the name of its code."""
        try:
            call = getattr(self.client, rpc)
            answer = call({**request, "table_name": self.table}, retry=None, timeout=20, metadata=_FEATURES)
            return _ANSWERS[rpc](answer)
        except exceptions.GoogleAPICallError as error:
            return error.grpc_status_code.name


def requests(seed, count):
    """`count` pairs of an RPC's name and its request; the table is not in it."""
    source = random.Random(seed)
    for _ in range(count):
        makers = (_read_rows, _mutate_row, _mutate_rows, _check_and_mutate)
        if source.random() < 0.05:
            yield from _counting(source)
        else:
            yield source.choices(makers, (8, 6, 2, 3))[0](source)


def described(rpc, request):
    """The request as text, for a failure's message."""
    message = _MESSAGES[rpc](**request)
    return f"{rpc} {MessageToJson(type(message).pb(message), indent=None)}"


def row_filter(source):
    """A random tree of filters; what changes cells comes last.

    Copies of a cell come in no order of their own, so an interleave that made
    copies with different values would leave it open which of them a limit keeps.
    """
    tree, last = _tree(source, 0), source.choice((None, None, None, "strip_value_transformer", "apply_label_transformer"))
    if not last:
        return tree
    change = {last: True if last == "strip_value_transformer" else "seen"}
    return {"chain": {"filters": [tree, change]}}


def _tree(source, depth):
    if depth < 3 and source.random() < 0.45:
        return source.choice((_chain, _interleave, _condition))(source, depth + 1)
    return source.choice(_LEAVES)(source)


def _chain(source, depth):
    return {"chain": {"filters": [_tree(source, depth) for _ in range(source.randint(2, 3))]}}


def _interleave(source, depth):
    return {"interleave": {"filters": [_tree(source, depth) for _ in range(source.randint(2, 3))]}}


def _condition(source, depth):
    parts = {"predicate_filter": _tree(source, depth), "true_filter": _tree(source, depth)}
    if source.random() < 0.6:
        parts["false_filter"] = _tree(source, depth)
    return {"condition": parts}


def _bounds(source, field, values):
    """Zero, one or two bounds, the lower one first."""
    low, high = sorted(source.sample(sorted(set(values)), 2))
    bounds = {}
    if source.random() < 0.7:
        bounds[f"start_{field}_{source.choice(('closed', 'open'))}"] = low
    if source.random() < 0.7:
        bounds[f"end_{field}_{source.choice(('closed', 'open'))}"] = high
    return bounds


def _of_a_family(source):
    kind = source.choice(("cells_per_row_limit_filter", "cells_per_row_offset_filter"))
    family = {"family_name_regex_filter": source.choice(FAMILIES)}
    return {"chain": {"filters": [family, {kind: source.randint(1, 3)}]}}


def _timestamps(source):
    start, end = sorted(source.sample(range(0, 6), 2))
    bounds = {"start_timestamp_micros": start * 1000}
    if source.random() < 0.7:
        bounds["end_timestamp_micros"] = end * 1000
    return bounds


_LEAVES = (
    lambda source: {"pass_all_filter": True},
    lambda source: {"block_all_filter": True},
    lambda source: {"row_key_regex_filter": source.choice(REGEXES[1:])},
    lambda source: {"family_name_regex_filter": source.choice(("a", "b", "[ab]", ".*", "c"))},
    lambda source: {"column_qualifier_regex_filter": source.choice(REGEXES)},
    lambda source: {"value_regex_filter": source.choice(REGEXES)},
    lambda source: {
        "column_range_filter": {"family_name": source.choice(FAMILIES), **_bounds(source, "qualifier", QUALIFIERS)}
    },
    lambda source: {"value_range_filter": _bounds(source, "value", VALUES)},
    lambda source: {"timestamp_range_filter": _timestamps(source)},
    lambda source: {"cells_per_column_limit_filter": source.randint(1, 3)},
    _of_a_family,
)


def _mutation(source):
    family, qualifier = source.choice(FAMILIES), source.choice(QUALIFIERS)
    kind = source.choices(("set", "column", "family", "row"), (20, 3, 1, 1))[0]
    if kind == "set":
        cell = {"family_name": family, "column_qualifier": qualifier, "value": source.choice(VALUES)}
        return {"set_cell": {**cell, "timestamp_micros": source.randint(0, 5) * 1000}}
    if kind == "column":
        column = {"family_name": family, "column_qualifier": qualifier}
        return {"delete_from_column": {**column, "time_range": source.choice(({}, _timestamps(source)))}}
    return {"delete_from_family": {"family_name": family}} if kind == "family" else {"delete_from_row": {}}


def _mutations(source):
    return [_mutation(source) for _ in range(source.randint(1, 4))]


def _mutate_row(source):
    return "mutate_row", {"row_key": source.choice(KEYS), "mutations": _mutations(source)}


def _mutate_rows(source):
    entries = [{"row_key": source.choice(KEYS), "mutations": _mutations(source)} for _ in range(source.randint(1, 4))]
    return "mutate_rows", {"entries": entries}


def _check_and_mutate(source):
    request = {"row_key": source.choice(KEYS), "true_mutations": _mutations(source)}
    if source.random() < 0.8:
        request["predicate_filter"] = row_filter(source)
    if source.random() < 0.5:
        request["false_mutations"] = _mutations(source)
    return "check_and_mutate_row", request


def _counting(source):
    """Increments and appends in a family of their own, which is then emptied: its timestamps are the servers'."""
    row_key, column = source.choice(KEYS), {"family_name": "counts", "column_qualifier": b"n"}
    mutation = {"delete_from_family": {"family_name": "counts"}}
    empty = ("mutate_row", {"row_key": row_key, "mutations": [mutation]})
    yield empty
    increments = [{**column, "increment_amount": source.choice((-1, 1, 2**62))} for _ in range(source.randint(1, 3))]
    append = {**column, "column_qualifier": b"text", "append_value": source.choice(VALUES)}
    for _ in range(2):
        yield "read_modify_write_row", {"row_key": row_key, "rules": [*increments, append]}
    yield empty


def _read_rows(source):
    request = {"rows": {}}
    if source.random() < 0.4:
        request["rows"]["row_keys"] = source.sample(KEYS, source.randint(1, 4))
    if source.random() < 0.5:
        ranges = [_bounds(source, "key", KEYS) for _ in range(source.randint(1, 2))]
        request["rows"]["row_ranges"] = ranges
    if source.random() < 0.8:
        request["filter"] = row_filter(source)
    if source.random() < 0.3:
        request["rows_limit"] = source.randint(1, 4)
    if source.random() < 0.2:
        request["reversed"] = True
    return "read_rows", request


def _cells_of(answers):
    """[(key, family, qualifier, timestamp, value, labels)], a row's families sorted."""
    rows, cells, key, family, qualifier, value = [], [], b"", "", b"", b""
    for answer in answers:
        for chunk in answer.chunks:
            key = chunk.row_key or key
            family = chunk.family_name if "family_name" in chunk else family
            qualifier = chunk.qualifier if "qualifier" in chunk else qualifier
            value += chunk.value
            if not chunk.value_size:
                cells.append((key, family, qualifier, chunk.timestamp_micros, value, tuple(chunk.labels)))
                value = b""
            if chunk.commit_row:
                rows.append(sorted(cells, key=lambda cell: cell[1]))
                cells = []
    return rows


def _codes_of(answers):
    statuses = [(entry.index, entry.status.code) for answer in answers for entry in answer.entries]
    return sorted(statuses)


def _values_of(answer):
    return [
        (family.name, column.qualifier, column.cells[0].value)
        for family in answer.row.families
        for column in family.columns
    ]


_ANSWERS = {
    "read_rows": _cells_of,
    "mutate_row": lambda answer: "written",
    "mutate_rows": _codes_of,
    "check_and_mutate_row": lambda answer: answer.predicate_matched,
    "read_modify_write_row": _values_of,
}
_MESSAGES = {
    "read_rows": types.ReadRowsRequest,
    "mutate_row": types.MutateRowRequest,
    "mutate_rows": types.MutateRowsRequest,
    "check_and_mutate_row": types.CheckAndMutateRowRequest,
    "read_modify_write_row": types.ReadModifyWriteRowRequest,
}
