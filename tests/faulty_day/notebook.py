"""`Notebook`: what a stream saves, so that a restarted process can resume."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.faulty_day.digest import Fact

_TABLES = """
CREATE TABLE IF NOT EXISTS event (number INTEGER PRIMARY KEY, digest INTEGER NOT NULL, life INTEGER NOT NULL,
  at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS document (collection TEXT, id TEXT, image BLOB, PRIMARY KEY (collection, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS place (only INTEGER PRIMARY KEY CHECK (only = 1), token TEXT, life INTEGER, done INTEGER,
  error TEXT);
INSERT OR IGNORE INTO place VALUES (1, NULL, 0, 0, NULL);
"""
_BUSY_S = 30.0


class Notebook:
    """An SQLite file with the events read, the documents they produce, and the last token.

    Each batch is one transaction, so a killed process leaves complete batches. Nothing is synced to disk, because the
    machine itself does not crash. A *life* is one opening of the stream.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_TABLES)
        self.life = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._connection.close()

    def begin_life(self) -> None:
        """Count a new opening of the stream."""
        self._connection.execute("UPDATE place SET life = life + 1")
        self.life = self._place("life")

    @property
    def token(self) -> str | None:
        """The token to resume after."""
        token: str | None = self._place("token")
        return token

    @property
    def done(self) -> bool:
        """Whether the end mark has been read."""
        return bool(self._place("done"))

    def keep(self, facts: Sequence[Fact], token: str | None, *, done: bool = False, replica: bool = True) -> None:
        """Save a batch.

        Raises:
            AssertionError: A before image differs from the document that the earlier events produced.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for fact in facts:
                if replica:
                    self._apply(fact)
                self._connection.execute(
                    "INSERT INTO event (digest, life, at) VALUES (?, ?, ?)", (fact.digest, self.life, time.monotonic())
                )
            self._connection.execute("UPDATE place SET token = ?, done = done OR ?", (token, done))
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def fail(self, error: str) -> None:
        """Record an error; only the first is kept."""
        self._connection.execute("UPDATE place SET error = coalesce(error, ?)", (error,))

    def _place(self, column: str) -> Any:
        return self._connection.execute(f"SELECT {column} FROM place").fetchone()[0]

    def _apply(self, fact: Fact) -> None:
        run = self._connection.execute
        if fact.kind == "truncate":
            run("DELETE FROM document WHERE collection = ?", (fact.collection,))
            return
        key = (fact.collection, fact.document_id)
        row = run("SELECT image FROM document WHERE collection = ? AND id = ?", key).fetchone()
        held = row[0] if row else None
        assert held == _written(fact.before), (
            f"{fact}: the before image is {fact.before!r}, but the earlier events give {held!r}"
        )
        if fact.after is None:
            run("DELETE FROM document WHERE collection = ? AND id = ?", key)
        else:
            run("INSERT OR REPLACE INTO document VALUES (?, ?, ?)", (*key, _written(fact.after)))


def _written(image: list[Any] | None) -> bytes | None:
    return None if image is None else orjson.dumps(image, option=orjson.OPT_SORT_KEYS)


def read(path: Path, query: str) -> list[Any]:
    """Query a notebook from another process; return no rows if it does not exist yet."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=_BUSY_S)) as connection:
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError as exc:
            if "no such table" in str(exc):
                return []  # its process is still starting
            raise
