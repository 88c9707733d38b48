"""Collections rebuilt from events alone, to compare with the tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pgdoc.changes.diff import UpdateDescription, diff
from pgdoc.changes.events import EventType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.model.documents import Document
    from pgdoc.model.tokens import ResumeToken

__all__ = ["Replica"]

_NO_DIFFERENCE = UpdateDescription({}, [], [], {})


class _Held(NamedTuple):
    version: int
    data: dict[str, Any]


@dataclass(slots=True)
class Replica:
    """The documents that a reader of the stream knows, each at its last version.

    Attributes:
        token: of the last event that was applied; `None` before the first.
        repeated: events that were not newer than `token`.
        lost: events whose before image was not the version held: an earlier event is missing.
    """

    token: ResumeToken | None = None
    repeated: int = 0
    lost: int = 0
    _collections: dict[str, dict[str, _Held]] = field(default_factory=dict)

    def take(self, event: ChangeEvent) -> None:
        """Apply the next event."""
        if self.token is not None and event.resume_token <= self.token:
            self.repeated += 1
            return
        self.token = event.resume_token
        if event.document_id is not None:
            self._take_change(self._collections.setdefault(event.collection, {}), event.document_id, event)
        elif event.event_type is not EventType.INVALIDATE:  # create, drop, rename or truncate
            documents = self._collections.pop(event.collection, {})
            if event.renamed_to is not None:
                self._collections[event.renamed_to] = documents

    def _take_change(self, documents: dict[str, _Held], document_id: str, event: ChangeEvent) -> None:
        held = documents.pop(document_id, None)
        before, after = event.full_document_before_change, event.full_document
        continues = (held and held.version) == (before and before.version)
        self.lost += not continues
        if after is None:
            return
        description = event.update_description
        data = description.apply(held.data) if description and held and continues else after.data
        documents[document_id] = _Held(after.version, data)

    def __len__(self) -> int:
        return sum(map(len, self._collections.values()))

    def differences(self, collection: str, documents: Iterable[Document]) -> Counter[str]:
        """Count the documents that are missing, surplus or different here."""
        held = dict(self._collections.get(collection, {}))
        found: Counter[str] = Counter()
        for document in documents:
            mine = held.pop(document.id, None)
            if mine is None:
                found["missing"] += 1
            elif mine.version != document.version or diff(mine.data, document.data) != _NO_DIFFERENCE:
                found["different"] += 1
        found["surplus"] += len(held)
        return +found
