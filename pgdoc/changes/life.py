"""When a stream has lost all of its collections.

When all have been dropped or renamed, it gets an `invalidate` event and ends. The position of that event is just after
the change that took the last collection; no other change can have it. So a stream that resumes after the drop gets the
`invalidate` next, and one that resumes after the `invalidate` continues with later events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pgdoc.decoding.records import CollectionChange
from pgdoc.model.positions import commit_lsn_of, just_after

if TYPE_CHECKING:
    from pgdoc.changes.change import Change


_PRESENT = frozenset({"create", "schema"})
"""The kinds of changes that leave their collection or table in place."""


class Existence(NamedTuple):
    """Which of a stream's collections exist where it resumes, as the registry tells.

    Attributes:
        commit_lsn: of the position at which it resumes.
        is_there: by name, if the position is not inside a transaction that changes collections.
        was_there: by name, if it is inside such a transaction: what that transaction does later does not count yet.
    """

    commit_lsn: int
    is_there: dict[str, bool | None]
    was_there: dict[str, bool | None]


class Life:
    """Follows which of one stream's collections exist.

    Args:
        names: the collections; `None` for all of the schema, which never ends a stream.
    """

    def __init__(self, names: frozenset[str] | None) -> None:
        self._names = names
        self._there: dict[str, bool | None] = dict.fromkeys(names or (), True)
        self._inside: Existence | None = None  # until the first change of a collection

    def resume(self, existence: Existence) -> None:
        """Begin where a stream resumes.

        A state that is `None` is not known, for a position older than the registry. Until a change of that collection
        is seen, the list in the last drop or rename decides.
        """
        self._there = {name: existence.is_there.get(name) for name in self._there}
        self._inside = existence

    def follow(self, change: Change) -> Change | None:
        """Take the next change; return the `invalidate` if the stream has no collection left."""
        row = change.row
        if self._names is None or not isinstance(row, CollectionChange):
            return None
        if self._inside is not None:
            if commit_lsn_of(change.position) == self._inside.commit_lsn:
                self._there.update(self._inside.was_there)
            self._inside = None
        self._note(row.table, there=row.kind in _PRESENT)
        if row.renamed_to is not None:
            self._note(row.renamed_to, there=True)
        if row.kind in _PRESENT or any(self._is_there(name, row) for name in self._names):
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
