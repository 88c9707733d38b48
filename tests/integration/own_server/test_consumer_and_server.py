"""Consumers retain no unneeded WAL, do not block the server, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import AsyncStore, Store
from pgdoc.errors import ConsumerBusy, DatabaseError, SlotBlocked, StreamError
from pgdoc.model.positions import Lsn
from pgdoc.replication import slots
from tests.fixtures.fix_server import _connect_admin
from tests.integration.own_server.consumers import NAME, confirmed, ids, insert, slot, status, take
from tests.integration.own_server.test_errors_of_slots import fill_slots, free_slots
from tests.integration.own_server.words import PATIENCE_S, said, wait_until
from tests.integration.test_processes import FORKED, run

if TYPE_CHECKING:
    from pgdoc import ChangeEvent, ChangeStream
    from pgdoc.server import LocalServer

pytestmark = pytest.mark.usefixtures("in_a_hurry")

LIMIT_S = 30.0
_SESSIONS = """
SELECT pid FROM pgdoc.owners WHERE name = %s
UNION ALL SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s AND active
"""


def consumer_slots(owner: psycopg.Connection) -> list[str]:
    rows = owner.execute(r"SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgdoc\_%'").fetchall()
    return [row[0] for row in rows]


def test_a_consumer_is_made_while_a_transaction_is_open(store: Store, dsn: str, owner: psycopg.Connection) -> None:
    store.watch().close()  # leaves a bookmark
    with psycopg.connect(dsn) as writer:
        writer.execute("INSERT INTO docs.orders (id, data) VALUES ('1', '{}')")
        with store["orders"].watch(consumer=NAME) as stream:
            insert(store, 2)
            assert ids(take(stream, 1)) == [2]
            writer.commit()
            assert ids(take(stream, 1)) == [1]


def test_the_first_consumer_of_a_database_says_what_it_waits_for(
    store: Store, dsn: str, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_BLOCKED_AFTER_S", 0.2)
    with psycopg.connect(dsn) as writer:
        writer.execute("INSERT INTO docs.orders (id, data) VALUES ('1', '{}')")
        assert f"pid {writer.info.backend_pid}" in said(SlotBlocked, lambda: store.watch(consumer=NAME))
        assert (store.consumers(), consumer_slots(owner)) == ([], [])
        writer.rollback()
    store.watch(consumer=NAME).close()


def test_a_role_that_may_not_store_a_consumer_leaves_no_slot(
    cluster: LocalServer, database: str, admin: psycopg.Connection, owner: psycopg.Connection
) -> None:
    admin.execute("CREATE ROLE app LOGIN REPLICATION")
    try:
        with Store(cluster.conninfo_for(database, "app")) as store:
            message = said(DatabaseError, lambda: store.watch(consumer=NAME))
            assert message == (
                "permission denied for table consumers: as the catalog's owner, "
                "run GRANT SELECT, INSERT, UPDATE, DELETE ON pgdoc.consumers, pgdoc.consumer_progress, pgdoc.owners, "
                'pgdoc.unreadable TO "app"; `pgdoc grant app --as streamer` prints the SQL that gives all that '
                "consumers need"
            )
            assert "run GRANT SELECT ON pgdoc.consumers, " in said(DatabaseError, store.consumers)
        assert owner.execute("SELECT FROM pgdoc.consumers, pgdoc.owners").fetchall() == []
        assert consumer_slots(owner) == []
    finally:
        admin.execute("DROP ROLE app")


def test_an_existing_consumer_opens_although_no_slot_is_free(store: Store, admin: psycopg.Connection) -> None:
    store["orders"].watch(consumer=NAME).close()
    insert(store, 1)
    fill_slots(admin)
    try:
        with store["orders"].watch(consumer=NAME) as stream:
            assert ids(take(stream, 1)) == [1]
        assert store.drop_consumer(NAME)
    finally:
        free_slots(admin)


def test_a_consumer_whose_checkpoint_is_in_progress_is_not_dropped(store: Store, owner: psycopg.Connection) -> None:
    stream = store["orders"].watch(consumer=NAME)
    insert(store, 1, 2)
    one, _ = take(stream, 2)
    with store.transaction() as tx:
        stream.checkpoint(one, tx)
        stream.close()
        assert "in a transaction that is still open" in said(ConsumerBusy, lambda: store.drop_consumer(NAME))
        assert consumer_slots(owner) == [slot(owner)]
    with store["orders"].watch(consumer=NAME) as stream:
        assert ids(take(stream, 1)) == [2]


def test_nothing_beyond_what_was_acknowledged_is_confirmed(
    store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the slot is checked at the end, when the event after the acknowledged one is known."""
    monkeypatch.setattr("pgdoc.consumers.owned_slot._STATUS_S", 0.01)
    monkeypatch.setattr("pgdoc.consumers.filling.PATIENCE_S", 0.05)
    chance = random.Random(1)
    count = 300
    with (
        ThreadPoolExecutor(2) as threads,
        store["orders"].watch(consumer=NAME, auto_ack=False, buffer_size=9) as stream,
    ):
        writers = [threads.submit(_write, store, n * count // 2, count // 2, n) for n in range(2)]
        events: list[ChangeEvent] = []
        looks: list[tuple[int, int]] = []
        acknowledged = 0
        while len(events) < count:
            events += take(stream, 1)
            if chance.random() < 0.3:
                acknowledged = chance.randint(acknowledged, len(events))
                if acknowledged:
                    stream.ack(events[acknowledged - 1])
            if chance.random() < 0.05:
                time.sleep(0.1)  # long enough for the buffer to fill
            looks.append((confirmed(owner), acknowledged))
        for writer in writers:
            writer.result()
    for lsn, first in looks:
        assert first == len(events) or lsn <= events[first].resume_token.lsn
    assert len({lsn for lsn, _ in looks}) > 1
    assert sorted(ids(events)) == list(range(count))


def _write(store: Store, first: int, count: int, seed: int) -> None:
    """Write documents, some of them in one transaction."""
    chance = random.Random(seed)
    numbers = list(range(first, first + count))
    while numbers:
        size = chance.randint(1, 7)
        with store.transaction() as tx:
            for number in numbers[:size]:
                tx["orders"].insert(str(number), {})
        del numbers[:size]


def test_a_quiet_consumer_pins_nothing(cluster: LocalServer, store: Store, owner: psycopg.Connection) -> None:
    with store["orders"].watch(consumer=NAME, auto_ack=False) as stream, _connect_admin(cluster) as elsewhere:
        insert(store, 1)
        stream.ack(*take(stream, 1))
        owner.execute("CREATE TABLE public.noise (n int)")
        elsewhere.execute("CREATE TABLE IF NOT EXISTS public.noise (n int)")
        place = 0
        for busy in (owner, elsewhere):
            busy.execute("INSERT INTO public.noise SELECT generate_series(1, 1000)")
            ((text,),) = busy.execute("SELECT pg_current_wal_lsn()::text").fetchall()
            place = Lsn.parse(text)
        wait_until(lambda: _is_released(owner, place))
        wait_until(lambda: stream.try_next() is None and stream.resume_token.lsn >= place)
        elsewhere.execute("DROP TABLE public.noise")


def _is_released(owner: psycopg.Connection, place: int) -> bool:
    owner.execute("CHECKPOINT")  # restart_lsn can move past the records that it writes
    ((restart_lsn,),) = owner.execute(
        "SELECT (restart_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = %s", [slot(owner)]
    ).fetchall()
    return bool(confirmed(owner) >= place and restart_lsn >= place)


def test_the_connections_of_a_consumer_carry_its_name(store: Store, owner: psycopg.Connection) -> None:
    """Its connections are the session that owns it, and the walsender that reads its slot."""
    names = "SELECT backend_type FROM pg_stat_activity WHERE application_name = %s ORDER BY backend_type"
    with store["orders"].watch(consumer=NAME):
        assert [row[0] for row in owner.execute(names, [f"pgdoc consumer {NAME}"])] == ["client backend", "walsender"]


@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_callback_of_any_length_kills_nothing(
    dsn: str,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    in_transaction: bool,
) -> None:
    """The server ends a walsender or an owner's session that is silent for two seconds."""
    monkeypatch.setattr("pgdoc.consumers.ownership.LEASE_S", 2)
    with (
        Store(make_conninfo(dsn, options="-c wal_sender_timeout=2s")) as impatient,
        impatient["orders"].watch(consumer=NAME, buffer_size=4) as stream,
    ):
        owner_pid = status(store).owner_pid
        insert(store, *range(20))
        (event,) = take(stream, 1)
        if in_transaction:
            with impatient.transaction() as tx:
                stream.checkpoint(event, tx)
                time.sleep(3.5)
        else:
            time.sleep(3.5)
        assert ids(take(stream, 19)) == list(range(1, 20))
        assert status(store).owner_pid == owner_pid
    assert "reconnecting" not in caplog.text


def test_the_server_s_shutdown_is_not_held_up(cluster: LocalServer, store: Store) -> None:
    """Neither unacknowledged events nor a full buffer delay a fast shutdown."""
    with (
        store["orders"].watch(consumer=NAME, auto_ack=False) as stream,
        store["orders"].watch(consumer="full", buffer_size=2) as full,
    ):
        insert(store, *range(9))
        take(stream, 5)
        wait_until(lambda: full.stats().buffered == 2)
        began = time.monotonic()
        cluster.restart("fast")
        assert time.monotonic() - began < LIMIT_S
        assert ids(take(stream, 4)) == [5, 6, 7, 8]
        assert ids(take(full, 9)) == list(range(9))


def test_a_consumer_stream_closes_quickly_in_any_state(
    cluster: LocalServer, dsn: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgdoc.consumers.filling.PATIENCE_S", 0.2)
    stream = store["orders"].watch(consumer=NAME)
    standby = store["orders"].watch(consumer=NAME)
    full = store["orders"].watch(consumer="full", buffer_size=1)
    fuller = store["orders"].watch(consumer="fuller", buffer_size=1)
    lonely = store["orders"].watch(consumer="lonely")
    insert(store, *range(9))
    _close(standby)
    _close(full)
    wait_until(lambda: fuller.stats().mode == "catching_up")
    _close(fuller)
    with cluster.stopped("immediate"):
        wait_until(lambda: lonely.stats().mode == "reconnecting")
        _close(lonely)
    assert ids(take(stream, 9)) == list(range(9))
    wait_until(lambda: stream.try_next() is None and stream.stats().mode == "live")
    with psycopg.connect(dsn) as owner:
        pids = [row[0] for row in owner.execute(_SESSIONS, [NAME, slot(owner)]).fetchall()]
    assert pids  # one, if the hub feeds it
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        _close(stream)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _close(stream: ChangeStream) -> None:
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < LIMIT_S / 2


def test_one_of_two_racing_stores_opens_a_new_consumer(dsn: str, store: Store) -> None:
    def enter(number: int) -> ChangeStream | None:
        with contextlib.suppress(ConsumerBusy):
            together.wait()
            return racers[number]["orders"].watch(consumer=NAME, wait=False)
        return None

    together = threading.Barrier(2)
    with Store(dsn) as one, Store(dsn) as other, ThreadPoolExecutor(2) as threads:
        racers = (one, other)
        for _ in range(3):
            entered = [stream for stream in threads.map(enter, range(2)) if stream is not None]
            assert len(entered) == 1
            insert(store, 1)
            assert ids(take(entered[0], 1)) == [1]
            entered[0].close()
            store["orders"].delete("1")
            assert store.drop_consumer(NAME)


def test_one_of_two_racing_streams_becomes_the_standby(dsn: str, store: Store) -> None:
    with Store(dsn) as other, ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda racer: racer["orders"].watch(consumer=NAME), (store, other)))
        standby, owner = sorted(both, key=lambda stream: stream.stats().mode != "standby")
        insert(store, 1)
        assert ids(take(owner, 1)) == [1]
        assert standby.try_next() is None
        owner.close()
        assert ids(take(standby, 1)) == [1]
        standby.close()


FORKS = """
store = pgdoc.Store(dsn, schema=schema)
stream = store["orders"].watch(consumer="billing", auto_ack=False)
standby = store["orders"].watch(consumer="billing")
for number in "1234":
    store["orders"].insert(number, {})
tell(stream.next(timeout=30).document_id)
child = os.fork()
if child == 0:
    tell(said(lambda: stream.next(timeout=1)))
    stream.ack()
    standby.close()
    stream.close()
    store.close()
    sys.exit(0)
os.waitpid(child, 0)
tell(stream.next(timeout=30).document_id, stream.stats().mode, standby.stats().mode)
stream.ack()
stream.close()
tell(standby.next(timeout=30).document_id)
store.close()
"""


def test_a_forked_child_does_not_disturb_a_consumer(store: Store, dsn: str) -> None:
    done, printed = run(FORKS, dsn, "docs")
    assert printed == ["1", f"StreamError: {FORKED}", "2 live standby", "3"]
    assert done == 0


async def test_a_cancelled_opening_leaves_no_consumer_and_no_slot(
    store: Store, dsn: str, owner: psycopg.Connection
) -> None:
    """The opening blocks on a transaction, as the first slot of a database does."""
    async with AsyncStore(dsn) as impatient:
        with psycopg.connect(dsn) as writer:
            writer.execute("INSERT INTO docs.orders (id, data) VALUES ('1', '{}')")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await impatient.watch(consumer=NAME)
            wait_until(lambda: (store.consumers(), consumer_slots(owner)) == ([], []))
        async with impatient["orders"].watch(consumer=NAME) as stream:
            insert(store, 2)
            event = await stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.document_id == "2"


def test_a_garbage_collected_stream_releases_its_consumer(store: Store) -> None:
    stream = store["orders"].watch(consumer=NAME)
    assert status(store).owner_pid is not None
    del stream
    gc.collect()
    wait_until(lambda: status(store).owner_pid is None)


def test_a_standby_has_no_token_and_a_closing_owner_saves_its_position(store: Store) -> None:
    with store["orders"].watch(consumer=NAME) as stream, store["orders"].watch(consumer=NAME) as standby:
        with pytest.raises(StreamError, match="is a standby: it has no position"):
            standby.resume_token  # noqa: B018 (a property)
        assert standby.stats().lag_bytes == 0
        before = stream.resume_token
        store["users"].insert("u-1", {})
        wait_until(lambda: stream.try_next() is None and stream.resume_token > before)
        standby.close()
    assert status(store).place > before
    assert status(store).lag < timedelta(seconds=30)
