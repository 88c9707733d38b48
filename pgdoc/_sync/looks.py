# Written by .ci/twins.py from pgdoc/_async/looks.py: change that file, and run it.
"""Find out why a write reached no row: another writer, or something in the table that keeps writes from rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc.crud.statements import table_statement
from pgdoc.crud.write_errors import dropped

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pgdoc._sync.table import Table

__all__ = ["Looks"]

_NOT_YET = object()


class Looks:
    """What one call saw of a document, each time after its write reached no row.

    If two looks find the same, no other writer was there, and the write between them should have reached a row. Only a
    document that is missing twice may have come and gone, unless the table has something that drops rows.
    """

    def __init__(self, table: Table[Any], key: str) -> None:
        self._table = table
        self._key = key
        self._last: Any = _NOT_YET

    def look(self) -> tuple[Any, ...] | None:
        """Return version and creation time of the document; `None` if there is none.

        Raises:
            DatabaseError: the write was dropped.
        """
        rows = self._table.read(table_statement("version", self._table.name), [self._key])
        # The creation time alone says that it was there all the time: the caller's write depends on no other state.
        self.compare(rows[0][1] if rows else None)
        return rows[0] if rows else None

    def compare(self, found: Hashable) -> None:
        """Compare what the caller found with the last look; `None` means no document.

        Raises:
            DatabaseError: the write was dropped.
        """
        last, self._last = self._last, found
        if found != last:
            return
        obstacles = self._table.obstacles()
        if obstacles or found is not None:
            raise dropped(self._table.subject, self._key, obstacles)
