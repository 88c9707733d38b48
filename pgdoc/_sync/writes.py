# Written by .ci/twins.py from pgdoc/_async/writes.py: change that file, and run it.
"""The calls that change documents which are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgdoc.crud.statements import CHANGING, CLAIMING, table_statement
from pgdoc.crud.write_errors import check_version, compare_versions, update_error
from pgdoc.errors import InvalidUpdate
from pgdoc.model.documents import Document
from pgdoc.model.ids import check_id
from pgdoc.model.json_codec import encode
from pgdoc.query.filters.parse import parse_filter, parse_sort
from pgdoc.query.updates.parse import parse_update
from pgdoc.query.updates.sql import compile_first, compile_update

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pgdoc._sync.table import Table
    from pgdoc.query.filters.nodes import SortKey
    from pgdoc.query.filters.sql import Compiled
    from pgdoc.query.updates.nodes import Update

__all__ = ["Writes"]


class Writes:
    """What a collection inherits: each call is one statement, atomic in the server."""

    _table: Table

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
            upsert: where there is no document, make one of what the changes give for an empty one, with
                `$setOnInsert`.
            if_version: change the document only if it is at this version.

        Returns:
            The document as it is now, or `None` where there is none.

        Raises:
            InvalidUpdate: not an update, or one that does not fit the document.
            VersionConflict: the document is not at `if_version`, or is not there.
        """
        check_version(if_version, upsert=upsert)
        key, update = check_id(id), parse_update(changes)
        try:
            first = compile_first(update) if upsert else None
        except InvalidUpdate:  # `$[]` is for arrays that are there
            if document := self.update(key, changes):
                return document
            raise
        change = compile_update(update)
        while True:
            rows = self._upsert(key, first, change) if first else self._change(key, change, if_version)
            if rows:
                return Document.from_text(key, *rows[0])
            query = table_statement("check_update", self._table.name, change=change.text)
            found = self._table.read(query, [*change.params, *change.params, key])
            if found and (document := self._unchanged(key, update, if_version, *found[0])):
                return document
            if not found and not upsert:
                compare_versions(self._table.subject, key, None, if_version)
                return None

    def update_many(
        self,
        filter: Mapping[str, Any],  # noqa: A002 (the name in the contract)
        changes: Mapping[str, Any],
    ) -> int:
        """Change all documents that match, or none of them.

        A document that another writer changes meanwhile is matched again, and changed as it is then.

        Args:
            filter: as the filter language has it; `{}` for all.
            changes: as `update`.

        Returns:
            How many documents are others now; what the update leaves as it is does not count.

        Raises:
            InvalidFilter: not a filter.
            InvalidUpdate: not an update, or one that does not fit a document, which the message names.
        """
        wanted, update = parse_filter(filter), parse_update(changes)
        change, condition = compile_update(update), self._table.condition(wanted)
        params = [*change.params, *condition.params, *change.params]
        rows = self._table.write("update_many", params, condition=condition.text, change=change.text)
        for count, key, text in rows:
            if key is not None:
                raise update_error(self._table.subject, key, text, update)
            return int(count)
        return 0

    def update_one(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        changes: Mapping[str, Any],
        *,
        sort: str | Sequence[str] | None = None,
        skip_locked: bool = False,
    ) -> Document | None:
        """Change the first document that matches: the way to claim a job.

        A document that another writer changes meanwhile is matched again; where it no longer matches, the next one is
        taken. So no two callers are given the same document, if the changes make that it matches no more.

        Args:
            filter: as the filter language has it.
            changes: as `update`.
            sort: as `find`; without it any of the documents that match is the first.
            skip_locked: pass over documents that another transaction is changing, instead of waiting for its end.

        Returns:
            The document as it is now, or `None` where none matches.

        Raises:
            InvalidFilter: not a filter.
            InvalidUpdate: not an update, or one that does not fit the document.
        """
        wanted, keys, update = parse_filter(filter), parse_sort(sort), parse_update(changes)
        change = compile_update(update)
        first = self._table.first(wanted, keys, CLAIMING if skip_locked else CHANGING)
        params = [*change.params, *first.params]
        rows = self._table.write("update_one", params, prepare=_kept(keys), first=first.text, change=change.text)
        for fits, key, text, *rest in rows:
            if not fits:
                raise update_error(self._table.subject, key, text, update)
            return Document.from_text(key, text, *rest)
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
        check_version(if_version, upsert=upsert)
        key, text = check_id(id), encode(data).decode()
        if upsert:
            rows = self._table.create_and_write("replace_upsert", [key, text])
            return Document.from_text(key, text, *rows[0])
        while True:
            params = [text, key, *_version(if_version)]
            rows = self._table.write("replace", params, versioned=if_version is not None)
            if rows:
                return Document.from_text(key, text, *rows[0])
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
        check_version(if_version)
        key = check_id(id)
        while True:
            rows = self._table.write("delete", [key, *_version(if_version)], versioned=if_version is not None)
            if rows or if_version is None:
                return bool(rows)
            self._look_at_version(key, if_version)

    def delete_many(self, filter: Mapping[str, Any]) -> int:  # noqa: A002
        """Delete all documents that match; `{}` matches all of them.

        Returns:
            How many there were.

        Raises:
            InvalidFilter: not a filter.
        """
        condition = self._table.condition(parse_filter(filter))
        rows = self._table.write("delete_many", condition.params, condition=condition.text)
        return int(rows[0][0]) if rows else 0

    def delete_one(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
    ) -> Document | None:
        """Delete the first document that matches, as `update_one` finds it.

        Returns:
            The document that was deleted, or `None` where none matches.

        Raises:
            InvalidFilter: not a filter.
        """
        keys = parse_sort(sort)
        first = self._table.first(parse_filter(filter), keys, "FOR UPDATE")
        rows = self._table.write("delete_one", first.params, prepare=_kept(keys), first=first.text)
        return Document.from_text(*rows[0]) if rows else None

    def _upsert(self, key: str, first: Compiled, change: Compiled) -> list[tuple[Any, ...]]:
        params = [key, *first.params, *change.params, *change.params]
        return self._table.create_and_write("upsert", params, first=first.text, change=change.text)

    def _change(self, key: str, change: Compiled, if_version: int | None) -> list[tuple[Any, ...]]:
        params = [*change.params, key, *_version(if_version), *change.params]
        return self._table.write("update", params, versioned=if_version is not None, change=change.text)

    def _unchanged(
        self, key: str, update: Update, if_version: int | None, *row: *tuple[str, int, datetime, datetime, bool, bool]
    ) -> Document | None:
        """Say why no row was written, or return `None` where another writer came in between."""
        text, version, created_at, updated_at, fits, same = row
        document = Document.from_text(key, text, version, created_at, updated_at)
        compare_versions(self._table.subject, key, version, if_version)
        if not fits:
            raise update_error(self._table.subject, key, text, update)
        return document if same else None

    def _look_at_version(self, key: str, if_version: int) -> None:
        rows = self._table.read(table_statement("version", self._table.name), [key])
        compare_versions(self._table.subject, key, rows[0][0] if rows else None, if_version)


def _version(if_version: int | None) -> tuple[int, ...]:
    return () if if_version is None else (if_version,)


def _kept(sort: tuple[SortKey, ...]) -> bool | None:
    """One plan for all values is not good where it may read the order's index for few documents."""
    return False if sort else None
