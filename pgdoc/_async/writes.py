"""The calls that change or delete existing documents."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, overload

from pgdoc._async.looks import AsyncLooks
from pgdoc._async.upserts import prepare_for
from pgdoc.crud.statements import table_statement
from pgdoc.crud.write_count import WriteCount
from pgdoc.crud.write_errors import ATTEMPTS, check_version, compare_versions, dropped, outrun, update_error
from pgdoc.errors import InvalidUpdate, SchemaViolation
from pgdoc.model.ids import check_id
from pgdoc.model.type_variables import M
from pgdoc.query.filters.parse import parse_filter_of_write
from pgdoc.query.filters.paths import parse_sort
from pgdoc.query.updates.parse import parse_update
from pgdoc.query.updates.sql import compile_first, compile_update, first_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgdoc._async.table import AsyncTable
    from pgdoc.model.documents import Document
    from pgdoc.model.ids import DocumentId
    from pgdoc.model.values import DocumentData, ObjectData
    from pgdoc.query.filters.sql import Compiled
    from pgdoc.query.updates.nodes import Update

__all__ = ["AsyncWrites"]


class AsyncWrites(Generic[M]):
    """The writes of a collection, which inherits them: each call is one statement, atomic in the server."""

    _name: str
    _table: AsyncTable[M]

    async def update(
        self,
        id: DocumentId,  # noqa: A002
        changes: Mapping[str, Any],
        *,
        upsert: bool = False,
        if_version: int | None = None,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
    ) -> Document[M] | None:
        """Change parts of a document.

        An update that changes nothing writes nothing and returns the document as it is.

        Args:
            id: the document's id.
            changes: an update in the update language, such as `{"$inc": {"total": 5}}`.
            upsert: if the document does not exist, insert the result of the changes, and of `$setOnInsert`, on an
                empty document.
            if_version: change the document only if it has this version.
            array_filters: filters for the parts `$[name]` of paths, such as `[{"item.count": {"$gt": 5}}]`.

        Returns:
            The document after the update, or `None` if it does not exist.

        Raises:
            InvalidUpdate: `changes` is not an update, or does not fit the document.
            SchemaViolation: the result does not conform to the collection's JSON Schema.
            DuplicateDocument: a unique index refuses the result. After an upsert, a transaction can continue.
            DatabaseError: among other reasons, a row policy or a trigger of the table dropped the change.
            VersionConflict: the document has another version, or does not exist.
        """
        check_version(if_version, upsert=upsert)
        key, update = check_id(id), parse_update(changes, self._table.encoder, array_filters=array_filters)
        try:
            first = await self._first(key, update) if upsert else None
        except (InvalidUpdate, SchemaViolation):  # `$[]`, for one, needs an existing array, so the document must exist
            if document := await self.update(key, changes, array_filters=array_filters):
                return document
            raise
        change, looks = compile_update(update), AsyncLooks(self._table, key)
        for _ in range(ATTEMPTS):
            rows = await (self._upsert(key, first, change) if first else self._change(key, change, if_version))
            if rows:
                return self._table.document(*rows[0])
            query = table_statement("check_update", self._table.name, change=change.text)
            found = await self._table.read(query, [*change.params, *change.params, key])
            if found and (document := self._unchanged(key, update, if_version, *found[0])):
                return document
            if not found and not upsert:
                compare_versions(self._table.subject, key, None, if_version)
                return None
            await looks.compare(found[0][1:3] if found else None)  # version and creation time
        raise outrun(self._table.subject, key)

    async def update_many(
        self,
        filter: Mapping[str, Any],  # noqa: A002 (the name in the contract)
        changes: Mapping[str, Any],
        *,
        array_filters: Sequence[Mapping[str, Any]] | None = None,
        collation: str | None = None,
    ) -> WriteCount:
        """Change all documents that match, or none of them.

        If another writer changes a document meanwhile, its new state is matched again and updated.

        Args:
            filter: a filter in the filter language; `{}` for all documents.
            changes: as for `update`. In a path, `$` is the first element of its array that the filter matched.
            array_filters: as for `update`.
            collation: how texts in the filter compare, as for `find`.

        Returns:
            How many documents changed, an integer. A document that the update leaves as it is does not count, and
            neither does one whose change a trigger of the table drops. Its `matched` is how many documents matched.

        Raises:
            InvalidFilter: `filter` is not a filter.
            InvalidInput: `collation` is invalid.
            InvalidUpdate: `changes` is not an update, or does not fit a document; the message names the document.
        """
        wanted = parse_filter_of_write(filter, self._table.encoder, collation)
        update = parse_update(
            changes, self._table.encoder, array_filters=array_filters, matched=wanted, collation=collation
        )
        change, condition = compile_update(update), await self._table.condition(wanted)
        params = [*change.params, *condition.params, *change.params, *condition.params]
        matched = f"(SELECT pg_catalog.count(*) FROM {self._table.name} WHERE {condition.text})"
        rows = await self._table.write(
            "update_many", params, condition=condition.text, change=change.text, matched=matched
        )
        for written, _, key, text, found in rows:
            if key is not None:
                raise update_error(self._table.subject, key, text, update)
            return WriteCount(written, found)
        return WriteCount(0, 0)

    @overload
    async def replace(
        self: AsyncWrites,
        id: DocumentId,
        data: DocumentData,
        *,
        upsert: bool = False,
        if_version: int | None = None,
    ) -> Document | None: ...

    @overload
    async def replace(
        self,
        id: DocumentId,
        data: M | ObjectData,
        *,
        upsert: bool = False,
        if_version: int | None = None,
    ) -> Document[M] | None: ...

    async def replace(
        self,
        id: DocumentId,  # noqa: A002
        data: M | DocumentData,
        *,
        upsert: bool = False,
        if_version: int | None = None,
    ) -> Document[Any] | None:
        """Replace the whole data of a document.

        This counts as a change even if the data stays the same: the version rises, and streams deliver an event.

        Args:
            id: the document's id.
            data: as for `insert`.
            upsert: if the document does not exist, insert it.
            if_version: replace the document only if it has this version.

        Returns:
            The new document as it is stored, or `None` if it does not exist.

        Raises:
            DuplicateDocument: as for `update`.
            DatabaseError: as for `update`.
            InvalidDocument: the data can't be stored. Nothing was sent.
            ModelViolation: the data is not valid for the model of the collection. Nothing was sent.
            DocumentTooLarge: the data is larger than the collection's limit.
            SchemaViolation: the data does not conform to the collection's JSON Schema.
            VersionConflict: the document has another version, or does not exist.
        """
        check_version(if_version, upsert=upsert)
        key, text = await self._table.checked(id, data)
        if upsert:
            rows = await self._table.create_and_write("replace_upsert", [key, text], key=key)
            if not rows:
                raise dropped(self._table.subject, key, await self._table.obstacles())
            return self._table.document(*rows[0])
        looks = AsyncLooks(self._table, key)
        for _ in range(ATTEMPTS):
            params = [text, key, *_version(if_version)]
            rows = await self._table.write("replace", params, key=key, versioned=if_version is not None)
            if rows:
                return self._table.document(*rows[0])
            if not await self._exists(looks, key, if_version):
                return None
        raise outrun(self._table.subject, key)

    async def delete(self, id: DocumentId, *, if_version: int | None = None) -> bool:  # noqa: A002
        """Delete a document.

        Args:
            id: the document's id.
            if_version: delete the document only if it has this version.

        Returns:
            Whether the document existed.

        Raises:
            DatabaseError: among other reasons, a trigger of the table kept the document.
            VersionConflict: the document has another version, or does not exist.
        """
        check_version(if_version)
        key = check_id(id)
        looks = AsyncLooks(self._table, key)
        for _ in range(ATTEMPTS):
            rows = await self._table.write("delete", [key, *_version(if_version)], versioned=if_version is not None)
            if rows:
                return True
            if not await self._exists(looks, key, if_version):
                return False
        raise outrun(self._table.subject, key)

    async def delete_many(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        collation: str | None = None,
    ) -> int:
        """Delete all documents that match; `{}` matches all of them.

        Args:
            filter: a filter in the filter language.
            collation: how texts in the filter compare, as for `find`.

        Returns:
            How many documents were deleted. One that a trigger of the table keeps does not count.

        Raises:
            InvalidFilter: `filter` is not a filter.
            InvalidInput: `collation` is invalid.
        """
        condition = await self._table.condition(parse_filter_of_write(filter, self._table.encoder, collation))
        rows = await self._table.write("delete_many", condition.params, condition=condition.text)
        return int(rows[0][0]) if rows else 0

    async def delete_one(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
        collation: str | None = None,
    ) -> Document[M] | None:
        """Delete the first document that matches, selected as by `update_one`.

        Args:
            filter: a filter in the filter language.
            sort: as for `find`; without it, any document that matches.
            collation: how texts in the filter and in the sort compare, as for `find`.

        Returns:
            The deleted document, or `None` if none matches.

        Raises:
            InvalidFilter: `filter` is not a filter.
            InvalidInput: `sort` or `collation` is invalid.
        """
        keys = parse_sort(sort, collation)
        first = await self._table.first(
            parse_filter_of_write(filter, self._table.encoder, collation), keys, "FOR UPDATE"
        )
        rows = await self._table.write("delete_one", first.params, prepare=prepare_for(keys), first=first.text)
        for was_deleted, key, *rest in rows:
            if not was_deleted:
                raise dropped(self._table.subject, key, await self._table.obstacles())
            return self._table.document(key, *rest)
        return None

    async def _first(self, key: str, update: Update) -> Compiled:
        first = compile_first(update)
        await self._table.check_first(key, partial(first_text, update, now=datetime.now(UTC)))
        return first

    async def _upsert(self, key: str, first: Compiled, change: Compiled) -> list[tuple[Any, ...]]:
        params = [key, *first.params, *change.params, *change.params]
        return await self._table.create_and_write("upsert", params, key=key, first=first.text, change=change.text)

    async def _change(self, key: str, change: Compiled, if_version: int | None) -> list[tuple[Any, ...]]:
        params = [*change.params, key, *_version(if_version), *change.params]
        return await self._table.write("update", params, key=key, versioned=if_version is not None, change=change.text)

    def _unchanged(
        self, key: str, update: Update, if_version: int | None, *row: *tuple[str, int, datetime, datetime, bool, bool]
    ) -> Document[M] | None:
        """Raise the reason why no row was written, or return the document if the update does not change it.

        `None` means that another writer changed the document in between: try again.
        """
        text, version, created_at, updated_at, fits, same = row
        document = self._table.document(key, text, version, created_at, updated_at)
        compare_versions(self._table.subject, key, version, if_version)
        if not fits:
            raise update_error(self._table.subject, key, text, update)
        return document if same else None

    async def _exists(self, looks: AsyncLooks, key: str, if_version: int | None) -> bool:
        """Whether a document is there that the write did not reach; raises `VersionConflict` for another version."""
        found = await looks.look()
        compare_versions(self._table.subject, key, found[0] if found else None, if_version)
        return found is not None


def _version(if_version: int | None) -> tuple[int, ...]:
    return () if if_version is None else (if_version,)
