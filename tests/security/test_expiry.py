"""Nobody's documents expire by the will of another role, and no role's code runs because of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc.database import expiry
from pgdoc.database.expiry import connect_sweeper, sweep

if TYPE_CHECKING:
    from tests.security.conftest import SharedDatabase

LONG_AGO = {"at": (datetime.now(UTC) - timedelta(days=2)).isoformat()}
HOUR = timedelta(hours=1)
only_superuser = pytest.mark.parametrize("catalog", ["superuser"])

TRAP = """
CREATE TABLE docs.victims (name text);
CREATE FUNCTION docs.trap() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO docs.victims VALUES (current_user); RETURN OLD; END $$;
GRANT SELECT, INSERT ON docs.victims TO PUBLIC;
"""


@pytest.fixture(autouse=True)
def no_store_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry.Sweeper, "start", lambda _self: None)


def index_of(db: SharedDatabase) -> int:
    ((oid,),) = db.connect("superuser").execute("SELECT index::bigint FROM pgdoc.expiring('docs')").fetchall()
    return int(oid)


def swept(db: SharedDatabase, role: str, **options: Any) -> list[tuple[int, str | None]]:
    with connect_sweeper(db.dsn(role), "test") as connection:
        return [(result.deleted, result.problem) for result in sweep(connection, "docs", takes_turns=False, **options)]


def collection_of_the_creator(db: SharedDatabase) -> psycopg.Connection[Any]:
    db.connect().execute(f'GRANT EXECUTE ON FUNCTION pgdoc.enter_collection(regclass) TO "{db.roles["creator"]}"')
    theirs = db.store("creator").create_collection("theirs")
    theirs.insert("a", LONG_AGO)
    theirs.create_index("at", expire_after=HOUR)
    creator = db.connect("creator")
    creator.execute(f'GRANT SELECT, INSERT, UPDATE, DELETE ON docs.theirs TO "{db.roles["writer"]}"')
    return creator


def test_a_writer_deletes_what_expires_by_an_index_of_the_owner(db: SharedDatabase) -> None:
    db.store()["orders"].create_index("at", expire_after=HOUR)
    db.store("writer")["orders"].insert("a", LONG_AGO)
    assert swept(db, "writer") == [(1, None)]


@pytest.mark.parametrize("role", ["reader", "stranger", "creator"])
def test_a_role_that_may_not_delete_neither_sweeps_nor_delays_it(db: SharedDatabase, role: str) -> None:
    db.store()["orders"].create_index("at", expire_after=HOUR)
    db.store("writer")["orders"].insert("a", LONG_AGO)
    for deleted, problem in swept(db, role):
        assert (deleted, "lacks SELECT, UPDATE or DELETE" in str(problem)) == (0, True)
    connection = db.connect(role)
    for call in ("expire_batch(%s::oid, 100)", "claim_expiry(%s::oid, true)"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT pgdoc.{call}".encode(), [index_of(db)])
    assert swept(db, "writer") == [(1, None)]


def test_only_the_owner_of_a_table_makes_its_documents_expire(db: SharedDatabase) -> None:
    db.store()["orders"].create_index("at")
    db.store("writer")["orders"].insert("a", LONG_AGO)
    with db.connect("superuser") as admin:
        (relation,) = next(
            row
            for row in admin.execute(
                "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'docs.orders'::regclass"
            )
            if "pkey" not in row[0]
        )
    for role in ("writer", "creator", "stranger"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.connect(role).execute(f"COMMENT ON INDEX {relation} IS 'x'".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.connect(role).execute("INSERT INTO pgdoc.expiry VALUES (1, now())")
    assert swept(db, "writer") == []


@only_superuser
def test_a_trigger_of_another_role_does_not_run_unasked(db: SharedDatabase) -> None:
    creator = collection_of_the_creator(db)
    creator.execute(TRAP)
    creator.execute("CREATE TRIGGER trap AFTER DELETE ON docs.theirs FOR EACH ROW EXECUTE FUNCTION docs.trap()")
    for role in ("superuser", "writer"):
        ((deleted, problem),) = swept(db, role)
        assert (deleted, "trigger trap would run with the rights of role" in str(problem)) == (0, True)
    assert creator.execute("SELECT * FROM docs.victims").fetchall() == []
    assert swept(db, "creator") == [(1, None)]
    db.store("creator")["theirs"].insert("b", LONG_AGO)
    assert swept(db, "writer", names={"theirs"}) == [(1, None)]  # a caller that names the collection trusts its owner
    victims = {name for (name,) in creator.execute("SELECT * FROM docs.victims")}
    assert victims == {db.roles["creator"], db.roles["writer"]}


@only_superuser
def test_a_function_in_an_index_of_another_role_does_not_run_unasked(db: SharedDatabase) -> None:
    creator = collection_of_the_creator(db)
    assert swept(db, "superuser") == [(1, None)]
    creator.execute("CREATE FUNCTION docs.one() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'")
    creator.execute("CREATE INDEX ON docs.theirs ((docs.one()))")
    ((deleted, problem),) = swept(db, "superuser")
    assert (deleted, "function docs.one() would run" in str(problem)) == (0, True)


@only_superuser
def test_an_odd_comment_hides_nothing_of_others(db: SharedDatabase) -> None:
    creator = collection_of_the_creator(db)
    (name,) = next(creator.execute("SELECT index::regclass::text FROM pgdoc.expiring('docs')"))
    db.store()["orders"].create_index("at", expire_after=HOUR)
    db.store()["orders"].insert("a", LONG_AGO)
    for comment in (
        '"times" {',
        '{"pgdoc index": 1, "part": "times", "expire_after": 1e999}',
        "[" * 10_000 + '"times"',
    ):
        creator.execute(f"COMMENT ON INDEX {name} IS '{comment}'".encode())
        assert [deleted for deleted, _ in swept(db, "superuser")] in ([1], [0])
    assert db.store()["orders"].count({}) == 0


def test_a_role_under_row_level_security_sweeps_nothing(db: SharedDatabase) -> None:
    db.store()["orders"].create_index("at", expire_after=HOUR)
    db.store("writer")["orders"].insert("a", LONG_AGO)
    db.connect().execute(
        "ALTER TABLE docs.orders ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON docs.orders USING (true)"
    )
    ((deleted, problem),) = swept(db, "writer")
    assert (deleted, "row-level security applies" in str(problem)) == (0, True)
    assert swept(db, "owner") == [(1, None)]
