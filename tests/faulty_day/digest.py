"""The content of an event as a 64-bit digest and as text."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tests.faulty_day.plan import COUNTED

if TYPE_CHECKING:
    from pgdoc import ChangeEvent, Document

_KINDS = frozenset({"insert", "update", "replace", "delete", "truncate"})


class Fact(NamedTuple):
    """The content of an event, equal in the reference, streams and consumers; images are `[version, data]`.

    A table's row has no version, and can have columns beside its document.
    """

    commit_lsn: int
    kind: str
    collection: str
    document_id: str | None
    after: list[Any] | None
    before: list[Any] | None
    metadata: dict[str, Any]
    columns: dict[str, Any] | None = None

    @property
    def digest(self) -> int:
        """A 64-bit digest; signed, because SQLite has no unsigned integers."""
        text = orjson.dumps(list(self), option=orjson.OPT_SORT_KEYS)
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "big", signed=True)

    def __str__(self) -> str:
        place = f"{self.commit_lsn >> 32:X}/{self.commit_lsn & 0xFFFFFFFF:X}"
        versions = "->".join(str(image[0]) for image in (self.before, self.after) if image)
        return f"{place} {self.kind} {self.collection} {self.document_id} {versions} {self.metadata}"


def counts(event: ChangeEvent) -> bool:
    """Return whether an event is compared: a change of a collection of the test, and not of one that a vandal made."""
    return event.event_type in _KINDS and event.collection in COUNTED


def fact(event: ChangeEvent) -> Fact:
    """Return the content of an event."""
    return Fact(
        int(event.resume_token.lsn),
        str(event.event_type),
        event.collection,
        event.document_id,
        _image(event.full_document),
        _image(event.full_document_before_change),
        event.metadata,
        event.columns,
    )


def _image(document: Document | None) -> list[Any] | None:
    return None if document is None else [getattr(document, "version", None), document.data]
