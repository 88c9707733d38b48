# Written by .ci/twins.py from pgdoc/_async/table_calls.py: change that file, and run it.
"""The calls of a store that make tables of any form sources of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.crud.statements import catalog_statement
from pgdoc.crud.table_checks import MISSING, TableFacts, lock_of, missing_table, table_check
from pgdoc.database.errors import map_error
from pgdoc.database.table_errors import table_refused
from pgdoc.errors import TableRefused
from pgdoc.model.positions import Lsn
from pgdoc.model.table_names import check_document_column, check_table, table_address
from pgdoc.model.watched_tables import WatchedTable
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgdoc._sync.connections import Connections
    from pgdoc.model.watched_tables import TableCheck

__all__ = ["TableCalls"]


class TableCalls:
    """The watched tables of a database; the store inherits these calls."""

    _connections: Connections

    def add_table(self, name: str, *, document: str | None = None) -> bool:
        """Let streams watch a table as it is: its rows become the documents of events.

        The table needs a primary key, and the role must own it. It becomes REPLICA IDENTITY FULL, so that events have
        before images: an UPDATE or DELETE then writes the whole old row to the WAL. That takes a short ACCESS EXCLUSIVE
        lock. The call asks for it for moments of up to two seconds, with pauses, so that others who use the table do
        not queue behind it for longer, and fails after 12 seconds. Nothing else is changed; reads and writes stay SQL.
        A table that is watched already stays as it is.

        Args:
            name: schema and table, such as `public.orders`, without quotes.
            document: a column of type jsonb or json that events have as their document; by default the whole row.

        Returns:
            Whether anything was done: `False` if the table was watched already, and lacked nothing.

        Raises:
            InvalidName: `name` is not the name of a table.
            TableRefused: the table can't be watched, or not by this role; `reason` and `cure` say why, and what to do.
            InvalidInput: `document` is not the name of a column.
            DatabaseError: the table was locked for too long (`sqlstate` 55P03); the message names the sessions.
        """
        found = self._call_table("add_table", name, check_document_column(document))
        if found is None:
            raise TableRefused(name, MISSING.reason, MISSING.cure)
        return bool(found)

    def check_table(self, name: str, *, document: str | None = None) -> TableCheck:
        """Say what `add_table` would do to a table, without doing it: the lock, the cost, and what forbids it.

        Args:
            name: schema and table, such as `public.orders`, without quotes.
            document: as for `add_table`.

        Raises:
            InvalidName: `name` is not the name of a table.
            InvalidInput: `document` is not the name of a column.
        """
        schema, table = table_address(check_table(name))
        params = [check_document_column(document), schema, table]
        rows = self._fetch_table(statement("tables", "check_table").encode(), params, name)
        if not rows:
            return missing_table(name)
        facts = TableFacts(*rows[0])
        mode, holders = lock_of(facts), []
        if mode is not None:
            query = statement("tables", "lock_holders").encode()
            holders = self._fetch_table(query, [facts.quoted, mode], name)
        return table_check(name, document, facts, holders)

    def remove_table(self, name: str) -> bool:
        """End the watching of a table, and keep the table; streams that name it get a `drop` event.

        Its replica identity becomes what it was before `add_table`. That takes a short ACCESS EXCLUSIVE
        lock, for which the call asks as `add_table` does.

        Returns:
            Whether the table was watched.

        Raises:
            InvalidName: `name` is not the name of a table.
            DatabaseError: the role does not own the table, or it was locked for too long.
        """
        return bool(self._call_table("remove_table", name))

    def tables(self) -> list[WatchedTable]:
        """Return all watched tables of the database, sorted by name."""
        rows = self._fetch_table(catalog_statement("tables", with_metadata=False), [])
        return [
            WatchedTable(
                f"{schema}.{name}",
                tuple(key),
                document,
                {column["name"]: column["type"] for column in columns},
                Lsn(int(since)),
            )
            for schema, name, document, key, columns, since in rows
        ]

    def _call_table(self, call: str, name: str, *first: str | None) -> Any:
        schema, table = table_address(check_table(name))
        query = catalog_statement(call, with_metadata=False)
        rows = self._fetch_table(query, [*first, schema, table], name, refuses=True)
        return rows[0][0] if rows else None

    def _fetch_table(
        self, query: bytes, params: Sequence[Any], name: str | None = None, *, refuses: bool = False
    ) -> list[tuple[Any, ...]]:
        """Run a statement about a table, or all of them. `refuses` says that it may refuse the table."""
        try:
            return self._connections.fetch(query, params)
        except psycopg.Error as exc:
            if name is None:
                raise map_error(exc, "the watched tables") from exc
            refusal = table_refused(exc, name) if refuses else None
            rights = self._connections.caller.to_read_table(*table_address(name))
            raise refusal or map_error(exc, f'table "{name}"', rights=rights) from exc
