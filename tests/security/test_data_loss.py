"""No call of the library reads, changes, drops or renames a table that was not registered as a collection."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import CollectionNotFound
from tests.security.calls import attempt_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.security.conftest import SharedDatabase

PATIENCE_S = 30.0
SIX = (
    "id text PRIMARY KEY, data jsonb NOT NULL, version bigint NOT NULL DEFAULT 1, "
    "replaced_version bigint NOT NULL DEFAULT 1, created_at timestamptz NOT NULL DEFAULT now(), "
    "updated_at timestamptz NOT NULL DEFAULT now()"
)
FOREIGN = {
    "a bigint id": (
        "CREATE TABLE {t} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text)",
        "INSERT INTO {t} (email) SELECT 'e' || n FROM generate_series(1, 5) n",
    ),
    "a uuid id": (
        "CREATE TABLE {t} (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), email text)",
        "INSERT INTO {t} (email) SELECT 'e' || n FROM generate_series(1, 5) n",
    ),
    "a text id": (
        "CREATE TABLE {t} (id text PRIMARY KEY, email text)",
        "INSERT INTO {t} SELECT n, 'e' || n FROM generate_series(1, 5) n",
    ),
    "an id and data": (
        "CREATE TABLE {t} (id text PRIMARY KEY, data jsonb)",
        """INSERT INTO {t} SELECT n, '{{"a": 1}}' FROM generate_series(1, 5) n""",
    ),
    "all columns of a collection": (
        f"CREATE TABLE {{t}} ({SIX})",
        """INSERT INTO {t} (id, data) SELECT n, '{{"a": 1}}' FROM generate_series(1, 5) n""",
    ),
    "all columns and before images": (
        f"CREATE TABLE {{t}} ({SIX}, more text)",
        "ALTER TABLE {t} REPLICA IDENTITY FULL",
        """INSERT INTO {t} (id, data) SELECT n, '{{"a": 1}}' FROM generate_series(1, 5) n""",
    ),
    "the form of a collection": (
        "CREATE TABLE {t} (LIKE docs.orders INCLUDING ALL)",
        """INSERT INTO {t} (id, data) SELECT n, '{{"a": 1}}' FROM generate_series(1, 5) n""",
    ),
    "partitions": (
        f"CREATE TABLE {{t}} ({SIX}) PARTITION BY HASH (id)",
        "CREATE TABLE {t}_1 PARTITION OF {t} FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        """INSERT INTO {t} (id, data) SELECT n, '{{"a": 1}}' FROM generate_series(1, 5) n""",
    ),
    "rows of another table, as its view": (
        f"CREATE TABLE {{t}}_1 ({SIX})",
        """INSERT INTO {t}_1 (id, data) SELECT n, '{{"a": 1}}' FROM generate_series(1, 5) n""",
        "CREATE VIEW {t} AS SELECT * FROM {t}_1",
    ),
}
_SHAPE = """
SELECT c.oid, relkind, relreplident, array(SELECT indexrelid FROM pg_index WHERE indrelid = c.oid ORDER BY 1),
  array(SELECT tgname FROM pg_trigger WHERE tgrelid = c.oid ORDER BY 1),
  array(SELECT prpubid FROM pg_publication_rel WHERE prrelid = c.oid)
FROM pg_class c WHERE c.oid = to_regclass(%s)
"""


def what_it_is(connection: psycopg.Connection[Any], table: str, rows: str) -> list[Any]:
    """Return the definition of a table and every row with the transactions that wrote and locked it."""
    shape = connection.execute(_SHAPE, [table]).fetchall()
    return [
        shape,
        connection.execute(f"SELECT ctid::text, xmin, xmax, t.* FROM {rows} t ORDER BY 1".encode()).fetchall(),
    ]


@pytest.mark.parametrize("catalog", ["superuser"], indirect=True)
@pytest.mark.parametrize(
    ("is_async", "auto_create"),
    [(False, True), (False, False), (True, True)],
    ids=["sync", "without creating", "async"],
)
@pytest.mark.parametrize("schema", ["public", "docs"])
def test_every_call_on_a_foreign_table_is_refused_and_touches_nothing(
    db: SharedDatabase, schema: str, is_async: bool, auto_create: bool
) -> None:
    owner = db.connect("owner")
    for number, (form, statements) in enumerate(FOREIGN.items()):
        table = f"{schema}.users_{number}"
        for statement in statements:
            owner.execute(statement.format(t=table).encode())
        rows = f"{table}_1" if "view" in form else table
        before = what_it_is(owner, table, rows)
        name = f"users_{number}"
        accepted = attempt_all(db.dsn("owner"), name, schema=schema, is_async=is_async, auto_create=auto_create)
        assert what_it_is(owner, table, rows) == before, form
        assert not accepted, form + ":\n" + "\n".join(accepted)


def test_a_foreign_table_is_in_no_list(db: SharedDatabase) -> None:
    owner = db.connect("owner")
    for number, form in enumerate(FOREIGN):
        for statement in FOREIGN[form]:
            owner.execute(statement.format(t=f"docs.users_{number}").encode())
        assert db.store().collections() == ["orders"], form
        assert owner.execute("SELECT * FROM pgdoc.collections('docs')").fetchall() == [("orders",)], form


REPLACEMENTS: dict[str, tuple[str, ...]] = {
    "dropped and created": ("DROP TABLE docs.users", "CREATE TABLE docs.users (id text PRIMARY KEY, email text)"),
    "dropped and created with the form of a collection": (
        "DROP TABLE docs.users",
        "CREATE TABLE docs.users (LIKE docs.orders INCLUDING ALL)",
    ),
    "renamed away": (
        "ALTER TABLE docs.users RENAME TO people",
        "CREATE TABLE docs.users (LIKE docs.people INCLUDING ALL)",
    ),
    "moved away": (
        "ALTER TABLE docs.users SET SCHEMA public",
        "CREATE TABLE docs.users (LIKE public.users INCLUDING ALL)",
    ),
    "hidden by a schema that took its name": (
        "ALTER SCHEMA docs RENAME TO docs_before",
        "CREATE SCHEMA docs",
        "CREATE TABLE docs.users (LIKE docs_before.users INCLUDING ALL)",
    ),
}
CALLS: dict[str, Callable[[Any], Any]] = {
    "delete": lambda x: x.delete("1"),
    "delete_many": lambda x: x.delete_many({}),
    "insert": lambda x: x.insert("9", {}),
    "insert_many": lambda x: x.insert_many([("9", {})]),
    "update": lambda x: x.update("1", {"$set": {"a": 9}}),
    "replace": lambda x: x.replace("1", {}, upsert=True),
    "count": lambda x: x.count(),
    "find": lambda x: list(x.find({})),
}


def _fill(connection: psycopg.Connection[Any]) -> None:
    """Fill the table that took the collection's name."""
    columns = (
        "(id, data)"
        if connection.execute(
            "SELECT true FROM pg_attribute WHERE attrelid = 'docs.users'::regclass AND attname = 'data'"
        ).fetchone()
        else "(id, email)"
    )
    connection.execute(f"INSERT INTO docs.users {columns} SELECT n, '{{}}' FROM generate_series(1, 5) n".encode())


@pytest.mark.parametrize("how", REPLACEMENTS)
def test_a_table_that_took_the_name_of_a_collection_is_not_touched(db: SharedDatabase, how: str) -> None:
    """Also by a session that has used the collection before, and has prepared its statements."""
    owner, store = db.connect("owner"), db.store(pool_size=1)
    store["users"].insert("1", {"a": 1})
    for n in range(7):
        for name in ("count", "find", "delete", "update"):
            CALLS[name](store["users"])
        store["users"].insert(f"w{n}", {})
    for statement in REPLACEMENTS[how]:
        owner.execute(statement.encode())
    _fill(owner)
    before = what_it_is(owner, "docs.users", "docs.users")
    accepted = [name for name, call in CALLS.items() if not _refuses(call, store["users"])]
    for name, call in CALLS.items():
        with store.transaction() as tx:
            accepted += [] if _refuses(call, tx["users"]) else [f"{name} in a transaction"]
    assert what_it_is(owner, "docs.users", "docs.users") == before
    assert not accepted


@pytest.mark.parametrize("how", REPLACEMENTS)
def test_a_table_that_takes_the_name_inside_a_transaction_is_not_touched(db: SharedDatabase, how: str) -> None:
    store = db.store()
    store["users"].insert("1", {"a": 1})

    def swap_and_call(call: str) -> None:
        with store.transaction() as tx:
            for _ in range(7):
                tx["users"].count()
            for statement in REPLACEMENTS[how]:
                tx.connection.execute(statement.encode())
            _fill(tx.connection)
            CALLS[call](tx["users"])

    for call in CALLS:
        with pytest.raises(CollectionNotFound):
            swap_and_call(call)
        assert store["users"].get("1") is not None, call


def _refuses(call: Callable[[Any], Any], collection: Any) -> bool:
    try:
        call(collection)
    except CollectionNotFound:
        return True
    return False


def test_a_table_that_takes_the_name_while_a_write_waits_is_not_touched(db: SharedDatabase) -> None:
    """The write waits for the lock of the session that replaces the table, and must not go on with the new one."""
    store, swapping = db.store(), db.connect("owner", autocommit=False)
    store["users"].insert("1", {})
    for statement in REPLACEMENTS["renamed away"]:
        swapping.execute(statement.encode())
    _fill(swapping)
    with ThreadPoolExecutor() as threads:
        deleting = threads.submit(store["users"].delete_many, {})
        _wait_for_lock(db)
        swapping.commit()
        with contextlib.suppress(CollectionNotFound):
            deleting.result()
    assert swapping.execute("SELECT count(*) FROM docs.users").fetchone() == (5,)
    swapping.rollback()


def _wait_for_lock(db: SharedDatabase) -> None:
    superuser, deadline = db.connect("superuser"), time.monotonic() + PATIENCE_S
    waiting = "SELECT true FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while superuser.execute(waiting).fetchone() is None:
        assert time.monotonic() < deadline


def test_a_table_becomes_a_collection_when_its_owner_registers_it_and_no_longer_when_unregistered(
    db: SharedDatabase,
) -> None:
    owner, store = db.connect("owner"), db.store()
    owner.execute(f"CREATE TABLE docs.users ({SIX}, more text)".encode())
    owner.execute("INSERT INTO docs.users (id, data) VALUES ('1', '{}')")
    with pytest.raises(CollectionNotFound):
        store["users"].count()
    owner.execute("SELECT pgdoc.register('docs.users')")
    assert store.collections() == ["orders", "users"]
    assert store["users"].count() == 1
    store["users"].update("1", {"$set": {"a": 1}})
    owner.execute("SELECT pgdoc.unregister('docs.users')")
    assert store.collections() == ["orders"]
    accepted = attempt_all(db.dsn(), "users", schema="docs", is_async=False)
    assert not accepted, "\n".join(accepted)
    assert owner.execute("SELECT id, data FROM docs.users").fetchall() == [("1", {"a": 1})]


@pytest.mark.parametrize("role", ["writer", "reader", "creator", "stranger"])
def test_nobody_but_the_owner_registers_or_unregisters_a_table(db: SharedDatabase, role: str) -> None:
    owner = db.connect("owner")
    owner.execute(f"CREATE TABLE docs.users ({SIX})".encode())
    other = db.connect(role)
    for call in ("pgdoc.register('docs.users')", "pgdoc.unregister('docs.orders')", "pgdoc.rebind()"):
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable)):
            other.execute(f"SELECT {call}".encode())
    assert owner.execute("SELECT * FROM pgdoc.collections('docs')").fetchall() == [("orders",)]


UNFIT: dict[str, tuple[str, ...]] = {
    "a column is missing": ("CREATE TABLE docs.bad (id text PRIMARY KEY, data jsonb NOT NULL)",),
    "an integer id": (f"CREATE TABLE docs.bad ({SIX.replace('id text', 'id bigint')})",),
    "a json document": (f"CREATE TABLE docs.bad ({SIX.replace('jsonb', 'json')})",),
    "no key": (f"CREATE TABLE docs.bad ({SIX.replace(' PRIMARY KEY', '')})",),
    "a view": ("CREATE VIEW docs.bad AS SELECT * FROM docs.orders",),
    "unlogged": (f"CREATE UNLOGGED TABLE docs.bad ({SIX})",),
    "a temporary table": (f"CREATE TEMPORARY TABLE bad ({SIX})",),
}


def test_a_table_of_another_form_is_not_registered(db: SharedDatabase) -> None:
    owner, store = db.connect("owner"), db.store(auto_create=False)
    for form, statements in UNFIT.items():
        for statement in statements:
            owner.execute(statement.encode())
        name = "bad" if "temporary" in form else "docs.bad"
        with pytest.raises(psycopg.Error) as raised:
            owner.execute("SELECT pgdoc.register(%s)", [name])
        assert raised.value.sqlstate != psycopg.errors.UndefinedFunction.sqlstate, form
        assert owner.execute("SELECT * FROM pgdoc.collections('docs')").fetchall() == [("orders",)], form
        with pytest.raises(CollectionNotFound):
            store["bad"].count()
        owner.execute(f"DROP {'VIEW' if 'view' in form else 'TABLE'} {name}".encode())


BAD_ROWS = {
    "an array": "('1', '[]')",
    "a JSON null": "('1', 'null')",
    "no document": "('1', NULL)",
    "an _id": """('1', '{"_id": 1}')""",
    "an empty id": "('', '{}')",
    "a long id": "(repeat('x', 1025), '{}')",
}


def test_a_collection_has_no_row_that_streams_can_not_read(db: SharedDatabase) -> None:
    """Registration checks the rows of a table, or makes the table check them."""
    owner = db.connect("owner")
    columns = SIX.replace("data jsonb NOT NULL", "data jsonb")
    for what, row in BAD_ROWS.items():
        insert = f"INSERT INTO docs.TABLE (id, data) VALUES {row}"
        owner.execute(f"CREATE TABLE docs.before ({columns}); CREATE TABLE docs.after ({columns})".encode())
        owner.execute(insert.replace("TABLE", "before").encode())
        with pytest.raises(psycopg.Error) as raised:
            owner.execute("SELECT pgdoc.register('docs.before')")
        assert raised.value.sqlstate != psycopg.errors.UndefinedFunction.sqlstate, what
        with pytest.raises(psycopg.errors.IntegrityError):  # or the registration says what the table lacks
            _register_and_insert(owner, insert.replace("TABLE", "after"))
        owner.execute("DROP TABLE docs.before, docs.after")


def _register_and_insert(owner: psycopg.Connection[Any], insert: str) -> None:
    try:
        owner.execute("SELECT pgdoc.register('docs.after')")
    except psycopg.errors.WrongObjectType as exc:
        raise psycopg.errors.IntegrityError(str(exc)) from exc
    owner.execute(insert.encode())
