# Written by .ci/twins.py from pgdoc/_async/table_calls.py: change that file, and run it.
"""The calls of a store that make tables of any form sources of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.crud.statements import catalog_statement
from pgdoc.database.errors import map_error
from pgdoc.database.table_errors import table_refused
from pgdoc.errors import InvalidInput, TableRefused
from pgdoc.model.short_repr import short_repr
from pgdoc.model.table_names import check_table, table_address

if TYPE_CHECKING:
    from pgdoc._sync.connections import Connections

__all__ = ["TableCalls"]


class TableCalls:
    """The watched tables of a database; the store inherits these calls."""

    _connections: Connections

    def add_table(self, name: str, *, document: str | None = None) -> bool:
        """Let streams watch a table as it is: its rows become the documents of events.

        The table needs a primary key, and the role must own it. It becomes REPLICA IDENTITY FULL, so that events have
        before images: an UPDATE or DELETE then writes the whole old row to the WAL. That takes a short ACCESS EXCLUSIVE
        lock, which waits for the transactions that use the table, for ten seconds at most. Nothing else is changed;
        reads and writes stay SQL. A table that is watched already stays as it is.

        Args:
            name: schema and table, such as `public.orders`, without quotes.
            document: a column of type jsonb or json that events have as their document; by default the whole row.

        Returns:
            Whether the table was not watched before.

        Raises:
            InvalidName: `name` is not the name of a table.
            TableRefused: the table can't be watched; `reason` and `cure` say why, and what to do.
            DatabaseError: the role may not do this, or the table was locked for too long.
        """
        if document is not None and not isinstance(document, str):
            raise InvalidInput(f"document must be the name of a column, got {short_repr(document)}")
        found = self._call_table("add_table", name, document)
        if found is None:
            raise TableRefused(name, "it does not exist", "check the name; it has the schema, and no quotes")
        return bool(found)

    def remove_table(self, name: str) -> bool:
        """End the watching of a table, and keep the table; streams that name it get a `drop` event.

        Its replica identity becomes DEFAULT again, if `add_table` changed that.

        Returns:
            Whether the table was watched.

        Raises:
            InvalidName: `name` is not the name of a table.
            DatabaseError: the role may not do this, or the table was locked for too long.
        """
        return bool(self._call_table("remove_table", name))

    def tables(self) -> list[str]:
        """Return the names of all watched tables of the database, sorted."""
        try:
            rows = self._connections.fetch(catalog_statement("tables", with_metadata=False), [])
        except psycopg.Error as exc:
            raise map_error(exc, "the watched tables") from exc
        return [f"{schema}.{name}" for schema, name, *_ in rows]

    def _call_table(self, call: str, name: str, *first: str | None) -> Any:
        schema, table = table_address(check_table(name))
        try:
            rows = self._connections.fetch(catalog_statement(call, with_metadata=False), [*first, schema, table])
        except psycopg.Error as exc:
            raise table_refused(exc, name) or map_error(exc, f'table "{name}"') from exc
        return rows[0][0] if rows else None
