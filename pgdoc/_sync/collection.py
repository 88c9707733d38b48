# Written by .ci/twins.py from pgdoc/_async/collection.py: change that file, and run it.
"""The calls on one collection."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pgdoc._sync.table import Table
from pgdoc._copy import CopyRows
from pgdoc.documents import Document, check_id, encode
from pgdoc.errors import DuplicateDocument, InvalidUpdate, StreamError, VersionConflict
from pgdoc.names import check_name
from pgdoc.query.parse import parse_filter, parse_sort
from pgdoc.query.sql import compile_filter, compile_sort
from pgdoc.query.update import apply_update, parse_update
from pgdoc.query.update_sql import compile_update
from pgdoc.statements import read_statement
from pgdoc.streams import BUFFER_BYTES, BUFFER_SIZE, StreamOptions

if TYPE_CHECKING:
    from collections.abc import Generator, Callable, Iterable, Mapping, Sequence

    from pgdoc._sync.session import Session
    from pgdoc._sync.stream import ChangeStream
    from pgdoc._sync.streams import Streams
    from pgdoc.query.sql import Compiled
    from pgdoc.query.update import Update
    from pgdoc.tokens import Lsn, ResumeToken

__all__ = ["Collection"]


class Collection:
    """A handle on the documents of one table; `store["orders"]` makes it, without I/O.

    Every write is one statement, atomic in the server. Errors of the server come as `DatabaseError`,
    `ServerUnreachable` or one of the classes that the calls name.
    """

    def __init__(
        self, session: Session, schema: str, name: str, *, auto_create: bool, streams: Streams | None = None
    ) -> None:
        self._name = check_name(name, "collection")
        self._streams = streams
        self._table = Table(session, schema, name, auto_create=auto_create)

    @property
    def name(self) -> str:
        """The name of the collection, without its schema."""
        return self._name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._table.name}>"

    def watch(  # noqa: PLR0913 (the contract)
        self,
        *,
        resume_after: ResumeToken | Lsn | str | None = None,
        consumer: str | None = None,
        auto_ack: bool = True,
        wait: bool = True,
        on_lost: str = "raise",
        buffer_size: int = BUFFER_SIZE,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> ChangeStream:
        """Open a stream of the changes of this collection; see `Store.watch`.

        Raises:
            StreamError: this handle belongs to a transaction, which can't be watched from inside.
        """
        if self._streams is None:
            raise StreamError(
                f"{self._table.subject} can't be watched inside a transaction: call watch() on the store's collection"
            )
        options = StreamOptions.checked(
            resume_after=resume_after,
            consumer=consumer,
            auto_ack=auto_ack,
            wait=wait,
            on_lost=on_lost,
            buffer_size=buffer_size,
            buffer_bytes=buffer_bytes,
        )
        return self._streams.watch((self._name,), options)

    def insert(self, id: str, data: Mapping[str, Any]) -> Document:  # noqa: A002 (the name in the contract)
        """Store a new document.

        Args:
            id: any non-empty text of at most 1,024 bytes; `pgdoc.new_id()` makes one.
            data: a JSON object.

        Raises:
            DuplicateDocument: the id exists; nothing was changed, and a transaction goes on.
            InvalidDocument: the id or the data can't be stored; nothing was sent.
            CollectionNotFound: there is no such collection, and the store does not create it.
        """
        key, text = check_id(id), encode(data).decode()
        rows = self._table.create_and_write("insert", [key, text])
        if not rows:
            raise DuplicateDocument(
                f"{self._table.subject} has a document {key!r} already: replace or update it", document_id=key
            )
        return _document(key, text, *rows[0])

    def insert_many(
        self, pairs: Iterable[tuple[str, Mapping[str, Any]]], *, progress: Callable[[int], object] | None = None
    ) -> int:
        """Store many new documents, all or none of them, in bounded memory.

        Args:
            pairs: of id and data, such as `documents.items()`; read once, while they are sent.
            progress: called with the number of documents sent so far, after every 256 KiB and at the end.

        Returns:
            The number of documents.

        Raises:
            DuplicateDocument: an id exists, or comes twice.
            InvalidDocument: an id or its data can't be stored.
            CollectionNotFound: there is no such collection, and the store does not create it.
        """
        rows = CopyRows(pairs, progress)
        self._table.copy(rows)
        return rows.count

    def get(self, id: str) -> Document | None:  # noqa: A002
        """Return the document of this id, or `None`."""
        key = check_id(id)
        rows = self._table.read(read_statement("get", self._table.name), [key])
        return _document(key, *rows[0]) if rows else None

    def find(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        skip: int = 0,
    ) -> Generator[Document]:
        """Return an iterator over the documents that match, in bounded memory.

        It sees the collection as it was when the first document was asked for. Outside a transaction it takes a
        connection of the pool until it is exhausted or closed.

        Args:
            filter: as the filter language has it; `None` for all.
            sort: a path, with a leading `-` to descend, or a sequence of these.
            limit: how many documents at most.
            skip: how many to leave out first.

        Raises:
            InvalidFilter: not a filter.
        """
        return self._documents(*self._find(filter, sort, limit, skip))

    def find_one(
        self,
        filter: Mapping[str, Any] | None = None,  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
    ) -> Document | None:
        """Return the first document that matches, or `None`."""
        rows = self._table.read(*self._find(filter, sort, 1, 0))
        return _document(*rows[0]) if rows else None

    def count(self, filter: Mapping[str, Any] | None = None) -> int:  # noqa: A002
        """Return how many documents match."""
        condition = compile_filter(parse_filter(filter))
        rows = self._table.read(read_statement("count", self._table.name, condition=condition.text), condition.params)
        return int(rows[0][0]) if rows else 0

    def update(
        self,
        id: str,  # noqa: A002
        changes: Mapping[str, Any],
        *,
        upsert: bool = False,
        if_version: int | None = None,
    ) -> Document | None:
        """Change parts of a document; atomic in the server.

        An update that changes nothing writes nothing, and returns the document as it is.

        Args:
            id: of the document.
            changes: as the update language has it, such as `{"$inc": {"total": 5}}`.
            upsert: where there is no document, make one of what the changes give for an empty one.
            if_version: change the document only if it is at this version.

        Returns:
            The document as it is now, or `None` where there is none.

        Raises:
            InvalidUpdate: not an update, or one that does not fit the document.
            VersionConflict: the document is not at `if_version`, or is not there.
        """
        _refuse_both(upsert, if_version)
        key, update = check_id(id), parse_update(changes)
        change = compile_update(update)
        while True:
            rows = self._upsert(key, update, change) if upsert else self._change(key, change, if_version)
            if rows:
                return _document(key, *rows[0])
            query = read_statement("judge_update", self._table.name, change=change.text)
            found = self._table.read(query, [*change.params, *change.params, key])
            if found and (document := self._unchanged(key, update, if_version, *found[0])):
                return document
            if not found and not upsert:
                self._compare_versions(key, None, if_version)
                return None

    def replace(
        self,
        id: str,  # noqa: A002
        data: Mapping[str, Any],
        *,
        upsert: bool = False,
        if_version: int | None = None,
    ) -> Document | None:
        """Write a document whole; also where the data is what it was: its version rises and there is an event.

        Args:
            id: of the document.
            data: a JSON object.
            upsert: where there is no document, insert it.
            if_version: replace the document only if it is at this version.

        Returns:
            The document as it is now, or `None` where there is none.

        Raises:
            InvalidDocument: the data can't be stored; nothing was sent.
            VersionConflict: the document is not at `if_version`, or is not there.
        """
        _refuse_both(upsert, if_version)
        key, text = check_id(id), encode(data).decode()
        if upsert:
            rows = self._table.create_and_write("replace_upsert", [key, text])
            return _document(key, text, *rows[0])
        while True:
            params = [text, key, *_version(if_version)]
            rows = self._table.write("replace", params, versioned=if_version is not None)
            if rows:
                return _document(key, text, *rows[0])
            if if_version is None:
                return None
            self._look_at_version(key, if_version)

    def delete(self, id: str, *, if_version: int | None = None) -> bool:  # noqa: A002
        """Delete a document.

        Args:
            id: of the document.
            if_version: delete it only if it is at this version.

        Returns:
            Whether there was one.

        Raises:
            VersionConflict: the document is not at `if_version`, or is not there.
        """
        key = check_id(id)
        while True:
            rows = self._table.write("delete", [key, *_version(if_version)], versioned=if_version is not None)
            if rows or if_version is None:
                return bool(rows)
            self._look_at_version(key, if_version)

    def _upsert(self, key: str, update: Update, change: Compiled) -> list[tuple[Any, ...]]:
        first = encode(apply_update(update, {})).decode()
        params = [key, first, *change.params, *change.params]
        return self._table.create_and_write("upsert", params, change=change.text)

    def _change(self, key: str, change: Compiled, if_version: int | None) -> list[tuple[Any, ...]]:
        params = [*change.params, key, *_version(if_version), *change.params]
        return self._table.write("update", params, versioned=if_version is not None, change=change.text)

    def _unchanged(
        self, key: str, update: Update, if_version: int | None, *row: *tuple[str, int, datetime, datetime, bool, bool]
    ) -> Document | None:
        """Say why no row was written, or return `None` where another writer came in between."""
        text, version, created_at, updated_at, fits, same = row
        document = _document(key, text, version, created_at, updated_at)
        self._compare_versions(key, version, if_version)
        if not fits:
            apply_update(update, document.data)
            raise InvalidUpdate(f"the update does not fit document {key!r} of {self._table.subject}")
        return document if same else None

    def _look_at_version(self, key: str, if_version: int) -> None:
        rows = self._table.read(read_statement("version", self._table.name), [key])
        self._compare_versions(key, rows[0][0] if rows else None, if_version)

    def _compare_versions(self, key: str, found: int | None, if_version: int | None) -> None:
        if if_version is None or if_version == found:
            return
        state = "is not there" if found is None else f"is at version {found}"
        raise VersionConflict(
            f"document {key!r} of {self._table.subject} {state}, not at version {if_version}: read it again",
            found_version=found,
        )

    def _find(
        self,
        filter: Mapping[str, Any] | None,  # noqa: A002
        sort: str | Sequence[str] | None,
        limit: int | None,
        skip: int,
    ) -> tuple[bytes, list[Any]]:
        if skip < 0 or (limit is not None and limit < 0):
            raise ValueError(f"limit is {limit} and skip is {skip}: neither can be negative")
        condition, order = compile_filter(parse_filter(filter)), compile_sort(parse_sort(sort))
        query = read_statement("find", self._table.name, condition=condition.text, order=order.text)
        return query, [*condition.params, *order.params, limit, skip]

    def _documents(self, query: bytes, params: Sequence[Any]) -> Generator[Document]:
        with closing(self._table.stream(query, params)) as rows:
            for row in rows:
                yield _document(*row)


def _document(key: str, text: str, version: int, created_at: datetime, updated_at: datetime) -> Document:
    return Document.from_text(key, text, version, _in_utc(created_at), _in_utc(updated_at))


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def _version(if_version: int | None) -> tuple[int, ...]:
    return () if if_version is None else (if_version,)


def _refuse_both(upsert: bool, if_version: int | None) -> None:
    if upsert and if_version is not None:
        raise ValueError("upsert and if_version exclude each other: a document that is not there has no version")
