"""Adds every table of schemas that other projects wrote, and prints which were refused, and why.

    python -m tests.real_schemas django pagila=pagila-schema.sql chinook=Chinook_PostgreSql.sql

`django` is the schema that the migrations of Django's own applications make. The others are SQL files for psql. Each
runs in a database of its own, on a private server, which PGDOC_TEST_SERVER selects as for tests. For each table that is
added, all of its rows are updated and deleted, in a transaction that is rolled back: REPLICA IDENTITY FULL must not be
in the way. At the end, all tables are removed, and must be as they were.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import sql

import pgdoc
from tests.fixtures.fix_server import NOT_DURABLE, local_server

if TYPE_CHECKING:
    from pgdoc.server import LocalServer

RELATIONS = """
SELECT n.nspname, c.relname, CASE c.relkind WHEN 'r' THEN CASE WHEN c.relispartition THEN 'partition' ELSE 'table' END
  WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
  ELSE 'foreign table' END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_'
  AND n.nspname NOT IN ('information_schema', 'pgdoc')
ORDER BY n.nspname, c.relname
"""
IDENTITIES = "SELECT oid::regclass::text, relreplident FROM pg_class WHERE relkind IN ('r', 'p') ORDER BY oid"
_CREATES_DATABASE = re.compile(r"^(DROP|CREATE) DATABASE .*?;$|^\\c .*$", re.MULTILINE)


class Outcome(NamedTuple):
    """What became of one relation: `refusal` is `None` if it was watched. Else its rows are not counted."""

    name: str
    kind: str
    rows: int
    refusal: str | None


def examine(dsn: str) -> list[Outcome]:
    """Add all tables of a database, write to them, and remove them.

    Raises:
        AssertionError: `check_table` and `add_table` differ, or a table is not as it was before.
    """
    with psycopg.connect(dsn, autocommit=True) as connection, pgdoc.Store(dsn) as store:
        before = connection.execute(IDENTITIES).fetchall()
        found = [_outcome(connection, store, *row) for row in connection.execute(RELATIONS).fetchall()]
        assert {table.name for table in store.tables()} == {each.name for each in found if each.refusal is None}
        for table in store.tables():
            _write(connection, table)
        for table in store.tables():
            assert store.remove_table(table.name)
        assert connection.execute(IDENTITIES).fetchall() == before
    return found


def _outcome(connection: psycopg.Connection[Any], store: pgdoc.Store, schema: str, name: str, kind: str) -> Outcome:
    label = f"{schema}.{name}"
    foretold = [str(pgdoc.TableRefused(label, each.reason, each.cure)) for each in store.check_table(label).refusals]
    refused = None
    try:
        store.add_table(label)
    except pgdoc.TableRefused as error:
        refused = error
    assert ([] if refused is None else [str(refused)]) == foretold[:1]
    if refused is not None:
        return Outcome(label, kind, 0, refused.reason)
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, name))
    ((rows,),) = connection.execute(query).fetchall()
    return Outcome(label, kind, rows, None)


def _write(connection: psycopg.Connection[Any], table: pgdoc.WatchedTable) -> None:
    """Update and delete each row, without triggers and foreign keys of the schema, and roll back."""
    relation = sql.Identifier(*table.name.split(".", 1))
    column = sql.Identifier(list(table.columns)[-1])  # an identity column, which can't be set, comes first
    with connection.transaction(force_rollback=True):
        connection.execute("SET LOCAL session_replication_role = replica")
        connection.execute(sql.SQL("UPDATE ONLY {} SET {} = {}").format(relation, column, column))
        connection.execute(sql.SQL("DELETE FROM ONLY {}").format(relation))


def make_django(dsn: str) -> None:
    """Run the migrations of Django's own applications, and write some rows through its models.

    Once per process: Django's settings are global.
    """
    import django  # noqa: PLC0415 (only here)
    from django.conf import settings  # noqa: PLC0415

    names = psycopg.conninfo.conninfo_to_dict(dsn)
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": names["dbname"], "USER": names.get("user", "")}
    database |= {
        "HOST": names.get("host", ""),
        "PORT": str(names.get("port", "")),
        "PASSWORD": names.get("password", ""),
    }
    applications = ["admin", "auth", "contenttypes", "flatpages", "redirects", "sessions", "sites"]
    settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=[f"django.contrib.{name}" for name in applications],
        SECRET_KEY="of a test",  # noqa: S106
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()
    from django.contrib.auth.models import Group, User  # noqa: PLC0415
    from django.core.management import call_command  # noqa: PLC0415
    from django.db import connections  # noqa: PLC0415

    call_command("migrate", verbosity=0)
    user = User.objects.create_user("ada", "ada@example.com")
    user.groups.add(Group.objects.create(name="editors"))
    connections.close_all()


def make_from_file(server: LocalServer, dsn: str, path: Path) -> str:
    """Run an SQL file with psql in this database, and return what psql complained about."""
    text = _CREATES_DATABASE.sub("", path.read_text(encoding="utf-8"))
    psql = str(server.bin_dir / "psql")
    done = subprocess.run([psql, "-q", "-d", dsn], input=text, capture_output=True, text=True, check=True)
    return done.stderr


def main(arguments: list[str]) -> None:
    """Examine the schemas that the command line names."""
    with local_server(settings=NOT_DURABLE) as server:
        for argument in arguments:
            name, _, path = argument.partition("=")
            with psycopg.connect(server.conninfo, autocommit=True) as admin:
                admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            dsn = server.conninfo_for(name)
            complaints = ""
            if path:
                complaints = make_from_file(server, dsn, Path(path))
            else:
                make_django(dsn)
            with pgdoc.Store(dsn) as store:
                store.migrate()
            _print_outcomes(name, examine(dsn), complaints)


def _print_outcomes(name: str, found: list[Outcome], complaints: str) -> None:
    added = [each for each in found if each.refusal is None]
    sys.stdout.write(
        f"\n{name}: {len(found)} relations, {len(added)} added with {sum(each.rows for each in added):,} rows\n"
    )
    for (kind, refusal), count in Counter((each.kind, each.refusal) for each in found if each.refusal).items():
        sys.stdout.write(f"  {count} x {kind}: {refusal}\n")
    errors = [line.partition("ERROR:")[2].strip() for line in complaints.splitlines() if "ERROR:" in line]
    if errors:
        sys.stdout.write(f"  psql reported {len(errors)} errors, the first is: {errors[0]}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
