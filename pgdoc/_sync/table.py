# Written by .ci/twins.py from pgdoc/_async/table.py: change that file, and run it.
"""The table of one collection: its statements, and the mapping of the server's errors."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.crud.statements import catalog_statement, lock_first_statement, table_statement, write_statement
from pgdoc.database.errors import map_error
from pgdoc.errors import CollectionNotFound
from pgdoc.model.names import quoted
from pgdoc.query.filters.sql import Compiled, compile_filter, compile_sort
from pgdoc.query.indexes.definition import indexed_paths
from pgdoc.query.indexes.plan import NO_INDEXES, Branches, branches, by_key, may_use_index
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from pgdoc._sync.session import Session
    from pgdoc.crud.copy_format import CopyRows
    from pgdoc.crud.find_query import Search
    from pgdoc.query.filters.nodes import Node, SortKey
    from pgdoc.query.filters.template import Conditions
    from pgdoc.query.indexes.plan import Indexes

__all__ = ["Table"]

Rows = list[tuple[Any, ...]]


class Table:
    """The table of a collection in one session.

    If the store creates collections, a missing table reads as empty, and `create_and_write` and `copy` create it.

    Attributes:
        name: the table as SQL, quoted.
        subject: its name in error messages.
    """

    def __init__(self, session: Session, schema: str, name: str, *, auto_create: bool) -> None:
        self.name = quoted(schema, name)
        self.subject = f'collection "{schema}.{name}"'
        self._session = session
        self._address = (schema, name)
        self._auto_create = auto_create

    def read(self, query: bytes, params: Sequence[Any], *, prepare: bool | None = None) -> Rows:
        """Fetch the rows of one statement; `prepare` as for `Session.fetch`."""
        try:
            return self._fetch(query, params, prepare=prepare)
        except CollectionNotFound:
            if not self._auto_create:
                raise
            return []

    def stream(self, query: bytes, params: Sequence[Any]) -> Generator[Rows]:
        """Yield the rows of one statement in chunks, as they come."""
        try:
            self._session.prepare(self.name, None)
            with closing(self._session.stream(query, params)) as chunks:
                for rows in chunks:
                    yield rows
        except psycopg.Error as exc:
            error = map_error(exc, self.subject)
            if not (self._auto_create and isinstance(error, CollectionNotFound)):
                raise error from exc
        except CollectionNotFound:
            if not self._auto_create:
                raise

    def write(
        self, name: str, params: list[Any], *, versioned: bool = False, prepare: bool | None = None, **clauses: str
    ) -> Rows:
        """Execute a write of `documents.sql` with the writer's metadata."""
        query, params = self.with_metadata(name, params, versioned=versioned, **clauses)
        return self.read(query, params, prepare=prepare)

    def create_and_write(self, name: str, params: list[Any], **clauses: str) -> Rows:
        """Execute a write that inserts a document; create its collection if necessary."""
        query, params = self.with_metadata(name, params, versioned=False, **clauses)
        try:
            return self._fetch(query, params, create=self.creatable)
        except CollectionNotFound:
            if not self._may_create_and_retry:
                raise
            self._create()
            return self._fetch(query, params)

    def copy(self, rows: CopyRows) -> None:
        """Insert rows with COPY. `rows` is read once the server is ready: a missing table consumes none."""
        try:
            self._copy(rows)
        except CollectionNotFound:
            if not self._may_create_and_retry:
                raise
            self._create()
            self._copy(rows)

    @property
    def creatable(self) -> tuple[str, str] | None:
        """Schema and name if the store may create the collection, else `None`."""
        return self._address if self._auto_create else None

    def with_metadata(
        self, name: str, params: list[Any], *, versioned: bool, **clauses: str
    ) -> tuple[bytes, list[Any]]:
        """Return a write of `documents.sql` and its parameters, with the writer's metadata."""
        message = self._session.metadata_message()
        query = write_statement(name, self.name, with_metadata=message is not None, versioned=versioned, **clauses)
        return query, params if message is None else [message, *params]

    def indexes(self) -> Indexes:
        """Return the paths of the indexes, cached for ten seconds."""
        found = self._session.indexes.get(self.name)
        if found is None:
            try:
                rows = self._session.look_up(statement("indexes", "valid_parts").encode(), [self.name])
            except psycopg.Error as exc:
                raise map_error(exc, self.subject) from exc
            found = indexed_paths(row[0] for row in rows)
            self._session.indexes.put(self.name, found)
        return found

    def forget_indexes(self) -> None:
        """Drop the indexes from the cache."""
        self._session.indexes.forget(self.name)

    def condition(self, node: Node) -> Compiled:
        """Compile a filter to one condition that can use the existing indexes."""
        return compile_filter(by_key(node, self.indexes()) if may_use_index(node) else node)

    def first(self, node: Node, sort: tuple[SortKey, ...], lock: str) -> Compiled:
        """Compile the SELECT of the first document that matches, with a lock clause."""
        if sort:
            found = branches(node, self.indexes() if may_use_index(node) else NO_INDEXES, sort[0])
        else:
            found = Branches((by_key(node, self.indexes()) if may_use_index(node) else node,))
        first, *rest = map(compile_filter, found.nodes)
        text = lock_first_statement(
            self.name,
            [first.text, *(part.text for part in rest)],
            order=compile_sort(sort).text,
            lock=lock,
            in_turn=found.in_turn,
        )
        times = 1 if found.in_turn else 2
        return Compiled(text, [*first.params, *(item for part in rest for item in part.params * times)])

    def conditions(self, search: Search) -> Conditions:
        """Compile the conditions of a search for the existing indexes."""
        return search.conditions(self.indexes() if search.may_use_index else NO_INDEXES)

    @property
    def _may_create_and_retry(self) -> bool:
        return self._auto_create and not self._session.in_transaction

    def _create(self) -> None:
        message = self._session.metadata_message()
        params = self._address if message is None else (message, *self._address)
        self._fetch(catalog_statement("create_collection", with_metadata=message is not None), params)

    def _fetch(
        self,
        query: bytes,
        params: Sequence[Any],
        *,
        create: tuple[str, str] | None = None,
        prepare: bool | None = None,
    ) -> Rows:
        try:
            self._session.prepare(self.name, create)
            return self._session.fetch(query, params, prepare=prepare)
        except psycopg.Error as exc:
            raise map_error(exc, self.subject) from exc

    def _copy(self, rows: CopyRows) -> None:
        try:
            self._session.prepare(self.name, self.creatable)
            self._session.copy(table_statement("copy", self.name), rows)
        except psycopg.Error as exc:
            raise map_error(exc, self.subject) from exc
