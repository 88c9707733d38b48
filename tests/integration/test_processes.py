"""Stores in processes that fork, are interrupted, are killed, or exit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import pgdoc

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

PATIENCE_S = 60.0

BEGIN = """
import asyncio, gc, os, signal, sys
import pgdoc
from pgdoc.errors import PgdocError, StoreClosed, StreamError

def said(call):
    try:
        return repr(call())
    except PgdocError as exc:
        return f"{type(exc).__name__}: {exc}"

def tell(*words):
    print(*words, flush=True)

dsn, schema = sys.argv[1:]
"""

FORKED = "this store was made before the process forked: make a store of its own in the child process"


def command(code: str, dsn: str, schema: str) -> list[str]:
    return [sys.executable, "-c", BEGIN + textwrap.dedent(code), dsn, schema]


def run(code: str, dsn: str, schema: str) -> tuple[int, list[str]]:
    """Return the exit status and the printed lines; nothing may be written to standard error."""
    done = subprocess.run(command(code, dsn, schema), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@contextmanager
def running(code: str, dsn: str, schema: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command(code, dsn, schema), stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


FORKS = """
store = pgdoc.Store(dsn, schema=schema)
unused = pgdoc.Store(dsn, schema=schema)
orders = store["orders"]
stream = orders.watch()
full = orders.watch(buffer_size=2)
orders.insert_many((str(n), {}) for n in range(10))
assert stream.next(timeout=30).document_id == "0"  # nine more are in the buffer
opened = store.transaction()  # holds one connection; the pool has others
tx = opened.__enter__()
tx["orders"].insert("10", {})
child = os.fork()
if child == 0:
    END_OF_CHILD
tell(*os.waitpid(child, 0)[1:])
opened.__exit__(None, None, None)
orders.insert("11", {})
tell([stream.next(timeout=30).document_id for _ in range(11)] == [str(n) for n in range(1, 12)])
tell([full.next(timeout=30).document_id for _ in range(12)] == [str(n) for n in range(12)])
tell(orders.count(), store.status().problem)
store.close()
"""

IN_THE_CHILD = """
    tell(said(lambda: stream.next(timeout=1)))
    tell(said(lambda: next(iter(full))))
    tell(said(orders.watch))
    tell(said(lambda: orders.get("1")))
    tell(said(lambda: tx["orders"].get("1")).split(":")[0])
    tell(stream.closed, stream.stats().mode)
    stream.close()
    store.close()
    with pgdoc.Store(dsn, schema=schema) as own, own["orders"].watch() as again:
        own["orders"].insert("child's", {})
        tell(again.next(timeout=30).document_id)
        own["orders"].delete("child's")
    with unused, unused["orders"].watch():
        tell(unused["orders"].count())
"""

CHILDS_WORDS = [
    f"StreamError: {FORKED}",
    f"StreamError: {FORKED}",
    f"StreamError: {FORKED}",
    f"StoreClosed: {FORKED}",
    "TransactionLost",
    "True closed",
    "child's",
    "10",
]


@pytest.mark.parametrize("ends", ["os._exit(7)", "sys.exit(7)"])
def test_a_child_neither_hangs_nor_disturbs_its_parent(shared_dsn: str, schema: str, ends: str) -> None:
    code = FORKS.replace("    END_OF_CHILD\n", f"{IN_THE_CHILD}    {ends}\n")
    code = code.replace(
        "range(11)] == [str(n) for n in range(1, 12)]", "range(13)][:9] == [str(n) for n in range(1, 10)]"
    )
    code = code.replace("range(12)] == [str(n) for n in range(12)]", "range(14)][:10] == [str(n) for n in range(10)]")
    status, printed = run(code, shared_dsn, schema)
    assert printed == [*CHILDS_WORDS, str(7 << 8), "True", "True", "12 None"]
    assert status == 0


@pytest.mark.parametrize("ends", ["sys.exit(0)", "del store, orders, stream, full; gc.collect(); os._exit(0)"])
def test_a_child_that_does_nothing_does_not_disturb_its_parent(shared_dsn: str, schema: str, ends: str) -> None:
    status, printed = run(FORKS.replace("END_OF_CHILD", ends), shared_dsn, schema)
    assert printed == ["0", "True", "True", "12 None"]
    assert status == 0


def test_a_fork_waits_for_a_connection_that_is_being_opened(shared_dsn: str, schema: str) -> None:
    """libpq creates a socket before pgdoc knows its descriptor."""
    code = """
    import socket, threading, time
    from pgdoc.runtime.fork import connecting

    def steps():
        mine, other = socket.socketpair()
        descriptors.append(mine.fileno())
        inside.set()
        time.sleep(0.2)
        yield mine.fileno(), None
        yield other.fileno(), None

    descriptors, inside = [], threading.Event()
    following = connecting(steps())
    threading.Thread(target=lambda: next(following)).start()
    inside.wait()
    child = os.fork()
    if child == 0:
        nowhere, mine = os.stat(os.devnull), os.fstat(descriptors[0])
        os._exit(0 if os.path.samestat(nowhere, mine) else 1)
    tell(os.waitpid(child, 0)[1], following.send(None)[0] > 0)
    """
    assert run(code, shared_dsn, schema) == (0, ["0 True"])


def test_a_surviving_child_keeps_no_session_of_a_killed_parent(
    shared_dsn: str, schema: str, sql: psycopg.Connection
) -> None:
    code = """
    store = pgdoc.Store(dsn, schema=schema)
    stream = store["orders"].watch()
    child = os.fork()
    if child == 0:
        signal.pause()
    tell(child)
    signal.pause()
    """
    with running(code, shared_dsn, schema) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            parent.kill()
            parent.wait()
            others = (
                "SELECT pid, query, state, wait_event FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND backend_type IN ('client backend', 'walsender')"
            )
            deadline = time.monotonic() + PATIENCE_S
            while left := sql.execute(others).fetchall():
                assert time.monotonic() < deadline, left
                time.sleep(0.02)
        finally:
            subprocess.run(["kill", "-KILL", str(child)], check=True)


@pytest.mark.parametrize(
    "code",
    [
        "pgdoc.Store(dsn, schema=schema)['orders'].watch(); sys.exit(5)",
        """
        store = pgdoc.Store(dsn, schema=schema)
        stream = store["orders"].watch()
        store["orders"].insert("o-1", {})
        for event in stream:
            sys.exit(5)
        """,
        """
        async def main():
            store = pgdoc.AsyncStore(dsn, schema=schema)
            stream = await store["orders"].watch()
            await store["orders"].insert("o-1", {})
            await stream.next(timeout=30)
            return store, stream
        kept = asyncio.run(main())
        sys.exit(5)
        """,
        """
        async def main():
            store = pgdoc.AsyncStore(dsn, schema=schema)
            stream = await store["orders"].watch()
            await store["orders"].insert("o-1", {})
            async for event in stream:
                sys.exit(5)
        asyncio.run(main())
        """,
    ],
    ids=["sync", "sync, in its loop", "async, the loop is gone", "async, in its loop"],
)
def test_a_program_ends_with_an_open_store(shared_dsn: str, schema: str, code: str) -> None:
    assert run(code, shared_dsn, schema) == (5, [])


EVENTS = 3000
FIRST = 100_000  # so that ids sort like numbers
INSERT = "INSERT INTO orders (id, data) SELECT n, '{}' FROM generate_series(%s::int, %s::int) AS n"

INTERRUPTED = """
inside = pending = False

def interrupt(*_):
    global pending
    pending = True
    if inside:
        raise KeyboardInterrupt  # Python ignores it in the callback of a weak reference

signal.signal(signal.SIGINT, interrupt)
store = pgdoc.Store(dsn, schema=schema)
stream = store["orders"].watch(buffer_size=100)
tell("ready")
got, lost = [], []
while len(got) + len(lost) < EVENTS:
    try:
        inside = True
        while len(got) + len(lost) < EVENTS:
            if pending:
                raise KeyboardInterrupt
            take(got, stream.next(timeout=TIMEOUT))
    except KeyboardInterrupt:
        inside = pending = False
        if stream.stats().delivered > len(got) + len(lost):  # between the stream and the list: the loop lost it
            lost.append(len(got) + len(lost))
        tell("interrupted")
for index in lost:
    got.insert(index, str(index + 1))
tell("done", got == [str(n) for n in range(1, EVENTS + 1)], len(lost))
store.close()
"""


@pytest.mark.parametrize(("timeout", "exist"), [("0.0005", 0), ("5", 0), ("0", 0), ("5", 2_000), ("0", 2_000)])
def test_interrupts_lose_nothing(
    shared_dsn: str, schema: str, sql: psycopg.Connection, timeout: str, exist: int
) -> None:
    code = INTERRUPTED.replace("EVENTS", str(EVENTS)).replace("TIMEOUT", timeout)
    taking = """
    def take(got, event):
        if event is not None:
            got.append(str(int(event.document_id) - FIRST))
    """.replace("FIRST", str(FIRST))
    if exist:  # most interrupts hit inside the snapshot
        with pgdoc.Store(shared_dsn, schema=schema) as store:
            store.create_collection("orders")
        sql.execute(INSERT, [FIRST + 1, FIRST + exist])
        code = "from pgdoc._sync import snapshot_reader\nsnapshot_reader.CHUNK_DOCUMENTS = 20\n" + code.replace(
            "watch(", "watch(snapshot=True, "
        )
    chance = random.Random(timeout)
    with running(textwrap.dedent(taking) + code, shared_dsn, schema) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        written, interrupts = exist, 0
        while written < EVENTS - 1 or interrupts < 50:
            more = min(EVENTS - 1 - written, chance.randrange(1, 60))
            sql.execute(INSERT, [FIRST + written + 1, FIRST + written + more])
            written += more
            time.sleep(chance.random() * 0.003)  # anywhere inside next()
            process.send_signal(signal.SIGINT)
            interrupts += 1
            assert process.stdout.readline() == "interrupted\n"
        sql.execute(INSERT, [FIRST + EVENTS, FIRST + EVENTS])  # the document that the program waits for
        assert process.stdout.readline().split()[:2] == ["done", "True"]
        assert process.wait(PATIENCE_S) == 0
