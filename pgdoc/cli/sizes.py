"""Sizes of documents: how they are written on the command line, and what `pgdoc doctor` finds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import psycopg
import typer

from pgdoc.cli.render import render_bytes
from pgdoc.cli.stores import DEFAULT_SCHEMA
from pgdoc.model.names import quoted
from pgdoc.model.sizes import DEFAULT_MAX_SIZE, MOST
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["find_large_documents", "read_size"]

_UNITS: Final = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20}
_SIZE: Final = re.compile(r"(\d+)\s*([A-Za-z]*)")

_MOST_NAMED: Final = 10
_MOST_DIGITS: Final = 10
_LIMIT_S: Final = 10


def read_size(text: str) -> int | None:
    """Parse a number of bytes such as `64MiB`; `none` is no limit."""
    if text.lower() == "none":
        return None
    found = _SIZE.fullmatch(text.strip())
    factor = None if found is None else _UNITS.get(found[2].upper())
    size = 0 if found is None or factor is None or len(found[1]) > _MOST_DIGITS else int(found[1]) * factor
    if not 1 <= size <= MOST:
        raise typer.BadParameter(
            f"{text!r} is not a size from 1 to {MOST:,} bytes: use bytes, or KiB or MiB as in 64MiB, or none for no "
            "limit",
            param_hint="'SIZE'",
        )
    return size


def find_large_documents(connection: psycopg.Connection[Any], schema: str) -> Iterator[tuple[str, str]]:
    """Report the collections that limit nothing, and their documents that streams and snapshots may fail at."""
    unlimited = []
    for (name,) in connection.execute(statement("doctor", "unlimited").encode(), [schema, schema]).fetchall():
        unlimited.append(name)
        try:
            found = _large(connection, quoted(schema, name))
        except psycopg.errors.QueryCanceled:
            yield "warn", f'not all documents of collection "{schema}.{name}" could be looked at within {_LIMIT_S} s'
            continue
        except psycopg.errors.InsufficientPrivilege:
            yield "warn", f'the role may not read collection "{schema}.{name}" to look for large documents'
            continue
        for key, size in found[:_MOST_NAMED]:
            yield _describe(f'document {key!r} of collection "{schema}.{name}"', size)
        if len(found) > _MOST_NAMED:
            yield "warn", f'collection "{schema}.{name}" has more such documents'
    if unlimited:
        names = ", ".join(f'"{schema}.{name}"' for name in unlimited)
        option = "" if schema == DEFAULT_SCHEMA else f" --schema {schema}"
        yield (
            "warn",
            (
                f"no limit on the size of documents in {names}, and a document that is too large ends their streams: "
                f"set a limit with `pgdoc limit {unlimited[0]} 64MiB{option}`"
            ),
        )


def _large(connection: psycopg.Connection[Any], table: str) -> list[Any]:
    query = statement("doctor", "larger").format(table=table).encode()
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = '{_LIMIT_S}s'".encode())
        return connection.execute(query, [DEFAULT_MAX_SIZE, DEFAULT_MAX_SIZE, _MOST_NAMED + 1]).fetchall()


def _describe(document: str, size: int | None) -> tuple[str, str]:
    if size is None:
        return "wrong", f"{document} has more JSON text than PostgreSQL can print: change it, or delete it, with SQL"
    return "warn", f"{document} has {render_bytes(size)} of JSON text, and streams may fail at it: split it"
