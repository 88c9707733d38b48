# Written by .ci/twins.py from tests/integration/_async/test_unreadable_change.py: change that file, and run it.
"""A change that the server can't send stops only those who want it, and they get past it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pgdoc import Store
from pgdoc.consumers.slots import open_copy
from pgdoc.errors import ConsumerNotFound, InvalidInput, SlotsExhausted, StreamError, UnreadableChange
from pgdoc.model.positions import Lsn
from pgdoc.replication.routes import STRAIGHT, Route
from pgdoc.replication.session import open_reader
from pgdoc.runtime.retry import Backoff
from tests.integration._sync.streams import take, take_to
from tests.integration.own_server.words import wait_until
from tests.poison import insert_poison, make_poisonous

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from pgdoc import ChangeStream
    from pgdoc.replication.session import ReplicationSession

pytestmark = pytest.mark.usefixtures("both_plugins")

END = "end"
_ACTIVE_CONSUMERS = (
    r"SELECT FROM pg_replication_slots WHERE slot_name LIKE 'pgdoc\_%' AND database = current_database() AND active"
)
_DROP_CONSUMERS = r"""
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
WHERE slot_name LIKE 'pgdoc\_%' AND database = current_database()
"""


@pytest.fixture
def owner(dsn: str) -> Iterator[psycopg.Connection]:
    """A superuser on a database with the collections `orders` and `files`; the rows of `files` can be poisonous."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pgdoc.create_collection('docs', 'orders')")
        make_poisonous(connection, "files", plain=("plain",))
        yield connection
        wait_until(lambda: not connection.execute(_ACTIVE_CONSUMERS).fetchall())  # the walsender ends after the stream
        connection.execute(_DROP_CONSUMERS)


def write_poison(owner: psycopg.Connection, table: str = "files") -> None:
    """Write one transaction with an order before the poison, one after it, and metadata."""
    with owner.transaction():
        owner.execute("""SELECT pg_logical_emit_message(true, 'pgdoc', '{"metadata": {"by": "me"}}')""")
        owner.execute("INSERT INTO docs.orders (id, data) VALUES ('before', '{}')")
        insert_poison(owner, table)
        owner.execute("INSERT INTO docs.orders (id, data) VALUES ('after', '{}')")
    owner.execute("INSERT INTO docs.orders (id, data) VALUES ('end', '{}')")


def ids_to_end(stream: ChangeStream) -> list[str | None]:
    return [event.document_id for event in take_to(stream, END)]


def read_to_error(stream: ChangeStream) -> tuple[list[str | None], UnreadableChange]:
    ids: list[str | None] = []
    while True:
        try:
            ids += [event.document_id for event in take(stream)]
        except UnreadableChange as exc:
            return ids, exc


def test_what_wal2json_can_not_send_is_read_through_pgoutput(dsn: str, owner: psycopg.Connection) -> None:
    with Store(dsn, plugin="wal2json") as store:
        live, consumer = store.watch(), store.watch(consumer="all")
        with live, consumer:
            write_poison(owner, "plain")
            events = take_to(live, END)
            assert [event.document_id for event in events] == ["before", "after"]
            assert [dict(event.metadata or {}) for event in events] == [{"by": "me"}] * 2
            assert ids_to_end(consumer) == ["before", "after"]
            for event in events:  # each position is the same through both plugins
                with store.watch(resume_after=event.resume_token) as resumed:
                    assert ids_to_end(resumed) == (["after"] if event.document_id == "before" else [])


@pytest.mark.parametrize("partitions", [None, 3])
def test_streams_on_other_collections_go_on(dsn: str, owner: psycopg.Connection, partitions: int | None) -> None:
    owner.execute("SELECT pgdoc.drop_collection('docs', 'orders')")
    with Store(dsn) as store:
        store.create_collection("orders", partitions=partitions)
        live, consumer = store.watch("orders"), store.watch("orders", consumer="orders")
        with live, consumer:
            begin = (store["orders"].insert("begin", {})).id
            assert [event.document_id for event in take(live)] == [begin]
            for _ in range(2):
                write_poison(owner)
                assert ids_to_end(live) == ["before", "after"]
                owner.execute("DELETE FROM docs.orders WHERE id <> 'begin'")
                owner.execute("DELETE FROM docs.files")
                take(live, 3)
            token = live.resume_token
            events = take(consumer, 13)
            assert [event.document_id for event in events][:4] == ["begin", "before", "after", "end"]
        with store.watch("orders", resume_after=events[0].resume_token) as resumed:
            assert ids_to_end(resumed) == ["before", "after"]
        with store.watch("orders", resume_after=token) as resumed:
            store["orders"].insert(END, {})
            assert ids_to_end(resumed) == []


def test_a_stream_that_wants_it_gets_an_error_and_resumes_after_it(dsn: str, owner: psycopg.Connection) -> None:
    with Store(dsn) as store:
        with store.watch() as every, store.watch("files") as files:
            write_poison(owner)
            ids, error = read_to_error(every)
            assert ids == ["before"]
            assert (error.collection, error.collections) == ("files", ("files",))
            assert Lsn.parse(error.position) < Lsn.parse(error.commit_lsn)
            assert f"resume_after='{Lsn(Lsn.parse(error.commit_lsn) + 1)}'" in str(error)
            assert (read_to_error(files))[1].commit_lsn == error.commit_lsn
        with store.watch(resume_after=Lsn(Lsn.parse(error.commit_lsn) + 1)) as resumed:
            assert ids_to_end(resumed) == []


def test_a_consumer_passes_the_one_transaction_that_it_is_told_to_skip(
    dsn: str, owner: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(dsn) as store:
        with store.watch(consumer="all") as stream:
            write_poison(owner)
            ids, error = read_to_error(stream)
            assert ids == ["before"]
            assert "pgdoc consumers skip all" in str(error)
        with pytest.raises(StreamError, match="has met no unreadable change"):
            store.skip("all", commit_lsn=Lsn(7))
        (status,) = store.consumers()
        assert status.unreadable == Lsn.parse(error.commit_lsn)
        with store.watch(consumer="all") as stream:  # it is still there
            ids, again = read_to_error(stream)
            assert again.commit_lsn == error.commit_lsn
            assert ids in ([], ["before"])  # acknowledged just before the error, or not
        store.skip("all", commit_lsn=error.commit_lsn)
        with store.watch(consumer="all") as stream:
            assert (ids_to_end(stream))[-1:] == ["after"]
            write_poison_again(owner)
            assert (read_to_error(stream))[1].commit_lsn != error.commit_lsn
        rows = owner.execute(
            "SELECT commit_lsn::text, collections, skipped_by = session_user, passed_at IS NOT NULL "
            "FROM pgdoc.unreadable WHERE skipped_at IS NOT NULL"
        ).fetchall()
        assert rows == [(error.commit_lsn, ["files"], True, True)]
    assert any('passes what it was told to skip: consumer "all"' in record.getMessage() for record in caplog.records)


def test_a_skip_names_what_it_does_not_know(dsn: str) -> None:
    with Store(dsn) as store:
        with pytest.raises(ConsumerNotFound, match=r'consumer "nosuch" does not exist: .*store\.consumers\(\)'):
            store.skip("nosuch", commit_lsn="0/7")
        invalid: list[Any] = [None, 5, True, "x", "", b"0/7", "0/7 ", [], object()]
        for commit_lsn in invalid:
            with pytest.raises(InvalidInput, match=r"^commit_lsn must be an LSN"):
                store.skip("nosuch", commit_lsn=commit_lsn)


def write_poison_again(owner: psycopg.Connection) -> None:
    owner.execute("DELETE FROM docs.orders")
    insert_poison(owner, "files", "another")


def test_without_wal2json_nothing_after_the_poison_can_be_read(
    dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("consumers.slot_reading", "streams.catchup"):
        monkeypatch.setattr(f"pgdoc.{module}.find_poison", lambda *_args, **_options: (None, STRAIGHT))
    with Store(dsn, plugin="pgoutput") as store:
        with store.watch(consumer="orders") as stream, store.watch("orders") as live:
            write_poison(owner)
            ids, error = read_to_error(stream)
            assert (ids, error.collection) == (["before"], None)
            assert "nothing can read the others without wal2json" in str(error)
            ids, live_error = read_to_error(live)
            assert ids == ["before"]
            assert live_error.commit_lsn == error.commit_lsn
        store.skip("orders", commit_lsn=error.commit_lsn)
        with store.watch(consumer="orders") as stream:
            assert ids_to_end(stream) in ([], ["before"])  # acknowledged just before the error, or not


def test_a_consumer_passes_no_more_than_the_operator_has_seen(
    dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(dsn) as store:
        with store.watch(consumer="all") as stream:
            write_poison(owner)
            ids, error = read_to_error(stream)
            assert (ids, error.collections) == (["before"], ("files",))
        store.skip("all", commit_lsn=error.commit_lsn)
        with monkeypatch.context() as broken:  # without wal2json, the order after the poison would be passed, too
            broken.setattr("pgdoc.consumers.slot_reading.find_poison", lambda *_args, **_options: (None, STRAIGHT))
            with store.watch(consumer="all") as stream:
                _, error = read_to_error(stream)
                assert error.collections == ()
        (status,) = store.consumers()
        assert status.unreadable == Lsn.parse(error.commit_lsn)
        store.skip("all", commit_lsn=error.commit_lsn)
        with store.watch(consumer="all") as stream:  # it may pass any collection now
            assert (ids_to_end(stream))[-1:] == ["after"]


@pytest.mark.parametrize("consumer", [None, "held"])
def test_a_detour_for_which_no_slot_is_free_is_tried_ever_more_rarely(
    dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, consumer: str | None
) -> None:
    delays: list[float] = []
    wait = Backoff.wait

    def recorded(backoff: Backoff, closing: threading.Event) -> bool:
        delays.append(backoff._next_s)
        return wait(backoff, closing)

    def full_at_first(opener: Callable[..., ReplicationSession]) -> Callable[..., ReplicationSession]:
        def open_session(*arguments: Any, route: Route = STRAIGHT, **options: Any) -> ReplicationSession:
            if route is not STRAIGHT and len(delays) < 3:
                raise SlotsExhausted("all slots are in use")
            return opener(*arguments, route=route, **options)

        return open_session

    with Store(dsn, plugin="wal2json") as store, store.watch("orders", consumer=consumer) as stream:
        monkeypatch.setattr(Backoff, "wait", recorded)
        monkeypatch.setattr("pgdoc.consumers.slot_reading.open_copy", full_at_first(open_copy))
        monkeypatch.setattr("pgdoc.streams.live_reader.open_reader", full_at_first(open_reader))
        write_poison(owner, "plain")
        assert ids_to_end(stream) == ["before", "after"]
        assert len(delays) >= 3
        assert delays == sorted(set(delays))
