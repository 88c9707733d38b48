"""Checks of documents: those that are too large for streams, and those that expire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg

from pgdoc.cli.doctor.commands import as_identifier, as_literal, for_shell
from pgdoc.cli.doctor.examination import render_seconds
from pgdoc.cli.doctor.finding import good, unseen, warn, wrong
from pgdoc.cli.render import render_backlog, render_bytes
from pgdoc.cli.stores import DEFAULT_SCHEMA
from pgdoc.database.expiry import read_backlog
from pgdoc.model.names import quoted
from pgdoc.model.sizes import DEFAULT_MAX_SIZE
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.cli.doctor.examination import Examination
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["check_expiry", "check_sizes"]

_MOST_NAMED: Final = 10
_MOST_SLOW: Final = 3
"""How many collections may take all the time that a statement has: a schema can have thousands."""

_LATE_S: Final = 600.0


def check_sizes(on: Examination) -> Iterator[Finding]:
    """Report the collections that limit nothing, and their documents that streams and snapshots may fail at."""
    slow = 0
    for (name,) in on.rows("unlimited", on.schema):
        where = f'collection "{on.schema}.{name}"'
        yield warn(
            "documents-unlimited",
            f"no limit on the size of documents in {where}, and a document that is too large ends its streams",
            f"{on.schema}.{name}",
            fix=[for_shell("pgdoc", "limit", name, "64MiB", *_option(on.schema))],
        )
        if slow == _MOST_SLOW:
            text = f"the documents of {where} were not looked at, because those of {slow} others took too long"
            yield unseen("documents-unseen", text, f"{on.schema}.{name}")
            continue
        try:
            found = _large(on, quoted(on.schema, name))
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
            slow += 1
            text = f"not all documents of {where} could be looked at within the time limit"
            yield unseen("documents-unseen", text, f"{on.schema}.{name}")
            continue
        except psycopg.errors.InsufficientPrivilege:
            yield _not_readable(on, name, where)
            continue
        for key, size in found[:_MOST_NAMED]:
            yield _large_document(on.schema, name, key, size)
        if len(found) > _MOST_NAMED:
            yield warn("document-large", f"{where} has more such documents", f"{on.schema}.{name}")


def _not_readable(on: Examination, name: str, where: str) -> Finding:
    return unseen(
        "documents-unseen",
        f"the role may not read {where} to look for large documents",
        f"{on.schema}.{name}",
        fix=[
            f"GRANT USAGE ON SCHEMA {as_identifier(on.schema)} TO {on.quoted_role}",
            f"GRANT SELECT ON {as_identifier(on.schema, name)} TO {on.quoted_role}",
        ],
    )


def _option(schema: str) -> list[str]:
    return [] if schema == DEFAULT_SCHEMA else ["--schema", schema]


def _large(on: Examination, table: str) -> list[Any]:
    query = statement("doctor", "larger").format(table=table).encode()
    with on.connection.transaction():
        return on.connection.execute(query, [DEFAULT_MAX_SIZE, DEFAULT_MAX_SIZE, _MOST_NAMED + 1]).fetchall()


def _large_document(schema: str, name: str, key: str, size: int | None) -> Finding:
    document = f'document {key!r} of collection "{schema}.{name}"'
    fix = [f"DELETE FROM {as_identifier(schema, name)} WHERE id = {as_literal(key)}"]
    if size is None:
        text = f"{document} has more JSON text than PostgreSQL can print: change it, or delete it, with SQL"
        return wrong("document-unprintable", text, key, fix=fix)
    text = f"{document} has {render_bytes(size)} of JSON text, and streams may fail at it: split it, or delete it"
    return warn("document-large", text, key, size, fix=fix)


def check_expiry(on: Examination) -> Iterator[Finding]:
    """Report documents that have expired long ago and are still there, and values that are no time."""
    run = [for_shell("pgdoc", "ttl", *_option(on.schema), "run", "--once")]
    indexes = on.rows_of("expiry", "expiring", on.schema)
    for oid, collection, index, obstacle in indexes:
        subject, name = f'index "{index}" of collection "{on.schema}.{collection}"', f"{on.schema}.{index}"
        if obstacle is not None:
            text = f"{subject}: stores of this role delete nothing that expires, and this check can't look: {obstacle}"
            yield warn("expiry-obstacle", text, name)
            continue
        backlog = read_backlog(on.connection, oid)
        if backlog.late_s is not None and backlog.late_s > _LATE_S:
            yield warn(
                "documents-expired",
                f"{subject}: {render_backlog(backlog.due)} documents have expired and are still there, the first of "
                f"them for {render_seconds(backlog.late_s)}: keep a store open whose role may delete them, or delete "
                "them now",
                name,
                backlog.due,
                fix=run,
            )
        if backlog.ignored:
            yield warn(
                "documents-without-time",
                f"{subject}: {render_backlog(backlog.ignored)} documents never expire: their values are no time with "
                "an offset",
                name,
                backlog.ignored,
            )
    if indexes:
        text = f"documents expire by {len(indexes)} {'index' if len(indexes) == 1 else 'indexes'}"
        yield good("expiry", text, value=len(indexes))
