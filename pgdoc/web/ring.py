"""The recent entries of a shared source. Without I/O."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from pgdoc.web.entries import ChangesEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pgdoc.model.tokens import ResumeToken
    from pgdoc.web.entries import SourceEntry

__all__ = ["LiveRing", "Ring", "StreamRing"]


class Ring:
    """The last entries of a source, numbered from 0 on.

    It holds every entry after `start` and up to `end`. It forgets the oldest ones beyond its limits.

    Args:
        start: the token before its first entry.
        keep: the most entries.
        keep_bytes: the most bytes of their JSON.
    """

    def __init__(self, start: ResumeToken, keep: int, keep_bytes: int) -> None:
        self._start, self._end = start, start
        self._keep, self._keep_bytes = keep, keep_bytes
        self._entries: deque[SourceEntry] = deque()
        self._size = 0
        self._first = 0

    @property
    def end(self) -> ResumeToken:
        """The token up to which it has everything."""
        return self._end

    @property
    def next_number(self) -> int:
        """The number of the entry to come."""
        return self._first + len(self._entries)

    def extend(self, entries: Iterable[SourceEntry], end: ResumeToken) -> None:
        """Add the entries after `end`, and move that on."""
        for entry in entries:
            entry.share()
            self._entries.append(entry)
            self._size += entry.size
        self._end = end
        while len(self._entries) > self._keep or (self._size > self._keep_bytes and len(self._entries) > 1):
            forgotten = self._entries.popleft()
            self._start = forgotten.place
            self._size -= forgotten.size
            self._first += 1

    def read(self, number: int, most: int) -> Sequence[SourceEntry] | None:
        """Return at most `most` entries from this number on; `None` if the first of them is forgotten."""
        if number < self._first:
            return None
        begin = number - self._first
        return list(islice(self._entries, begin, begin + most))

    def number_after(self, token: ResumeToken) -> int | None:
        """Return the number of the first entry after a token; `None` if the ring can't continue it."""
        raise NotImplementedError

    def is_behind(self, token: ResumeToken) -> bool:
        """Return whether a token of the same history is beyond its end."""
        return _history_of(token) == _history_of(self._end) and self._end.comes_before(token)

    def _has(self, token: ResumeToken) -> bool:
        """Return whether the token is between its ends, and of the same history."""
        return (
            _history_of(token) == _history_of(self._end)
            and not token.is_inside
            and not token.comes_before(self._start)
            and not self._end.comes_before(token)
        )

    def _count_after(self, token: ResumeToken) -> int:
        count = 0
        for entry in reversed(self._entries):
            if not token.comes_before(entry.place):
                break
            count += 1
        return count


class StreamRing(Ring):
    """The last changes of a stream. A token resumes between any two of them."""

    def number_after(self, token: ResumeToken) -> int | None:
        """See `Ring`."""
        return self.next_number - self._count_after(token) if self._has(token) else None


class LiveRing(Ring):
    """The last changes of a live query. A token resumes only where the list before the next changes held."""

    def number_after(self, token: ResumeToken) -> int | None:
        """See `Ring`."""
        if not self._has(token):
            return None
        count = self._count_after(token)
        if count:
            following = self._entries[len(self._entries) - count]
            if isinstance(following, ChangesEntry) and following.since.comes_before(token):
                return None
        return self.next_number - count


def _history_of(token: ResumeToken) -> tuple[int, int, int | None]:
    """Return what two tokens share if their places in the WAL can be compared without asking the server."""
    return token.system_id, token.timeline, token.database_oid
