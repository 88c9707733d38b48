"""The limit on the size of a collection's documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.crud.guard import missing
from pgdoc.crud.sizes import check_max_size, oversized
from pgdoc.crud.statements import larger_statement
from pgdoc.database.errors import map_error
from pgdoc.errors import DocumentTooLarge
from pgdoc.sql import statement

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from pgdoc._async.session import AsyncSession
    from pgdoc._async.table import AsyncTable

__all__ = ["AsyncLimits"]


class AsyncLimits:
    """The limits of a collection, which inherits them."""

    _table: AsyncTable
    _session: AsyncSession

    async def set_limits(self, *, max_size: int | None) -> None:
        """Limit how much JSON text a document of this collection may have.

        `create_collection` sets a limit of 64 MiB; an older collection, or one made by `pgdoc.register`, has none
        until this call. The limit holds for all writers, in SQL too, and for the results of updates. Outside a
        transaction, readers and writers go on while the existing documents are looked at. The role must own the
        collection. Other processes notice the new limit within ten seconds.

        Args:
            max_size: the most bytes, as PostgreSQL prints the data; `None` for no limit.

        Raises:
            DocumentTooLarge: a document has more. The former limit stays.
            CollectionNotFound: the collection does not exist.
            InvalidInput: `max_size` is not a number of bytes.
        """
        size = check_max_size(max_size)
        oid = await self._table.look_up()
        if oid is None:
            raise missing(self._table.subject)
        try:
            await self._refuse_larger(size)
            async with self._session.lend(f"a change of the limit of {self._table.subject}") as connection:
                await self._set(connection, oid, size)
        except psycopg.Error as exc:
            error = map_error(exc, self._table.subject, in_transaction=self._session.in_transaction)
            if isinstance(error, DocumentTooLarge) and not self._session.in_transaction:
                await self._refuse_larger(size)  # another writer stored it meanwhile
            raise error from exc
        finally:
            self._session.limits.forget(oid)

    async def _set(self, connection: AsyncConnection[Any], oid: int, size: int | None) -> None:
        set_max_size = statement("limits", "set_max_size").encode()
        if size is not None and not self._session.in_transaction:
            await connection.execute(set_max_size, [oid, size, False])
            try:
                await connection.execute(self._sql("validate"))
            except BaseException:
                if not connection.closed:
                    await connection.execute(self._sql("undo"))
                raise
        await connection.execute(set_max_size, [oid, size, True])

    async def _refuse_larger(self, size: int | None) -> None:
        if size is not None:
            for key, found in await self._table.read(
                larger_statement(self._table.name), [size, size, 1], prepare=False
            ):
                raise oversized(self._table.subject, key, found, size, is_new_limit=True)

    def _sql(self, name: str) -> bytes:
        return statement("limits", name).format(table=self._table.name).encode()
