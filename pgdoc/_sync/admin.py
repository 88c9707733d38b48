# Written by .ci/twins.py from pgdoc/_async/admin.py: change that file, and run it.
"""The calls on consumers, history and the server that need no stream."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from pgdoc.consumers.claims import unknown_consumer
from pgdoc.consumers.declaration import Declaration, declare_consumer, still_in_work
from pgdoc.consumers.dropping import drop_consumer
from pgdoc.consumers.recreation import recreate_consumer
from pgdoc.errors import PgdocError, StreamError
from pgdoc.model.positions import BEFORE_ALL, Lsn
from pgdoc.model.tokens import token_at
from pgdoc.replication.session import try_reader
from pgdoc.runtime.primitives import call, sleep
from pgdoc.streams.patience import check_lsn
from pgdoc.streams.status import ConsumerStatus, History, Status, plugin_reason

if TYPE_CHECKING:
    from pgdoc._sync.stream_backend import StreamBackend
    from pgdoc.changes.router import Selection
    from pgdoc.replication.source import Source
    from pgdoc.streams.options import StreamOptions

__all__ = ["Admin"]

logger = logging.getLogger("pgdoc.consumer")

_CREATION_S = 60.0
"""How long another process may take to create a consumer; the first slot of a database can take ten seconds."""

_CREATION_POLL_S = 0.2


class Admin:
    """Reports on consumers, history and the server, and changes what an operator may change."""

    def __init__(self, backend: StreamBackend) -> None:
        self._backend = backend
        self._fetch = backend.fetch
        self._source = backend.hub.source

    def consumers(self) -> list[ConsumerStatus]:
        """See `Store.consumers`."""
        rows = self._backend.fetch_of_consumers("consumers", rights="SELECT")
        return [_consumer_status(row) for row in rows]

    def create_consumer(self, selection: Selection, options: StreamOptions) -> bool:
        """See `Store.create_consumer`. Another process that is creating the consumer is waited for."""
        name = options.consumer
        assert name is not None  # noqa: S101 (the caller has checked)
        deadline = time.monotonic() + _CREATION_S
        while True:
            self._backend.prepare_start(selection, options)
            source = self._backend.source_of_consumers()
            found = call(partial(declare_consumer, source, name, selection, snapshot=options.snapshot))
            if found is not Declaration.IN_WORK:
                return found is Declaration.MADE
            if time.monotonic() > deadline:
                raise still_in_work(name, _CREATION_S)
            sleep(_CREATION_POLL_S)

    def drop_consumer(self, name: str, unused_for: timedelta | None) -> bool:
        """See `Store.drop_consumer`."""
        if unused_for is not None and (not isinstance(unused_for, timedelta) or unused_for < timedelta()):
            raise ValueError(f"unused_for must be a timedelta of at least 0, got {unused_for!r}")
        return call(drop_consumer, self._source_of(name), name, unused_for)

    def recreate_consumer(self, name: str, *, snapshot: bool) -> Lsn:
        """See `Store.recreate_consumer`."""
        source = self._source_of(name)
        return call(partial(recreate_consumer, source, name, snapshot=snapshot))

    def _source_of(self, consumer: str) -> Source:
        """Return the server that has the consumer, if it has a catalog; a takeover would report something else."""
        self._backend.knows(consumer)
        return self._backend.source_of_consumers()

    def skip(self, consumer: str, commit_lsn: Lsn | str) -> None:
        """See `Store.skip`."""
        lsn = check_lsn("commit_lsn", commit_lsn)
        rights = "SELECT, INSERT, UPDATE, DELETE"
        rows = self._backend.fetch_of_consumers("skip", consumer, str(lsn), rights=rights)
        if not rows:
            if not self._backend.knows(consumer):
                raise unknown_consumer(consumer)
            raise StreamError(
                f'consumer "{consumer}" has met no unreadable change in a transaction that commits at {lsn}: '
                "pass the commit_lsn of the UnreadableChange that its stream raised"
            )
        ((collections,),) = rows
        logger.warning(
            'consumer "%s" will pass the changes of %s in the transaction that commits at %s',
            consumer,
            ", ".join(collections) or "all collections after the unreadable one",
            lsn,
        )

    def history(self) -> History:
        """See `Store.history`."""
        ((kept_s, size, oldest, retained, bookmarks),) = self._backend.fetch_of_reader("history")
        blockers = self._fetch("blockers")
        return History(
            time=timedelta(seconds=kept_s),
            size=size,
            oldest=None if oldest is None else Lsn(oldest),
            retained_bytes=retained or 0,
            bookmarks=bookmarks,
            pinned_by=tuple(blockers),
        )

    def set_history(self, time: timedelta | None, size: int | None) -> None:
        """See `Store.set_history`."""
        if time is not None and (not isinstance(time, timedelta) or time < timedelta()):
            raise ValueError(f"time must be a timedelta of at least 0, got {time!r}")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
            raise ValueError(f"size must be a number of bytes of at least 0, got {size!r}")
        self._fetch("set_history", time, size, rights=self._backend.caller.to_set_history())

    def status(self) -> Status:
        """See `Store.status`. A reader is opened to find out whether streams work."""
        source = self._source
        (row,) = self._fetch("status", source.schema)
        server_version, database, catalog, collections, follows_ddl, loses_values, tables, is_frozen = row
        plugin, refusal, problem = source.plugin, None, None
        try:
            start = call(try_reader, source)
            plugin, refusal = start.plugin, start.refusal
            if plugin == "pgoutput":
                ((fault,),) = self._fetch("publication_fault", source.schema, None)
                problem = fault and f'the publication "pgdoc" {fault}'
        except PgdocError as exc:
            problem = str(exc)
        return Status(
            server_version=server_version,
            database=database,
            catalog=catalog,
            schema=source.schema,
            collections=collections,
            tables=tables,
            plugin=plugin,
            plugin_reason=plugin_reason(
                source.plugin, plugin, refusal, follows_ddl=follows_ddl, loses_values=loses_values
            ),
            follows_ddl=follows_ddl,
            problem=problem,
            is_frozen=is_frozen,
        )


def _consumer_status(row: tuple[Any, ...]) -> ConsumerStatus:
    name, schema, owner_pid, position, system_id, timeline, database_oid, *others = row
    token = token_at(position[:4] if position else BEFORE_ALL, (int(system_id), timeline, database_oid))
    unreadable = others[-3]
    others[-3] = None if unreadable is None else Lsn(unreadable)
    return ConsumerStatus(name, schema, owner_pid, token, *others)
