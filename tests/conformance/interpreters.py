"""Run filters and updates in both interpreters, PostgreSQL and Python."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pgdoc.errors import InvalidUpdate
from pgdoc.model.json_codec import decode, encode
from pgdoc.query import apply_update, compile_filter, compile_first, compile_update, matches

if TYPE_CHECKING:
    import psycopg

    from pgdoc.query import Compiled, Node, Update

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)


class Group(NamedTuple):
    """Documents, and filters with the ids that they find."""

    documents: dict[str, Any]
    cases: list[tuple[dict[str, Any], str]]


def found_in_python(node: Node, documents: dict[str, Any]) -> list[str]:
    return [name for name, data in documents.items() if matches(node, name, decode(encode(data)))]


def found_in_sql(connection: psycopg.Connection, node: Node, documents: dict[str, Any]) -> list[str]:
    compiled = compile_filter(node)
    rows = "unnest(%s::text[], %s::jsonb[]) WITH ORDINALITY AS row(id, data, place)"
    query = f"SELECT id FROM (SELECT * FROM {rows}) AS documents WHERE {compiled.text} ORDER BY place"
    texts = [encode(data).decode() for data in documents.values()]
    return [row[0] for row in connection.execute(query, [list(documents), texts, *compiled.params])]


def changed_in_python(update: Update, before: dict[str, Any], *, inserting: bool = False) -> Any:
    """Return the data after the update, or `None` if the update does not fit."""
    try:
        return apply_update(update, decode(encode(before)), now=MOMENT, inserting=inserting)
    except InvalidUpdate:
        return None


def changed_in_sql(
    connection: psycopg.Connection, update: Update, before: dict[str, Any], *, inserting: bool = False
) -> Any:
    """Return what `changed_in_python` does; replaces the transaction time with `MOMENT`."""
    try:
        changes = [compile_first(update)] if inserting else [compile_update(update, max_calls=n) for n in (0, 1_000)]
    except InvalidUpdate:
        return None
    found = [_changed(connection, change, before) for change in changes]
    assert len({text if text is None else encode(decode(text)) for text in found}) == 1  # a tree, and calls
    return None if found[0] is None else decode(found[0])


def _changed(connection: psycopg.Connection, change: Compiled, before: dict[str, Any]) -> str | None:
    query = (
        f"SELECT replace(({change.text})::text, pgdoc.transaction_time(), '{MOMENT:%Y-%m-%dT%H:%M:%S.%f}Z')"
        " FROM (SELECT %s::jsonb AS data) AS documents"
    )
    row = connection.execute(query, [*change.params, encode(before).decode()]).fetchone()
    assert row is not None
    text: str | None = row[0]
    return text
