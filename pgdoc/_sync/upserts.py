# Written by .ci/twins.py from pgdoc/_async/upserts.py: change that file, and run it.
"""The calls that change or replace the first document that matches, and insert one if none does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, overload

from pgdoc._sync.looks import Looks
from pgdoc.crud.first_write import FirstWrite, Insertion, first_replace, first_update
from pgdoc.crud.statements import CHANGING, CLAIMING
from pgdoc.crud.write_errors import ATTEMPTS, dropped, duplicate, outrun, update_error
from pgdoc.model.type_variables import M
from pgdoc.query.filters.paths import parse_sort

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgdoc._sync.table import Table, Rows
    from pgdoc.model.documents import Document
    from pgdoc.model.values import DocumentData, ObjectData
    from pgdoc.query.filters.nodes import SortKey

__all__ = ["Upserts", "prepare_for"]

_TRIES = 2
"""How often an upsert looks for a document that matches: the second time it also sees the one that kept it out."""


class Upserts(Generic[M]):
    """The writes of a collection to one document that a filter finds; the collection inherits them."""

    _name: str
    _table: Table[M]

    def update_one(  # noqa: PLR0913
        self,
        filter: Mapping[str, Any],  # noqa: A002 (the name in the contract)
        changes: Mapping[str, Any],
        *,
        sort: str | Sequence[str] | None = None,
        skip_locked: bool = False,
        upsert: bool = False,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
        return_document: str = "after",
        collation: str | None = None,
    ) -> Document[M] | None:
        """Change the first document that matches. Use it to claim jobs from a queue.

        If another writer changes a document meanwhile, it is matched again; if it no longer matches, the next one is
        taken. So if the changes make a document no longer match, no two callers get the same document.

        Args:
            filter: a filter in the filter language.
            changes: as for `update`. In a path, `$` is the first element of its array that the filter matched.
            sort: as for `find`; without it, any document that matches.
            skip_locked: skip documents that another transaction is changing, instead of waiting.
            upsert: if no document matches, insert the result of the changes, and of `$setOnInsert`, on a document of
                the filter's equalities. Its id is the filter's `_id`, or a new one.
            array_filters: as for `update`.
            return_document: `"after"` returns the document after the update, `"before"` as it was; then an insert
                returns `None`.
            collation: how texts in the filter and in the sort compare, as for `find`.

        Returns:
            The document, or `None` if none matches and none was inserted.

        Raises:
            InvalidFilter: `filter` is not a filter, or does not say what to insert.
            InvalidInput: `sort`, `collation` or `return_document` is invalid.
            InvalidUpdate: `changes` is not an update, or does not fit the document.
            SchemaViolation: the result does not conform to the collection's JSON Schema.
            DuplicateDocument: the upsert can't insert: a document with the id, or with the values of a unique index,
                exists and does not match. A transaction can continue.
        """
        write = first_update(
            filter,
            changes,
            upsert=upsert,
            array_filters=array_filters,
            return_document=return_document,
            skip_locked=skip_locked,
            encoder=self._table.encoder,
            collation=collation,
        )
        order = parse_sort(sort, collation)
        return self._write_first(self._table.conforming(write), order, CLAIMING if skip_locked else CHANGING)

    @overload
    def replace_one(
        self: Upserts,
        filter: Mapping[str, Any],
        data: DocumentData,
        *,
        sort: str | Sequence[str] | None = None,
        upsert: bool = False,
        return_document: str = "after",
        collation: str | None = None,
    ) -> Document | None: ...

    @overload
    def replace_one(
        self,
        filter: Mapping[str, Any],
        data: M | ObjectData,
        *,
        sort: str | Sequence[str] | None = None,
        upsert: bool = False,
        return_document: str = "after",
        collation: str | None = None,
    ) -> Document[M] | None: ...

    def replace_one(  # noqa: PLR0913
        self,
        filter: Mapping[str, Any],  # noqa: A002
        data: M | DocumentData,
        *,
        sort: str | Sequence[str] | None = None,
        upsert: bool = False,
        return_document: str = "after",
        collation: str | None = None,
    ) -> Document[Any] | None:
        """Replace the whole data of the first document that matches, selected as by `update_one`.

        This counts as a change even if the data stays the same: the version rises, and streams deliver an event.

        Args:
            filter: a filter in the filter language.
            data: as for `insert`.
            sort: as for `find`; without it, any document that matches.
            upsert: if no document matches, insert the data. The id is the filter's `_id`, or a new one.
            return_document: as for `update_one`.
            collation: as for `update_one`.

        Returns:
            The document, or `None` if none matches and none was inserted.

        Raises:
            InvalidFilter: `filter` is not a filter.
            InvalidInput: `sort`, `collation` or `return_document` is invalid.
            InvalidDocument: the data can't be stored. Nothing was sent.
            ModelViolation: the data is not valid for the model of the collection. Nothing was sent.
            DocumentTooLarge: the data is larger than the collection's limit.
            SchemaViolation: the data does not conform to the collection's JSON Schema.
            DuplicateDocument: as for `update_one`.
        """
        text = self._table.form.encoded(data)
        write = first_replace(
            filter,
            text.decode(),
            upsert=upsert,
            return_document=return_document,
            encoder=self._table.encoder,
            collation=collation,
        )
        order = parse_sort(sort, collation)
        self._table.check_size(None, len(text))
        self._table.check_schema(None, text)
        return self._write_first(write, order, CHANGING)

    def _write_first(self, write: FirstWrite, sort: tuple[SortKey, ...], lock: str) -> Document[M] | None:
        first = self._table.first(write.wanted, sort, lock)
        params = [*write.change.params, *first.params]
        insertion, prepare = write.insertion, prepare_for(sort)
        if insertion is None:
            rows = self._table.write(
                write.name,
                params,
                prepare=prepare,
                first=first.text,
                change=write.change.text,
                result=write.returns,
            )
            document = self._document(rows, write)
            if document is None and write.obstacle is not None:
                raise write.obstacle
            return document
        params += [insertion.key, *insertion.data.params]
        for _ in range(_TRIES):
            rows = self._table.create_and_write(
                write.name,
                params,
                prepare=prepare,
                first=first.text,
                change=write.change.text,
                result=write.returns,
                seed=insertion.data.text,
                conflict="",
            )
            if rows:
                return self._document(rows, write)
        document = self._insert_first(insertion)
        return document if write.returns == "after" else None

    def _document(self, rows: Rows, write: FirstWrite) -> Document[M] | None:
        for fits, key, text, *rest in rows:
            if fits is None:
                raise dropped(self._table.subject, key, self._table.obstacles())
            if not fits:
                raise update_error(self._table.subject, key, text, write.update)
            return None if key is None else self._table.document(key, text, *rest)
        return None

    def _insert_first(self, insertion: Insertion) -> Document[M]:
        """Insert the document of an upsert, or raise what keeps it out."""
        key, data = insertion.key, insertion.data
        looks = Looks(self._table, key)
        for _ in range(ATTEMPTS):
            rows = self._table.create_and_write("insert_first", [key, *data.params], key=key, first=data.text)
            if rows:
                return self._table.document(*rows[0])
            if looks.look() is not None:
                raise duplicate(self._table.subject, key)
        raise outrun(self._table.subject, key)


def prepare_for(sort: tuple[SortKey, ...]) -> bool | None:
    """Return the `prepare` argument: with a sort, one plan for all values might read its index for few matches."""
    return False if sort else None
