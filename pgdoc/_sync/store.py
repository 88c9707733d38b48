# Written by .ci/twins.py from pgdoc/_async/store.py: change that file, and run it.
"""The store: collections, transactions, and the connections behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from pgdoc._sync.collection import Collection
from pgdoc._sync.connections import Connections
from pgdoc._sync.transaction import Transaction
from pgdoc._waiting import call
from pgdoc.errors import CollectionNotFound, InvalidName
from pgdoc.migrate import migrate
from pgdoc.names import check_name
from pgdoc.sql import statement
from pgdoc.translate import translated

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

__all__ = ["Store"]

_PLUGINS = ("auto", "wal2json")


class Store:
    """Documents in a schema of a PostgreSQL database; a context manager that closes itself.

    Making one does no I/O: connections are opened on first use, and the server is looked at then.

    Args:
        conninfo: as psycopg takes it; what it leaves out comes from the PG* variables.
        schema: the PostgreSQL schema whose tables are the collections.
        auto_create: create a collection on the first insert into it, or watch on it. Without it, every call on a
            collection that does not exist raises `CollectionNotFound`.
        plugin: the output plugin of change streams, `wal2json`, or `auto` to let the server decide.
        replication_conninfo: a direct route to the server where `conninfo` goes through a pooler.
        pool_size: how many connections document calls may use at once.

    Raises:
        InvalidName: `schema` is no name.
    """

    def __init__(  # noqa: PLR0913 (the contract)
        self,
        conninfo: str = "",
        *,
        schema: str = "docs",
        auto_create: bool = True,
        plugin: str = "auto",
        replication_conninfo: str | None = None,
        pool_size: int = 10,
    ) -> None:
        if plugin not in _PLUGINS:
            raise ValueError(f"plugin is {plugin!r}: one of {', '.join(_PLUGINS)}")
        self._conninfo = conninfo
        self._schema = check_name(schema, "schema")
        self._auto_create = auto_create
        self._plugin = plugin
        self._replication_conninfo = replication_conninfo or conninfo
        self._connections = Connections(conninfo, pool_size)

    def collection(self, name: str) -> Collection:
        """Return a handle on a collection; no I/O.

        Raises:
            InvalidName: not a letter or `_`, then letters, digits, `_`, `-`; or over 63 bytes.
        """
        return Collection(self._connections, self._schema, name, auto_create=self._auto_create)

    __getitem__ = collection

    def create_collection(self, name: str) -> Collection:
        """Create a collection, or do nothing where it exists, and return its handle.

        Raises:
            InvalidName: not the name of a collection.
            CollectionNotFound: a table of this name is there, and is not a collection.
            DatabaseError: the role may not create it.
        """
        collection = self.collection(name)
        self._call("create_collection", name)
        return collection

    def drop_collection(self, name: str) -> bool:
        """Drop a collection with all its documents.

        Returns:
            Whether there was one.

        Raises:
            CollectionNotFound: a table of this name is there, and is not a collection.
        """
        return bool(self._call("drop_collection", check_name(name, "collection")))

    def rename_collection(self, old: str, new: str) -> Collection:
        """Rename a collection and return its new handle.

        Raises:
            CollectionNotFound: there is no collection `old`.
            InvalidName: `new` is not the name of a collection, or is taken.
        """
        collection = self.collection(new)
        try:
            renamed = self._call("rename_collection", check_name(old, "collection"), new)
        except InvalidName as exc:
            raise InvalidName(f"collection {old!r} can't be renamed to {new!r}: that name is taken") from exc.__cause__
        if not renamed:
            raise CollectionNotFound(f'collection "{self._schema}.{old}" does not exist')
        return collection

    def collections(self) -> list[str]:
        """Return the names of all collections of the schema, sorted."""
        return [row["name"] for row in self._execute(statement("catalog", "collections"), [self._schema])]

    def transaction(self, metadata: Mapping[str, Any] | None = None, isolation: str | None = None) -> Transaction:
        """Return a transaction, to be entered: `with store.transaction() as tx`.

        Args:
            metadata: what the events of the transaction carry, merged over the `pgdoc.metadata` blocks around it.
            isolation: `read committed`, `repeatable read` or `serializable`; the server's default else.

        Raises:
            InvalidDocument: the metadata has no form in JSON.
        """
        return Transaction(
            self._connections,
            schema=self._schema,
            auto_create=self._auto_create,
            metadata=metadata,
            isolation=isolation,
        )

    def migrate(self) -> None:
        """Bring the catalog of the database to the newest version; safe from many processes at once."""
        call(migrate, self._conninfo)

    def close(self) -> None:
        """Close all connections; every later call raises `StoreClosed`. Safe to call twice."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _create_missing(self, names: Iterable[str] | None) -> None:
        """Make sure that the collections are there: create them, or refuse where the store does not create any."""
        missing = set(names or ()).difference(self.collections())
        if missing and not self._auto_create:
            raise CollectionNotFound(f'collection "{self._schema}.{min(missing)}" does not exist: create it first')
        for name in sorted(missing):
            self.create_collection(name)

    def _execute(self, query: str, params: Sequence[Any]) -> list[dict[str, Any]]:
        """Execute a statement of the library's own, outside any collection."""
        try:
            with self._connections.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                return (cursor.execute(query.encode(), params)).fetchall()
        except psycopg.Error as exc:
            raise translated(exc, f'schema "{self._schema}"') from exc

    def _call(self, name: str, *names: str) -> Any:
        """Call one of the catalog's functions on collections of the schema."""
        self._connections.seen.clear()
        try:
            ((result,),) = self._connections.fetch(statement("catalog", name).encode(), [self._schema, *names])
        except psycopg.errors.DuplicateTable as exc:
            raise InvalidName(str(exc)) from exc
        except psycopg.Error as exc:
            raise translated(exc, f'collection "{self._schema}.{names[0]}"') from exc
        return result
