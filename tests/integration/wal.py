"""Read what was written to the WAL with test_decoding, which is part of PostgreSQL."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_READ = "SELECT data FROM pg_logical_slot_get_changes(%s, NULL, NULL)"
_CHANGE = re.compile(r"table (?!pgdoc\.).*?: (INSERT|UPDATE|DELETE|TRUNCATE):")
_METADATA = re.compile(r"message: transactional: 1 prefix: pgdoc, sz: \d+ content:(.*)", re.DOTALL)


@contextmanager
def recorded(dsn: str) -> Iterator[Callable[[], list[Any]]]:
    """Yield a function that returns what was written since its last call.

    Entries are in WAL order: a kind of change, or a dict with the metadata of a message. An `end` follows each
    transaction that wrote either.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        slot = f"test_{connection.info.backend_pid}"
        connection.execute("SELECT pg_create_logical_replication_slot(%s, 'test_decoding', true)", [slot])
        yield lambda: list(_entries(line for (line,) in connection.execute(_READ, [slot]).fetchall()))


def _entries(lines: Iterable[str]) -> Iterator[Any]:
    written = False
    for line in lines:
        if line.startswith("COMMIT"):
            if written:
                yield "end"
            written = False
        elif change := _CHANGE.match(line):
            written = True
            yield change[1].lower()
        elif metadata := _METADATA.match(line):
            written = True
            yield json.loads(metadata[1])["metadata"]
