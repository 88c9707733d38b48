# Written by .ci/twins.py from tests/integration/_async/test_read_your_writes.py: change that file, and run it.
"""Waiting until a consumer or a stream has processed what was committed."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc import Store
from pgdoc.errors import (
    ConsumerNotFound,
    InvalidInput,
    InvalidResumeToken,
    StreamClosed,
    TransactionClosed,
    WaitTimeout,
)
from pgdoc.runtime.primitives import sleep
from tests.background import Background
from tests.integration._sync.streams import take

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeStream

_numbers = itertools.count(1)
_EFFECTS = "effects"


@pytest.fixture
def name(shared_dsn: str) -> Iterator[str]:
    """The name of a consumer; all consumers are dropped at the end."""
    yield f"waited_{next(_numbers)}"
    with pgdoc.Store(shared_dsn) as store:
        for status in store.consumers():
            assert store.drop_consumer(status.name)


def by_event(store: Store, stream: ChangeStream, seen: set[str]) -> None:
    """Note each event, which the next call acknowledges."""
    del store
    for event in stream:
        seen.add(str(event.document_id))


def by_batch(store: Store, stream: ChangeStream, seen: set[str]) -> None:
    """Note the events of each batch, some time after it was delivered."""
    del store
    for events in stream.batches(7):
        sleep(0.002)
        seen.update(str(event.document_id) for event in events)


def exactly_once(store: Store, stream: ChangeStream, seen: set[str]) -> None:
    """Store the effects of each batch, with its checkpoint; note it before the commit, with which a wait may end."""
    for events in stream.batches(50):
        with store.transaction() as tx:
            tx[_EFFECTS].insert_many((str(event.document_id), {}) for event in events)
            stream.checkpoint(events[-1], tx)
            seen.update(str(event.document_id) for event in events)


def slowly(store: Store, stream: ChangeStream, seen: set[str]) -> None:
    """Note each event, and acknowledge it, some time after it was delivered."""
    del store
    for event in stream:
        sleep(0.02)
        seen.add(str(event.document_id))
        stream.ack(event)


def write(store: Store, prefix: str, pause_s: float, until: threading.Event, committed: set[str]) -> None:
    """Insert documents, and note each that is committed."""
    for number in itertools.count():
        if until.is_set():
            return
        document_id = f"{prefix}-{number}"
        store["orders"].insert(document_id, {})
        committed.add(document_id)
        sleep(pause_s)


def effects(store: Store) -> set[str]:
    return {document.id for document in store[_EFFECTS].find()}


def until_shared(stream: ChangeStream) -> None:
    """Wait until the hub feeds the stream of a consumer."""
    for _ in range(2000):
        if stream._consumer._share.is_feeding:  # type: ignore[union-attr]
            return
        sleep(0.01)
    raise AssertionError(stream.stats())


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("handle", [by_event, by_batch, exactly_once, slowly])
def test_after_waiting_everything_committed_before_is_processed(
    shared_dsn: str,
    schema: str,
    name: str,
    handle: Any,
    is_shared: bool,
) -> None:
    seen: set[str] = set()
    committed: set[str] = set()
    done = threading.Event()
    with Store(shared_dsn, schema=schema) as store, Store(shared_dsn, schema=schema) as other:
        store.create_collection(_EFFECTS)
        is_slow = handle is slowly
        pause_s = 0.1 if is_slow else 0.005
        with store["orders"].watch(consumer=name, auto_ack=not is_slow) as stream:
            second = store["others"].watch(consumer=f"{name}_b") if is_shared else None
            with (
                Background(handle, store, stream, seen),
                Background(write, other, "a", pause_s, done, committed),
                Background(write, other, "b", pause_s, done, committed),
            ):
                try:
                    if is_shared:
                        until_shared(stream)
                    for _ in range(5):
                        with other.transaction() as tx:
                            tx["orders"].insert(pgdoc.new_id(), {})
                            mine = pgdoc.new_id()
                            tx["orders"].insert(mine, {})
                        before = committed | {mine}
                        other.wait_for(name, tx.lsn())
                        assert before <= seen
                        if handle is exactly_once:
                            assert before <= effects(other)
                        before = committed.copy()
                        stream.wait_for(other.now())
                        assert before <= seen
                finally:
                    done.set()
                    stream.close()
                    if second is not None:
                        second.close()


def test_a_consumer_at_rest_is_found_to_have_passed(shared_dsn: str, schema: str, name: str) -> None:
    """Its collections do not change, so it has nothing to acknowledge."""
    with Store(shared_dsn, schema=schema) as store, store["orders"].watch(consumer=name) as stream:
        assert stream.try_next() is None
        for _ in range(3):
            store["others"].insert(pgdoc.new_id(), {})
            store.wait_for(name)
            stream.wait_for()


def test_a_stream_without_a_consumer_is_waited_for(shared_dsn: str, schema: str) -> None:
    seen: set[str] = set()
    with (
        Store(shared_dsn, schema=schema) as store,
        store["orders"].watch() as stream,
        Background(by_batch, store, stream, seen),
    ):
        try:
            for number in range(20):
                store["orders"].insert(str(number), {})
                stream.wait_for()
                assert str(number) in seen
                store["others"].insert(str(number), {})
                stream.wait_for(str(store.now()))
        finally:
            stream.close()


def test_a_snapshot_is_waited_for(shared_dsn: str, schema: str, name: str) -> None:
    seen: set[str] = set()
    with Store(shared_dsn, schema=schema) as store:
        store["orders"].insert_many((str(number), {}) for number in range(3000))
        with store["orders"].watch(consumer=name, snapshot=True) as stream:
            with pytest.raises(WaitTimeout):
                store.wait_for(name, timeout=0)
            with Background(by_event, store, stream, seen):
                try:
                    store.wait_for(name)
                    assert len(seen) == 3000
                finally:
                    stream.close()


def test_an_event_that_is_being_processed_is_not_passed(shared_dsn: str, schema: str, name: str) -> None:
    with (
        Store(shared_dsn, schema=schema) as store,
        store["orders"].watch(consumer=name) as durable,
        store["orders"].watch() as stream,
    ):
        store["orders"].insert("1", {})
        store["orders"].insert("2", {})
        lsn = store.now()
        for each in (durable, stream):
            _, event = take(each, 2)
            assert event.document_id == "2"
            with pytest.raises(WaitTimeout, match="its reader has not asked for the next event"):
                each.wait_for(lsn, timeout=0.1)
            each.wait_for(event.resume_token.lsn)
        with pytest.raises(WaitTimeout, match=r"the session with pid \d+ has it open") as caught:
            store.wait_for(name, lsn, timeout=0.1)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.owner_pid == (store.consumers())[0].owner_pid
        store.wait_for(name, event.resume_token.lsn)
        for each in (durable, stream):
            assert each.try_next() is None
            each.wait_for(lsn)
        store.wait_for(name, lsn)


def test_a_batch_is_passed_as_a_whole(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        store["orders"].insert("0", {})
        take(stream)
        with store.bulk() as bulk:
            bulk["orders"].insert("1", {})
        lsn = store.now()
        store["orders"].insert("2", {})
        while stream.stats().buffered < 2:
            sleep(0.01)
        assert len(stream.next_batch()) == 2
        with pytest.raises(WaitTimeout):
            stream.wait_for(lsn, timeout=0.1)
        assert stream.try_next() is None
        stream.wait_for(lsn)


def test_the_error_says_that_nobody_has_the_consumer_open(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch(consumer=name) as stream:
            assert stream.try_next() is None
        store["orders"].insert("1", {})
        with pytest.raises(WaitTimeout, match="nobody has it open") as caught:
            store.wait_for(name, timeout=0.05)
        assert caught.value.owner_pid is None
        assert pgdoc.Lsn.parse(caught.value.reached) < store.now()


def test_a_wait_goes_on_when_the_consumer_is_opened_later(shared_dsn: str, schema: str, name: str) -> None:
    seen: set[str] = set()
    with Store(shared_dsn, schema=schema) as store:
        with store["orders"].watch(consumer=name):
            pass
        store["orders"].insert("1", {})
        with Background(store.wait_for, name):
            sleep(0.1)
            stream = store["orders"].watch(consumer=name)
            reading = Background(by_event, store, stream, seen)
            reading.__enter__()
        assert seen == {"1"}
        stream.close()
        reading.__exit__(None, None, None)


def test_what_can_not_be_waited_for_is_refused_at_once(shared_dsn: str, schema: str, name: str) -> None:
    with Store(shared_dsn, schema=schema) as store:
        with pytest.raises(ConsumerNotFound, match=f'consumer "{name}" does not exist'):
            store.wait_for(name)
        with store["orders"].watch(consumer=name) as stream:
            beyond = pgdoc.Lsn(store.now() + (1 << 40))
            for wait in (lambda lsn: store.wait_for(name, lsn), stream.wait_for):
                with pytest.raises(InvalidResumeToken, match="beyond the end of this server's WAL"):
                    wait(beyond)
                with pytest.raises(InvalidInput, match="lsn must be an LSN"):
                    wait("nothing")
            with pytest.raises(InvalidInput, match="timeout must be a number"):
                store.wait_for(name, timeout="1")  # type: ignore[arg-type]
        store["orders"].insert("1", {})
        with pytest.raises(StreamClosed):
            stream.wait_for()


def test_a_standby_of_a_consumer_says_so(shared_dsn: str, schema: str, name: str) -> None:
    with (
        Store(shared_dsn, schema=schema) as store,
        Store(shared_dsn, schema=schema) as other,
        store["orders"].watch(consumer=name),
        other["orders"].watch(consumer=name) as standby,
    ):
        with pytest.raises(WaitTimeout, match="it is a standby"):
            standby.wait_for(timeout=0.01)


def test_a_transaction_has_an_lsn_once_it_has_committed(shared_dsn: str, schema: str) -> None:
    with Store(shared_dsn, schema=schema) as store, store["orders"].watch() as stream:
        with store.transaction() as tx:
            tx["orders"].insert("0", {})
            with pytest.raises(TransactionClosed, match="has not committed"):
                tx.lsn()
            raise psycopg.Rollback
        with pytest.raises(TransactionClosed, match="has not committed"):
            tx.lsn()
        with store.transaction() as tx:
            tx["orders"].insert("1", {})
        lsn = tx.lsn()
        (event,) = take(stream)
        assert event.resume_token.lsn < lsn <= store.now()
        store["orders"].insert("2", {})
        assert tx.lsn() == lsn
