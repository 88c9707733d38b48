"""When a stream has lost all of its collections.

When all have been dropped or renamed, it gets an `invalidate` event and ends. The position of that event is just after
the change that took the last collection; no other change can have it, since each message has an LSN of its own. So a
stream that resumes after the drop gets the `invalidate` next, and one that resumes after the `invalidate` continues
with later events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.decoding.records import CollectionChange
from pgdoc.model.positions import just_after

if TYPE_CHECKING:
    from pgdoc.changes.change import Change


class Life:
    """Follows which of one stream's collections exist.

    Args:
        names: the collections; `None` for all of the schema, which never ends a stream.
        resumed: whether the stream starts in the past, when some collections may not have existed. Until a change of
            such a collection is seen, the list in the last drop or rename decides whether it exists.
    """

    def __init__(self, names: frozenset[str] | None, *, resumed: bool = False) -> None:
        self._names = names
        self._there = dict.fromkeys(names or (), None if resumed else True)

    def follow(self, change: Change) -> Change | None:
        """Take the next change; return the `invalidate` if the stream has no collection left."""
        row = change.row
        if self._names is None or not isinstance(row, CollectionChange):
            return None
        self._note(row.table, there=row.kind == "create")
        if row.renamed_to is not None:
            self._note(row.renamed_to, there=True)
        if row.kind == "create" or any(self._is_there(name, row) for name in self._names):
            return None
        return change._replace(
            position=just_after(change.position), row=row._replace(kind="invalidate", renamed_to=None)
        )

    def _note(self, name: str, *, there: bool) -> None:
        if name in self._there:
            self._there[name] = there

    def _is_there(self, name: str, last: CollectionChange) -> bool:
        known = self._there[name]
        return (last.remaining is None or name in last.remaining) if known is None else known
