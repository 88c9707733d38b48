# Written by .ci/twins.py from pgdoc/_async/indexes.py: change that file, and run it.
"""The calls on the indexes of a collection."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc._sync.brief_locks import execute_briefly
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
from pgdoc.runtime.primitives import execute_watched, sleep

if TYPE_CHECKING:
    from collections.abc import Iterator, Callable, Mapping, Sequence
    from datetime import timedelta

    from psycopg import Connection

    from pgdoc._sync.session import Session
    from pgdoc._sync.table import Table
    from pgdoc.errors import PgdocError

__all__ = ["Indexes", "Index", "IndexProgress"]

_POLL_S = 0.2
_LOCK_TIMEOUT = b"SET LOCAL lock_timeout = '2s'"


class Indexes:
    """The calls of a collection on its indexes, which it inherits."""

    _table: Table[Any]
    _session: Session
    _address: tuple[str, str]

    def create_index(  # noqa: PLR0913
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
        oid = self._table.look_up() or self._table.create()
        if self._session.in_transaction:  # keeps the table until the transaction ends
            self._table.read(table_statement("hold", self._table.name), [])
        try:
            with self._building(oid) as connection:
                self._complete(connection, oid, plan, progress)
        except psycopg.Error as exc:
            raise self._mapped(exc, f"index {plan.name!r} of ") from exc
        finally:
            self._table.forget_indexes()
        if expire_after is not None:
            self._session.sweeper.start()
        if progress is not None:
            progress(IndexProgress(plan.name, "ready", 1, 1))
        return plan.name

    def indexes(self) -> list[Index]:
        """Return the indexes that `create_index` created, sorted by name."""
        oid = self._table.look_up()
        if oid is None:
            self._table.check_creatable()
        return collect_indexes(self._fetch(index_statement("parts"), [oid])) if oid is not None else []

    def drop_index(self, name: str) -> bool:
        """Drop an index, finished or not, without blocking readers or writers; with partitions, for a moment.

        Returns:
            Whether the index existed.

        Raises:
            InvalidName: `name` is not a valid index name.
        """
        check_name(name, "index")
        oid = self._table.look_up()
        if oid is None:
            self._table.check_creatable()
            return False
        try:
            with self._building(oid) as connection:
                found = [row[0] for row in _parts_of(connection, oid, name)]
                for relation in found:
                    self._drop(connection, relation)
                left = [row[0] for part, _ in _partitions(connection, oid) for row in _parts_of(connection, part, name)]
                for relation in left:
                    self._drop_left(connection, relation)
        except psycopg.Error as exc:
            raise self._mapped(exc, f"index {name!r} of ") from exc
        finally:
            self._table.forget_indexes()
        return bool(found)

    def _fetch(self, query: bytes, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            return self._session.fetch(query, params)
        except psycopg.Error as exc:
            raise self._mapped(exc) from exc

    def _mapped(self, exc: psycopg.Error, part: str = "") -> PgdocError:
        if is_conflict(exc):  # its message names the index
            part = ""
        rights = self._session.caller.to_own(self._address[1])
        in_transaction = self._session.in_transaction
        return map_error(exc, f"{part}{self._table.subject}", in_transaction=in_transaction, rights=rights)

    @contextmanager
    def _building(self, oid: int) -> Iterator[Connection[Any]]:
        """Lend a connection that may change the indexes: one session at a time builds those of a table.

        Others may not wait inside their own CREATE INDEX CONCURRENTLY: that holds a snapshot, for which the first one
        waits, which is a deadlock. In a transaction, the build's own lock on the table is enough.
        """
        with self._session.lend(f"a change of the indexes of {self._table.subject}") as connection:
            if self._session.in_transaction:
                yield connection
                return
            try:
                while not self._begin_build(connection, oid):
                    sleep(_POLL_S)
                yield connection
            finally:
                if not connection.closed:
                    connection.execute(index_statement("end_build"), [oid])

    def _begin_build(self, connection: Connection[Any], oid: int) -> bool:
        """Note that this session builds; return `False` if another one does, or if the table stays locked.

        The lock shows that the role may write to the table.
        """
        try:
            with connection.transaction():
                connection.execute(_LOCK_TIMEOUT)
                connection.execute(index_statement("lock", table=self._table.name))
                return bool((_rows(connection, index_statement("begin_build"), [oid]))[0][0])
        except psycopg.errors.LockNotAvailable:
            return False

    def _complete(
        self,
        connection: Connection[Any],
        oid: int,
        plan: IndexPlan,
        progress: Callable[[IndexProgress], object] | None,
    ) -> None:
        """Build the missing parts of the index; rebuild those that are unfinished or outdated."""
        partitions = _partitions(connection, oid)
        if partitions and plan.unique:
            refuse_unique(self._table.subject, plan.paths)
        found = self._found_parts(connection, oid, plan)
        missing = []
        for part in plan.parts:
            row = found.get(part_digest(oid, plan.name, part.label))
            if row is not None and not (row[1] and is_current(row[3])):
                self._drop(connection, row[0])
                row = None
            if row is None:
                missing.append(part)
            elif part.label == TIMES and row[3] != (comment := plan.comment(part)):
                self._comment(connection, row[0], *_literals(connection, [comment]))
        for part in missing:
            if partitions and not self._session.in_transaction:
                self._build_joined(connection, oid, plan, part, progress)
            else:
                self._build(connection, oid, plan, part, progress)
        if missing:
            connection.execute(index_statement("analyze", table=self._table.name))

    def _found_parts(self, connection: Connection[Any], oid: int, plan: IndexPlan) -> dict[str, tuple[Any, ...]]:
        """Return the existing parts by the digest that this table's oid gives them."""
        found: dict[str, tuple[Any, ...]] = {}
        for row in _parts_of(connection, oid, plan.name):
            content = read_comment(row[3])
            self._check_same(plan, content)
            digest = part_digest(oid, plan.name, content["part"]) if content else row[0].rpartition(".")[2]
            if digest in found:  # an earlier version built it again in a restored table
                self._drop(connection, found[digest][0])
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

    def _build(
        self,
        connection: Connection[Any],
        oid: int,
        plan: IndexPlan,
        part: IndexPart,
        progress: Callable[[IndexProgress], object] | None,
    ) -> None:
        table = self._address[1]
        relation = _relation_name(table, oid, plan.name, part.label)
        body, comment = _definition(connection, plan, part)
        query = index_statement(
            "create_unique" if plan.unique and not part.label else "create",
            concurrently=self._concurrently,
            name=f'"{relation}"',
            table=self._table.name,
            kind=part.kind,
            body=body,
        )
        try:
            self._execute(connection, query, plan.name, progress)
            self._check_table(connection, oid, relation)
        except (psycopg.errors.UniqueViolation, CollectionNotFound):
            if not self._session.in_transaction:
                self._drop(connection, relation)
            raise
        self._comment(connection, relation, comment)

    def _build_joined(
        self,
        connection: Connection[Any],
        oid: int,
        plan: IndexPlan,
        part: IndexPart,
        progress: Callable[[IndexProgress], object] | None,
    ) -> None:
        """Build the index of each partition, and join them to one."""
        body, comment = _definition(connection, plan, part)
        found = _partitions(connection, oid)
        build = joined_build(self._address, oid, found, plan=plan, part=part, body=body, comment=comment)
        for relation, query in build.builds:
            self._drop_left(connection, relation)
            self._execute(connection, query, plan.name, progress)
        execute_briefly(connection, build.joining)
        self._check_table(connection, oid, build.relation)

    def _drop_left(self, connection: Connection[Any], relation: str) -> None:
        """Drop what an interrupted build has left of an index of one partition."""
        if not self._session.in_transaction:
            connection.execute(index_statement("drop_left", name=quoted(self._address[0], relation)))

    def _execute(
        self,
        connection: Connection[Any],
        query: bytes,
        name: str,
        progress: Callable[[IndexProgress], object] | None,
    ) -> None:
        if progress is None or self._session.in_transaction:
            connection.execute(query)
            return
        ((pid,),) = _rows(connection, b"SELECT pg_catalog.pg_backend_pid()", [])

        def report() -> None:
            for phase, *measures in self._session.fetch(index_statement("progress"), [pid]):
                blocks, of_blocks, tuples, of_tuples = (int(measure or 0) for measure in measures)
                done, total = (blocks, of_blocks) if of_blocks else (tuples, of_tuples)
                progress(IndexProgress(name, phase, done, total))

        execute_watched(connection, query, report, _POLL_S)

    def _check_table(self, connection: Connection[Any], oid: int, relation: str) -> None:
        """Check that no other table had the collection's name: CREATE INDEX CONCURRENTLY has no guard."""
        rows = _rows(connection, index_statement("table_of"), [oid, quoted(self._address[0], relation)])
        if not (rows and rows[0][0]):
            raise replaced(self._table.subject)

    def _comment(self, connection: Connection[Any], relation: str, comment: str) -> None:
        connection.execute(index_statement("comment", name=quoted(self._address[0], relation), comment=comment))

    def _drop(self, connection: Connection[Any], relation: str) -> None:
        name = quoted(self._address[0], relation)
        try:
            connection.execute(index_statement("drop", concurrently=self._concurrently, name=name))
        except psycopg.errors.FeatureNotSupported:  # it is the index of all partitions
            execute_briefly(connection, [index_statement("drop", concurrently="", name=name)])

    @property
    def _concurrently(self) -> str:
        return "" if self._session.in_transaction else "CONCURRENTLY"


def _parts_of(connection: Connection[Any], oid: int, name: str) -> list[tuple[Any, ...]]:
    """Return the existing parts of an index, also of a build that failed before it wrote the comment.

    A table that was restored from a dump has another oid than the names of its indexes, which only have the comment.
    """
    labels = ["", TIMES, *(f"{kind}{number}" for kind in ("items", "spans", "arrays") for number in range(8))]
    digests = {part_digest(oid, name, label) for label in labels}
    rows = _rows(connection, index_statement("parts"), [oid])
    return [
        row
        for row in rows
        if row[0].rpartition(".")[2] in digests or ((comment := read_comment(row[3])) and comment["name"] == name)
    ]


def _partitions(connection: Connection[Any], oid: int) -> list[tuple[int, str]]:
    """Return the oids and names of a table's partitions; none for a plain table."""
    return [(number, name) for number, name in _rows(connection, index_statement("partitions"), [oid])]


def _definition(connection: Connection[Any], plan: IndexPlan, part: IndexPart) -> tuple[str, str]:
    """Return the columns and the predicate of a part as SQL, and the literal of its comment."""
    *literals, comment = _literals(connection, [*part.body.params, plan.comment(part)])
    texts = part.body.text.split("%s")
    return "".join(text + literal for text, literal in zip(texts, [*literals, ""], strict=True)), comment


def _literals(connection: Connection[Any], params: Sequence[Any]) -> list[str]:
    """Return parameters as literals, quoted by the server: a definition can't have parameters."""
    text = "(%s::pg_catalog.text[])::pg_catalog.text", "%s::pg_catalog.text"
    columns = ", ".join(f"pg_catalog.quote_literal({text[0 if isinstance(item, list) else 1]})" for item in params)
    return list((_rows(connection, f"SELECT {columns}".encode(), params))[0])


def _rows(connection: Connection[Any], query: bytes, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    cursor = connection.execute(query, params)
    return cursor.fetchall()
