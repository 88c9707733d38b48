"""The calls on the indexes of a collection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc._async.brief_locks import execute_briefly
from pgdoc.crud.guard import replaced
from pgdoc.crud.partition_indexes import index_statement, joined_build, refuse_unique
from pgdoc.crud.statements import table_statement
from pgdoc.database.errors import is_conflict, map_error
from pgdoc.errors import CollectionNotFound, DatabaseError
from pgdoc.model.names import check_name, quoted
from pgdoc.query.indexes.definition import (
    TIMES,
    Index,
    IndexPart,
    IndexPlan,
    IndexProgress,
    collect_indexes,
    is_current,
    part_digest,
    plan_index,
    read_comment,
)
from pgdoc.query.indexes.definition import relation_name as _relation_name
from pgdoc.runtime.primitives import async_execute_watched, async_sleep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from datetime import timedelta

    from psycopg import AsyncConnection

    from pgdoc._async.session import AsyncSession
    from pgdoc._async.table import AsyncTable
    from pgdoc.errors import PgdocError

__all__ = ["AsyncIndexes", "Index", "IndexProgress"]

_POLL_S = 0.2
_LOCK_TIMEOUT = b"SET LOCAL lock_timeout = '2s'"


class AsyncIndexes:
    """The calls of a collection on its indexes, which it inherits."""

    _table: AsyncTable[Any]
    _session: AsyncSession
    _address: tuple[str, str]

    async def create_index(  # noqa: PLR0913
        self,
        *paths: str,
        unique: bool = False,
        where: Mapping[str, Any] | None = None,
        name: str | None = None,
        collation: str | None = None,
        expire_after: timedelta | None = None,
        progress: Callable[[IndexProgress], object] | None = None,
    ) -> str:
        """Build an index without blocking readers or writers; do nothing if it exists.

        An unfinished index is built again. Inside a transaction, the build blocks writers of the collection until the
        transaction ends. That of a collection with partitions locks it for a moment at the end, and can't be `unique`.

        Args:
            paths: the paths, in the order of the sort, each with a leading `-` to descend; or `"$**"` alone, for
                equality at any path.
            unique: allow no two documents with the same values. A missing field counts as null, and documents with an
                array at one of the paths are left out.
            where: index only the documents that match. A query that is to use the index must repeat this condition.
            name: the name for `drop_index`; by default it is made from the paths.
            collation: how texts compare, as for `find`. Queries with the same collation can use the index, and `unique`
                compares with it.
            expire_after: delete each document when this much time has passed since the time at the path. Another value
                for an index that exists changes it; without it, the call fails if documents expire by that index.
            progress: called every 0.2 s while a part of the index is built, and at the end. Inside a transaction it is
                called at the end only.

        Returns:
            The name of the index.

        Raises:
            InvalidInput: these paths can't be indexed, `collation` or `expire_after` is invalid, or the collection has
                partitions and the index is to be `unique`.
            InvalidFilter: `where` is not a filter that an index can have.
            InvalidName: `name` is not a valid index name.
            DuplicateDocument: two documents have the same values in a unique index, which was not created.
            DatabaseError: another index has this name, or documents expire by it.
        """
        plan = plan_index(
            paths,
            unique=unique,
            where=where,
            name=name,
            expire_after=expire_after,
            encoder=self._table.encoder,
            collation=collation,
        )
        oid = await self._table.look_up() or await self._table.create()
        if self._session.in_transaction:  # keeps the table until the transaction ends
            await self._table.read(table_statement("hold", self._table.name), [])
        try:
            async with self._building(oid) as connection:
                await self._complete(connection, oid, plan, progress)
        except psycopg.Error as exc:
            raise self._mapped(exc, f"index {plan.name!r} of ") from exc
        finally:
            self._table.forget_indexes()
        if expire_after is not None:
            self._session.sweeper.start()
        if progress is not None:
            progress(IndexProgress(plan.name, "ready", 1, 1))
        return plan.name

    async def indexes(self) -> list[Index]:
        """Return the indexes that `create_index` created, sorted by name."""
        oid = await self._table.look_up()
        if oid is None:
            self._table.check_creatable()
        return collect_indexes(await self._fetch(index_statement("parts"), [oid])) if oid is not None else []

    async def drop_index(self, name: str) -> bool:
        """Drop an index, finished or not, without blocking readers or writers; with partitions, for a moment.

        Returns:
            Whether the index existed.

        Raises:
            InvalidName: `name` is not a valid index name.
        """
        check_name(name, "index")
        oid = await self._table.look_up()
        if oid is None:
            self._table.check_creatable()
            return False
        try:
            async with self._building(oid) as connection:
                found = [row[0] for row in await _parts_of(connection, oid, name)]
                for relation in found:
                    await self._drop(connection, relation)
                left = [
                    row[0]
                    for part, _ in await _partitions(connection, oid)
                    for row in await _parts_of(connection, part, name)
                ]
                for relation in left:
                    await self._drop_left(connection, relation)
        except psycopg.Error as exc:
            raise self._mapped(exc, f"index {name!r} of ") from exc
        finally:
            self._table.forget_indexes()
        return bool(found)

    async def _fetch(self, query: bytes, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            return await self._session.fetch(query, params)
        except psycopg.Error as exc:
            raise self._mapped(exc) from exc

    def _mapped(self, exc: psycopg.Error, part: str = "") -> PgdocError:
        if is_conflict(exc):  # its message names the index
            part = ""
        rights = self._session.caller.to_own(self._address[1])
        in_transaction = self._session.in_transaction
        return map_error(exc, f"{part}{self._table.subject}", in_transaction=in_transaction, rights=rights)

    @asynccontextmanager
    async def _building(self, oid: int) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection that may change the indexes: one session at a time builds those of a table.

        Others may not wait inside their own CREATE INDEX CONCURRENTLY: that holds a snapshot, for which the first one
        waits, which is a deadlock. In a transaction, the build's own lock on the table is enough.
        """
        async with self._session.lend(f"a change of the indexes of {self._table.subject}") as connection:
            if self._session.in_transaction:
                yield connection
                return
            try:
                while not await self._begin_build(connection, oid):
                    await async_sleep(_POLL_S)
                yield connection
            finally:
                if not connection.closed:
                    await connection.execute(index_statement("end_build"), [oid])

    async def _begin_build(self, connection: AsyncConnection[Any], oid: int) -> bool:
        """Note that this session builds; return `False` if another one does, or if the table stays locked.

        The lock shows that the role may write to the table.
        """
        try:
            async with connection.transaction():
                await connection.execute(_LOCK_TIMEOUT)
                await connection.execute(index_statement("lock", table=self._table.name))
                return bool((await _rows(connection, index_statement("begin_build"), [oid]))[0][0])
        except psycopg.errors.LockNotAvailable:
            return False

    async def _complete(
        self,
        connection: AsyncConnection[Any],
        oid: int,
        plan: IndexPlan,
        progress: Callable[[IndexProgress], object] | None,
    ) -> None:
        """Build the missing parts of the index; rebuild those that are unfinished or outdated."""
        partitions = await _partitions(connection, oid)
        if partitions and plan.unique:
            refuse_unique(self._table.subject, plan.paths)
        found = await self._found_parts(connection, oid, plan)
        missing = []
        for part in plan.parts:
            row = found.get(part_digest(oid, plan.name, part.label))
            if row is not None and not (row[1] and is_current(row[3])):
                await self._drop(connection, row[0])
                row = None
            if row is None:
                missing.append(part)
            elif part.label == TIMES and row[3] != (comment := plan.comment(part)):
                await self._comment(connection, row[0], *await _literals(connection, [comment]))
        for part in missing:
            if partitions and not self._session.in_transaction:
                await self._build_joined(connection, oid, plan, part, progress)
            else:
                await self._build(connection, oid, plan, part, progress)
        if missing:
            await connection.execute(index_statement("analyze", table=self._table.name))

    async def _found_parts(
        self, connection: AsyncConnection[Any], oid: int, plan: IndexPlan
    ) -> dict[str, tuple[Any, ...]]:
        """Return the existing parts by the digest that this table's oid gives them."""
        found: dict[str, tuple[Any, ...]] = {}
        for row in await _parts_of(connection, oid, plan.name):
            content = read_comment(row[3])
            self._check_same(plan, content)
            digest = part_digest(oid, plan.name, content["part"]) if content else row[0].rpartition(".")[2]
            if digest in found:  # an earlier version built it again in a restored table
                await self._drop(connection, found[digest][0])
            found[digest] = row
        return found

    def _check_same(self, plan: IndexPlan, found: Mapping[str, Any] | None) -> None:
        if found is None:
            return
        if found["part"] == TIMES and plan.expire_after is None:
            raise DatabaseError(
                f"documents of {self._table.subject} expire by the index {plan.name!r}: pass expire_after, or drop the "
                "index first to keep them",
                sqlstate="42P07",
            )
        if any(found.get(key) != value for key, value in plan.definition.items()):
            raise DatabaseError(
                f"{self._table.subject} has another index {plan.name!r}, on {', '.join(found['paths'])}: "
                "drop it first, or choose another name",
                sqlstate="42P07",
            )

    async def _build(
        self,
        connection: AsyncConnection[Any],
        oid: int,
        plan: IndexPlan,
        part: IndexPart,
        progress: Callable[[IndexProgress], object] | None,
    ) -> None:
        table = self._address[1]
        relation = _relation_name(table, oid, plan.name, part.label)
        body, comment = await _definition(connection, plan, part)
        query = index_statement(
            "create_unique" if plan.unique and not part.label else "create",
            concurrently=self._concurrently,
            name=f'"{relation}"',
            table=self._table.name,
            kind=part.kind,
            body=body,
        )
        try:
            await self._execute(connection, query, plan.name, progress)
            await self._check_table(connection, oid, relation)
        except (psycopg.errors.UniqueViolation, CollectionNotFound):
            if not self._session.in_transaction:
                await self._drop(connection, relation)
            raise
        await self._comment(connection, relation, comment)

    async def _build_joined(
        self,
        connection: AsyncConnection[Any],
        oid: int,
        plan: IndexPlan,
        part: IndexPart,
        progress: Callable[[IndexProgress], object] | None,
    ) -> None:
        """Build the index of each partition, and join them to one."""
        body, comment = await _definition(connection, plan, part)
        found = await _partitions(connection, oid)
        build = joined_build(self._address, oid, found, plan=plan, part=part, body=body, comment=comment)
        for relation, query in build.builds:
            await self._drop_left(connection, relation)
            await self._execute(connection, query, plan.name, progress)
        await execute_briefly(connection, build.joining)
        await self._check_table(connection, oid, build.relation)

    async def _drop_left(self, connection: AsyncConnection[Any], relation: str) -> None:
        """Drop what an interrupted build has left of an index of one partition."""
        if not self._session.in_transaction:
            await connection.execute(index_statement("drop_left", name=quoted(self._address[0], relation)))

    async def _execute(
        self,
        connection: AsyncConnection[Any],
        query: bytes,
        name: str,
        progress: Callable[[IndexProgress], object] | None,
    ) -> None:
        if progress is None or self._session.in_transaction:
            await connection.execute(query)
            return
        ((pid,),) = await _rows(connection, b"SELECT pg_catalog.pg_backend_pid()", [])

        async def report() -> None:
            for phase, *measures in await self._session.fetch(index_statement("progress"), [pid]):
                blocks, of_blocks, tuples, of_tuples = (int(measure or 0) for measure in measures)
                done, total = (blocks, of_blocks) if of_blocks else (tuples, of_tuples)
                progress(IndexProgress(name, phase, done, total))

        await async_execute_watched(connection, query, report, _POLL_S)

    async def _check_table(self, connection: AsyncConnection[Any], oid: int, relation: str) -> None:
        """Check that no other table had the collection's name: CREATE INDEX CONCURRENTLY has no guard."""
        rows = await _rows(connection, index_statement("table_of"), [oid, quoted(self._address[0], relation)])
        if not (rows and rows[0][0]):
            raise replaced(self._table.subject)

    async def _comment(self, connection: AsyncConnection[Any], relation: str, comment: str) -> None:
        await connection.execute(index_statement("comment", name=quoted(self._address[0], relation), comment=comment))

    async def _drop(self, connection: AsyncConnection[Any], relation: str) -> None:
        name = quoted(self._address[0], relation)
        try:
            await connection.execute(index_statement("drop", concurrently=self._concurrently, name=name))
        except psycopg.errors.FeatureNotSupported:  # it is the index of all partitions
            await execute_briefly(connection, [index_statement("drop", concurrently="", name=name)])

    @property
    def _concurrently(self) -> str:
        return "" if self._session.in_transaction else "CONCURRENTLY"


async def _parts_of(connection: AsyncConnection[Any], oid: int, name: str) -> list[tuple[Any, ...]]:
    """Return the existing parts of an index, also of a build that failed before it wrote the comment.

    A table that was restored from a dump has another oid than the names of its indexes, which only have the comment.
    """
    labels = ["", TIMES, *(f"{kind}{number}" for kind in ("items", "spans", "arrays") for number in range(8))]
    digests = {part_digest(oid, name, label) for label in labels}
    rows = await _rows(connection, index_statement("parts"), [oid])
    return [
        row
        for row in rows
        if row[0].rpartition(".")[2] in digests or ((comment := read_comment(row[3])) and comment["name"] == name)
    ]


async def _partitions(connection: AsyncConnection[Any], oid: int) -> list[tuple[int, str]]:
    """Return the oids and names of a table's partitions; none for a plain table."""
    return [(number, name) for number, name in await _rows(connection, index_statement("partitions"), [oid])]


async def _definition(connection: AsyncConnection[Any], plan: IndexPlan, part: IndexPart) -> tuple[str, str]:
    """Return the columns and the predicate of a part as SQL, and the literal of its comment."""
    *literals, comment = await _literals(connection, [*part.body.params, plan.comment(part)])
    texts = part.body.text.split("%s")
    return "".join(text + literal for text, literal in zip(texts, [*literals, ""], strict=True)), comment


async def _literals(connection: AsyncConnection[Any], params: Sequence[Any]) -> list[str]:
    """Return parameters as literals, quoted by the server: a definition can't have parameters."""
    text = "(%s::pg_catalog.text[])::pg_catalog.text", "%s::pg_catalog.text"
    columns = ", ".join(f"pg_catalog.quote_literal({text[0 if isinstance(item, list) else 1]})" for item in params)
    return list((await _rows(connection, f"SELECT {columns}".encode(), params))[0])


async def _rows(connection: AsyncConnection[Any], query: bytes, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    cursor = await connection.execute(query, params)
    return await cursor.fetchall()
