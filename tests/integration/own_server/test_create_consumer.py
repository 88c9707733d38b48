"""A consumer is created whole, or not at all, whatever fails and whoever else wants it at that moment."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc import Store
from pgdoc.cli.doctor import examine_server
from pgdoc.consumers.ownership import Ownership
from pgdoc.consumers.slots import find_cluster, make_slot
from pgdoc.errors import ConsumerBusy, HistoryLost, ReplicationNotPermitted, ServerUnreachable, SlotBlocked
from pgdoc.replication import slots
from pgdoc.replication.source import Cluster, Source
from tests.integration.own_server.consumers import (
    NAME,
    drop_bookmarks,
    drop_slot,
    ids,
    insert,
    slot,
    status,
    take,
)
from tests.integration.own_server.test_consumer_and_server import consumer_slots
from tests.integration.own_server.test_consumer_care import forget, run
from tests.integration.own_server.words import PATIENCE_S, said, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("in_a_hurry")

WEEK = timedelta(days=7)
PAUSED = """
import sys, time
import pgdoc
from pgdoc.consumers.ownership import Ownership
from pgdoc.consumers.slots import make_slot

def pause(*_):
    print("here", flush=True)
    time.sleep(600)

setattr(Ownership, sys.argv[2], pause)
pgdoc.Store(sys.argv[1]).create_consumer("billing", "orders")
"""


@pytest.fixture(autouse=True)
def at_short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdoc._sync.admin._CREATION_POLL_S", 0.02)


def sees(store: Store, number: int) -> None:
    """Check that a consumer delivers a document, and nothing before it."""
    with store["orders"].watch(consumer=NAME) as stream:
        assert ids(take(stream, 1)) == [number]


def rows(owner: psycopg.Connection) -> list[str]:
    """Return where the catalog and the server know the consumer."""
    query = "SELECT 'consumers' FROM pgdoc.consumers UNION ALL SELECT 'owners' FROM pgdoc.owners"
    return [row[0] for row in owner.execute(query.encode())] + consumer_slots(owner)


STEPS = (
    "declaration.find_cluster",
    "ownership.Ownership.enter",
    "takeover.make_slot",
    "slots._flag",
    "ownership.Ownership.flush",
    "ownership.Ownership.settle",
)


def test_what_fails_leaves_nothing(store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise ServerUnreachable("the connection was lost just then")

    for step in STEPS:
        with monkeypatch.context() as patched:
            patched.setattr(f"pgdoc.consumers.{step}", fail)
            with pytest.raises(ServerUnreachable, match="just then"):
                store.create_consumer(NAME, "orders")
        assert rows(owner) == [], step
    assert store.create_consumer(NAME, "orders")
    insert(store, 1)
    sees(store, 1)


def test_an_interrupt_leaves_what_the_next_call_takes_over(
    store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    for number, step in enumerate(("find_slot", "enter", "wal_end", "settle", "give_up")):
        with monkeypatch.context() as patched:
            patched.setattr(Ownership, step, interrupt)
            with pytest.raises(KeyboardInterrupt):
                store.create_consumer(NAME, "orders")
        assert store.create_consumer(NAME, "orders") is (step != "give_up"), step
        assert consumer_slots(owner) == [slot(owner)]
        insert(store, number)
        sees(store, number)
        assert store.drop_consumer(NAME)


def test_a_process_that_is_killed_halfway_is_replaced(
    store: Store, dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, step in enumerate(("enter", "settle")):
        with subprocess.Popen([sys.executable, "-c", PAUSED, dsn, step], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            with monkeypatch.context() as patched:
                patched.setattr("pgdoc._sync.admin._CREATION_S", 0.1)
                assert said(ConsumerBusy, lambda: store.create_consumer(NAME, "orders")) == (
                    'consumer "billing" is being created, opened or dropped by another process, which has not finished '
                    "after 0 s: see who has it (`pgdoc consumers`), and try again"
                )
            process.send_signal(signal.SIGKILL)
        assert store.create_consumer(NAME, "orders")
        assert consumer_slots(owner) == [slot(owner)]
        insert(store, number)
        sees(store, number)
        assert store.drop_consumer(NAME)


def test_of_several_at_once_one_creates_it_and_all_have_it(store: Store, dsn: str, owner: psycopg.Connection) -> None:
    def create(number: int) -> bool:
        with Store(dsn) as each:
            is_made = each.create_consumer(NAME, "orders")
            insert(each, number)
            return is_made

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(create, range(4)))
    assert sorted(made) == [False, False, False, True]
    assert consumer_slots(owner) == [slot(owner)]
    with store["orders"].watch(consumer=NAME) as stream:
        assert sorted(ids(take(stream, 4))) == [0, 1, 2, 3]


@contextlib.contextmanager
def creating(dsn: str, monkeypatch: pytest.MonkeyPatch, *, fails: bool) -> Iterator[Callable[[], bool]]:
    """In the block, another store stops where it would make the slot. The function lets it go on, and waits for it."""
    reached, go_on = threading.Event(), threading.Event()

    def stop(*args: Any, **options: Any) -> int:
        monkeypatch.setattr("pgdoc.consumers.takeover.make_slot", make_slot)
        reached.set()
        assert go_on.wait(PATIENCE_S)
        if fails:
            raise ServerUnreachable("the connection was lost just then")
        return make_slot(*args, **options)

    monkeypatch.setattr("pgdoc.consumers.takeover.make_slot", stop)
    with Store(dsn) as other, ThreadPoolExecutor(1) as pool:
        created = pool.submit(other.create_consumer, NAME, "orders")

        def finish() -> bool:
            go_on.set()
            return created.result(PATIENCE_S)

        try:
            assert reached.wait(PATIENCE_S)
            yield finish
        finally:
            go_on.set()


def test_a_process_that_creates_it_is_waited_for(
    store: Store, dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgdoc consumer billing'"
    for number, fails in enumerate((False, True)):
        with creating(dsn, monkeypatch, fails=fails) as finish, ThreadPoolExecutor(1) as pool:
            created = pool.submit(store.create_consumer, NAME, "orders")
            wait_until(lambda: owner.execute(asking.encode()).fetchall() > [(1,)])
            assert not created.done()
            with pytest.raises(ServerUnreachable) if fails else contextlib.nullcontext():
                assert finish()
            assert created.result(PATIENCE_S) is fails
        insert(store, number)
        sees(store, number)
        assert store.drop_consumer(NAME)


def test_a_claim_that_may_drop_it_does_not_count_as_an_owner(
    store: Store, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_consumer(NAME, "orders")
    dropping = Ownership(Source(dsn, "docs"), NAME)
    try:
        assert dropping.own()
        monkeypatch.setattr("pgdoc._sync.admin._CREATION_S", 0.1)
        with pytest.raises(ConsumerBusy, match="is being created, opened or dropped by another process"):
            store.create_consumer(NAME, "orders")
        dropping.give_up()
        assert not store.create_consumer(NAME, "orders")
        assert dropping.own()
        assert dropping.remove()
        dropping.give_up()
    finally:
        dropping.close()
    assert store.create_consumer(NAME, "orders")


def test_it_waits_for_no_checkpoint_of_a_closed_consumer_and_ends_none(store: Store, owner: psycopg.Connection) -> None:
    with store.watch():  # keeps history
        for number, loses_slot in enumerate((False, True)):
            with store["orders"].watch(consumer=NAME) as stream:
                insert(store, number)
                (event,) = take(stream, 1)
                with store.transaction() as tx:
                    tx["audit"].insert(f"effect {number}", {})
                    stream.checkpoint(event, tx)
                    stream.close()
                    if loses_slot:
                        drop_slot(owner)
                    assert not store.create_consumer(NAME, "orders")
            assert store["audit"].get(f"effect {number}") is not None
            assert consumer_slots(owner) == [slot(owner)]
    insert(store, 2)
    sees(store, 2)


@pytest.mark.parametrize("step", ["declaration", "recreation"])
def test_it_may_take_longer_than_the_lease(store: Store, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A busy server is slow to open the other connections."""

    def slowly(*args: Any, **options: Any) -> Cluster:
        time.sleep(1.5)
        return find_cluster(*args, **options)

    if step == "recreation":
        store.create_consumer(NAME, "orders")
    monkeypatch.setattr("pgdoc.consumers.ownership.LEASE_S", 1)
    monkeypatch.setattr(f"pgdoc.consumers.{step}.find_cluster", slowly)
    if step == "recreation":
        store.recreate_consumer(NAME)
    else:
        assert store.create_consumer(NAME, "orders")


def test_a_slot_that_was_lost_is_made_again_from_history(store: Store, owner: psycopg.Connection) -> None:
    with store.watch():  # leaves a bookmark
        assert store.create_consumer(NAME, "orders")
        insert(store, 1)
        drop_slot(owner)
        assert not store.create_consumer(NAME, "orders")
        assert consumer_slots(owner) == [slot(owner)]
    sees(store, 1)
    drop_slot(owner)
    drop_bookmarks(owner)
    assert 'consumer "billing" can\'t go on: its slot' in said(
        HistoryLost, lambda: store.create_consumer(NAME, "orders")
    )
    assert (status(store).name, consumer_slots(owner)) == (NAME, [])


def test_what_was_interrupted_is_prepared_as_a_new_consumer(store: Store, owner: psycopg.Connection) -> None:
    """Else its collections would be missing, and its snapshot might lack documents that a policy hides."""
    for make in (
        lambda: store.create_consumer(NAME, "orders"),
        lambda: store.watch("orders", consumer=NAME).close(),
    ):
        store.create_consumer(NAME, "orders")
        owner.execute("UPDATE pgdoc.consumers SET place = '{}'")
        owner.execute("DELETE FROM pgdoc.consumer_progress")
        store.drop_collection("orders")
        make()
        assert "orders" in store.collections()
        store.drop_consumer(NAME)


def test_the_first_slot_of_a_database_says_what_it_waits_for(
    store: Store, dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_BLOCKED_AFTER_S", 0.2)
    with psycopg.connect(dsn) as writer:
        writer.execute("INSERT INTO docs.orders (id, data) VALUES ('1', '{}')")
        assert "transaction" in said(SlotBlocked, lambda: store.create_consumer(NAME, "orders"))
    assert rows(owner) == []


def test_a_role_that_may_not_replicate_is_refused_and_leaves_nothing(
    store: Store, dsn: str, owner: psycopg.Connection
) -> None:
    password = conninfo_to_dict(dsn)["password"]
    owner.execute(f"CREATE ROLE plain LOGIN PASSWORD '{password}'".encode())
    owner.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgdoc TO plain")
    owner.execute("GRANT USAGE ON SCHEMA docs TO plain")
    try:
        with (
            Store(make_conninfo(dsn, user="plain")) as plain,
            pytest.raises(ReplicationNotPermitted, match="pgdoc grant plain --as streamer"),
        ):
            plain.create_consumer(NAME, "orders")
        assert rows(owner) == []
    finally:
        owner.execute("DROP OWNED BY plain")
        owner.execute("DROP ROLE plain")


def test_a_declaration_counts_as_use(store: Store, dsn: str, owner: psycopg.Connection) -> None:
    assert store.create_consumer(NAME, "orders")
    assert not store.drop_consumer(NAME, unused_for=WEEK)
    forget(owner, NAME, "8 days")
    assert _finding(dsn) == "consumer-orphaned"
    assert not store.create_consumer(NAME, "orders")
    assert not store.drop_consumer(NAME, unused_for=WEEK)
    assert _finding(dsn) == "consumer-closed"
    claims = owner.execute("SELECT * FROM pgdoc.owners").fetchall()
    assert not store.create_consumer(NAME, "orders")
    assert owner.execute("SELECT * FROM pgdoc.owners").fetchall() == claims, "it was claimed a moment ago"
    owner.execute("DELETE FROM pgdoc.owners")  # as in a restored catalog
    forget(owner, NAME, "8 days")
    assert not store.create_consumer(NAME, "orders")
    assert not store.drop_consumer(NAME, unused_for=WEEK)


def _finding(dsn: str) -> str:
    (found,) = [each.id for each in examine_server(dsn, "docs") if each.id.startswith("consumer")]
    return found


def test_the_command_creates_it_once(store: Store, dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = '{"event_type": "insert"}'
    assert run(dsn, capsys, "create", NAME, "orders", "--where", where) == (0, f"Created consumer {NAME}.\n", "")
    assert run(dsn, capsys, "create", NAME, "orders") == (0, f"Consumer {NAME} exists.\n", "")
    code, out, _ = run(dsn, capsys, "create", "other", "--tables", "--snapshot", "--json")
    assert (code, json.loads(out)) == (0, {"name": "other", "schema": "docs", "created": True})
    insert(store, 1)
    sees(store, 1)
    with store.watch(consumer="other", tables=True, snapshot=True) as stream:
        assert ids(take(stream, 1)) == [1]


def test_the_command_creates_nothing_because_of_a_typo(
    store: Store, dsn: str, owner: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code, said_ in (
        (["create", NAME, "ordres"], 1, 'collection "docs.ordres" does not exist: check the name'),
        (["create", NAME, "public.ordres"], 1, '"public.ordres"'),
        (["create", NAME, "--schema", "shop"], 1, 'schema "shop" does not exist: check the name, or pass --create'),
        (["create", "Billing"], 1, "is not a valid consumer name"),
        (["create", NAME, "orders", "--tables"], 2, "leave out the names"),
        (["create", NAME, "--where", "5"], 2, "is not a JSON object"),
        (["create", NAME, "--where", '{"nonsense": 1}'], 2, "nonsense"),
        (["create"], 2, "Missing argument"),
    ):
        found, out, err = run(dsn, capsys, *arguments)
        assert (found, out, said_ in " ".join(err.split())) == (code, "", True), arguments
    assert (rows(owner), store.collections()) == ([], ["audit", "orders"])
    assert run(dsn, capsys, "create", NAME, "bills", "--create", "--schema", "docs")[0] == 0
    assert store.collections() == ["audit", "bills", "orders"]
    code, out, err = run(dsn, capsys, "create", NAME, "--schema", "shop", "--create")
    assert (code, out, "reads the schema" in err) == (1, "", True)
