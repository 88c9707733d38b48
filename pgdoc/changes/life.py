"""The life of collections: what messages say of it, and when a stream has none of its collections left.

A stream whose collections are all gone, dropped or renamed away, gets `invalidate` and ends. That event stands just
behind the one that took the last collection, at a place which nothing else has, for each message has an LSN of its own
(`changes.assembler`). So a stream that resumes after the drop gets the invalidate next, and one that resumes after
the invalidate goes on with what comes later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgdoc.decoding.records import CollectionChange
from pgdoc.model.positions import just_after

if TYPE_CHECKING:
    from pgdoc.changes.change import Change


class Life:
    """Follows the collections of one stream.

    Args:
        names: the collections; `None` for all of the schema, of which there may always be more.
        resumed: whether the stream begins in the past, when some may have been gone already. Until something is seen
            of such a collection it counts as what the last drop or rename told of the schema.
    """

    def __init__(self, names: frozenset[str] | None, *, resumed: bool = False) -> None:
        self._names = names
        self._there = dict.fromkeys(names or (), None if resumed else True)

    def follow(self, change: Change) -> Change | None:
        """Take the next change that concerns the stream; give its invalidate where it has no collection left."""
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
