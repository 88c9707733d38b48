"""What a role that may only connect tries: each attack is one session that is left open."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.security.conftest import SharedDatabase

# Every text whose hash pgdoc has used as the key of an advisory lock, and those that it would use for these names.
LOCK_TEXTS = (
    "pgdoc migrate",
    "pgdoc hubs",
    "pgdoc history",
    "pgdoc docs",
    *(f"pgdoc docs.{name}" for name in ("orders", "users", "new", "newer")),
    *(f"pgdoc {what} {name}" for what in ("consumer", "checkpoint") for name in ("schema", "collection", "new")),
)
_KEYS = """
SELECT hashtextextended(text, 0) AS key, text FROM unnest({texts}::text[]) AS text
UNION ALL SELECT hashtext(text), text FROM unnest({texts}::text[]) AS text
UNION ALL SELECT hashtextextended('pgdoc indexes of ' || oid, 0), '' FROM pg_class WHERE relkind = 'r'
"""

COLLECTION_MESSAGES = tuple(
    '{"collection": {"event": "%s", "schema": "docs", "name": "%s"%s}}' % parts  # noqa: UP031 (braces of JSON)
    for parts in (
        ("drop", "orders", ""),
        ("drop", "orders", ', "left": []'),
        ("rename", "orders", ', "renamed_to": "gone", "left": []'),
        ("create", "forged", ""),
        ("create", "orders", ""),
        ("truncate", "orders", ""),
        ("invalidate", "orders", ""),
    )
)
MESSAGES: tuple[str | bytes, ...] = (
    *COLLECTION_MESSAGES,
    '{"metadata": {"user": "forged"}}',
    '{"collection": 7}',
    '{"collection": {"event": null, "schema": ["docs"]}}',
    "{",
    "",
    "[" * 5_000,
    b"\xff\xfe",
    b'{"metadata": \x00}',
)
PREFIXES = ("pgdoc", "pgdoc.flush", "pgdoc.snapshot", "pgdoc.registry", "other")

# A value of each type, to call functions with.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "text": ("'docs'", "'orders'", "'drop'", "''", "NULL"),
    "name": ("'docs'", "NULL"),
    "regclass": ("(SELECT oid FROM pg_class WHERE relname = 'orders')::regclass", "'pg_class'::regclass", "NULL"),
    "oid": ("(SELECT oid FROM pg_class WHERE relname = 'orders')", "0", "NULL"),
    "bool": ("true", "false"),
    "jsonb": ("'{}'", "'[1, {\"a\": null}]'", "NULL"),
    "int4": ("0", "-1", "NULL"),
    "int8": ("0", "9223372036854775807", "NULL"),
    "float8": ("'NaN'", "0"),
    "numeric": ("0", "'NaN'"),
    "pg_lsn": ("'0/0'", "'FFFFFFFF/FFFFFFFF'", "NULL"),
    "_text": ("'{orders}'", "'{}'", "NULL"),
    "interval": ("'0'", "NULL"),
    "timestamptz": ("now()",),
    "uuid": ("gen_random_uuid()",),
    "xid8": ("'0'",),
}
_FUNCTIONS = """
SELECT p.oid::regproc::text, p.prokind::text, array(
  SELECT t.typname::text FROM unnest(p.proargtypes) WITH ORDINALITY AS a(oid, n) JOIN pg_type t USING (oid) ORDER BY n)
FROM pg_proc p
WHERE p.pronamespace = 'pgdoc'::regnamespace AND has_function_privilege(p.oid, 'EXECUTE')
  AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
ORDER BY 1
"""
_MOST_CALLS = 60
MODES = (
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)


def take_advisory_locks(connection: psycopg.Connection[Any], waiting: psycopg.Connection[Any] | None) -> None:
    """Take every lock that is free, and wait for the first that is not in a session of its own."""
    keys = sql.SQL(_KEYS).format(texts=sql.Literal(list(LOCK_TEXTS)))
    connection.execute(sql.SQL("SELECT pg_try_advisory_lock(key) FROM ({}) AS keys").format(keys))
    if waiting is None:
        return
    query = sql.SQL("SELECT pg_advisory_lock(key) FROM ({}) AS keys WHERE text ~ 'consumer'").format(keys)
    waiting.pgconn.send_query(query.as_string(waiting).encode())  # does not wait for the answer


def forge_messages(connection: psycopg.Connection[Any]) -> None:
    """Send every message under every prefix, and what the functions of the catalog send."""
    for prefix, message, transactional in itertools.product(PREFIXES, MESSAGES, (True, False)):
        content = message.encode() if isinstance(message, str) else message
        connection.execute("SELECT pg_logical_emit_message(%s, %s, %b)", [transactional, prefix, content])
    for event in ("drop", "rename", "create", "invalidate"):
        with contextlib.suppress(psycopg.Error), connection.transaction():
            connection.execute("SELECT pgdoc.announce(%s, 'docs', 'orders', 'gone')", [event])


def call_every_function(connection: psycopg.Connection[Any], collect: list[str]) -> None:
    """Call each function of the catalog that the role may call, with values of every type; collect their names."""
    connection.execute("SET statement_timeout = '5s'")
    for name, kind, types in connection.execute(_FUNCTIONS).fetchall():
        values = [_ARGUMENTS.get(each, ("NULL",)) for each in types]
        for arguments in itertools.islice(itertools.product(*values), _MOST_CALLS):
            with contextlib.suppress(psycopg.Error):
                call = (
                    f"CALL {name}({', '.join(arguments)})" if kind == "p" else f"SELECT {name}({', '.join(arguments)})"
                )
                connection.execute(call.encode())
        collect.append(name)


def lock_what_it_may(connection: psycopg.Connection[Any], schema: str) -> dict[str, list[str]]:
    """Lock every table of a schema in every mode that is allowed, in an open transaction; return the modes."""
    granted: dict[str, list[str]] = {}
    connection.execute("SET lock_timeout = '2s'")
    tables = connection.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s) "
        "AND relkind IN ('r', 'v', 'p') ORDER BY 1",
        [schema],
    ).fetchall()
    for (table,) in tables:
        for mode in MODES:
            lock = sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.Identifier(schema, table), sql.SQL(mode))
            with contextlib.suppress(psycopg.Error), connection.transaction():
                connection.execute(lock)
                granted.setdefault(table, []).append(mode)
        for strength in ("KEY SHARE", "SHARE", "NO KEY UPDATE", "UPDATE"):
            rows = sql.SQL("SELECT * FROM {} FOR {}").format(sql.Identifier(schema, table), sql.SQL(strength))
            with contextlib.suppress(psycopg.Error), connection.transaction():
                connection.execute(rows)
                granted.setdefault(table, []).append(f"FOR {strength}")
    return granted


@contextlib.contextmanager
def everything(db: SharedDatabase, role: str, *, has_snapshot: bool = True) -> Iterator[None]:
    """Do all of this as a role, in sessions that stay open meanwhile.

    `has_snapshot`: one of the sessions waits inside a query. CREATE INDEX CONCURRENTLY waits for every such snapshot.
    """
    with contextlib.ExitStack() as stack:
        locking = stack.enter_context(psycopg.connect(db.dsn(role), autocommit=True))
        waiting = psycopg.connect(db.dsn(role), autocommit=True)
        stack.callback(waiting.close)
        take_advisory_locks(locking, waiting if has_snapshot else None)
        open_xid = stack.enter_context(psycopg.connect(db.dsn(role)))
        open_xid.execute("SELECT pg_current_xact_id()")
        forge_messages(open_xid)
        for schema in ("pgdoc", "docs"):
            lock_what_it_may(open_xid, schema)
        calling = stack.enter_context(psycopg.connect(db.dsn(role), autocommit=True))
        forge_messages(calling)
        call_every_function(calling, [])
        lookalike = stack.enter_context(
            psycopg.connect(db.dsn(role), autocommit=True, application_name="pgdoc consumer collection")
        )
        lookalike.execute("LISTEN pgdoc; NOTIFY pgdoc, 'drop'; CREATE TEMPORARY TABLE registry (oid oid, name text)")
        lookalike.execute("SELECT lo_from_bytea(0, 'x')")
        yield
