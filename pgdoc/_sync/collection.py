# Written by .ci/twins.py from pgdoc/_async/collection.py: change that file, and run it.
"""A handle on one collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, overload

from pgdoc._sync.indexes import Indexes
from pgdoc._sync.limits import Limits
from pgdoc._sync.live import live_query
from pgdoc._sync.live_calls import LiveCalls
from pgdoc._sync.looks import Looks
from pgdoc._sync.stream import ChangeStream
from pgdoc._sync.table import Table
from pgdoc._sync.upserts import Upserts
from pgdoc._sync.validation import Validation
from pgdoc._sync.writes import Writes
from pgdoc.changes.router import Selection
from pgdoc.crud.copy_format import CopyRows
from pgdoc.crud.statements import table_statement
from pgdoc.crud.write_errors import ATTEMPTS, duplicate, outrun
from pgdoc.errors import StreamError
from pgdoc.model.ids import check_id
from pgdoc.model.names import check_name
from pgdoc.model.type_variables import M
from pgdoc.runtime.primitives import opening
from pgdoc.streams.options import BUFFER_BYTES, BUFFER_SIZE, StreamOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pgdoc._sync.live import LiveQuery
    from pgdoc._sync.live_sources import LiveSources
    from pgdoc._sync.session import Session
    from pgdoc.model.documents import Document
    from pgdoc.model.ids import DocumentId
    from pgdoc.model.positions import Lsn
    from pgdoc.model.tokens import ResumeToken
    from pgdoc.model.values import DocumentData, ObjectData
    from pgdoc.query.filters.projection_parse import Fields

__all__ = ["Collection"]


class Collection(Validation[M], Writes[M], Upserts[M], Indexes, Limits, LiveCalls[M], Generic[M]):
    """A handle on the documents of one collection; `store["orders"]` returns it, without I/O.

    Every write is one statement, atomic in the server. A call raises errors of the server as `DatabaseError`,
    `ServerUnreachable`, or one of the classes that it lists.
    """

    def __init__(  # noqa: PLR0913 (what its collection is)
        self,
        session: Session,
        schema: str,
        name: str,
        *,
        auto_create: bool,
        live: LiveSources | None = None,
        model: Any = None,
    ) -> None:
        self._name = check_name(name, "collection")
        self._streams, self._live = None if live is None else live.backend, live
        self._session = session
        self._address = (schema, name)
        self._auto_create = auto_create
        self._table: Table[M] = Table(session, schema, name, auto_create=auto_create, model=model)

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
    ) -> ChangeStream[M]:
        """Open a stream of the changes of this collection; see `Store.watch`.

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
        return opening(ChangeStream[M](self._streams, Selection(frozenset({self._name}), options.where), options))

    @overload
    def live(
        self,
        filter: Mapping[str, Any] | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        fields: None = None,
        collation: str | None = None,
    ) -> LiveQuery[M]: ...

    @overload
    def live(
        self,
        filter: Mapping[str, Any] | None = None,
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        fields: Fields,
        collation: str | None = None,
    ) -> LiveQuery: ...

    def live(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        fields: Fields | None = None,
        collation: str | None = None,
    ) -> LiveQuery[Any]:
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
        return opening(
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
    def insert(self: Collection, id: DocumentId, data: DocumentData) -> Document: ...

    @overload
    def insert(self, id: DocumentId, data: M | ObjectData) -> Document[M]: ...

    def insert(self, id: DocumentId, data: M | DocumentData) -> Document[Any]:  # noqa: A002 (the name in the contract)
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
        key, text = self._table.checked(id, data)
        looks = Looks(self._table, key)
        for _ in range(ATTEMPTS):
            rows = self._table.create_and_write("insert", [key, text], key=key)
            if rows:
                return self._table.document(*rows[0])
            if looks.look() is not None:
                raise duplicate(self._table.subject, key)
        raise outrun(self._table.subject, key)

    @overload
    def insert_many(
        self: Collection,
        pairs: Iterable[tuple[DocumentId, DocumentData]],
        *,
        progress: Callable[[int], object] | None = None,
    ) -> int: ...

    @overload
    def insert_many(
        self, pairs: Iterable[tuple[DocumentId, M | ObjectData]], *, progress: Callable[[int], object] | None = None
    ) -> int: ...

    def insert_many(
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
        self._table.copy(rows)
        return rows.count

    def get(self, id: DocumentId) -> Document[M] | None:  # noqa: A002
        """Return the document with this id, or `None`."""
        key = check_id(id)
        rows = self._table.read(table_statement("get", self._table.name), [key])
        return self._table.document(key, *rows[0]) if rows else None
