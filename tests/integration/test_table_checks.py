"""What `check_table`, `pgdoc tables` and `pgdoc doctor` say about tables is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import psycopg
import pytest
from psycopg import sql

import pgdoc
from pgdoc.cli.app import run_cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDERS = "CREATE TABLE public.orders (id bigint PRIMARY KEY, total numeric, payload jsonb)"
MANY_ROWS = 1000


@pytest.fixture
def admin(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(ORDERS)
        yield connection


@pytest.fixture
def store(dsn: str) -> Iterator[pgdoc.Store]:
    with pgdoc.Store(dsn) as store:
        yield store


def pgdoc_command(capsys: pytest.CaptureFixture[str], dsn: str, *arguments: str) -> tuple[int, str, str]:
    """Run a command, and return its exit code, and what it printed on stdout and stderr."""
    code = run_cli([*arguments, "--dsn", dsn])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def wal_of(connection: psycopg.Connection[Any], statement: str) -> int:
    """Run a statement, and return how many bytes of WAL it wrote."""
    ((before,),) = connection.execute("SELECT pg_current_wal_insert_lsn()").fetchall()
    connection.execute(statement.encode())
    return int(connection.execute("SELECT pg_current_wal_insert_lsn() - %s", [before]).fetchall()[0][0])


def test_a_check_foretells_what_is_done_and_does_nothing(store: pgdoc.Store, admin: psycopg.Connection[Any]) -> None:
    check = store.check_table("public.orders", document="payload")
    assert (check.refusals, check.is_watched, check.lock, check.holders) == ((), False, "ACCESS EXCLUSIVE", ())
    assert check.steps == (
        "ALTER TABLE ONLY public.orders REPLICA IDENTITY FULL",
        "ALTER PUBLICATION pgdoc ADD TABLE ONLY public.orders",
        "INSERT INTO pgdoc.registry: table public.orders, document payload",
    )
    assert store.tables() == []
    admin.execute("ALTER TABLE orders REPLICA IDENTITY FULL")
    check = store.check_table("public.orders")
    assert (check.lock, len(check.steps), check.wal_bytes_per_change) == ("SHARE ROW EXCLUSIVE", 2, 0)
    store.add_table("public.orders")
    check = store.check_table("public.orders")
    assert (check.is_watched, check.refusals, check.steps, check.lock) == (True, (), (), None)
    (refusal,) = store.check_table("public.orders", document="payload").refusals
    with pytest.raises(pgdoc.TableRefused) as caught:
        store.add_table("public.orders", document="payload")
    assert pgdoc.Refusal(caught.value.reason, caught.value.cure or "") == refusal


@pytest.mark.parametrize(("size", "storage"), [(300, "PLAIN"), (300, "EXTENDED"), (8000, "EXTERNAL")])
def test_the_cost_of_a_change_is_about_what_it_writes(
    store: pgdoc.Store, admin: psycopg.Connection[Any], size: int, storage: str
) -> None:
    """Also for values that are stored out of line. The test's server writes no full pages."""
    admin.execute("CREATE TABLE public.wide (id bigint PRIMARY KEY, n int, body text, rest text)")
    admin.execute(f"ALTER TABLE wide ALTER COLUMN body SET STORAGE {storage}".encode())
    body = f"left(repeat(md5(i::text), {size // 32 + 1}), {size})"
    admin.execute(f"INSERT INTO wide SELECT i, i, {body} FROM generate_series(1, {MANY_ROWS}) AS i".encode())
    assert store.check_table("public.wide").wal_bytes_per_change is None
    admin.execute("VACUUM ANALYZE wide")
    check = store.check_table("public.wide")
    assert check.wal_bytes_per_change is not None
    plain = wal_of(admin, "UPDATE wide SET n = n + 1")
    store.add_table("public.wide")
    full = wal_of(admin, "UPDATE wide SET n = n + 1")
    found = (full - plain) / MANY_ROWS
    assert 0.85 * found <= check.wal_bytes_per_change <= 1.15 * found
    admin.execute("SELECT pg_stat_force_next_flush()")
    assert store.check_table("public.wide").changes == 2 * MANY_ROWS


def test_a_role_that_may_not_read_a_column_is_told_no_cost(dsn: str, admin: psycopg.Connection[Any]) -> None:
    admin.execute("INSERT INTO orders SELECT i FROM generate_series(1, 100) AS i; ANALYZE orders")
    admin.execute("CREATE ROLE table_reader LOGIN; GRANT SELECT (id) ON orders TO table_reader")
    try:
        with pgdoc.Store(psycopg.conninfo.make_conninfo(dsn, user="table_reader")) as store:
            check = store.check_table("public.orders")
        assert (check.wal_bytes_per_change, len(check.refusals)) == (None, 1)
    finally:
        admin.execute("DROP OWNED BY table_reader; DROP ROLE table_reader")


@pytest.mark.parametrize(
    ("ddl", "note"),
    [
        ("ALTER TABLE orders ENABLE ROW LEVEL SECURITY", "row-level security"),
        ("CREATE TABLE later () INHERITS (orders)", "inherit from it"),
        ("ALTER TABLE orders ADD twice numeric GENERATED ALWAYS AS (total * 2) STORED", "generated columns"),
    ],
)
def test_a_note_says_what_events_lack(store: pgdoc.Store, admin: psycopg.Connection[Any], ddl: str, note: str) -> None:
    assert store.check_table("public.orders").notes == ()
    admin.execute(ddl.encode())
    (found,) = store.check_table("public.orders").notes
    assert note in found


@pytest.mark.parametrize("name", ['Order "lines"', "a.b.c", "O'Neill", "ö" * 31, "x: y", "select", "%s %(x)s", " "])
def test_a_table_may_have_any_name(store: pgdoc.Store, admin: psycopg.Connection[Any], name: str) -> None:
    table = sql.Identifier("My schema", name)
    admin.execute('CREATE SCHEMA "My schema"')
    admin.execute(sql.SQL('CREATE TABLE {} (id int PRIMARY KEY, "a: b" json)').format(table))
    label = f"My schema.{name}"
    with pytest.raises(pgdoc.TableRefused) as caught:
        store.add_table(label, document="x: y")
    assert caught.value.reason == 'it has no column "x: y" for the document'
    assert store.add_table(label, document="a: b")
    (found,) = store.tables()
    assert (found.name, found.document, found.columns) == (label, "a: b", {"id": "integer", "a: b": "json"})
    assert store.check_table(label, document="a: b").is_watched
    assert store.remove_table(label)


def test_a_transaction_of_ones_own_adds_a_table(store: pgdoc.Store, admin: psycopg.Connection[Any]) -> None:
    add = "SELECT pgdoc.add_table('public.orders')"
    with admin.transaction(force_rollback=True):
        admin.execute("INSERT INTO public.orders VALUES (1, 1)")
        admin.execute(add)
    assert store.tables() == []
    with store.transaction() as tx:
        tx.connection.execute("INSERT INTO public.orders VALUES (1, 1)")
        tx.connection.execute(add)
        tx.connection.execute("INSERT INTO public.orders VALUES (2, 2)")
    assert [table.name for table in store.tables()] == ["public.orders"]


def test_the_command_lists_adds_checks_and_removes(
    dsn: str, admin: psycopg.Connection[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        return pgdoc_command(capsys, dsn, "tables", *arguments)

    assert run("add", "public.orders", "--document", "payload") == (0, "Streams can watch public.orders now.\n", "")
    already = (0, "Streams could watch public.orders already.\n", "")
    assert run("add", "public.orders", "--document", "payload") == already
    assert run("list")[1].splitlines()[1].split() == ["public.orders", "id", "payload", "3"]
    listed = orjson.loads(run("list", "--json")[1])
    assert listed == {
        "name": "public.orders",
        "key": ["id"],
        "document": "payload",
        "columns": {"id": "bigint", "total": "numeric", "payload": "jsonb"},
        "since": listed["since"],
    }
    code, out, _ = run("check", "public.orders")
    assert (code, out.splitlines()[0].split()[0]) == (1, "refused")
    assert run("check", "public.orders", "--document", "payload") == (0, "watched it is watched already\n", "")
    assert orjson.loads(run("remove", "public.orders", "--json")[1]) == {"name": "public.orders", "removed": True}
    code, out, error = run("remove", "public.orders")
    assert (code, out) == (1, "")
    assert error.startswith("pgdoc: table public.orders is not watched")
    code, out, error = run("add", "public.nope")
    assert (code, out) == (1, "")
    assert error.startswith('pgdoc: table "public.nope" can\'t be watched: it does not exist')
    assert run("add", "nope")[0] == 1
    with psycopg.connect(dsn) as user:
        user.execute("INSERT INTO orders VALUES (1, 1)")
        found = orjson.loads(run("check", "public.orders", "--json")[1])
        assert [holder["pid"] for holder in found["holders"]] == [user.info.backend_pid]
        assert f"waits   for pid {user.info.backend_pid} of " in run("check", "public.orders")[1]
    del admin


def test_the_doctor_finds_what_is_wrong_with_a_watched_table(
    dsn: str, store: pgdoc.Store, admin: psycopg.Connection[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    admin.execute("CREATE SCHEMA docs; CREATE TABLE docs.plain (id int PRIMARY KEY)")
    store.add_table("public.orders", document="payload")
    store.add_table("docs.plain")
    code, out, _ = pgdoc_command(capsys, dsn, "doctor")
    assert "watched       2 tables are watched as they are\n" in out
    assert "is not a collection" not in out
    assert "wal2json would send NaN and infinities as null, so streams use pgoutput: public.orders (total)" in out
    admin.execute("ALTER EVENT TRIGGER pgdoc_alters DISABLE")
    admin.execute("ALTER TABLE orders REPLICA IDENTITY DEFAULT, ADD COLUMN note text, ENABLE ROW LEVEL SECURITY")
    admin.execute("ALTER PUBLICATION pgdoc DROP TABLE orders")
    code, out, _ = pgdoc_command(capsys, dsn, "doctor")
    assert code == 1
    add = f"add it again, as its owner\n{' ' * 21}run SELECT pgdoc.add_table('public.orders', 'payload')\n"
    orders = ' watched       table "public.orders"'
    for line in (
        f"wrong {orders} lacks REPLICA IDENTITY FULL, so its changes have no before images: {add}",
        f"wrong {orders} is not in the publication, so pgoutput does not see its changes: {add}",
        f"warn  {orders} has other columns than the registry says",
        f"warn  {orders} has row-level security",
        "warn   catalog       the event trigger pgdoc_alters is disabled",
    ):
        assert line in out
    store.add_table("public.orders", document="payload")
    assert "wrong  watched" not in pgdoc_command(capsys, dsn, "doctor")[1]
