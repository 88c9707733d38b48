# Written by .ci/twins.py from pgdoc/_async/bulk_upserts.py: change that file, and run it.
"""The writes of a bulk to the first document that matches, and those that insert one if none does."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, overload

from pgdoc.crud.bulk_results import Look, Statement, Target, first_written, first_written_or_dropped
from pgdoc.crud.first_write import FirstWrite, first_replace, first_update
from pgdoc.crud.statements import CHANGING, CLAIMING, table_statement
from pgdoc.errors import CollectionNotFound
from pgdoc.model.type_variables import M
from pgdoc.query.filters.paths import parse_sort

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgdoc._sync.bulk_queue import BulkQueue
    from pgdoc._sync.table import Table
    from pgdoc.model.values import DocumentData, ObjectData
    from pgdoc.query.filters.nodes import SortKey

__all__ = ["BulkUpserts"]


class BulkUpserts(Generic[M]):
    """The calls of a bulk's collection that use a filter to write one document; the collection inherits them."""

    _name: str
    _table: Table[M]
    _queue: BulkQueue

    def update_one(  # noqa: PLR0913
        self,
        filter: Mapping[str, Any],  # noqa: A002 (the name in the contract)
        changes: Mapping[str, Any],
        *,
        sort: str | Sequence[str] | None = None,
        skip_locked: bool = False,
        upsert: bool = False,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
        collation: str | None = None,
    ) -> None:
        """Queue changing the first document that matches when the write is executed.

        Args:
            filter: a filter in the filter language.
            changes: as for `update`, and `$` in paths as on a collection.
            sort: as for `find`; without it, any document that matches.
            skip_locked: skip documents that another transaction is changing, instead of waiting.
            upsert: if no document matches, insert one, as on a collection. If another transaction inserts a document
                with the same id, or the same values of a unique index, at the same moment, the bulk fails.
            array_filters: as for `update`.
            collation: how texts in the filter and in the sort compare, as for `find`.

        Raises:
            InvalidInput: `sort` or `collation` is invalid. Nothing was queued.
            InvalidFilter: `filter` is not a filter. Nothing was queued.
            InvalidUpdate: `changes` is not an update. Nothing was queued.
            BulkError: the call sent the queue, and a write failed.
        """
        write = first_update(
            filter,
            changes,
            upsert=upsert,
            array_filters=array_filters,
            skip_locked=skip_locked,
            encoder=self._table.encoder,
            collation=collation,
        )
        order = parse_sort(sort, collation)
        self._learn_schema()
        self._add_first(self._table.conforming(write), order, CLAIMING if skip_locked else CHANGING)

    @overload
    def replace_one(
        self: BulkUpserts,
        filter: Mapping[str, Any],
        data: DocumentData,
        *,
        sort: str | Sequence[str] | None = None,
        upsert: bool = False,
        collation: str | None = None,
    ) -> None: ...

    @overload
    def replace_one(
        self,
        filter: Mapping[str, Any],
        data: M | ObjectData,
        *,
        sort: str | Sequence[str] | None = None,
        upsert: bool = False,
        collation: str | None = None,
    ) -> None: ...

    def replace_one(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        data: M | DocumentData,
        *,
        sort: str | Sequence[str] | None = None,
        upsert: bool = False,
        collation: str | None = None,
    ) -> None:
        """Queue replacing the whole data of the first document that matches when the write is executed.

        Args:
            filter: a filter in the filter language.
            data: as for the same call on a collection.
            sort: as for `find`; without it, any document that matches.
            upsert: if no document matches, insert the data, as `update_one` does.
            collation: as for `update_one`.

        Raises:
            InvalidInput: `sort` or `collation` is invalid. Nothing was queued.
            InvalidFilter: `filter` is not a filter. Nothing was queued.
            InvalidDocument: the data can't be stored. Nothing was queued.
            ModelViolation: the data is not valid for the model of the collection. Nothing was queued.
            BulkError: the call sent the queue, and a write failed.
        """
        text = self._table.form.encoded(data)
        write = first_replace(filter, text.decode(), upsert=upsert, encoder=self._table.encoder, collation=collation)
        order = parse_sort(sort, collation)
        self._check(None, text)
        self._add_first(write, order, CHANGING)

    def _check(self, key: str | None, text: bytes) -> None:
        """Raise the error for new data with this text if it breaks the limits of the collection."""
        if self._table.may_exceed(len(text)):
            with self._queue.connection_free():
                self._table.check_size(key, len(text))
        self._learn_schema()
        self._table.check_schema(key, text)

    def _learn_schema(self) -> None:
        if not self._table.knows_schema:
            with self._queue.connection_free():
                with suppress(CollectionNotFound):  # which the bulk reports when it sends the write
                    self._table.look_up()

    def _add_first(self, write: FirstWrite, sort: tuple[SortKey, ...], lock: str) -> None:
        with self._queue.connection_free():
            first = self._table.first(write.wanted, sort, lock)
        params, insertion, look = [*write.change.params, *first.params], write.insertion, None
        target = Target(write.name, self._name, self._table.subject, None)
        clauses = {"first": first.text, "change": write.change.text, "result": "counts"}
        if insertion is not None:
            params += [insertion.key, *insertion.data.params]
            # With (id), a unique index raises an error, which names it.
            clauses |= {"seed": insertion.data.text, "conflict": "(id)"}
            found = table_statement("version", self._table.name)
            look = Look(found, [insertion.key], partial(first_written_or_dropped, target, write))
        query, params = self._table.with_metadata(write.name, params, versioned=False, **clauses)
        parse = partial(first_written, target, write)
        self._queue.add(target, Statement(query, params, insertion is not None, parse, look))
