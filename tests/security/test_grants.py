"""`pgdoc grant` on a real server: what it runs, what it refuses, and what the roles can do afterwards."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc import CollectionNotFound, DatabaseError
from pgdoc.cli import grants
from pgdoc.cli.app import run_cli
from pgdoc.database.grants import PURPOSES
from tests.security.readers import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.security.conftest import SharedDatabase

    Grant = Callable[..., tuple[int, str]]


pytestmark = pytest.mark.usefixtures("any_plugin")


@pytest.fixture
def grant(db: SharedDatabase, capsys: pytest.CaptureFixture[str]) -> Grant:
    """Run the command; return its exit code, and what it wrote."""

    def run(role: str, purpose: str, *options: str, by: str = "superuser") -> tuple[int, str]:
        capsys.readouterr()
        code = run_cli(["grant", db.roles[role], "--as", purpose, *options, "--dsn", db.dsn(by)])
        written = capsys.readouterr()
        return code, written.err if code else written.out

    return run


def _privileges(db: SharedDatabase) -> list[Any]:
    """Everything that GRANT, ALTER ROLE and ALTER DEFAULT PRIVILEGES change in the database."""
    return (
        db.connect("superuser")
        .execute(
            "SELECT relname::text, relacl::text FROM pg_class WHERE relacl IS NOT NULL UNION ALL "
            "SELECT nspname::text, nspacl::text FROM pg_namespace UNION ALL "
            "SELECT oid::text, defaclacl::text FROM pg_default_acl UNION ALL "
            "SELECT rolname::text, rolreplication::text FROM pg_roles UNION ALL "
            "SELECT roleid::text, member::text FROM pg_auth_members ORDER BY 1, 2"
        )
        .fetchall()
    )


@pytest.mark.parametrize(
    "by", ["stranger", "creator"]
)  # without the right, and with it but not the right to pass it on
def test_a_role_that_may_not_grant_changes_nothing_and_is_told_who_may(
    db: SharedDatabase, grant: Grant, by: str
) -> None:
    before = _privileges(db)
    for purpose in PURPOSES:
        code, text = grant("stranger", purpose, "--run", by=by)
        assert code == 1
        assert f'role "{db.roles[by]}" may not run ' in text
        assert ", which needs " in text
        assert "Nothing was granted" in text
    assert _privileges(db) == before


@pytest.mark.parametrize("catalog", ["owner"], indirect=True)
def test_the_plain_owner_of_the_catalog_grants_all_but_what_takes_a_superuser(db: SharedDatabase, grant: Grant) -> None:
    for purpose in ("reader", "writer"):
        assert grant("stranger", purpose, "--run", by="owner")[0] == 0
    before = _privileges(db)
    code, text = grant("stranger", "streamer", "--run", by="owner")
    assert code == 1
    assert f'may not run ALTER ROLE "{db.roles["stranger"]}" REPLICATION, which needs a superuser' in text
    assert _privileges(db) == before
    db.connect("superuser").execute(f"ALTER ROLE {db.roles['stranger']} REPLICATION")
    assert grant("stranger", "streamer", "--run", by="owner")[0] == 0


def test_what_was_run_is_said_and_is_not_run_again(db: SharedDatabase, grant: Grant) -> None:
    code, text = grant("stranger", "reader", "--run", "--json")
    first = json.loads(text)
    assert code == 0
    assert (first["role"], first["as"], first["schema"], first["ran"]) == (
        db.roles["stranger"],
        "reader",
        "docs",
        True,
    )
    assert any(step["sql"].startswith("GRANT SELECT ON TABLE") for step in first["statements"])
    assert all(step["needs"] for step in first["statements"])
    code, text = grant("stranger", "reader", "--run")
    assert (code, "already: nothing was run" in text) == (0, True)
    code, text = grant("stranger", "owner", "--run")
    assert (code, f'Now role "{db.roles["stranger"]}" creates collections' in text) == (0, True)


def test_a_collection_that_another_session_drops_meanwhile_is_reported_and_nothing_is_granted(
    db: SharedDatabase, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, before = db.connect(), _privileges(db)

    def drop_first(*arguments: Any) -> None:
        owner.execute("DROP TABLE IF EXISTS docs.orders")
        run_steps(*arguments)

    run_steps = grants._run_steps
    monkeypatch.setattr(grants, "_run_steps", drop_first)
    code, text = grant("stranger", "reader", "--run")
    assert code == 1
    assert 'relation "docs.orders" does not exist. Nothing was granted: run the command again' in text
    assert [row for row in _privileges(db) if row not in before] == []


def test_a_reader_reads_what_a_named_creator_creates_later(db: SharedDatabase, grant: Grant) -> None:
    assert grant("stranger", "reader", "--creator", db.roles["creator"], "--run")[0] == 0
    assert grant("creator", "owner", "--run")[0] == 0
    db.store("creator")["later"].insert("1", {"a": 1})
    assert db.store("stranger")["later"].count() == 1


def test_rights_on_a_collection_with_partitions_are_rights_on_its_documents(db: SharedDatabase, grant: Grant) -> None:
    db.connect().execute("CREATE TABLE docs.plain (id int)")  # so that rights are granted on each collection
    db.store().create_collection("parted", partitions=3).insert("1", {})
    assert grant("stranger", "writer", "--run")[0] == 0
    assert '"parted"' in grant("creator", "reader")[1]
    assert "parted$" not in grant("creator", "reader")[1]
    theirs = db.store("stranger")["parted"]
    theirs.insert_many((str(number), {"a": number}) for number in range(2, 9))
    theirs.update_many({}, {"$set": {"b": 1}})
    assert theirs.delete_many({"a": 5}) == 1
    assert theirs.count({"b": 1}) == 7
    with pytest.raises(DatabaseError, match="own"):
        theirs.create_index("a")


def test_a_new_creator_is_told_which_roles_cannot_read_what_it_creates(db: SharedDatabase, grant: Grant) -> None:
    assert grant("stranger", "writer", "--run")[0] == 0
    code, text = grant("creator", "owner", "--run")
    assert code == 0
    advice = f"pgdoc grant {db.roles['stranger']} --as writer"
    assert advice in text
    assert grant("stranger", "writer", "--run")[0] == 0
    assert advice not in grant("creator", "owner")[1]
    db.store("creator")["later"].insert("1", {})
    db.store("stranger")["later"].insert("2", {})


def test_a_member_of_a_group_has_the_rights_of_the_group(db: SharedDatabase, grant: Grant) -> None:
    db.connect("superuser").execute(f"ALTER ROLE {db.roles['creator']} NOLOGIN")
    assert grant("creator", "writer", "--run")[0] == 0
    assert "its members do not inherit REPLICATION" in grant("creator", "streamer")[1]
    db.connect("superuser").execute(f"GRANT {db.roles['creator']} TO {db.roles['stranger']}")
    db.store("stranger")["orders"].insert("o-1", {})


def test_a_streamer_takes_a_snapshot_of_a_watched_table_in_another_schema(db: SharedDatabase, grant: Grant) -> None:
    owner = db.connect()
    owner.execute('CREATE SCHEMA "Sales"')
    owner.execute('CREATE TABLE "Sales".items (id int PRIMARY KEY)')
    owner.execute('INSERT INTO "Sales".items VALUES (1)')
    db.store().add_table("Sales.items")
    assert grant("stranger", "streamer", "--run")[0] == 0
    with db.store("stranger").watch("Sales.items", snapshot=True) as stream:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        assert (event.event_type, event.document_id) == (pgdoc.EventType.SNAPSHOT, "1")
    with (
        pytest.raises(DatabaseError, match=r'GRANT SELECT ON "Sales"."items" TO .*`pgdoc grant \S+ --as streamer`'),
        db.store("streamer").watch("Sales.items", snapshot=True) as refused,
    ):
        refused.next(timeout=PATIENCE_S)


def test_row_level_security_is_noted_and_a_snapshot_under_it_names_bypassrls(db: SharedDatabase, grant: Grant) -> None:
    db.connect().execute("ALTER TABLE docs.orders ENABLE ROW LEVEL SECURITY")
    assert grant("stranger", "streamer", "--run")[0] == 0
    assert 'collection "docs.orders" has row-level security' in grant("stranger", "streamer")[1]
    with pytest.raises(DatabaseError, match="BYPASSRLS"), db.store("stranger").watch("orders", snapshot=True):
        pass
    db.connect("superuser").execute(f"ALTER ROLE {db.roles['stranger']} BYPASSRLS")
    assert "row-level security" not in grant("stranger", "streamer")[1]
    with db.store("stranger").watch("orders", snapshot=True):
        pass


def test_a_write_that_a_row_policy_forbids_is_not_explained_by_a_missing_privilege(db: SharedDatabase) -> None:
    owner = db.connect()
    owner.execute("ALTER TABLE docs.orders ENABLE ROW LEVEL SECURITY")
    owner.execute("CREATE POLICY none ON docs.orders USING (true) WITH CHECK (false)")
    with pytest.raises(DatabaseError, match="A row policy of the table forbids the role") as caught:
        db.store("writer")["orders"].insert("o-1", {})
    assert "pgdoc grant" not in str(caught.value)


def test_a_trigger_that_lacks_a_right_is_not_explained_by_the_rights_of_a_writer(db: SharedDatabase) -> None:
    owner = db.connect()
    owner.execute("CREATE TABLE docs.log (n int)")
    owner.execute(f"REVOKE ALL ON docs.log FROM {db.roles['writer']}")
    owner.execute(
        "CREATE FUNCTION docs.note() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN INSERT INTO docs.log VALUES (1); RETURN NEW; END $$"
    )
    owner.execute("CREATE TRIGGER note AFTER INSERT ON docs.orders FOR EACH ROW EXECUTE FUNCTION docs.note()")
    with pytest.raises(DatabaseError, match=r"permission denied for table log\. Grant the privilege"):
        db.store("writer")["orders"].insert("o-1", {})


MISSING = (
    r'collection "docs.typo" does not exist, and role "{}" may not create it \(.*`pgdoc grant {} --as owner` prints'
)


def test_the_first_write_to_a_missing_collection_says_that_the_role_may_not_create_it(db: SharedDatabase) -> None:
    role = db.roles["writer"]
    store, expected = db.store("writer"), MISSING.format(role, role)
    for call in (
        lambda: store["typo"].insert("1", {}),
        lambda: store["typo"].insert_many([("1", {})]),
        lambda: store["typo"].update("1", {"$set": {"a": 1}}, upsert=True),
        lambda: store["typo"].create_index("a"),
        lambda: store.run(lambda tx: tx["typo"].insert("1", {})),
    ):
        with pytest.raises(CollectionNotFound, match=expected):
            call()
    with pytest.raises(pgdoc.PgdocError, match=expected), store.bulk() as bulk:
        bulk["typo"].insert("1", {})
    with pytest.raises(CollectionNotFound, match=expected.replace("writer", "streamer")):
        db.store("streamer").watch("typo")

    async def insert() -> None:
        async with pgdoc.AsyncStore(db.dsn("writer")) as async_store:
            await async_store["typo"].insert("1", {})

    with pytest.raises(CollectionNotFound, match=expected):
        asyncio.run(insert())


def test_the_role_that_options_set_is_named(db: SharedDatabase) -> None:
    db.connect("superuser").execute(f"GRANT {db.roles['stranger']} TO {db.roles['writer']}")
    dsn = psycopg.conninfo.make_conninfo(db.dsn("writer"), options=f"-c role={db.roles['stranger']}")
    with pgdoc.Store(dsn) as store, pytest.raises(DatabaseError, match=f"`pgdoc grant {db.roles['stranger']} --as"):
        store["orders"].get("o-1")


def test_a_checkpoint_in_a_transaction_of_another_role_names_what_that_role_lacks(db: SharedDatabase) -> None:
    streamer, writer = db.store("streamer"), db.store("writer")
    with streamer["orders"].watch(consumer="c") as stream:
        writer["orders"].insert("o-1", {})
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        grants = rf'GRANT SELECT, UPDATE ON pgdoc.consumers.* TO "{db.roles["writer"]}"'
        with pytest.raises(DatabaseError, match=grants), writer.transaction() as tx:
            stream.checkpoint(event, tx)
    streamer.drop_consumer("c")


@pytest.mark.parametrize("catalog", ["superuser"], indirect=True)
def test_members_of_rds_replication_may_replicate_on_amazon_rds_only(db: SharedDatabase) -> None:
    """Roles belong to the cluster, so the transaction that makes it look like RDS is rolled back."""
    with db.connect("superuser", autocommit=False) as superuser:
        superuser.execute("CREATE ROLE rds_replication")
        superuser.execute(f"GRANT rds_replication TO {db.roles['stranger']}")
        asked = f"SELECT pgdoc.may_replicate('{db.roles['stranger']}')"
        assert superuser.execute(asked.encode()).fetchone() == (False,)
        superuser.execute("CREATE ROLE rdsadmin SUPERUSER")
        assert superuser.execute(asked.encode()).fetchone() == (True,)
        superuser.rollback()


def test_a_role_with_trigger_on_a_table_can_not_make_it_a_collection(db: SharedDatabase, grant: Grant) -> None:
    owner = db.connect("superuser")
    owner.execute("CREATE SCHEMA IF NOT EXISTS docs")
    owner.execute("CREATE TABLE docs.secret (id text PRIMARY KEY, pin text)")
    owner.execute(f"GRANT USAGE ON SCHEMA docs TO {db.roles['stranger']}")
    owner.execute(f"GRANT TRIGGER ON docs.secret TO {db.roles['stranger']}")
    db.connect("stranger").execute(
        "CREATE TRIGGER pgdoc_before_update BEFORE UPDATE ON docs.secret FOR EACH ROW "
        "EXECUTE FUNCTION pgdoc.before_update()"
    )
    code, text = grant("stranger", "reader", "--json")
    assert code == 0
    assert not [each for each in json.loads(text)["statements"] if "secret" in each["sql"]]
