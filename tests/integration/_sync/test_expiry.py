# Written by .ci/twins.py from tests/integration/_async/test_expiry.py: change that file, and run it.
"""Documents expire by an index with `expire_after`."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import Collection, Store, DatabaseError, EventType, InvalidInput
from pgdoc.database import expiry
from pgdoc.database.expiry import Expired, connect_sweeper, read_backlog, sweep

if TYPE_CHECKING:
    from collections.abc import Iterable

HOUR = timedelta(hours=1)


def at(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def ago(**spans: int) -> str:
    return at(datetime.now(UTC) - timedelta(**spans))


def swept(own_schema: dict[str, Any], **options: Any) -> list[Expired]:
    with connect_sweeper(own_schema["conninfo"], "test") as connection:
        return list(sweep(connection, own_schema["schema"], takes_turns=False, **options))


@pytest.fixture(autouse=True)
def stores_sweep_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "INTERVAL_S", 86_400.0)


def ids(collection: Collection) -> set[str]:
    return {document.id for document in collection.find()}


def test_documents_expire_when_their_time_is_older_than_the_index_says(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        sessions = store["sessions"]
        sessions.insert_many(
            [
                ("old", {"seen": ago(hours=2)}),
                ("young", {"seen": ago(minutes=30)}),
                ("future", {"seen": ago(days=-1)}),
                ("offset", {"seen": (datetime.now(UTC) - 2 * HOUR).isoformat()}),
                ("earliest of an array", {"seen": [ago(days=-1), ago(hours=2), "x"]}),
                ("no time", {"seen": "yesterday"}),
                ("no offset", {"seen": "2020-01-01T00:00:00"}),
                ("a number", {"seen": 5}),
                ("null", {"seen": None}),
                ("missing", {}),
            ]
        )
        assert sessions.create_index("seen", expire_after=HOUR) == "seen"
        (index,) = sessions.indexes()
        assert (index.expire_after, index.valid) == (HOUR, True)
        (result,) = swept(own_schema)
        assert (result.collection, result.index, result.deleted, result.problem) == ("sessions", "seen", 3, None)
        left = {"young", "future", "no time", "no offset", "a number", "null", "missing"}
        assert ids(sessions) == left
        with connect_sweeper(own_schema["conninfo"], "test") as connection:
            backlog = read_backlog(connection, result.index_oid)
        assert (backlog.due, backlog.late_s, backlog.ignored) == (0, None, 3)


def test_current_date_stores_a_time_that_expires(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["jobs"].update("a", {"$currentDate": {"at": True}}, upsert=True)
        store["jobs"].create_index("at", expire_after=timedelta())
        assert [result.deleted for result in swept(own_schema)] == [1]


def test_expire_after_can_be_added_and_changed_but_not_left_out(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        jobs = store["jobs"]
        jobs.insert("a", {"at": ago(hours=2)})
        jobs.create_index("at")
        assert swept(own_schema) == []
        jobs.create_index("at", expire_after=timedelta(days=1))
        assert [result.deleted for result in swept(own_schema)] == [0]
        jobs.create_index("at", expire_after=HOUR)
        assert [(index.expire_after, index.valid) for index in jobs.indexes()] == [(HOUR, True)]
        with pytest.raises(DatabaseError, match="expire by the index 'at'"):
            jobs.create_index("at")
        assert [result.deleted for result in swept(own_schema)] == [1]
        assert jobs.drop_index("at") is True
        assert jobs.indexes() == []
        jobs.insert("a", {"at": ago(hours=2)})
        assert swept(own_schema) == []


def test_expiry_follows_a_rename(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["jobs"].create_index("nested.at", expire_after=HOUR, where={"state": "done"})
        done = store.rename_collection("jobs", "done")
        done.insert_many(
            [("a", {"state": "done", "nested": {"at": ago(days=1)}}), ("b", {"nested": {"at": ago(days=1)}})]
        )
        assert [(result.collection, result.deleted) for result in swept(own_schema)] == [("done", 1)]
        assert ids(done) == {"b"}


def test_many_batches_and_what_a_trigger_keeps(own_schema: dict[str, Any], sql: psycopg.Connection) -> None:
    with Store(**own_schema) as store:
        jobs, long_ago = store["jobs"], datetime.now(UTC) - timedelta(days=1)
        moments = {number: at(long_ago + timedelta(seconds=number)) for number in range(1000)}
        jobs.insert_many([(f"{number:04}", {"at": moment}) for number, moment in moments.items()])
        jobs.create_index("at", expire_after=HOUR)
        schema = own_schema["schema"]
        sql.execute(
            f"""CREATE FUNCTION "{schema}".keep() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RETURN CASE WHEN OLD.id >= '0250' THEN OLD END; END $$;
                CREATE TRIGGER keep BEFORE DELETE ON "{schema}".jobs FOR EACH ROW EXECUTE FUNCTION "{schema}".keep()"""
        )
        (result,) = swept(own_schema)
        assert (result.deleted, result.problem) == (750, "a trigger or a rule of the table keeps documents")
        assert jobs.count({}) == 250


def test_a_deletion_is_an_event_that_says_so(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["jobs"].insert("a", {"at": ago(hours=2)})
        store["jobs"].create_index("at", expire_after=HOUR, name="age")
        with store["jobs"].watch() as stream:
            swept(own_schema)
            event = next(stream)
        assert (event.event_type, event.document_id) == (EventType.DELETE, "a")
        assert event.metadata == {"pgdoc": "expired", "index": "age"}


def test_a_document_whose_time_moves_meanwhile_stays(own_schema: dict[str, Any], sql: psycopg.Connection) -> None:
    with Store(**own_schema) as store:
        jobs = store["jobs"]
        jobs.insert_many([("a", {"at": ago(hours=2)}), ("b", {"at": ago(hours=2)})])
        jobs.create_index("at", expire_after=HOUR)
        with store.transaction() as tx:
            tx["jobs"].update("a", {"$set": {"at": ago(hours=0)}})
            assert [result.deleted for result in swept(own_schema)] == [1]  # the locked one is skipped
        assert [result.deleted for result in swept(own_schema)] == [0]
        assert ids(jobs) == {"a"}


def test_stores_take_turns(own_schema: dict[str, Any]) -> None:
    schema = own_schema["schema"]
    with Store(**own_schema) as store:
        store["jobs"].create_index("at", expire_after=HOUR)
        with connect_sweeper(own_schema["conninfo"], "test") as connection:
            store["jobs"].insert("a", {"at": ago(hours=2)})
            assert [result.is_turn for result in sweep(connection, schema)] == [True]
            store["jobs"].insert("b", {"at": ago(hours=2)})
            assert [(result.is_turn, result.deleted) for result in sweep(connection, schema)] == [(False, 0)]
            assert [result.deleted for result in sweep(connection, schema, takes_turns=False)] == [1]


def test_at_rest_a_pass_writes_nothing(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["jobs"].insert("a", {"at": ago(minutes=1)})
        store["jobs"].create_index("at", expire_after=HOUR)
    with connect_sweeper(own_schema["conninfo"], "test") as connection, connection.transaction():
        assert [result.deleted for result in sweep_in(connection, own_schema["schema"])] == [0]
        assert connection.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() == (None,)


def sweep_in(connection: psycopg.Connection[Any], schema: str) -> Iterable[Expired]:
    """Do what a pass does, in one transaction."""
    for oid, collection, name, _ in connection.execute(
        "SELECT index::bigint, collection, name, obstacle FROM pgdoc.expiring(%s)", [schema]
    ).fetchall():
        row = connection.execute("SELECT claimed, deleted FROM pgdoc.expire_batch(%s::oid, 100)", [oid]).fetchone()
        assert row is not None
        yield Expired(oid, collection, name, deleted=row[1], is_turn=row[0])


def test_an_open_store_deletes_what_expires(own_schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "INTERVAL_S", 0.01)
    with Store(**own_schema) as store, store["jobs"].watch() as stream:
        store["jobs"].insert("a", {"at": ago(hours=2)})
        store["jobs"].create_index("at", expire_after=HOUR)
        assert [(next(stream)).event_type for _ in range(2)] == [EventType.INSERT, EventType.DELETE]


def test_a_store_finds_what_expires_when_it_opens_or_looks(
    own_schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(**own_schema) as first, Store(**own_schema) as second:
        second["jobs"].insert("a", {})
        assert threads() == 0
        first["jobs"].create_index("at", expire_after=HOUR)
        assert threads() == 1
        monkeypatch.setattr(expiry, "INTERVAL_S", 0.01)
        with Store(**own_schema) as third, third["jobs"].watch() as stream:
            assert threads() == 2
            third["jobs"].insert("b", {"at": ago(hours=2)})
            assert [(next(stream)).event_type for _ in range(2)] == [EventType.INSERT, EventType.DELETE]
        second["other"].find_one({"a": 1})  # finds nothing
        assert threads() == 1
        second["jobs"].create_index("b")  # looks the table up again
        second["jobs"].find_one({"b": 1})
        assert threads() == 2
    assert threads() == 0


def threads() -> int:
    return sum(thread.name == "pgdoc-expiry" for thread in threading.enumerate())


def test_a_store_whose_role_only_reads_starts_no_thread(own_schema: dict[str, Any]) -> None:
    with Store(**own_schema) as store:
        store["jobs"].create_index("at", expire_after=HOUR)
    admin = psycopg.connect(own_schema["conninfo"], autocommit=True)
    schema, role = own_schema["schema"], f"{own_schema['schema']}_reader"
    with admin:
        admin.execute(f'CREATE ROLE "{role}" LOGIN; GRANT USAGE ON SCHEMA "{schema}" TO "{role}"')
        admin.execute(f'GRANT SELECT ON "{schema}".jobs TO "{role}"')
        try:
            with Store(make_conninfo(own_schema["conninfo"], user=role), schema=schema) as store:
                assert store["jobs"].count({}) == 0
                assert threads() == 0
        finally:
            admin.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


def test_a_store_that_can_start_no_thread_works(
    own_schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Store(**own_schema) as store:
        store["jobs"].insert("a", {})
        store["jobs"].create_index("other")  # opens the pool that it takes, whose threads must start
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            store["jobs"].create_index("at", expire_after=HOUR)
        assert not store._connections.sweeper.is_running
    assert "can't start new thread" in caplog.text


@pytest.mark.parametrize("expire_after", [-HOUR, timedelta(days=100_000), 5, "1h"])
def test_expire_after_must_be_a_timedelta_in_range(own_schema: dict[str, Any], expire_after: Any) -> None:
    with Store(**own_schema) as store:
        with pytest.raises(InvalidInput, match="expire_after must be a timedelta"):
            store["jobs"].create_index("at", expire_after=expire_after)


@pytest.mark.parametrize("paths", [("a", "b"), ("_id",), ("$**",)])
def test_an_index_with_expire_after_has_one_path(own_schema: dict[str, Any], paths: tuple[str, ...]) -> None:
    with Store(**own_schema) as store:
        with pytest.raises(InvalidInput, match="one path"):
            store["jobs"].create_index(*paths, expire_after=HOUR)


@pytest.mark.parametrize("paths", [("a", "b"), ("_id",), ("$**",)])
def test_an_index_with_expire_after_needs_one_path(own_schema: dict[str, Any], paths: tuple[str, ...]) -> None:
    with Store(**own_schema) as store:
        with pytest.raises(InvalidInput, match="needs one path, that of the times"):
            store["jobs"].create_index(*paths, expire_after=HOUR)
