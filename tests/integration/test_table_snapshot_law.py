"""The snapshot law of `tests/snapshots.py` for watched tables: the events give the rows, despite concurrent writes."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from tests.snapshots import PART_DOCUMENTS, PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import ChangeEvent

_ROWS = 300
_TABLES = {
    "numbers": "id bigint PRIMARY KEY, v int, note text",
    "pairs": 'k text COLLATE "und-x-icu", n int, v int, at timestamptz DEFAULT now(), PRIMARY KEY (k, n)',
    "moments": "at timestamptz PRIMARY KEY, v int",
    "payloads": "id uuid PRIMARY KEY, v int, payload jsonb NOT NULL",
}
_NEW = {
    "numbers": "SELECT %(n)s, 0, repeat('x', %(n)s %% 40)",
    "pairs": "SELECT chr(65 + %(n)s %% 50), %(n)s, 0",
    "moments": "SELECT timestamptz '2020-01-01' + %(n)s * interval '0.3 hours', 0",
    "payloads": "SELECT md5((%(n)s)::text)::uuid, 0, jsonb_build_object('n', %(n)s)",
}
_SOME = "ctid IN (SELECT ctid FROM {0} ORDER BY random() LIMIT 10)"
_CHANGES = [
    f"UPDATE {{0}} SET v = v + 1 WHERE {_SOME}",
    f"DELETE FROM {{0}} WHERE {_SOME.replace('LIMIT 10', 'LIMIT 1')}",
]
_KEY_CHANGES = {
    "numbers": f"UPDATE {{0}} SET id = id + 10000 WHERE {_SOME} AND id < 10000",
    "pairs": f"UPDATE {{0}} SET k = k || 'é' WHERE {_SOME} AND length(k) < 5",
    "moments": f"UPDATE {{0}} SET at = at + interval '20 years' WHERE {_SOME} AND at < '2030-01-01'",
    "payloads": f"UPDATE {{0}} SET payload = payload || jsonb_build_object('more', 1.50) WHERE {_SOME}",
}


@contextlib.contextmanager
def writing(dsn: str, table: str) -> Iterator[None]:
    """Change rows of a table from two threads while the block runs."""
    enough = threading.Event()

    def write(seed: int) -> None:
        dice = random.Random(seed)
        with psycopg.connect(dsn, autocommit=True) as sql:
            while not enough.is_set():
                with (
                    contextlib.suppress(psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation),
                    sql.transaction(),
                ):
                    for _ in range(dice.randint(1, 5)):
                        _write(sql, table, dice)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def _write(sql: psycopg.Connection[Any], table: str, dice: random.Random) -> None:
    what = dice.random()
    if what < 0.4:
        sql.execute(_insertion(table), {"n": dice.randrange(_ROWS * 2)})
    elif what < 0.999:
        sql.execute(dice.choice([*_CHANGES, _KEY_CHANGES[table]]).format(f"public.{table}").encode())
    else:
        sql.execute(f"TRUNCATE public.{table}".encode())


def _insertion(table: str) -> bytes:
    return f"INSERT INTO public.{table} {_NEW[table]} ON CONFLICT DO NOTHING".encode()


class Copy:
    """The rows that the events produce, by table and id."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Any] = {}
        self.snapshots = 0

    def apply(self, event: ChangeEvent) -> None:
        """Apply the next event; its before image must be the row held so far."""
        if event.event_type == "truncate":
            self.rows = {key: row for key, row in self.rows.items() if key[0] != event.collection}
            return
        key = (event.collection, str(event.document_id))
        if event.event_type == "snapshot":
            self.snapshots += 1
            assert key not in self.rows
        else:
            before = event.full_document_before_change
            assert self.rows.get(key) == (None if before is None else before.data), f"{event.event_type} of {key}"
        if event.full_document is not None:
            self.rows[key] = event.full_document.data
        else:
            self.rows.pop(key, None)


def _stored(sql: psycopg.Connection[Any], table: str) -> dict[tuple[str, str], Any]:
    sql.execute("SET timezone = 'UTC'")
    document_id = {"pairs": "array_to_json(ARRAY[k, n::text])::text", "moments": "at::text"}.get(table, "id::text")
    data = "payload" if table == "payloads" else "to_json(t)"
    rows = sql.execute(f"SELECT {document_id}, {data} FROM public.{table} AS t".encode()).fetchall()
    return {(f"public.{table}", found): value for found, value in rows}


@pytest.mark.parametrize("table", _TABLES)
def test_the_events_give_the_rows(dsn: str, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgdoc._sync.snapshot_reader.CHUNK_DOCUMENTS", PART_DOCUMENTS)
    dice, copy, token, name = random.Random(), Copy(), None, f"public.{table}"
    with pgdoc.Store(dsn) as store, psycopg.connect(dsn, autocommit=True) as sql:
        sql.execute(f"CREATE TABLE {name} ({_TABLES[table]})".encode())
        store.add_table(name, document="payload" if table == "payloads" else None)
        with sql.cursor() as cursor:
            cursor.executemany(_insertion(table), [{"n": number} for number in range(_ROWS)])
        with writing(dsn, table):
            for _ in range(5):
                size = dice.choice([5, 10_000])
                with store.watch(name, snapshot=True, resume_after=token, buffer_size=size) as stream:
                    for _ in range(dice.randint(1, 300)):
                        event = stream.next(timeout=0.5)
                        if event is None:
                            break
                        copy.apply(event)
                        token = str(event.resume_token)
                    token = str(stream.resume_token) if dice.random() < 0.5 else token
        with store.watch(name, snapshot=True, resume_after=token) as stream:
            deadline = time.monotonic() + PATIENCE_S
            while (event := stream.next(timeout=0.5)) is not None or stream.stats().mode != "live":
                assert time.monotonic() < deadline
                if event is not None:
                    copy.apply(event)
        assert copy.snapshots > 0
        assert copy.rows == _stored(sql, table)
