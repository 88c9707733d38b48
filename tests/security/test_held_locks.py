"""What a role does in a transaction that it keeps open, or leaves behind, stops nobody else."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

if TYPE_CHECKING:
    from tests.security.conftest import SharedDatabase

IMPATIENT = "-c lock_timeout=5s -c statement_timeout=15s"


def _may_create_schemas(db: SharedDatabase, role: str) -> None:
    grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(sql.Identifier(db.name), db.identifier(role))
    db.connect("superuser").execute(grant)


@pytest.mark.parametrize("catalog", ["owner"])
def test_a_role_that_may_connect_keeps_no_name_by_following_ddl(db: SharedDatabase) -> None:
    owner = db.connect(options=IMPATIENT)
    owner.execute("ALTER TABLE docs.orders RENAME TO former")
    db.connect("stranger", autocommit=False).execute("SELECT pgdoc.follow_tables()")
    owner.execute("SELECT pgdoc.follow_tables()")
    assert owner.execute("SELECT name FROM pgdoc.registry WHERE until IS NULL").fetchall() == [("former",)]
    assert owner.execute("SELECT pgdoc.create_collection('docs', 'orders')").fetchone() == (True,)


@pytest.mark.parametrize("catalog", ["owner"])
def test_a_name_that_another_session_is_recording_is_not_passed_over(db: SharedDatabase) -> None:
    owner = db.connect()
    recorder = db.connect("streamer", autocommit=False)
    owner.execute("ALTER TABLE docs.orders RENAME TO sold")
    recorder.execute("SELECT pgdoc.follow_tables()")
    commit = threading.Timer(0.2, recorder.commit)
    commit.start()
    owner.execute("SELECT pgdoc.rename_collection('docs', 'sold', 'orders')")
    commit.join()
    found = owner.execute("SELECT opened_by, from_name, name FROM pgdoc.registry ORDER BY since").fetchall()
    assert found == [("create", None, "orders"), ("rename", "orders", "sold"), ("rename", "sold", "orders")]


@pytest.mark.parametrize("catalog", ["superuser"])
def test_renaming_a_schema_without_collections_stops_no_registration(db: SharedDatabase) -> None:
    _may_create_schemas(db, "creator")
    creator = db.connect("creator", autocommit=False)
    creator.execute("CREATE SCHEMA mine")
    creator.commit()
    creator.execute("ALTER SCHEMA mine RENAME TO still_mine")
    owner = db.connect(options=IMPATIENT)
    assert owner.execute("SELECT pgdoc.create_collection('docs', 'users')").fetchone() == (True,)
    owner.execute("DROP TABLE docs.orders")
    assert owner.execute("SELECT pgdoc.collections('docs')").fetchall() == [("users",)]


@pytest.mark.parametrize("catalog", ["superuser"])
def test_a_registration_delays_no_schema_without_collections(db: SharedDatabase) -> None:
    _may_create_schemas(db, "creator")
    db.connect(autocommit=False).execute("SELECT pgdoc.create_collection('docs', 'users')")
    db.connect("creator", options=IMPATIENT).execute("CREATE SCHEMA mine; ALTER SCHEMA mine RENAME TO still_mine")


@pytest.mark.parametrize("catalog", ["superuser"])
def test_a_drop_that_cannot_be_recorded_fails(db: SharedDatabase) -> None:
    """Recorded later, it would end every stream on the whole schema that resumes before it."""
    late = db.connect(autocommit=False)
    late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    late.execute("SELECT count(*) FROM pgdoc.registry")
    owner = db.connect()
    owner.execute("ALTER TABLE docs.orders RENAME TO former")
    with pytest.raises(psycopg.errors.SerializationFailure):
        late.execute("DROP TABLE docs.former")
    late.rollback()
    owner.execute("DROP TABLE docs.former")
    assert owner.execute("SELECT closed_by, exact FROM pgdoc.registry ORDER BY since").fetchall() == [
        ("rename", True),
        ("drop", True),
    ]


def test_a_session_leaves_one_row_whatever_it_says_it_builds(db: SharedDatabase) -> None:
    stranger = db.connect("stranger")
    for _ in range(3):
        with stranger.transaction():
            stranger.execute("CREATE TEMPORARY TABLE own (n int) ON COMMIT DROP")
            stranger.execute("LOCK TABLE own IN ROW EXCLUSIVE MODE")
            assert stranger.execute("SELECT pgdoc.begin_index_build('own')").fetchone() == (True,)
    assert db.connect().execute("SELECT count(*) FROM pgdoc.sessions").fetchone() == (1,)
