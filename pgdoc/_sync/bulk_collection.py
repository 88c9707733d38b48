# Written by .ci/twins.py from pgdoc/_async/bulk_collection.py: change that file, and run it.
"""The writes on one collection that a bulk queues and sends later."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from pgdoc._sync.bulk_upserts import BulkUpserts
from pgdoc._sync.table import Table
from pgdoc.crud.bulk_results import (
    Look,
    Statement,
    Target,
    at_version,
    changed,
    counted,
    deleted,
    exists,
    inserted,
    inserted_or_dropped,
    stored,
    updated,
    upserted,
    upserted_apart,
    upserted_or_dropped,
    written_or_dropped,
)
from pgdoc.crud.statements import CHANGING, table_statement
from pgdoc.crud.write_errors import check_version
from pgdoc.errors import InvalidUpdate, SchemaViolation
from pgdoc.model.ids import check_id
from pgdoc.model.names import check_name
from pgdoc.model.type_variables import M
from pgdoc.query.filters.parse import parse_filter_of_write
from pgdoc.query.filters.paths import parse_sort
from pgdoc.query.filters.sql_text import EQUALS, Compiled
from pgdoc.query.updates.parse import parse_update
from pgdoc.query.updates.sql import compile_first, compile_update, first_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pgdoc._sync.bulk_queue import BulkQueue
    from pgdoc._sync.transaction_session import TransactionSession
    from pgdoc.crud.bulk_results import ResultParser
    from pgdoc.model.ids import DocumentId
    from pgdoc.model.values import DocumentData, ObjectData
    from pgdoc.query.filters.nodes import Node, SortKey
    from pgdoc.query.updates.nodes import Update

__all__ = ["BulkCollection"]


class BulkCollection(BulkUpserts[M]):
    """A handle on one collection inside a bulk; `b["orders"]` returns it, without I/O.

    Each call checks its arguments and queues one write, which does what the same call on a collection does. It returns
    `None`: the bulk's `result` has the counts. A call that fills the queue also sends it, and raises `BulkError` if any
    queued write fails.
    """

    def __init__(  # noqa: PLR0913 (what its collection is)
        self,
        queue: BulkQueue,
        session: TransactionSession,
        schema: str,
        name: str,
        *,
        auto_create: bool,
        model: Any = None,
    ) -> None:
        self._name = check_name(name, "collection")
        self._queue = queue
        self._table: Table[M] = Table(session, schema, name, auto_create=auto_create, model=model)
        queue.tables[self._table.name] = self._table

    @property
    def name(self) -> str:
        """The name of the collection, without its schema."""
        return self._name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._table.name}>"

    @overload
    def insert(self: BulkCollection, id: DocumentId, data: DocumentData) -> None: ...

    @overload
    def insert(self, id: DocumentId, data: M | ObjectData) -> None: ...

    def insert(self, id: DocumentId, data: M | DocumentData) -> None:  # noqa: A002 (the name in the contract)
        """Queue inserting a new document.

        Args:
            id: any non-empty text of at most 1,024 bytes, or a UUID; `pgdoc.new_id()` returns a new one.
            data: as for the same call on a collection.

        Raises:
            InvalidDocument: the id or the data can't be stored, or are too large. Nothing was queued.
            ModelViolation: the data is not valid for the model of the collection. Nothing was queued.
            BulkError: the call sent the queue, and a write failed.
        """
        target = self._target("insert", check_id(id))
        params = [target.key, self._text(target, data)]
        look = self._look(target, partial(inserted_or_dropped, target))
        self._queue.add(target, self._write("insert", params, partial(inserted, target), look, create=True))

    def update(
        self,
        id: DocumentId,  # noqa: A002
        changes: Mapping[str, Any],
        *,
        upsert: bool = False,
        if_version: int | None = None,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Queue changing parts of a document. Without `upsert`, the write does nothing if the document does not exist.

        Args:
            id: the document's id.
            changes: an update in the update language, such as `{"$inc": {"total": 5}}`.
            upsert: if the document does not exist, insert one, as on a collection.
            if_version: change the document only if it has this version; otherwise the bulk fails.
            array_filters: filters for the parts `$[name]` of paths, as on a collection.

        Raises:
            InvalidUpdate: `changes` is not an update. Nothing was queued.
            BulkError: the call sent the queue, and a write failed.
        """
        check_version(if_version, upsert=upsert)
        target = self._target("update", check_id(id))
        update = parse_update(changes, self._table.encoder, array_filters=array_filters)
        if upsert:
            self._queue.add(target, *self._upsert(target, update))
        else:
            self._queue.add(target, *self._check_before(target, if_version), self._change(target, update, if_version))

    def update_many(
        self,
        filter: Mapping[str, Any],  # noqa: A002 (the name in the contract)
        changes: Mapping[str, Any],
        *,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
        collation: str | None = None,
    ) -> None:
        """Queue changing all documents that match when the write is executed.

        Args:
            filter: a filter in the filter language; `{}` for all documents.
            changes: as for `update`, and `$` in paths as on a collection.
            array_filters: as for `update`.
            collation: how texts in the filter compare, as for `find`.

        Raises:
            InvalidInput: `collation` is invalid. Nothing was queued.
            InvalidFilter: `filter` is not a filter. Nothing was queued.
            InvalidUpdate: `changes` is not an update. Nothing was queued.
            BulkError: the call sent the queue, and a write failed.
        """
        wanted = parse_filter_of_write(filter, self._table.encoder, collation)
        update = parse_update(
            changes, self._table.encoder, array_filters=array_filters, matched=wanted, collation=collation
        )
        target, condition = self._target("update_many"), self._condition(wanted)
        self._queue.add(target, self._update(target, condition, update))

    @overload
    def replace(
        self: BulkCollection,
        id: DocumentId,
        data: DocumentData,
        *,
        upsert: bool = False,
        if_version: int | None = None,
    ) -> None: ...

    @overload
    def replace(
        self,
        id: DocumentId,
        data: M | ObjectData,
        *,
        upsert: bool = False,
        if_version: int | None = None,
    ) -> None: ...

    def replace(
        self,
        id: DocumentId,  # noqa: A002
        data: M | DocumentData,
        *,
        upsert: bool = False,
        if_version: int | None = None,
    ) -> None:
        """Queue replacing the whole data of a document. Without `upsert`, the write does nothing if it does not exist.

        Args:
            id: the document's id.
            data: as for the same call on a collection.
            upsert: if the document does not exist, insert it.
            if_version: replace the document only if it has this version; otherwise the bulk fails.

        Raises:
            InvalidDocument: the data can't be stored. Nothing was queued.
            ModelViolation: the data is not valid for the model of the collection. Nothing was queued.
            BulkError: the call sent the queue, and a write failed.
        """
        check_version(if_version, upsert=upsert)
        target = self._target("replace", check_id(id))
        text = self._text(target, data)
        if upsert:
            write = self._write("replace_upsert", [target.key, text], partial(stored, target), create=True)
        else:
            write = self._write_found(
                "replace", [text, target.key], target, partial(changed, target, if_version), if_version
            )
        self._queue.add(target, *self._check_before(target, if_version), write)

    def delete(self, id: DocumentId, *, if_version: int | None = None) -> None:  # noqa: A002
        """Queue deleting a document. The write does nothing if the document does not exist.

        Args:
            id: the document's id.
            if_version: delete the document only if it has this version; otherwise the bulk fails.

        Raises:
            InvalidDocument: `id` is not an id. Nothing was queued.
            BulkError: the call sent the queue, and a write failed.
        """
        check_version(if_version)
        target = self._target("delete", check_id(id))
        write = self._write_found("delete", [target.key], target, partial(deleted, target, if_version), if_version)
        self._queue.add(target, *self._check_before(target, if_version), write)

    def delete_many(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        collation: str | None = None,
    ) -> None:
        """Queue deleting all documents that match when the write is executed; `{}` matches all of them.

        Args:
            filter: a filter in the filter language.
            collation: how texts in the filter compare, as for `find`.

        Raises:
            InvalidFilter: `filter` is not a filter. Nothing was queued.
            InvalidInput: `collation` is invalid. Nothing was queued.
            BulkError: the call sent the queue, and a write failed.
        """
        wanted = parse_filter_of_write(filter, self._table.encoder, collation)
        self._queue.add(self._target("delete_many"), self._delete(self._condition(wanted)))

    def delete_one(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        collation: str | None = None,
    ) -> None:
        """Queue deleting the first document that matches, selected as by `update_one`.

        Args:
            filter: a filter in the filter language.
            sort: as for `find`; without it, any document that matches.
            collation: how texts in the filter and in the sort compare, as for `find`.

        Raises:
            InvalidFilter: `filter` is not a filter. Nothing was queued.
            BulkError: the call sent the queue, and a write failed.
        """
        wanted, order = parse_filter_of_write(filter, self._table.encoder, collation), parse_sort(sort, collation)
        self._queue.add(self._target("delete_one"), self._delete(self._first(wanted, order)))

    def _text(self, target: Target, data: Any) -> str:
        text = self._table.form.encoded(data, target.key)
        self._check(target.key, text)
        return text.decode()

    def _target(self, operation: str, key: str | None = None) -> Target:
        return Target(operation, self._name, self._table.subject, key)

    def _write(  # noqa: PLR0913
        self,
        name: str,
        params: list[Any],
        judge: ResultParser,
        look: Look | None = None,
        *,
        create: bool = False,
        versioned: bool = False,
        **clauses: str,
    ) -> Statement:
        query, params = self._table.with_metadata(name, params, versioned=versioned, and_data="", **clauses)
        return Statement(query, params, create, judge, look)

    def _write_found(
        self, name: str, params: list[Any], target: Target, judge: ResultParser, if_version: int | None
    ) -> Statement:
        """Return a write of a document that need not exist."""
        look = self._look(target, partial(written_or_dropped, target, judge))
        if if_version is None:
            return self._write(name, params, judge, look)
        return self._write(name, [*params, if_version], judge, look, versioned=True)

    def _look(self, target: Target, judge: Callable[[Any, Any], tuple[str, int]]) -> Look:
        return Look(table_statement("version", self._table.name), [target.key], judge)

    def _update(self, target: Target, condition: Compiled, update: Update) -> Statement:
        """Return an `update_many`, also for one document: it can return the one that does not fit."""
        change = compile_update(update)
        return self._write(
            "update_many",
            [*change.params, *condition.params, *change.params],
            partial(updated, target, update),
            condition=condition.text,
            change=change.text,
        )

    def _change(self, target: Target, update: Update, if_version: int | None = None) -> Statement:
        text = f"id {EQUALS} %s::pg_catalog.text"
        params: list[Any] = [target.key]
        if if_version is not None:
            text, params = f"{text} AND version {EQUALS} %s", [target.key, if_version]
        return self._update(target, Compiled(text, params), update)

    def _upsert(self, target: Target, update: Update) -> list[Statement]:
        try:
            first, change = compile_first(update), compile_update(update)
            self._learn_schema()
            self._table.check_first(str(target.key), partial(first_text, update, now=datetime.now(UTC)))
        except (InvalidUpdate, SchemaViolation) as exc:  # `$[]`, for one, needs an array, so the document must exist
            return [self._lock(target, partial(exists, exc)), self._change(target, update)]
        params = [target.key, *first.params, *change.params, *change.params]
        if not self._queue.is_ordered:
            query = table_statement("apart_look", self._table.name, change=change.text)
            judge = partial(upserted_apart, target, update)
            look = Look(query, [*change.params, target.key], judge, always=True)
            parse = partial(upserted, target, update)
            return [self._write("apart_upsert", params, parse, look, create=True, first=first.text, change=change.text)]
        look = Look(
            table_statement("check_update", self._table.name, change=change.text),
            [*change.params, *change.params, target.key],
            partial(upserted_or_dropped, target, update),
        )
        judge = partial(upserted, target, update)
        return [self._write("bulk_upsert", params, judge, look, create=True, first=first.text, change=change.text)]

    def _delete(self, condition: Compiled) -> Statement:
        return self._write("delete_many", condition.params, counted, condition=condition.text)

    def _condition(self, wanted: Node) -> Compiled:
        with self._queue.connection_free():
            return self._table.condition(wanted)

    def _first(self, wanted: Node, sort: tuple[SortKey, ...]) -> Compiled:
        with self._queue.connection_free():
            first = self._table.first(wanted, sort, CHANGING)
        return Compiled(f"id {EQUALS} (SELECT id FROM ({first.text}) AS first)", first.params)

    def _check_before(self, target: Target, if_version: int | None) -> list[Statement]:
        """Return a statement that locks the document and checks its version, which the bulk may have changed."""
        return [] if if_version is None else [self._lock(target, partial(at_version, target, if_version))]

    def _lock(self, target: Target, judge: ResultParser) -> Statement:
        return Statement(table_statement("lock", self._table.name), [target.key], creates=False, parse=judge)
