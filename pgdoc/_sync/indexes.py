# Written by .ci/twins.py from pgdoc/_async/indexes.py: change that file, and run it.
"""The calls on the indexes of a collection."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.crud.guard import replaced
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
from pgdoc.sql import statement

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

    _table: Table
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
        transaction ends.

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
            InvalidInput: these paths can't be indexed, or `collation` or `expire_after` is invalid.
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
        return collect_indexes(self._fetch(_sql("parts"), [oid])) if oid is not None else []

    def drop_index(self, name: str) -> bool:
        """Drop an index, finished or not, without blocking readers or writers.

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
                    connection.execute(_sql("end_build"), [oid])

    def _begin_build(self, connection: Connection[Any], oid: int) -> bool:
        """Note that this session builds; return `False` if another one does, or if the table stays locked.

        The lock shows that the role may write to the table.
        """
        try:
            with connection.transaction():
                connection.execute(_LOCK_TIMEOUT)
                connection.execute(_sql("lock", table=self._table.name))
                return bool((_rows(connection, _sql("begin_build"), [oid]))[0][0])
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
            self._build(connection, oid, plan, part, progress)
        if missing:
            connection.execute(_sql("analyze", table=self._table.name))

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
        *literals, comment = _literals(connection, [*part.body.params, plan.comment(part)])
        texts = part.body.text.split("%s")
        body = "".join(text + literal for text, literal in zip(texts, [*literals, ""], strict=True))
        query = _sql(
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
            for phase, *measures in self._session.fetch(_sql("progress"), [pid]):
                blocks, of_blocks, tuples, of_tuples = (int(measure or 0) for measure in measures)
                done, total = (blocks, of_blocks) if of_blocks else (tuples, of_tuples)
                progress(IndexProgress(name, phase, done, total))

        execute_watched(connection, query, report, _POLL_S)

    def _check_table(self, connection: Connection[Any], oid: int, relation: str) -> None:
        """Check that no other table had the collection's name: CREATE INDEX CONCURRENTLY has no guard."""
        rows = _rows(connection, _sql("table_of"), [oid, quoted(self._address[0], relation)])
        if not (rows and rows[0][0]):
            raise replaced(self._table.subject)

    def _comment(self, connection: Connection[Any], relation: str, comment: str) -> None:
        connection.execute(_sql("comment", name=quoted(self._address[0], relation), comment=comment))

    def _drop(self, connection: Connection[Any], relation: str) -> None:
        name = quoted(self._address[0], relation)
        connection.execute(_sql("drop", concurrently=self._concurrently, name=name))

    @property
    def _concurrently(self) -> str:
        return "" if self._session.in_transaction else "CONCURRENTLY"


def _parts_of(connection: Connection[Any], oid: int, name: str) -> list[tuple[Any, ...]]:
    """Return the existing parts of an index, also of a build that failed before it wrote the comment.

    A table that was restored from a dump has another oid than the names of its indexes, which only have the comment.
    """
    labels = ["", TIMES, *(f"{kind}{number}" for kind in ("items", "spans", "arrays") for number in range(8))]
    digests = {part_digest(oid, name, label) for label in labels}
    rows = _rows(connection, _sql("parts"), [oid])
    return [
        row
        for row in rows
        if row[0].rpartition(".")[2] in digests or ((comment := read_comment(row[3])) and comment["name"] == name)
    ]


def _literals(connection: Connection[Any], params: Sequence[Any]) -> list[str]:
    """Return parameters as literals, quoted by the server: a definition can't have parameters."""
    text = "(%s::pg_catalog.text[])::pg_catalog.text", "%s::pg_catalog.text"
    columns = ", ".join(f"pg_catalog.quote_literal({text[0 if isinstance(item, list) else 1]})" for item in params)
    return list((_rows(connection, f"SELECT {columns}".encode(), params))[0])


def _rows(connection: Connection[Any], query: bytes, params: Sequence[Any]) -> list[tuple[Any, ...]]:
    cursor = connection.execute(query, params)
    return cursor.fetchall()


def _sql(name: str, /, **clauses: str) -> bytes:
    text = statement("indexes", name)
    return (text.format(**clauses) if clauses else text).encode()
