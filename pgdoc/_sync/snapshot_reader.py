# Written by .ci/twins.py from pgdoc/_async/snapshot_reader.py: change that file, and run it.
"""Reads the chunks of a stream's snapshot from the tables."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from pgdoc.changes.snapshot import PgSnapshot, Snapshot, SnapshotChunk, delivered_id
from pgdoc.decoding.registry_rows import table_shape_of
from pgdoc.errors import PgdocError
from pgdoc.model.json_codec import decode_short, may_have_long_numbers
from pgdoc.model.key_order import KeyOrder
from pgdoc.model.stored_rows import rows_by_id, rows_by_key
from pgdoc.model.table_names import is_table_name, titled
from pgdoc.replication.checks import hidden_documents
from pgdoc.runtime.ahead import Ahead
from pgdoc.runtime.primitives import sleep

if TYPE_CHECKING:
    from pgdoc._sync.stream_backend import StreamBackend

__all__ = ["SnapshotReader"]

logger = logging.getLogger("pgdoc.snapshot")

CHUNK_DOCUMENTS = 10_000
CHUNK_BYTES = 8 << 20
_FIRST_DOCUMENTS = 100
_READ_LIMIT_S = 600.0
_SETTLE_S = 1.0
_SETTLE_POLL_S = 0.005
_RETRY_S = 0.5
_EARLY_S = 0.01
_WAIT_S = 0.05  # for a chunk that is being read, before the stream looks whether it was closed
_XID = 0xFFFF_FFFF  # the bits of a transaction id that pg_stat_activity shows


def settle(backend: StreamBackend) -> None:
    """Return when every transaction that committed before the call is visible to statements.

    A transaction that PostgreSQL shows as running may have committed, and become visible within a moment: this waits up
    to a second for each of them to end, unless it waits for its client. One that waits for a synchronous standby has
    committed, too: this waits as long as it does. The others have really not committed.
    """
    ((text, _, idle),) = backend.fetch("running")
    running = {xid for xid in PgSnapshot.parse(text).in_progress if xid & _XID not in idle}
    deadline = time.monotonic() + _SETTLE_S
    while running:
        sleep(_SETTLE_POLL_S)
        ((text, waiting, _),) = backend.fetch("running")
        seen = PgSnapshot.parse(text)
        running = {xid for xid in running if not seen.sees(xid)}
        if time.monotonic() > deadline:
            running = {xid for xid in running if xid & _XID in waiting}


class SnapshotReader:
    """Reads the snapshot of one stream, in chunks; keeps none of them, since it lives as long as the stream.

    The server prints all documents that a statement asks for, also those that exceed `CHUNK_BYTES`. So the first asks
    for few, and each for about as many as the last one returned, or more if that was all.

    A thread or task reads each chunk, while the stream delivers the one before. It holds a connection for that
    statement only, and there are never more than these two chunks. The user's thread reads none: a KeyboardInterrupt
    could come where it takes a connection from the pool, which would miss it from then on.
    """

    def __init__(self, backend: StreamBackend) -> None:
        self._backend = backend
        self._not_before = 0.0  # when to read the next chunk, by time.monotonic()
        self._documents = _FIRST_DOCUMENTS  # how many to ask for
        self._ahead: Ahead[SnapshotChunk] | None = None  # reads what `snapshot.is_being_read` says

    def read_ahead(self, snapshot: Snapshot) -> None:
        """Begin to read the next chunk, and return at once."""
        wanted = snapshot.wanted
        if wanted is None:
            return
        ahead = Ahead(partial(self._read, *wanted))
        snapshot.is_being_read = True
        self._ahead = ahead
        ahead.begin()

    def read_on(self, snapshot: Snapshot, wait_s: float | None) -> bool:
        """Read the next chunk for `snapshot`, if it wants one now; wait at most `wait_s` for one that is being read.

        Returns:
            Whether to ask again at once: it took a chunk, or waited for one.
        """
        if snapshot.wanted is None or time.monotonic() < self._not_before:
            return False
        if self._ahead is None:
            self.read_ahead(snapshot)
        ahead = self._ahead
        if ahead is None or not ahead.wait(_WAIT_S if wait_s is None else min(wait_s, _WAIT_S)):
            return True
        if ahead.error is not None:
            self._ahead = None
            snapshot.is_being_read = False
            self._retry_after(ahead.error)
            return False
        is_accepted = ahead.result is not None and snapshot.accept(ahead.result)
        self._ahead = None
        if not is_accepted:
            self._not_before = time.monotonic() + _EARLY_S
        return is_accepted

    def _retry_after(self, error: Exception) -> None:
        """Raise an error that a retry can't repair."""
        if not isinstance(error, PgdocError) or not (error.resumable or error.retryable):
            raise error
        logger.info("reading the snapshot again in %s s: %s", _RETRY_S, error)
        self._documents = max(1, self._documents // 10)  # they may have been too large
        self._not_before = time.monotonic() + _RETRY_S

    def close(self) -> None:
        """Stop reading."""
        if self._ahead is not None:
            self._ahead.stop()

    def _read(self, collection: str, after: str) -> SnapshotChunk:
        chunk = self._read_table(collection, after)
        if chunk is None:
            # It was dropped or renamed: the stream learns of that before it comes to the end of the WAL. A collection
            # that is created under this name later is not seen by this snapshot, so the empty chunk takes its rows in.
            ((text, _, _),) = self._backend.fetch("running")
            chunk = self._read_table(collection, after)
        if chunk is None:
            ((end, read_at),) = self._backend.fetch("mark")
            chunk = SnapshotChunk(collection, after, {}, None, PgSnapshot.parse(text), end, read_at)
        return chunk

    def _read_table(self, collection: str, after: str) -> SnapshotChunk | None:
        """Read a chunk; `None` if there is no such collection."""
        if is_table_name(collection):
            return self._read_watched(collection, after)
        most = min(self._documents, CHUNK_DOCUMENTS)
        rows = self._backend.read_part(collection, CHUNK_BYTES, CHUNK_BYTES, after, most, limit_s=_READ_LIMIT_S)
        if not rows:
            return None
        ((hides_rows, text, end, read_at, found, ids, texts, columns),) = rows
        if hides_rows:
            raise hidden_documents(f'collection "{self._backend.hub.source.schema}.{collection}"')
        documents = rows_by_id(ids, texts, columns)
        up_to = max(documents, default=None) if self._has_more(len(documents), found, most) else None
        chunk = SnapshotChunk(collection, after, documents, up_to, PgSnapshot.parse(text), end, read_at)
        if texts is not None and not may_have_long_numbers(texts):
            chunk.decode_text = decode_short
        return chunk

    def _read_watched(self, table: str, after: str) -> SnapshotChunk | None:
        """Read a chunk of a watched table; `None` if there is no such table."""
        most, last = min(self._documents, CHUNK_DOCUMENTS), delivered_id(table, after)
        key = None if last is None else (self._backend.key_order(table)).texts(last)
        rows = self._backend.read_watched(table, key, most, CHUNK_BYTES, limit_s=_READ_LIMIT_S)
        if not rows:
            return None
        ((hides_rows, text, end, read_at, names, kinds, document, columns, found, ids, texts),) = rows
        if hides_rows:
            raise hidden_documents(titled(table))
        documents = rows_by_key(ids, texts, is_composite=len(names) > 1)
        up_to = next(reversed(documents), None) if self._has_more(len(documents), found, most) else None
        order, shape = KeyOrder(kinds), table_shape_of(names, document, columns)
        return SnapshotChunk(table, after, documents, up_to, PgSnapshot.parse(text), end, read_at, order, shape)

    def _has_more(self, fitting: int, found: int, most: int) -> bool:
        """Return whether documents may follow those that a statement returned; decide how many to ask for next."""
        fits = fitting == found
        self._documents = most * 10 if fits else fitting * 2
        return not fits or found == most
