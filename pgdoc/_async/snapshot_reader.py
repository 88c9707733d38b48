"""The parts of a snapshot: read from the tables, and given out between the changes of a stream."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from pgdoc.changes.snapshot import PgSnapshot, Snapshot, SnapshotChunk
from pgdoc.errors import CollectionNotFound, PgdocError
from pgdoc.model.documents import Document
from pgdoc.model.names import quoted
from pgdoc.runtime.primitives import async_sleep

if TYPE_CHECKING:
    from pgdoc._async.stream_backend import AsyncStreams

__all__ = ["AsyncSnapshotReader"]

logger = logging.getLogger("pgdoc.snapshot")

PART_DOCUMENTS = 2_000
PART_BYTES = 8 << 20
_READ_LIMIT_S = 600.0
_SETTLE_S = 1.0
_SETTLE_POLL_S = 0.005
_RETRY_S = 0.5
_EARLY_S = 0.01
_XID = 0xFFFF_FFFF  # what pg_stat_activity shows of a transaction's number


async def settle(streams: AsyncStreams) -> None:
    """Return when every transaction that committed before the call is visible to statements.

    What is in progress may have committed and be visible in a moment: that is waited for, a second at the most. One
    that waits for a synchronous standby may take longer, and is waited for. Others are really in progress.
    """
    ((text, _),) = await streams.fetch("running")
    running = set(PgSnapshot.parse(text).in_progress)
    deadline = time.monotonic() + _SETTLE_S
    while running:
        await async_sleep(_SETTLE_POLL_S)
        ((text, waiting),) = await streams.fetch("running")
        seen = PgSnapshot.parse(text)
        running = {xid for xid in running if not seen.sees(xid)}
        if time.monotonic() > deadline:
            running = {xid for xid in running if xid & _XID in waiting}


class AsyncSnapshotReader:
    """The snapshot of one stream.

    Args:
        streams: of the store.
        snapshot: how it goes.

    Attributes:
        progress: how far it has come with the last document that was given.
    """

    def __init__(self, streams: AsyncStreams, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.progress = snapshot.progress
        self._streams = streams
        self._not_before = 0.0

    async def read_on(self) -> None:
        """Read the next part, where one is wanted."""
        wanted = self.snapshot.wanted
        if wanted is None or time.monotonic() < self._not_before:
            return
        try:
            part = await self._read(*wanted)
        except PgdocError as exc:
            if not exc.resumable:
                raise
            logger.info("the snapshot goes on in %s s: %s", _RETRY_S, exc)
            self._not_before = time.monotonic() + _RETRY_S
            return
        if not self.snapshot.accept(part):
            self._not_before = time.monotonic() + _EARLY_S

    async def _read(self, collection: str, after: str) -> SnapshotChunk:
        try:
            return await self._read_table(collection, after)
        except CollectionNotFound:
            # It was dropped, or has another name now, which the stream may be told on its way to the WAL's end. What
            # is made under this name later is not seen by this look, so that the part takes it in.
            ((text, _),) = await self._streams.fetch("running")
        try:
            return await self._read_table(collection, after)
        except CollectionNotFound:
            ((end, read_at),) = await self._streams.fetch("mark")
            return SnapshotChunk(collection, after, {}, None, PgSnapshot.parse(text), end, read_at)

    async def _read_table(self, collection: str, after: str) -> SnapshotChunk:
        table = quoted(self._streams.hub.source.schema, collection)
        parameters = (after, PART_DOCUMENTS, PART_BYTES)
        rows = await self._streams.fetch("part", *parameters, table=table, limit_s=_READ_LIMIT_S)
        text, end, read_at, found = rows[0][:4]
        documents = {row[4]: Document.from_text(*row[4:]) for row in rows if row[4] is not None}
        is_last = len(documents) == (found or 0) < PART_DOCUMENTS
        upto = None if is_last else max(documents)
        return SnapshotChunk(collection, after, documents, upto, PgSnapshot.parse(text), end, read_at)
