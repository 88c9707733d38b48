# Written by .ci/twins.py from pgdoc/_async/limits.py: change that file, and run it.
"""The limits of a collection's documents: their size, and a JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.crud.guard import missing
from pgdoc.crud.sizes import check_max_size, oversized
from pgdoc.crud.statements import larger_statement
from pgdoc.crud.validation import schema_params
from pgdoc.database.errors import map_error
from pgdoc.errors import DocumentTooLarge
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
        compared with a new schema: `validate` does that.

        Args:
            max_size: the most bytes, as PostgreSQL prints the data; `None` for no limit. Left out, it stays as it is.
            json_schema: a JSON Schema of draft 2020-12; `None` for none. Left out, it stays as it is.

        Raises:
            DocumentTooLarge: a document has more than `max_size`. The former limits stay.
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
            self._session.fetch(statement("limits", "set_json_schema").encode(), [oid, *schema])
        except psycopg.Error as exc:
            raise self._mapped(exc) from exc
        finally:
            self._session.schemas.forget(oid)

    def _set_max_size(self, oid: int, size: int | None) -> None:
        try:
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

    def _set(self, connection: Connection[Any], oid: int, size: int | None) -> None:
        set_max_size = statement("limits", "set_max_size").encode()
        if size is not None and not self._session.in_transaction:
            connection.execute(set_max_size, [oid, size, False])
            try:
                connection.execute(self._sql("validate"))
            except BaseException:
                if not connection.closed:
                    connection.execute(self._sql("undo"))
                raise
        connection.execute(set_max_size, [oid, size, True])

    def _refuse_larger(self, size: int | None) -> None:
        if size is not None:
            for key, found in self._table.read(larger_statement(self._table.name), [size, size, 1], prepare=False):
                raise oversized(self._table.subject, key, found, size, is_new_limit=True)

    def _mapped(self, exc: psycopg.Error) -> PgdocError:
        rights, in_transaction = self._session.caller.to_own(self._address[1]), self._session.in_transaction
        return map_error(exc, self._table.subject, in_transaction=in_transaction, rights=rights)

    def _sql(self, name: str) -> bytes:
        return statement("limits", name).format(table=self._table.name).encode()
