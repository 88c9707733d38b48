"""A handle on one collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, overload

from pgdoc._async.indexes import AsyncIndexes
from pgdoc._async.limits import AsyncLimits
from pgdoc._async.live import live_query
from pgdoc._async.live_calls import AsyncLiveCalls
from pgdoc._async.looks import AsyncLooks
from pgdoc._async.stream import AsyncChangeStream
from pgdoc._async.table import AsyncTable
from pgdoc._async.upserts import AsyncUpserts
from pgdoc._async.validation import AsyncValidation
from pgdoc._async.writes import AsyncWrites
from pgdoc.changes.router import Selection
from pgdoc.crud.copy_format import CopyRows
from pgdoc.crud.statements import table_statement
from pgdoc.crud.write_errors import ATTEMPTS, duplicate, outrun
from pgdoc.errors import StreamError
from pgdoc.model.ids import check_id
from pgdoc.model.names import check_name
from pgdoc.model.type_variables import M
from pgdoc.runtime.primitives import async_opening
from pgdoc.streams.options import BUFFER_BYTES, BUFFER_SIZE, StreamOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pgdoc._async.live import AsyncLiveQuery
    from pgdoc._async.live_sources import AsyncLiveSources
    from pgdoc._async.session import AsyncSession
    from pgdoc.model.documents import Document
    from pgdoc.model.ids import DocumentId
    from pgdoc.model.positions import Lsn
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.model.values import DocumentData, ObjectData
    from pgdoc.query.filters.projection_parse import Fields

__all__ = ["AsyncCollection"]


class AsyncCollection(
    AsyncValidation[M], AsyncWrites[M], AsyncUpserts[M], AsyncIndexes, AsyncLimits, AsyncLiveCalls[M], Generic[M]
):
    """A handle on the documents of one collection; `store["orders"]` returns it, without I/O.

    Every write is one statement, atomic in the server. A call raises errors of the server as `DatabaseError`,
    `ServerUnreachable`, or one of the classes that it lists.
    """

    def __init__(  # noqa: PLR0913 (what its collection is)
        self,
        session: AsyncSession,
        schema: str,
        name: str,
        *,
        auto_create: bool,
        live: AsyncLiveSources | None = None,
        model: Any = None,
    ) -> None:
        self._name = check_name(name, "collection")
        self._streams, self._live = None if live is None else live.backend, live
        self._session = session
        self._address = (schema, name)
        self._auto_create = auto_create
        self._table: AsyncTable[M] = AsyncTable(session, schema, name, auto_create=auto_create, model=model)

    @property
    def name(self) -> str:
        """The name of the collection, without its schema."""
        return self._name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._table.name}>"

    def watch(  # noqa: PLR0913 (the contract)
        self,
        *,
        where: Mapping[str, Any] | None = None,
        snapshot: bool = False,
        resume_after: ResumeToken | Lsn | str | None = None,
        consumer: str | None = None,
        auto_ack: bool = True,
        wait: bool = True,
        on_lost: str = "raise",
        buffer_size: int = BUFFER_SIZE,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> AsyncChangeStream[M]:
        """Open a stream of the changes of this collection; see `AsyncStore.watch`.

        Raises:
            StreamError: this handle belongs to a transaction.
        """
        if self._streams is None:
            raise StreamError(
                f"{self._table.subject} can't be watched inside a transaction: call watch() on the store's collection"
            )
        options = StreamOptions.checked(
            codec=self._table.form.codec,
            where=where,
            snapshot=snapshot,
            resume_after=resume_after,
            consumer=consumer,
            auto_ack=auto_ack,
            wait=wait,
            on_lost=on_lost,
            buffer_size=buffer_size,
            buffer_bytes=buffer_bytes,
        )
        return async_opening(
            AsyncChangeStream[M](self._streams, Selection(frozenset({self._name}), options.where), options)
        )

    @overload
    def live(
        self,
        filter: Mapping[str, Any] | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        fields: None = None,
        collation: str | None = None,
    ) -> AsyncLiveQuery[M]: ...

    @overload
    def live(
        self,
        filter: Mapping[str, Any] | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        fields: Fields,
        collation: str | None = None,
    ) -> AsyncLiveQuery: ...

    def live(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        fields: Fields | None = None,
        collation: str | None = None,
    ) -> AsyncLiveQuery[Any]:
        """Open a live query: the documents that `find` returns with these arguments, and what changes about them.

        It begins with everything that was committed before the call. Equal queries of a store are computed once.

        Args:
            filter: as for `find`.
            sort: as for `find`. Without it, the documents come in the order of their ids.
            limit: as for `find`. Without it, all documents that match are held in memory.
            fields: as for `find`.
            collation: as for `find`.

        Raises:
            InvalidFilter: `filter` is not a filter.
            InvalidInput: `sort`, `limit`, `fields` or `collation` is invalid.
            StreamError: this handle belongs to a transaction.
            CollectionNotFound: the collection does not exist, and the store does not create it.
            ReplicationUnavailable: the server or the role is not set up for streams; the message says what to do.
            SlotBlocked: the first slot of the database has to wait for open transactions.
            ReplicaIdentityChanged: the collection's changes have no before images.
        """
        return async_opening(
            live_query(
                self._live,
                self._name,
                filter,
                sort=sort,
                limit=limit,
                fields=fields,
                collation=collation,
                reader=self._table.form.reader,
            )
        )

    @overload
    async def insert(self: AsyncCollection, id: DocumentId, data: DocumentData) -> Document: ...

    @overload
    async def insert(self, id: DocumentId, data: M | ObjectData) -> Document[M]: ...

    async def insert(self, id: DocumentId, data: M | DocumentData) -> Document[Any]:  # noqa: A002 (the name in the contract)
        """Store a new document.

        Args:
            id: any non-empty text of at most 1,024 bytes, or a UUID; `pgdoc.new_id()` returns a new one.
            data: a JSON object: a mapping, or an instance of a dataclass, pydantic model or msgspec struct. In a typed
                collection, the model reads any other value, and the resulting instance is stored.

        Returns:
            The document as it is stored, also if a trigger of the table has changed it.

        Raises:
            DuplicateDocument: the id exists, or a unique index refuses the document. Nothing was changed, and a
                transaction can continue.
            DatabaseError: among other reasons, a row policy or a trigger of the table dropped the document.
            InvalidDocument: the id or the data can't be stored. Nothing was sent.
            ModelViolation: the data is not valid for the model of the collection. Nothing was sent.
            DocumentTooLarge: the data is larger than the collection's limit.
            SchemaViolation: the data does not conform to the collection's JSON Schema.
            CollectionNotFound: the collection does not exist, and the store does not create it.
        """
        key, text = await self._table.checked(id, data)
        looks = AsyncLooks(self._table, key)
        for _ in range(ATTEMPTS):
            rows = await self._table.create_and_write("insert", [key, text], key=key)
            if rows:
                return self._table.document(*rows[0])
            if await looks.look() is not None:
                raise duplicate(self._table.subject, key)
        raise outrun(self._table.subject, key)

    @overload
    async def insert_many(
        self: AsyncCollection,
        pairs: Iterable[tuple[DocumentId, DocumentData]],
        *,
        progress: Callable[[int], object] | None = None,
    ) -> int: ...

    @overload
    async def insert_many(
        self, pairs: Iterable[tuple[DocumentId, M | ObjectData]], *, progress: Callable[[int], object] | None = None
    ) -> int: ...

    async def insert_many(
        self, pairs: Iterable[tuple[DocumentId, M | DocumentData]], *, progress: Callable[[int], object] | None = None
    ) -> int:
        """Store many new documents, all or none of them, in bounded memory.

        Args:
            pairs: pairs of id and data, such as `documents.items()`; read once, while they are sent.
            progress: called with the number of documents sent so far, after every 256 KiB and at the end.

        Returns:
            The number of documents.

        Raises:
            DuplicateDocument: an id exists, or occurs twice.
            InvalidDocument: an id or its data can't be stored.
            ModelViolation: a document's data is not valid for the model of the collection.
            DocumentTooLarge: a document is larger than the collection's limit.
            CollectionNotFound: the collection does not exist, and the store does not create it.
        """
        rows = CopyRows(pairs, progress, self._table.form.encoded)
        await self._table.copy(rows)
        return rows.count

    async def get(self, id: DocumentId) -> Document[M] | None:  # noqa: A002
        """Return the document with this id, or `None`."""
        key = check_id(id)
        rows = await self._table.read(table_statement("get", self._table.name), [key])
        return self._table.document(key, *rows[0]) if rows else None
