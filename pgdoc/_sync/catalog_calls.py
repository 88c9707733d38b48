# Written by .ci/twins.py from pgdoc/_async/catalog_calls.py: change that file, and run it.
"""The calls of a store that create, drop, rename and list its collections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from pgdoc.crud.sizes import check_max_size, check_partitions
from pgdoc.crud.statements import catalog_statement
from pgdoc.crud.validation import schema_params
from pgdoc.database.errors import map_error
from pgdoc.errors import CollectionNotFound, InvalidName
from pgdoc.model.names import check_name, quoted
from pgdoc.model.sizes import DEFAULT_MAX_SIZE
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgdoc._sync.collection import Collection
    from pgdoc._sync.connections import Connections

__all__ = ["CatalogCalls"]


class CatalogCalls:
    """The collections of a store, which inherits these calls."""

    _connections: Connections
    _schema: str

    def collection(self, name: str, model: Any = None) -> Collection[Any]:
        """See `Store.collection`."""
        raise NotImplementedError

    def create_collection(
        self,
        name: str,
        *,
        json_schema: Mapping[str, Any] | None = None,
        max_size: int | None = DEFAULT_MAX_SIZE,
        partitions: int | None = None,
    ) -> Collection:
        """Create a collection if it does not exist, and return its handle. One that exists keeps its limits.

        Args:
            name: a letter or `_` followed by letters, digits, `_` or `-`.
            json_schema: what the data must look like, see `Collection.set_limits`, which changes these limits.
            max_size: how many bytes of JSON text a document may have; `None` for no limit.
            partitions: over how many tables the documents are spread by a hash of their id, 1 to 256; by default, all
                are in one. It can't be changed later. `docs/reference/documents.md` says when it helps.

        Raises:
            InvalidName: `name` is not a valid collection name.
            InvalidInput: `max_size`, `json_schema` or `partitions` is not valid.
            MissingExtra: `json_schema` needs the extra `validation`.
            CollectionNotFound: a table of this name is not a collection.
            DatabaseError: the role may not create it; or it exists with another number of partitions.
        """
        collection, limits = self.collection(name), [check_max_size(max_size), *schema_params(json_schema)]
        if partitions is None:
            self._call("create_collection", name, last=limits)
        else:
            self._call("create_partitioned", name, last=[*limits, check_partitions(partitions)])
        return collection

    def drop_collection(self, name: str) -> bool:
        """Drop a collection with all its documents.

        Returns:
            Whether the collection existed.

        Raises:
            InvalidName: `name` is not a valid collection name.
            CollectionNotFound: a table of this name exists and is not a collection.
        """
        return bool(self._call("drop_collection", check_name(name, "collection")))

    def rename_collection(self, old: str, new: str) -> Collection:
        """Rename a collection and return its new handle.

        Raises:
            CollectionNotFound: the collection `old` does not exist.
            InvalidName: `old` or `new` is not a valid collection name, or `new` is taken.
        """
        collection = self.collection(new)
        check_name(old, "collection")
        try:
            renamed = self._call("rename_collection", old, new)
        except InvalidName as exc:
            raise InvalidName(
                f'collection "{self._schema}.{old}" cannot be renamed: "{new}" is taken'
            ) from exc.__cause__
        if not renamed:
            raise CollectionNotFound(
                f'collection "{self._schema}.{old}" does not exist: check the name (store.collections() lists all)'
            )
        return collection

    def collections(self) -> list[str]:
        """Return the names of all collections of the schema, sorted."""
        return [row["name"] for row in self._execute(statement("catalog", "collections"), [self._schema])]

    def _execute(self, query: str, params: Sequence[Any]) -> list[dict[str, Any]]:
        try:
            with self._connections.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                return (cursor.execute(query.encode(), params)).fetchall()
        except psycopg.Error as exc:
            raise map_error(exc, f'schema "{self._schema}"') from exc

    def _call(self, name: str, *names: str, last: Sequence[Any] = ()) -> Any:
        for each in names:
            self._connections.oids.forget(quoted(self._schema, each))
        message = self._connections.metadata_message()
        params = [*([] if message is None else [message]), self._schema, *names, *last]
        try:
            ((result,),) = self._connections.fetch(catalog_statement(name, with_metadata=message is not None), params)
        except psycopg.errors.DuplicateTable as exc:
            raise InvalidName(str(exc)) from exc
        except psycopg.Error as exc:
            caller = self._connections.caller
            rights = caller.to_create() if name.startswith("create_") else caller.to_own(names[0])
            raise map_error(exc, f'collection "{self._schema}.{names[0]}"', rights=rights) from exc
        return result
