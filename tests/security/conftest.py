"""A database that several roles share, with a real role for each: `db`.

| role | rights |
| --- | --- |
| superuser | the superuser of the tests' server |
| owner | owns the catalog, the database and the schema `docs`; the superuser where `catalog` is "superuser" |
| writer | SELECT, INSERT, UPDATE and DELETE on the collections |
| reader | SELECT on the collections |
| streamer | as reader, with REPLICATION and the rights that consumers need |
| creator | CREATE and USAGE on the schema `docs` |
| stranger | CONNECT, which every role has |

Tests that use `db` run with both catalogs: installed by a superuser, and by a plain role. Tests that use `plugin` run
with each output plugin that the server has.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

import pgdoc
from tests.fixtures.fix_leftovers import what_is_left
from tests.fixtures.fix_server import _connect_admin, _database, _drop_slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.fix_server import Server

ROLES = ("writer", "reader", "streamer", "creator", "stranger")
CATALOGS = ("superuser", "owner")
_numbers = itertools.count(1)

_GRANTS = """
CREATE SCHEMA docs AUTHORIZATION {owner};
GRANT USAGE ON SCHEMA docs TO {writer}, {reader}, {streamer}, {creator};
GRANT CREATE ON SCHEMA docs TO {creator};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA docs GRANT SELECT ON TABLES TO {reader}, {streamer};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA docs GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {writer};
"""
# Tables of the catalog that a role needs to write for consumers, as far as the catalog has them.
_TABLES_OF_CONSUMERS = ("consumers", "consumer_progress", "owners", "unreadable")


@dataclass
class SharedDatabase:
    """A database with the catalog, the schema `docs` and the collection `docs.orders`."""

    server: Server
    name: str
    catalog: str
    roles: dict[str, str]
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def dsn(self, role: str = "owner") -> str:
        """How to connect as a role."""
        is_superuser = role == "superuser" or (role == "owner" and self.catalog == "superuser")
        return self.server.conninfo_for(self.name, user=None if is_superuser else self.roles[role])

    def connect(self, role: str = "owner", **options: Any) -> psycopg.Connection[Any]:
        """Connect as a role in autocommit mode; closed after the test."""
        options = {"autocommit": True, **options}
        return self._open.enter_context(psycopg.connect(self.dsn(role), **options))

    def store(self, role: str = "owner", **options: Any) -> pgdoc.Store:
        """Open a store as a role; closed after the test."""
        return self._open.enter_context(pgdoc.Store(self.dsn(role), **options))

    def identifier(self, role: str) -> sql.Identifier:
        """The name of a role in the cluster, for SQL."""
        return sql.Identifier(self.roles[role])

    def close(self) -> None:
        self._open.close()


@pytest.fixture(params=["wal2json", "pgoutput"])
def plugin(request: pytest.FixtureRequest) -> str:
    if request.param == "wal2json":
        request.getfixturevalue("both_plugins")
    return str(request.param)


@pytest.fixture(params=CATALOGS)
def catalog(request: pytest.FixtureRequest) -> str:
    """The role that installed the catalog."""
    return str(request.param)


@pytest.fixture
def db(server: Server, catalog: str, request: pytest.FixtureRequest) -> Iterator[SharedDatabase]:
    with _connect_admin(server) as admin, _new_roles(admin, ROLES) as new_roles:
        if catalog == "owner":
            owner, template = request.getfixturevalue("owned_template")
        else:
            owner, template = str(admin.info.user), request.getfixturevalue("template")
        roles = {"owner": owner, "superuser": str(admin.info.user), **new_roles}
        with _database(server, admin, template, "secure") as name:
            admin.execute(_sql("ALTER DATABASE {db} OWNER TO {owner}", {"db": name, "owner": owner}))
            db = SharedDatabase(server, name, catalog, roles)
            _prepare(db)
            try:
                yield db
            finally:
                db.close()
            left = what_is_left(admin, name)
        assert not left, f"left behind at the server: {left}"


@pytest.fixture(scope="session")
def owned_template(server: Server) -> Iterator[tuple[str, str]]:
    """A role that is no superuser, and a database in which it installed the catalog."""
    from pgdoc.database.migrate import migrate  # noqa: PLC0415 (tests that need no catalog do not import alembic)

    with (
        _connect_admin(server) as admin,
        _new_roles(admin, ["owner"]) as roles,
        _database(server, admin, "template1", "owned") as name,
    ):
        admin.execute(_sql("ALTER DATABASE {db} OWNER TO {owner}", {"db": name, **roles}))
        migrate(server.conninfo_for(name, user=roles["owner"]))
        _drop_slots(admin, name)
        yield roles["owner"], name


@contextlib.contextmanager
def _new_roles(admin: psycopg.Connection, kinds: tuple[str, ...] | list[str]) -> Iterator[dict[str, str]]:
    """Roles with LOGIN, whose names are new in the cluster; dropped at the end."""
    number = next(_numbers)
    roles = {kind: f"pgdoc_{kind}_{os.getpid()}_{number}" for kind in kinds}
    for role in roles.values():
        admin.execute(_sql("CREATE ROLE {role} LOGIN", {"role": role}))
    if "streamer" in roles:
        admin.execute(_sql("ALTER ROLE {streamer} REPLICATION", roles))
    try:
        yield roles
    finally:
        for role in roles.values():
            admin.execute(_sql("DROP OWNED BY {role} CASCADE", {"role": role}))
            admin.execute(_sql("DROP ROLE {role}", {"role": role}))


def _prepare(db: SharedDatabase) -> None:
    with psycopg.connect(db.dsn("owner"), autocommit=True) as owner:
        owner.execute(_sql(_GRANTS, db.roles))
        _rebind(owner)
        tables = [f"pgdoc.{table}" for table in _TABLES_OF_CONSUMERS if _exists(owner, f"pgdoc.{table}")]
        owner.execute(
            _sql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(tables)} TO {{streamer}}", db.roles),
        )
        owner.execute("SELECT pgdoc.create_collection('docs', 'orders')")


def _rebind(owner: psycopg.Connection) -> None:
    """Tell the registry that this copy of the template is a database of its own."""
    if owner.execute("SELECT to_regprocedure('pgdoc.rebind()') IS NOT NULL").fetchone() == (True,):
        owner.execute("SELECT pgdoc.rebind()")


def _exists(owner: psycopg.Connection, table: str) -> bool:
    return owner.execute("SELECT to_regclass(%s) IS NOT NULL", [table]).fetchone() == (True,)


def _sql(text: str, names: dict[str, str]) -> sql.Composed:
    identifiers = {key: sql.Identifier(name) for key, name in names.items()}
    return sql.SQL(text).format(**identifiers)
