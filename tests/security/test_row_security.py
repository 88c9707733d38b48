"""Row-level security, and triggers that drop rows: no silent gap, no loop without end, no wrong conclusion."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

import pgdoc
from pgdoc import AsyncStore
from pgdoc.cli.app import run_cli
from pgdoc.errors import BulkError, DatabaseError, DuplicateDocument

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.security.conftest import SharedDatabase

PATIENCE_S = 30.0
SEES_EVEN = (
    "ALTER TABLE docs.orders ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY even ON docs.orders FOR SELECT USING ((data->>'n')::int % 2 = 0)",
)


def enable(db: SharedDatabase, *statements: str) -> None:
    owner = db.connect("owner")
    for statement in statements:
        owner.execute(statement.encode())


def fill(db: SharedDatabase, count: int = 4) -> None:
    store = db.store("owner")
    with store.bulk() as bulk:
        for number in range(count):
            bulk["orders"].insert(f"o-{number}", {"n": number})


@pytest.mark.parametrize("watched", ["collection", "schema"])
def test_a_snapshot_that_a_policy_would_thin_out_is_refused(db: SharedDatabase, plugin: str, watched: str) -> None:
    fill(db)
    enable(db, *SEES_EVEN)
    store = db.store("streamer", plugin=plugin)
    with pytest.raises(DatabaseError, match="has row-level security, so the snapshot would lack") as raised:
        (store["orders"] if watched == "collection" else store).watch(snapshot=True)
    assert raised.value.sqlstate == "42501"
    with store["orders"].watch() as stream:  # changes are not subject to it
        db.store("owner")["orders"].insert("o-5", {"n": 5})
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        assert event.document_id == "o-5"


def test_a_consumer_is_not_created_for_such_a_snapshot(db: SharedDatabase, plugin: str) -> None:
    fill(db)
    enable(db, *SEES_EVEN)
    store = db.store("streamer", plugin=plugin)
    with pytest.raises(DatabaseError, match="row-level security"):
        store["orders"].watch(snapshot=True, consumer="copy")
    assert store.consumers() == []


def test_roles_that_see_everything_have_their_snapshots(db: SharedDatabase, plugin: str) -> None:
    fill(db)
    enable(db, *SEES_EVEN)
    allow = sql.SQL("ALTER ROLE {} BYPASSRLS").format(db.identifier("streamer"))
    db.connect("superuser").execute(allow)
    with db.store("streamer", plugin=plugin)["orders"].watch(snapshot=True) as stream:
        assert sorted(taken(stream, 4)) == ["o-0", "o-1", "o-2", "o-3"]


def test_a_policy_enabled_in_the_middle_ends_that_snapshot_only(
    db: SharedDatabase, plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc._sync.snapshot_reader.CHUNK_DOCUMENTS", 2)
    fill(db)
    store = db.store("streamer", plugin=plugin)
    with (
        store["orders"].watch(snapshot=True) as snapshot,
        store["orders"].watch(snapshot=True, consumer="copy") as consumer,
        store["orders"].watch() as other,
    ):
        assert taken(snapshot, 1) + taken(consumer, 1) == ["o-0", "o-0"]
        enable(db, *SEES_EVEN)
        copied = ["o-0"]
        for stream, ids in ((snapshot, []), (consumer, copied)):
            with pytest.raises(DatabaseError, match="row-level security"):
                ids.extend(document_id for _ in range(5) for document_id in taken(stream, 1))  # what was read before
        db.store("owner")["orders"].insert("o-9", {"n": 9})
        assert taken(other, 1) == ["o-9"]
    enable(db, "ALTER TABLE docs.orders DISABLE ROW LEVEL SECURITY")
    with store["orders"].watch(snapshot=True, consumer="copy") as consumer:
        goes_on_with: list[str] = []
        while "o-9" not in goes_on_with:
            goes_on_with += taken(consumer, 1)
        assert sorted({*copied, *goes_on_with}) == ["o-0", "o-1", "o-2", "o-3", "o-9"]
    store.drop_consumer("copy")


def taken(stream: pgdoc.ChangeStream, count: int) -> list[str]:
    events = [stream.next(timeout=PATIENCE_S) for _ in range(count)]
    return [str(event.document_id) for event in events if event is not None]


def test_a_dump_that_a_policy_would_thin_out_is_refused(db: SharedDatabase, capfd: pytest.CaptureFixture[str]) -> None:
    fill(db)
    enable(db, *SEES_EVEN)
    assert run_cli(["dump", "orders", "--dsn", db.dsn("reader")]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "row-level security" in err
    assert run_cli(["dump", "orders", "--dsn", db.dsn("owner")]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 4


def with_everything(orders: pgdoc.Collection) -> dict[str, Callable[[], Any]]:
    return {
        "update": lambda: orders.update("o-1", {"$set": {"n": 7}}),
        "update with if_version": lambda: orders.update("o-1", {"$set": {"n": 7}}, if_version=1),
        "update with upsert": lambda: orders.update("o-1", {"$set": {"n": 7}}, upsert=True),
        "replace with if_version": lambda: orders.replace("o-1", {"n": 7}, if_version=1),
        "replace with upsert": lambda: orders.replace("o-1", {"n": 7}, upsert=True),
        "delete with if_version": lambda: orders.delete("o-1", if_version=1),
    }


@pytest.mark.parametrize("call", with_everything(None))  # type: ignore[arg-type]
@pytest.mark.parametrize("cause", ["policy", "trigger"])
def test_a_write_that_reaches_no_row_ends_with_an_error(db: SharedDatabase, call: str, cause: str) -> None:
    fill(db)
    if cause == "policy":
        enable(
            db,
            "ALTER TABLE docs.orders ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY r ON docs.orders FOR SELECT USING (true)",
        )
        orders = db.store("writer")["orders"]
        expected = "was not written: a row policy forbids|row-level security"  # PostgreSQL itself refuses an upsert
    else:
        drop_rows(db, "UPDATE OR DELETE")
        orders = db.store("owner")["orders"]
        expected = "was not written: .* a trigger of the table drops the row"
    with pytest.raises(DatabaseError, match=expected):
        with_everything(orders)[call]()
    found = db.store("owner")["orders"].get("o-1")
    assert found is not None
    assert (found.data, found.version) == ({"n": 1}, 1)


def drop_rows(db: SharedDatabase, events: str) -> None:
    enable(
        db,
        "CREATE FUNCTION docs.drop_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        f"CREATE TRIGGER drops BEFORE {events} ON docs.orders FOR EACH ROW EXECUTE FUNCTION docs.drop_row()",
    )


def test_an_insert_that_a_trigger_drops_is_no_duplicate(db: SharedDatabase) -> None:
    fill(db)
    drop_rows(db, "INSERT")
    orders = db.store("owner")["orders"]
    calls: list[Callable[[], Any]] = [
        lambda: orders.insert("new", {}),
        lambda: orders.replace("new", {}, upsert=True),
        lambda: orders.update("new", {"$set": {"n": 1}}, upsert=True),
    ]
    for call in calls:
        with pytest.raises(DatabaseError, match="a trigger of the table drops the row"):
            call()
    with pytest.raises(DatabaseError, match="2 of 2 documents were not written"):
        orders.insert_many([("new", {}), ("newer", {})])
    with db.store("owner").transaction() as tx, pytest.raises(DatabaseError, match="2 of 2 documents"):
        tx["orders"].insert_many([("new", {}), ("newer", {})])
    assert orders.count() == 4
    enable(db, "DROP TRIGGER drops ON docs.orders")
    with pytest.raises(DuplicateDocument):
        orders.insert("o-1", {})


def test_a_bulk_whose_write_reaches_no_row_fails(db: SharedDatabase) -> None:
    fill(db)
    drop_rows(db, "INSERT OR UPDATE OR DELETE")
    store = db.store("owner")
    queues: list[Callable[[Any], Any]] = [
        lambda orders: orders.replace("o-1", {"n": 7}, if_version=1),
        lambda orders: orders.replace("o-1", {"n": 7}, upsert=True),
        lambda orders: orders.delete("o-1", if_version=1),
    ]
    for queue in queues:
        with pytest.raises(BulkError, match="was not written"), store.bulk() as bulk:
            queue(bulk["orders"])
    assert store["orders"].count() == 4


def test_documents_that_a_policy_hides_do_not_exist_for_the_role(db: SharedDatabase) -> None:
    fill(db)
    enable(db, *SEES_EVEN, "CREATE POLICY w ON docs.orders FOR ALL USING ((data->>'n')::int % 2 = 0)")
    orders = db.store("writer")["orders"]
    assert orders.count() == 2
    assert orders.get("o-1") is None
    assert orders.update("o-1", {"$set": {"n": 7}}) is None
    assert orders.replace("o-1", {"n": 7}) is None
    assert orders.delete("o-1") is False
    assert orders.update_many({}, {"$set": {"seen": True}}) == 2
    assert orders.delete_many({}) == 2
    with pytest.raises(DatabaseError, match="hides the document"):
        orders.insert("o-1", {"n": 2})
    assert db.store("owner")["orders"].count() == 2


def test_async_writes_end_as_well(db: SharedDatabase) -> None:
    fill(db)
    drop_rows(db, "UPDATE OR DELETE")

    async def write() -> None:
        async with AsyncStore(db.dsn("owner")) as store:
            with pytest.raises(DatabaseError, match="was not written"):
                await store["orders"].update("o-1", {"$set": {"n": 7}})

    asyncio.run(write())
