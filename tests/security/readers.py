"""Streams and consumers of one collection and of the whole schema, which must go on whatever others do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc import EventType

if TYPE_CHECKING:
    from pgdoc import ChangeEvent, ChangeStream, Store

PATIENCE_S = 30.0
END = "end"
KINDS = ("stream of the schema", "stream of the collection", "consumer of the schema", "consumer of the collection")

Brief = tuple[str, str, str | None]


def brief(event: ChangeEvent) -> Brief:
    return event.event_type.value, event.collection, event.document_id


def read_to_end(stream: ChangeStream, *, acknowledges: bool = False) -> list[ChangeEvent]:
    """Read up to the insert of the document `END`, and leave it out."""
    events: list[ChangeEvent] = []
    while True:
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None, f"no event within {PATIENCE_S:.0f} s after {[brief(each) for each in events]}"
        if event.document_id == END and event.event_type is EventType.INSERT:
            if acknowledges:
                stream.ack(event)
            return events
        events.append(event)


class Readers:
    """A stream and a consumer of all collections, and of one of them; each has its own position."""

    def __init__(self, store: Store, collection: str = "orders") -> None:
        self._store, self._collection = store, collection
        self.streams = {
            kind: store.watch(*([] if "schema" in kind else [collection]), consumer=self._consumer(kind))
            for kind in KINDS
        }

    def read(self) -> dict[str, list[ChangeEvent]]:
        """Return what each has received up to the document `END`."""
        return {kind: read_to_end(stream, acknowledges="consumer" in kind) for kind, stream in self.streams.items()}

    def reopen(self) -> None:
        """Close all of them, and open them where they were."""
        for kind, stream in self.streams.items():
            after = None if self._consumer(kind) else stream.resume_token
            stream.close()
            names = [] if "schema" in kind else [self._collection]
            self.streams[kind] = self._store.watch(*names, resume_after=after, consumer=self._consumer(kind))

    def close(self) -> None:
        for stream in self.streams.values():
            stream.close()
        for kind in KINDS:
            if consumer := self._consumer(kind):
                self._store.drop_consumer(consumer)

    def _consumer(self, kind: str) -> str | None:
        return kind.rsplit(maxsplit=1)[-1] if kind.startswith("consumer") else None
