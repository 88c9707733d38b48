"""`docs/reference/roles.md` is true: each call of its table, as real roles with exactly what `pgdoc grant` prints."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

import pgdoc
from pgdoc.cli.app import run_cli
from pgdoc.cli.doctor import examine_server
from pgdoc.database.grants import PURPOSES
from tests.fixtures.fix_server import _connect_admin
from tests.security.conftest import _new_roles
from tests.security.role_calls import CALLS, Scene, work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.fix_server import Server
    from tests.security.conftest import SharedDatabase

pytestmark = pytest.mark.usefixtures("any_plugin")

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "roles.md").read_text(encoding="utf-8")
_ROW = re.compile(r"^\| (`.+?) \| (yes|no) \| (yes|no) \| (yes|no) \| (yes|no) \|$", re.MULTILINE)
TABLE = {call: dict(zip(PURPOSES, cells, strict=True)) for call, *cells in _ROW.findall(PAGE)}
WITHOUT_A_ROW = {"store": {"collection", "close"}, "collection": set()}  # these do not ask the server
DOCTOR_SAYS = {"check-failed", "role-replication", "consumers-unseen"}
SCHEMA = "Shop-1"  # has to be quoted
CURE = re.compile(
    r"`pgdoc grant \S+ --as|GRANT \w+|ALTER ROLE|ALTER TABLE \S+ OWNER TO|"
    r"[Rr]un (it|this|this statement)( with --only)? as"
)


def test_the_page_has_a_row_for_each_call() -> None:
    assert list(TABLE) == list(CALLS)


@pytest.mark.parametrize(("subject", "kind"), [("store", pgdoc.Store), ("collection", pgdoc.Collection)])
def test_the_page_has_each_public_call(subject: str, kind: type) -> None:
    calls = {name for name in dir(kind) if not name.startswith("_") and callable(getattr(kind, name))}
    listed = set(re.findall(rf"\b{subject}\.(\w+)", " ".join(TABLE)))
    assert calls - listed == WITHOUT_A_ROW[subject]


@pytest.fixture
def four(server: Server) -> Iterator[dict[str, str]]:
    """A role for each purpose, without any right yet."""
    with _connect_admin(server) as admin, _new_roles(admin, PURPOSES) as roles:
        admin.execute(sql.SQL("ALTER ROLE {} NOREPLICATION").format(sql.Identifier(roles["streamer"])))
        admin.execute("CREATE ROLE pgdoc_nobody_yet")
        try:
            yield roles
        finally:
            admin.execute("DROP ROLE pgdoc_nobody_yet")


@pytest.fixture
def scenes(
    four: dict[str, str], db: SharedDatabase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[dict[str, Scene]]:
    superuser = db.connect("superuser")
    superuser.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(db.name)))
    for purpose in ("owner", *PURPOSES[:-1]):
        if purpose == "reader":  # so that the others meet collections that exist, and default privileges
            _prepare(db, four["owner"])
        _grant(db, four[purpose], purpose, capsys)
    with pgdoc.Store(db.server.conninfo_for(db.name, user=four["owner"]), schema=SCHEMA) as owner:
        owner.create_collection("sessions")  # later than the grants
        owner["sessions"].create_index("at", expire_after=timedelta(hours=1))
        owner["sessions"].insert("s-1", {"at": "2020-01-01T00:00:00Z"})
        found = {}
        for purpose in PURPOSES:
            dsn = db.server.conninfo_for(db.name, user=four[purpose])
            store = db._open.enter_context(pgdoc.Store(dsn, schema=SCHEMA))
            found[purpose] = Scene(four[purpose], dsn, SCHEMA, store, owner, superuser, tmp_path, capsys)
        yield found


def _prepare(db: SharedDatabase, owner: str) -> None:
    """As the owner, create a collection and a watched table."""
    dsn = db.server.conninfo_for(db.name, user=owner)
    with pgdoc.Store(dsn, schema=SCHEMA) as store, psycopg.connect(dsn, autocommit=True) as connection:
        store["orders"].insert("o-1", {"a": 1})
        connection.execute(f'CREATE TABLE "{SCHEMA}".items (id int PRIMARY KEY)'.encode())
        connection.execute(f'INSERT INTO "{SCHEMA}".items VALUES (1)'.encode())
        store.add_table(f"{SCHEMA}.items")


def _grant(db: SharedDatabase, role: str, purpose: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run what the command prints, as psql does."""
    capsys.readouterr()
    arguments = ["grant", role, "--as", purpose, "--schema", SCHEMA, "--dsn", db.dsn("superuser")]
    assert run_cli(arguments) == 0, capsys.readouterr().err
    with psycopg.connect(db.dsn("superuser"), autocommit=True) as superuser:
        superuser.execute(capsys.readouterr().out.encode())
    assert run_cli(arguments) == 0
    assert "BEGIN" not in capsys.readouterr().out, "nothing is missing afterwards"


@pytest.mark.parametrize("purpose", PURPOSES)
def test_each_call_works_or_is_refused_as_the_table_says(
    scenes: dict[str, Scene], db: SharedDatabase, purpose: str
) -> None:
    scene, wrong = scenes[purpose], []
    seizes = re.compile(f'GRANT "?{db.roles["owner"]}"? TO')  # the role that owns the catalog
    for call, cells in TABLE.items():
        error = _attempt(call, scene)
        if (error is None) != (cells[purpose] == "yes"):
            wrong.append(f"{call}: {cells[purpose]}, but {error!r}")
        elif error is not None and (not CURE.search(str(error)) or seizes.search(str(error))):
            wrong.append(f"{call}: {error!r} names no right")
    findings = {finding.id for finding in examine_server(scene.dsn, SCHEMA)}
    _drop_consumers(scenes["streamer"])
    assert not wrong, "\n".join(wrong)
    assert findings & DOCTOR_SAYS == (set() if purpose == "streamer" else {"role-replication", "consumers-unseen"})


@pytest.mark.parametrize("table", ["pgdoc.handlers", "pgdoc.dead_letters"])
def test_a_streamer_that_was_granted_before_there_were_workers_is_told_what_to_grant(
    scenes: dict[str, Scene], db: SharedDatabase, capsys: pytest.CaptureFixture[str], table: str
) -> None:
    scene = scenes["streamer"]
    scene.superuser.execute(f"REVOKE ALL ON {table} FROM {sql.Identifier(scene.role).as_string(None)}".encode())
    try:
        said = "".join(work(scene))
    except pgdoc.DatabaseError as exc:  # the worker can't even begin
        said = f"{exc};"
    assert "permission denied" in said
    assert re.search(r"GRANT SELECT, INSERT, UPDATE, DELETE ON pgdoc.handlers, pgdoc.dead_letters TO \S+;", said), said
    _grant(db, scene.role, "streamer", capsys)
    assert work(scene) == []
    _drop_consumers(scene)


def _attempt(call: str, scene: Scene) -> pgdoc.PgdocError | None:
    try:
        CALLS[call](scene)
    except pgdoc.PgdocError as exc:
        return exc
    return None


def _drop_consumers(scene: Scene) -> None:
    for consumer in scene.store.consumers():
        scene.store.drop_consumer(consumer.name)
