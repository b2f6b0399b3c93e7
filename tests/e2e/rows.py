"""Rows as plain values, so that expectations read as tables."""

from google.cloud.bigtable.data.mutations import SetCell


def cells(row):
    """[(family, qualifier, timestamp in µs, value)] in the order the server sent them."""
    return [(c.family, c.qualifier.decode(), c.timestamp_micros, c.value) for c in row] if row else []


def values(row):
    """{"family:qualifier": newest value} of a row."""
    newest = {}
    for family, qualifier, _, value in cells(row):
        newest.setdefault(f"{family}:{qualifier}", value)
    return newest


def keys(rows):
    """The rows' keys, in order."""
    return [row.row_key for row in rows]


def put(table, key, *columns, family="cf"):
    """Writes (qualifier, value) or (qualifier, value, timestamp in µs) columns as one mutation."""
    mutations = [SetCell(family, column[0], column[1], *column[2:]) for column in columns]
    table.mutate_row(key, mutations)
