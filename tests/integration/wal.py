"""What was written to the WAL, as another reader of it sees it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_READ = """
SELECT data FROM pg_logical_slot_get_changes(%s, NULL, NULL,
  'format-version', '2', 'add-msg-prefixes', 'pgdoc', 'include-types', '0')
"""
_ACTIONS = {"I": "insert", "U": "update", "D": "delete", "T": "truncate"}


@contextmanager
def recorded(dsn: str) -> Iterator[Callable[[], list[Any]]]:
    """Give a call that returns what happened since the last one.

    Each entry is a kind of change, in the order of the WAL, or a dict: the metadata of a message. An `end` follows each
    transaction that wrote either.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        slot = f"test_{connection.info.backend_pid}"
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'wal2json', true)", [slot])
        yield lambda: list(_entries(json.loads(data) for (data,) in connection.execute(_READ, [slot]).fetchall()))


def _entries(messages: Iterator[dict[str, Any]]) -> Iterator[Any]:
    written = False
    for message in messages:
        match message["action"]:
            case "B":
                written = False
            case "C":
                if written:
                    yield "end"
            case "M":
                written = True
                yield json.loads(message["content"])["metadata"]
            case action:
                if message["schema"] != "pgdoc":
                    written = True
                    yield _ACTIONS[action]
