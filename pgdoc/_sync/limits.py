# Written by .ci/twins.py from pgdoc/_async/limits.py: change that file, and run it.
"""The limits of a collection's documents: their size, and a JSON Schema."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc._sync.brief_locks import TRIES, execute_briefly, try_briefly
from pgdoc.crud.guard import missing
from pgdoc.crud.sizes import check_max_size, oversized
from pgdoc.crud.statements import larger_statement
from pgdoc.crud.validation import schema_params
from pgdoc.database.errors import map_error
from pgdoc.errors import DatabaseError, DocumentTooLarge
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import EllipsisType

    from psycopg import Connection

    from pgdoc._sync.session import Session
    from pgdoc._sync.table import Table
    from pgdoc.errors import PgdocError

__all__ = ["Limits"]


class Limits:
    """The limits of a collection, which inherits them."""

    _table: Table[Any]
    _session: Session
    _address: tuple[str, str]

    def set_limits(
        self,
        *,
        max_size: int | EllipsisType | None = ...,
        json_schema: Mapping[str, Any] | EllipsisType | None = ...,
    ) -> None:
        """Limit how much JSON text a document of this collection may have, and what it must look like.

        `create_collection` sets a limit of 64 MiB; an older collection, or one made by `pgdoc.register`, has none
        until this call. Both hold for all writers: `docs/reference/documents.md` says which rules of a schema the
        server checks, for SQL and for the results of updates. The role must own the collection. Other processes notice
        a change within ten seconds.

        Outside a transaction, readers and writers go on while the existing documents are measured. They are not
        compared with a new schema: `validate` does that. The collection is locked for a moment; while another
        transaction uses it, the call tries again for a minute, and holds up others for at most a second each time.
        Limits that the collection has already are not set again, and need no lock.

        Args:
            max_size: the most bytes, as PostgreSQL prints the data; `None` for no limit. Left out, it stays as it is.
            json_schema: a JSON Schema of draft 2020-12; `None` for none. Left out, it stays as it is.

        Raises:
            DocumentTooLarge: a document has more than `max_size`. The former limits stay.
            DatabaseError: among other reasons, other transactions kept the collection locked. The former limits stay,
                unless the message says otherwise.
            CollectionNotFound: the collection does not exist.
            InvalidInput: `max_size` is not a number of bytes, or `json_schema` is not a schema.
            MissingExtra: `json_schema` needs the extra `validation`.
        """
        size = ... if max_size is ... else check_max_size(max_size)
        schema = None if json_schema is ... else schema_params(json_schema)
        oid = self._table.look_up()
        if oid is None:
            raise missing(self._table.subject)
        if size is not ...:
            self._set_max_size(oid, size)
        if schema is not None:
            self._set_schema(oid, schema)

    def _set_schema(self, oid: int, schema: list[str | None]) -> None:
        try:
            if self._has("has_json_schema", [oid, *schema]):
                return
            if self._session.in_transaction:
                self._session.fetch(statement("limits", "set_json_schema").encode(), [oid, *schema])
                return
            query = statement("limits", "set_json_schema_briefly").encode()
            try_briefly(partial(self._session.fetch, query, [oid, oid, *schema]))
        except psycopg.Error as exc:
            raise self._mapped(exc) from exc
        finally:
            self._session.schemas.forget(oid)

    def _set_max_size(self, oid: int, size: int | None) -> None:
        try:
            if self._has("has_max_size", [oid, size]):
                return
            self._refuse_larger(size)
            with self._session.lend(f"a change of the limit of {self._table.subject}") as connection:
                self._set(connection, oid, size)
        except psycopg.Error as exc:
            error = self._mapped(exc)
            if isinstance(error, DocumentTooLarge) and not self._session.in_transaction:
                self._refuse_larger(size)  # another writer stored it meanwhile
            raise error from exc
        finally:
            self._session.limits.forget(oid)

    def _has(self, name: str, params: list[Any]) -> bool:
        """Whether the table has this limit. A program may set it whenever it starts, and setting it locks the table."""
        ((found,),) = self._session.fetch(statement("limits", name).format().encode(), params)
        return bool(found)

    def _set(self, connection: Connection[Any], oid: int, size: int | None) -> None:
        if self._session.in_transaction:
            connection.execute(statement("limits", "set_max_size").encode(), [oid, size, True])
            return
        query = statement("limits", "set_max_size_briefly").encode()
        if size is not None:
            try_briefly(partial(connection.execute, query, [oid, oid, size, False]))
        try:
            if size is not None:
                connection.execute(self._sql("validate"))
            try_briefly(partial(connection.execute, query, [oid, oid, size, True]))
        except BaseException as exc:
            if size is not None and not connection.closed:
                self._undo(connection, exc)
            raise

    def _undo(self, connection: Connection[Any], cause: BaseException) -> None:
        """Remove the check of a limit that was not set. One try is left to a call that is cancelled, or has waited."""
        has_time = isinstance(cause, Exception) and not isinstance(cause, psycopg.errors.LockNotAvailable)
        try:
            execute_briefly(connection, [self._sql("undo")], tries=TRIES if has_time else 1)
        except psycopg.errors.LockNotAvailable as exc:
            if isinstance(cause, Exception):
                raise DatabaseError(
                    f"{self._table.subject}: the new limit holds for writes, and can't be completed or undone, because "
                    "other transactions keep the collection locked: end them, and call set_limits again",
                    sqlstate=exc.sqlstate,
                ) from cause

    def _refuse_larger(self, size: int | None) -> None:
        if size is not None:
            for key, found in self._table.read(larger_statement(self._table.name), [size, size, 1], prepare=False):
                raise oversized(self._table.subject, key, found, size, is_new_limit=True)

    def _mapped(self, exc: psycopg.Error) -> PgdocError:
        rights, in_transaction = self._session.caller.to_own(self._address[1]), self._session.in_transaction
        return map_error(exc, self._table.subject, in_transaction=in_transaction, rights=rights)

    def _sql(self, name: str) -> bytes:
        return statement("limits", name).format(table=self._table.name).encode()
