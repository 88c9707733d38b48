"""The writes on one collection that a bulk sends later."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pgdoc._async.table import AsyncTable
from pgdoc.crud.bulk_results import (
    Statement,
    Target,
    at_version,
    changed,
    counted,
    deleted,
    exists,
    inserted,
    stored,
    updated,
    upserted,
)
from pgdoc.crud.statements import CHANGING, CLAIMING, table_statement
from pgdoc.crud.write_errors import check_version
from pgdoc.errors import InvalidUpdate
from pgdoc.model.ids import check_id
from pgdoc.model.json_codec import encode
from pgdoc.model.names import check_name
from pgdoc.query.filters.parse import parse_filter, parse_sort
from pgdoc.query.filters.sql import Compiled
from pgdoc.query.updates.parse import parse_update
from pgdoc.query.updates.sql import compile_first, compile_update

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pgdoc._async.bulk import AsyncBulk
    from pgdoc._async.transaction import AsyncTransaction
    from pgdoc.crud.bulk_results import ResultParser
    from pgdoc.query.filters.nodes import Node, SortKey
    from pgdoc.query.updates.nodes import Update

__all__ = ["AsyncBulkCollection"]


class AsyncBulkCollection:
    """A handle on one collection inside a bulk; `b["orders"]` makes it, without I/O.

    Each call checks what it is given, and queues one write with the meaning that the call has on a collection. It
    returns `None`: what the writes did is in the bulk's `result`. Where much waits already, the call sends it.
    """

    def __init__(
        self, bulk: AsyncBulk, transaction: AsyncTransaction, schema: str, name: str, *, auto_create: bool
    ) -> None:
        self._name = check_name(name, "collection")
        self._bulk = bulk
        self._table = AsyncTable(transaction, schema, name, auto_create=auto_create)

    @property
    def name(self) -> str:
        """The name of the collection, without its schema."""
        return self._name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._table.name}>"

    async def insert(self, id: str, data: Mapping[str, Any]) -> None:  # noqa: A002 (the name in the contract)
        """Queue the insert of a new document.

        Args:
            id: any non-empty text of at most 1,024 bytes; `pgdoc.new_id()` makes one.
            data: a JSON object.

        Raises:
            InvalidDocument: the id or the data can't be stored; it was not queued.
            BulkError: what was queued has been sent, and failed.
        """
        target = self._target("insert", check_id(id))
        params = [target.key, encode(data).decode()]
        await self._bulk.add(target, self._write("insert", params, partial(inserted, target), create=True))

    async def update(
        self,
        id: str,  # noqa: A002
        changes: Mapping[str, Any],
        *,
        upsert: bool = False,
        if_version: int | None = None,
    ) -> None:
        """Queue a change of parts of a document; nothing where there is none, and no `upsert`.

        Args:
            id: of the document.
            changes: as the update language has it, such as `{"$inc": {"total": 5}}`.
            upsert: where there is no document, make one, as on a collection.
            if_version: change the document only if it is at this version; else the bulk fails.

        Raises:
            InvalidUpdate: not an update; it was not queued.
            BulkError: what was queued has been sent, and failed.
        """
        check_version(if_version, upsert=upsert)
        target, update = self._target("update", check_id(id)), parse_update(changes)
        if upsert:
            await self._bulk.add(target, *self._upsert(target, update))
        else:
            await self._bulk.add(target, *self._look(target, if_version), self._change(target, update))

    async def update_many(
        self,
        filter: Mapping[str, Any],  # noqa: A002 (the name in the contract)
        changes: Mapping[str, Any],
    ) -> None:
        """Queue a change of all documents that match when it is its turn.

        Args:
            filter: as the filter language has it; `{}` for all.
            changes: as `update`.

        Raises:
            InvalidFilter: not a filter; it was not queued.
            InvalidUpdate: not an update; it was not queued.
            BulkError: what was queued has been sent, and failed.
        """
        wanted, update = parse_filter(filter), parse_update(changes)
        condition = await self._condition(wanted)
        await self._bulk.add(self._target("update_many"), self._update(condition, update))

    async def update_one(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        changes: Mapping[str, Any],
        *,
        sort: str | Sequence[str] | None = None,
        skip_locked: bool = False,
    ) -> None:
        """Queue a change of the first document that matches when it is its turn.

        Args:
            filter: as the filter language has it.
            changes: as `update`.
            sort: as `find`; without it any of the documents that match is the first.
            skip_locked: pass over documents that another transaction is changing, instead of waiting for its end.

        Raises:
            InvalidFilter: not a filter; it was not queued.
            InvalidUpdate: not an update; it was not queued.
            BulkError: what was queued has been sent, and failed.
        """
        wanted, order, update = parse_filter(filter), parse_sort(sort), parse_update(changes)
        condition = await self._first(wanted, order, skip_locked=skip_locked)
        await self._bulk.add(self._target("update_one"), self._update(condition, update))

    async def replace(
        self,
        id: str,  # noqa: A002
        data: Mapping[str, Any],
        *,
        upsert: bool = False,
        if_version: int | None = None,
    ) -> None:
        """Queue the writing of a document as a whole; nothing where there is none, and no `upsert`.

        Args:
            id: of the document.
            data: a JSON object.
            upsert: where there is no document, insert it.
            if_version: replace the document only if it is at this version; else the bulk fails.

        Raises:
            InvalidDocument: the data can't be stored; it was not queued.
            BulkError: what was queued has been sent, and failed.
        """
        check_version(if_version, upsert=upsert)
        target, text = self._target("replace", check_id(id)), encode(data).decode()
        if upsert:
            write = self._write("replace_upsert", [target.key, text], stored, create=True)
        else:
            write = self._write("replace", [text, target.key], changed)
        await self._bulk.add(target, *self._look(target, if_version), write)

    async def delete(self, id: str, *, if_version: int | None = None) -> None:  # noqa: A002
        """Queue the deletion of a document; nothing where there is none.

        Args:
            id: of the document.
            if_version: delete it only if it is at this version; else the bulk fails.

        Raises:
            InvalidDocument: not an id; it was not queued.
            BulkError: what was queued has been sent, and failed.
        """
        check_version(if_version)
        target = self._target("delete", check_id(id))
        await self._bulk.add(target, *self._look(target, if_version), self._write("delete", [target.key], deleted))

    async def delete_many(self, filter: Mapping[str, Any]) -> None:  # noqa: A002
        """Queue the deletion of all documents that match when it is its turn; `{}` matches all of them.

        Raises:
            InvalidFilter: not a filter; it was not queued.
            BulkError: what was queued has been sent, and failed.
        """
        await self._bulk.add(self._target("delete_many"), self._delete(await self._condition(parse_filter(filter))))

    async def delete_one(
        self,
        filter: Mapping[str, Any],  # noqa: A002
        *,
        sort: str | Sequence[str] | None = None,
    ) -> None:
        """Queue the deletion of the first document that matches, as `update_one` finds it.

        Raises:
            InvalidFilter: not a filter; it was not queued.
            BulkError: what was queued has been sent, and failed.
        """
        await self._bulk.add(
            self._target("delete_one"), self._delete(await self._first(parse_filter(filter), parse_sort(sort)))
        )

    def _target(self, operation: str, key: str | None = None) -> Target:
        return Target(operation, self._name, self._table.subject, key)

    def _write(
        self, name: str, params: list[Any], judge: ResultParser, *, create: bool = False, **clauses: str
    ) -> Statement:
        query, params = self._table.carrying(name, params, versioned=False, **clauses)
        return Statement(query, params, self._table.name, self._table.creatable if create else None, judge)

    def _update(self, condition: Compiled, update: Update) -> Statement:
        """One document is updated as many are: with the number for an answer, or the document that does not fit."""
        change = compile_update(update)
        return self._write(
            "update_many",
            [*change.params, *condition.params, *change.params],
            partial(updated, self._table.subject, update),
            condition=condition.text,
            change=change.text,
        )

    def _change(self, target: Target, update: Update) -> Statement:
        return self._update(Compiled("id = %s", [target.key]), update)

    def _upsert(self, target: Target, update: Update) -> list[Statement]:
        try:
            first, change = compile_first(update), compile_update(update)
        except InvalidUpdate as exc:  # `$[]` is for arrays that are there
            return [self._lock(target, partial(exists, exc)), self._change(target, update)]
        params = [target.key, *first.params, *change.params, *change.params]
        judge = partial(upserted, target, update)
        return [self._write("bulk_upsert", params, judge, create=True, first=first.text, change=change.text)]

    def _delete(self, condition: Compiled) -> Statement:
        return self._write("delete_many", condition.params, counted, condition=condition.text)

    async def _condition(self, wanted: Node) -> Compiled:
        async with self._bulk.standing_still():
            return await self._table.condition(wanted)

    async def _first(self, wanted: Node, sort: tuple[SortKey, ...], *, skip_locked: bool = False) -> Compiled:
        async with self._bulk.standing_still():
            first = await self._table.first(wanted, sort, CLAIMING if skip_locked else CHANGING)
        return Compiled(f"id = (SELECT id FROM ({first.text}) AS first)", first.params)

    def _look(self, target: Target, if_version: int | None) -> list[Statement]:
        """Lock the document and look at its version, where the write asks for one: it may be of this bulk's making."""
        return [] if if_version is None else [self._lock(target, partial(at_version, target, if_version))]

    def _lock(self, target: Target, judge: ResultParser) -> Statement:
        return Statement(table_statement("lock", self._table.name), [target.key], self._table.name, None, judge)
