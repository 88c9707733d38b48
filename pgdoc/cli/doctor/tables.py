"""Checks of the tables of a schema: collections, and what is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc.cli.doctor.commands import as_identifier, as_table_literal
from pgdoc.cli.doctor.finding import good, warn, wrong
from pgdoc.cli.stores import DEFAULT_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_tables"]


def check_tables(on: Examination) -> Iterator[Finding]:
    """Check the tables and indexes of the schema."""
    ((has_schema,),) = on.rows_of("catalog", "schema_exists", on.schema)
    if on.schema != DEFAULT_SCHEMA and not has_schema:
        yield warn("schema-missing", f'schema "{on.schema}" does not exist: check the name', on.schema)
        return
    tables = on.rows("tables", on.schema)
    for table in tables:
        yield from _table(on.schema, table)
    for index in on.rows("unfinished_indexes", on.schema):
        yield _unfinished(on.schema, index)
    collections = sum(table.is_collection for table in tables)
    yield good("collections", f'the schema "{on.schema}" has {collections} collections', on.schema, collections)


def _table(schema: str, table: Any) -> Iterator[Finding]:
    name = f"{schema}.{table.name}"
    register = [f"SELECT pgdoc.register({as_table_literal(schema, table.name)})"]
    if table.is_watched:
        return  # not as a collection; `watched` checks it
    if not table.is_collection:
        advice = table.fault or "register it as its owner to make it one"
        yield warn(
            "not-a-collection",
            f'table "{name}" is not a collection, and stores and streams ignore it: {advice}',
            name,
            fix=[] if table.fault else register,
        )
    elif table.fault:
        unregister = [register[0].replace("register", "unregister", 1)]
        text = f'collection "{name}" has lost its form: {table.fault}; or make it a plain table'
        yield wrong("collection-form", text, name, fix=unregister)
    elif not table.is_equipped:
        lacks = "its triggers" if table.is_full else "before images"
        text = f'collection "{name}" has lost {lacks}: register it again, as its owner'
        yield wrong("collection-equipment", text, name, lacks, fix=register)


def _unfinished(schema: str, index: Any) -> Finding:
    text = f'index "{index.name}" of "{index.collection}" is unfinished: no query uses it; create it again or drop it'
    name = f"{schema}.{index.name}"
    return warn("index-unfinished", text, name, fix=[f"DROP INDEX CONCURRENTLY {as_identifier(schema, index.name)}"])
