"""What a stream of a log delivers of its inbox: needs no waiting, and runs in the user's thread."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from pgdoc.changes.events import from_json
from pgdoc.errors import PgdocError
from pgdoc.model import json_codec
from pgdoc.model.tokens import ResumeToken

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.changes.router import Condition
    from pgdoc.model.json_codec import JsonDecoder
    from pgdoc.relay.inbox import AsyncInbox, EntryBatch, Inbox
    from pgdoc.relay.log import LogEntry

__all__ = ["RemoteDelivery"]


class RemoteDelivery:
    """Makes events of entries.

    Attributes:
        delivered: how many events were returned.
        passed: the token of the last entry that was delivered or left out, as text; empty before the first.
    """

    def __init__(
        self,
        inbox: Inbox | AsyncInbox,
        where: Condition | None,
        decode: JsonDecoder | None,
        covers: Callable[[str], bool] | None = None,
    ) -> None:
        self._inbox, self._where, self._decode, self._covers = inbox, where, decode, covers
        self.delivered = 0
        self.passed = ""

    @property
    def is_suspended(self) -> bool:
        """Whether nothing may be delivered for now."""
        return False

    @property
    def is_confirmation_due(self) -> bool:
        """Whether to find out which checkpoints have committed."""
        return False

    def next_event(self) -> ChangeEvent | None:
        """Return the next event of the current batch, if it has one."""
        batch = self._inbox.batch
        if batch.source.is_dropped:
            batch.next = len(batch)
        while batch.next < len(batch) and not self._inbox.closed:
            entry = batch[batch.next]
            event = self._event_of(entry)
            if event is not None:
                self.delivered += 1
            self.passed = entry.token
            batch.next += 1
            if event is not None:
                return event
        return None

    def next_events(self, most: int) -> list[ChangeEvent]:
        """Return the next events of the current batch, at most this many."""
        batch = self._inbox.batch
        if batch.source.is_dropped or self._inbox.closed:
            batch.next = len(batch)
            return []
        entries = batch[batch.next : batch.next + most]
        if not entries:
            return []
        try:
            made = [self._event_of(entry) for entry in entries]
        except PgdocError:  # what comes before the entry that can't be read is returned first
            if len(entries) == 1:
                raise
            return self.next_events(len(entries) // 2)
        found = [event for event in made if event is not None]
        delivered = self.delivered + len(found)
        self.passed = entries[-1].token
        self.delivered = delivered
        batch.next += len(entries)
        return found

    def _event_of(self, entry: LogEntry) -> ChangeEvent | None:
        """Return the event of an entry, or `None` if it is left out."""
        body = entry.body
        if not body:
            return None
        if self._covers is not None and not self._covers(from_json(body).collection):
            return None
        if self._where is not None and not self._where.matches(from_json(body, json_codec.decode_comparable)):
            return None
        return from_json(body, self._decode)

    @property
    def lag(self) -> timedelta:
        """How long ago the next event committed, by this machine's clock; 0 if none is buffered."""
        batch: EntryBatch = self._inbox.batch
        waiting = batch[batch.next : batch.next + 1]
        if not waiting or not waiting[0].body:
            return timedelta(0)
        try:
            committed = from_json(waiting[0].body).timestamp
        except PgdocError:
            return timedelta(0)
        return timedelta(seconds=max(0.0, time.time() - committed.timestamp()))

    def token(self, begun_at: str) -> ResumeToken:
        """Return the token up to which everything has been delivered."""
        return ResumeToken.parse(self.passed or begun_at)
