# Written by .ci/twins.py from pgdoc/_async/writing.py: change that file, and run it.
"""The calls that change documents which are there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pgdoc.documents import Document, check_id, encode
from pgdoc.errors import InvalidUpdate, VersionConflict
from pgdoc.query.update import apply_update, parse_update
from pgdoc.query.update_sql import compile_update
from pgdoc.statements import read_statement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pgdoc._sync.table import Table
    from pgdoc.query.sql import Compiled
    from pgdoc.query.update import Update

__all__ = ["Writes", "document_of"]


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
                return document_of(key, *rows[0])
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
            return document_of(key, text, *rows[0])
        while True:
            params = [text, key, *_version(if_version)]
            rows = self._table.write("replace", params, versioned=if_version is not None)
            if rows:
                return document_of(key, text, *rows[0])
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
        document = document_of(key, text, version, created_at, updated_at)
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


def document_of(key: str, text: str, version: int, created_at: datetime, updated_at: datetime) -> Document:
    return Document.from_text(key, text, version, _in_utc(created_at), _in_utc(updated_at))


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def _version(if_version: int | None) -> tuple[int, ...]:
    return () if if_version is None else (if_version,)


def _refuse_both(upsert: bool, if_version: int | None) -> None:
    if upsert and if_version is not None:
        raise ValueError("upsert and if_version exclude each other: a document that is not there has no version")
