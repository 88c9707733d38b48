"""Which documents wait behind a dead letter."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from pgdoc.workers.failures import fact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.changes.events import ChangeEvent

__all__ = ["Parked", "parking_key"]

_LONGEST_ID_BYTES = 1500

Key: TypeAlias = tuple[str, str | None]
"""A collection and a document id; `None` for an event of the whole collection."""


class Parked:
    """The documents of which a handler has letters, so that their later events wait.

    An event of a whole collection waits behind the letters of all its documents, and all its documents wait behind it.
    """

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys: set[Key] = set()
        self._collections: set[str] = set()
        for key in keys:
            self.add(key)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def add(self, key: Key) -> None:
        """Park a document."""
        self._keys.add(key)
        self._collections.add(key[0])

    def holds(self, key: Key) -> bool:
        """Whether an event of this document has to wait."""
        collection, document_id = key
        if collection not in self._collections:
            return False
        return document_id is None or key in self._keys or (collection, None) in self._keys

    def split(self, events: list[ChangeEvent]) -> tuple[list[ChangeEvent], list[ChangeEvent]]:
        """Return the events that may be handled, and those that wait, each in their order."""
        if not self._keys:
            return events, []
        free: list[ChangeEvent] = []
        waiting: list[ChangeEvent] = []
        ahead = Parked()  # an event that waits makes later ones wait, too
        for event in events:
            key = parking_key(event)
            if self.holds(key) or ahead.holds(key):
                waiting.append(event)
                ahead.add(key)
            else:
                free.append(event)
        return free, waiting


def parking_key(event: ChangeEvent) -> Key:
    """Return the collection and document of an event.

    An unreadable event may be about any document. So may one whose id is too long for the index of dead letters: a row
    of a B-tree has at most 2,704 bytes, and the names of the consumer, the handler and the collection are in it.
    """
    document_id = fact(event, "document_id")
    if document_id is not None and len(document_id.encode(errors="surrogatepass")) > _LONGEST_ID_BYTES:
        document_id = None
    return event.collection, document_id
