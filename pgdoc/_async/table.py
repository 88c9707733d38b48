"""The table of one collection: its statements, and the mapping of the server's errors."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic

import psycopg

from pgdoc.crud.guard import TableTraits, check_state, guarded, missing, replaced
from pgdoc.crud.sizes import LARGE, SizeLimit, naming, oversized
from pgdoc.crud.statements import (
    catalog_statement,
    check_params,
    copy_statement,
    has_long_list,
    lock_first_statement,
    table_statement,
    write_statement,
)
from pgdoc.crud.validation import read_json_schema
from pgdoc.crud.write_errors import name_index
from pgdoc.database.errors import is_about_table, map_error
from pgdoc.database.rights import may_not_create
from pgdoc.database.size_errors import is_unprintable
from pgdoc.errors import DuplicateDocument, SchemaViolation
from pgdoc.model.document_form import DocumentForm
from pgdoc.model.ids import check_id
from pgdoc.model.names import quoted
from pgdoc.model.sizes import DEFAULT_MAX_SIZE, MOST
from pgdoc.model.type_variables import M
from pgdoc.query.filters.order import compile_sort
from pgdoc.query.filters.sql import Compiled, compile_filter
from pgdoc.query.indexes.definition import indexed_paths
from pgdoc.query.indexes.plan import NO_INDEXES, Branches, branches, by_key, may_use_index
from pgdoc.sql import statement

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from pgdoc._async.session import AsyncSession
    from pgdoc.crud.copy_format import CopyRows
    from pgdoc.crud.find_query import Search
    from pgdoc.crud.first_write import FirstWrite
    from pgdoc.crud.guard import GuardedQuery
    from pgdoc.crud.validation import JsonSchema
    from pgdoc.errors import PgdocError
    from pgdoc.model.ids import DocumentId
    from pgdoc.model.values import DocumentData
    from pgdoc.query.filters.nodes import Node, SortKey
    from pgdoc.query.indexes.plan import Indexes

__all__ = ["AsyncTable"]

Rows = list[tuple[Any, ...]]

_FIND_TABLE = statement("catalog", "find_table").encode()
_LOOKS = 3


class AsyncTable(Generic[M]):
    """The table of a collection in one session.

    Each statement has a guard: the server refuses it if the name belongs to another table than the registered one. If
    the store creates collections, a missing table reads as empty, and `create_and_write` and `copy` create it.

    Attributes:
        name: the table as SQL, quoted.
        subject: its name in error messages.
        encoder: that of the store, for values that JSON does not have.
        form: how the documents are read and written.
        document: returns the document of a row of a result.
    """

    def __init__(self, session: AsyncSession, schema: str, name: str, *, auto_create: bool, model: Any = None) -> None:
        self.name = quoted(schema, name)
        self.subject = f'collection "{schema}.{name}"'
        self.encoder = session.codec.encoder
        self.form: DocumentForm[M] = DocumentForm(name, self.subject, session.codec, model)
        self.document = self.form.read
        self._session, self._address, self._auto_create = session, (schema, name), auto_create

    async def read(self, query: GuardedQuery, params: Sequence[Any], *, prepare: bool | None = None) -> Rows:
        """Fetch the rows of one statement; `prepare` as for `AsyncSession.fetch`."""
        return await self._fetch(query, params, create=False, prepare=prepare)

    async def stream(self, query: GuardedQuery, params: Sequence[Any]) -> AsyncGenerator[Rows]:
        """Yield the rows of one statement in chunks, as they come."""
        check_params(params)
        oid, retry = await self.oid(), True
        while oid is not None:
            safe = self.needs_safe_text(oid, can_repeat=False)
            try:
                async with aclosing(
                    self._session.stream(guarded(query, oid, safe=safe), params, f"find on {self.subject}")
                ) as chunks:
                    async for rows in chunks:
                        retry = False
                        yield rows
            except psycopg.Error as exc:
                oid, retry = await self._other_oid(oid, exc, retry=retry), False
            else:
                return
        self.check_creatable()

    async def write(
        self,
        name: str,
        params: list[Any],
        *,
        key: str | None = None,
        versioned: bool = False,
        prepare: bool | None = None,
        **clauses: str,
    ) -> Rows:
        """Execute a write of `documents.sql` with the writer's metadata; errors name the document `key`."""
        query, params = self.with_metadata(name, params, versioned=versioned, **clauses)
        with naming(key):
            return await self.read(query, params, prepare=prepare)

    async def create_and_write(
        self, name: str, params: list[Any], *, key: str | None = None, prepare: bool | None = None, **clauses: str
    ) -> Rows:
        """Execute a write that inserts a document; create its collection if necessary; errors name `key`."""
        query, params = self.with_metadata(name, params, versioned=False, **clauses)
        with naming(key):
            return await self._fetch(query, params, create=True, prepare=prepare)

    async def copy(self, rows: CopyRows) -> None:
        """Insert rows with COPY. `rows` is read once the server is ready: a missing table consumes none."""
        oid, retry = await self.oid() or await self.create(), True
        while True:
            limit = self._size_limit(oid)
            rows.check_sizes(self.subject, None if limit is None else limit.max_size)
            rows.check_schema(await self.json_schema())
            hold = guarded(table_statement("hold", self.name), oid)
            try:
                await self._session.copy(hold, copy_statement(self.name), rows)
            except psycopg.Error as exc:
                # The savepoint has kept the transaction alive.
                found = await self._other_oid(oid, exc, retry=retry and not rows.count, writes=True, aborts=False)
                oid, retry = found or await self.create(), False
            else:
                return

    async def oid(self, *, create: bool = False) -> int | None:
        """Return the oid of the table, known or looked up; `None` if there is no table of this name.

        `create` creates a missing one if the store may.

        Raises:
            CollectionNotFound: the table is not a collection; or it is missing, and the store does not create it.
        """
        found = self._session.oids.get(self.name)
        if found is None:
            self._session.check_open()
            found = await self.look_up()
        return await self.create() if found is None and create else found

    async def look_up(self) -> int | None:
        """Ask the server for the oid of the table, and remember it; raises the errors of `oid`."""
        return (await self._look_up())[0]

    async def _look_up(self) -> tuple[int | None, Indexes]:
        """Ask for oid and indexes in one round trip."""
        for _ in range(_LOOKS):
            try:
                (
                    (oid, state, comments, may_drop, may_refuse, max_size, schema, may_expire),
                ) = await self._session.look_up(_FIND_TABLE, [self.name])
            except psycopg.Error as exc:
                raise self._mapped(exc, self._session.caller.to_reach()) from exc
            if state != "newer":  # a table that was created just now is seen by the next statement
                break
        found = indexed_paths(comments)
        self._session.indexes.put(self.name, found)
        self._session.traits.put(self.name, TableTraits(may_drop, may_refuse))
        if state != "collection":
            self._session.oids.forget(self.name)
            self._session.schemas.put(self.name, "")
            check_state(state, self.name, self.subject)
            return None, found
        self._session.oids.put(self.name, oid)
        self._session.limits.put(oid, SizeLimit(max_size))
        self._session.schemas.put(oid, schema or "")
        if may_expire:
            self._session.sweeper.start()
        return oid, found

    async def checked(self, document_id: DocumentId, data: M | DocumentData) -> tuple[str, str]:
        """Return the id and the JSON text of a new document, which can be stored."""
        key, text = check_id(document_id), self.form.encoded(data, document_id)
        await self.check_size(key, len(text))
        await self.check_schema(key, text)
        return key, text.decode()

    async def check_size(self, key: str | None, size: int) -> None:
        """Raise `DocumentTooLarge` for new data whose text, as it is sent, has `size` bytes; the stored text has more.

        The server checks all documents; this saves sending a large one.
        """
        if not self.may_exceed(size):
            return
        oid = await self.look_up()
        limit = self._size_limit(oid)
        max_size = DEFAULT_MAX_SIZE if limit is None else limit.max_size  # of a missing one: it will be created
        if size > (max_size or MOST):
            raise oversized(self.subject, key, size, max_size)

    def may_exceed(self, size: int) -> bool:
        """Return whether a document of this size may be too large: the limit is unknown, or exceeded a moment ago."""
        limit = self._size_limit(self._session.oids.get(self.name))
        return size >= LARGE if limit is None else size > (limit.max_size or MOST)

    @property
    def knows_schema(self) -> bool:
        """Whether `check_schema` needs no round trip."""
        return self._known_schema() is not None

    async def check_schema(self, key: str | None, text: bytes) -> None:
        """Raise `SchemaViolation` for new data with this text that does not conform to the collection's schema."""
        schema = await self.json_schema()
        if schema is not None:
            schema.check(self.subject, key, text)

    async def check_first(self, key: str, text: Callable[[], bytes]) -> None:
        """As `check_schema`, for what an upsert inserts; its text is made if there is a schema."""
        schema = await self.json_schema()
        if schema is not None:
            schema.check(self.subject, key, text())

    async def conforming(self, write: FirstWrite) -> FirstWrite:
        """Return the write, and if its document to insert does not conform, that as the obstacle to it."""
        if write.insertion is None:
            return write
        try:
            await self.check_first(write.insertion.key, write.insertion.text)
        except SchemaViolation as exc:
            return replace(write, insertion=None, obstacle=exc)
        return write

    async def json_schema(self) -> JsonSchema | None:
        """Return the JSON Schema of the collection, cached for ten seconds; `None` if it has none."""
        if self._known_schema() is None:
            await self.look_up()
        text = self._known_schema()
        return read_json_schema(text, self.subject) if text else None

    def _known_schema(self) -> str | None:
        """Return the text of the schema, empty for none; `None` if it has to be looked up."""
        oid = self._session.oids.get(self.name)
        return self._session.schemas.get(self.name if oid is None else oid)

    def _size_limit(self, oid: int | None) -> SizeLimit | None:
        return None if oid is None else self._session.limits.get(oid)

    def needs_safe_text(self, oid: int, *, can_repeat: bool) -> bool:
        """Return whether a statement must not fail at a document that the server can't print.

        Without a limit there may be one. A statement that `can_repeat` is only then repeated in its safe form, because
        PostgreSQL does not execute that one in parallel.
        """
        limit = self._size_limit(oid)
        if limit is None or limit.has_unprintable:
            return limit is not None or not can_repeat
        return limit.max_size is None and not can_repeat

    def with_metadata(
        self, name: str, params: list[Any], *, versioned: bool, **clauses: str
    ) -> tuple[GuardedQuery, list[Any]]:
        """Return a write of `documents.sql` and its parameters, with the writer's metadata."""
        message = self._session.metadata_message()
        query = write_statement(name, self.name, with_metadata=message is not None, versioned=versioned, **clauses)
        return query, params if message is None else [message, *params]

    async def indexes(self) -> Indexes:
        """Return the paths of the indexes, cached for ten seconds."""
        found = self._session.indexes.get(self.name)
        if found is None:
            _, found = await self._look_up()
        return found

    async def traits(self) -> TableTraits:
        """Return what else the table has, cached for ten seconds."""
        found = self._session.traits.get(self.name)
        if found is None:
            await self._look_up()
            found = self._session.traits.get(self.name)
        return found or TableTraits(may_drop=True, may_refuse=True)

    async def obstacles(self) -> list[str]:
        """Return what may keep a write from a row without an error: triggers, row policies, rules."""
        return [name for (name,) in await self.read(table_statement("obstacles", self.name), [])]

    def forget_indexes(self) -> None:
        """Drop the indexes from the cache."""
        self._session.indexes.forget(self.name)
        self._session.traits.forget(self.name)

    async def condition(self, node: Node) -> Compiled:
        """Compile a filter to one condition that can use the existing indexes."""
        return compile_filter(by_key(node, await self.indexes() if may_use_index(node) else NO_INDEXES))

    async def first(self, node: Node, sort: tuple[SortKey, ...], lock: str) -> Compiled:
        """Compile the SELECT of the first document that matches, with a lock clause."""
        indexes = await self.indexes() if may_use_index(node) else NO_INDEXES
        found = branches(node, indexes, sort[0]) if sort else Branches((by_key(node, indexes),))
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

    async def search_statement(self, name: str, search: Search) -> tuple[GuardedQuery, list[Any], bool | None]:
        """Compile a search for the existing indexes; see `Search.statement`."""
        indexes = await self.indexes() if search.may_use_index else NO_INDEXES
        return search.statement(name, self.name, indexes)

    async def _fetch(
        self, query: GuardedQuery, params: Sequence[Any], *, create: bool, prepare: bool | None = None
    ) -> Rows:
        check_params(params)
        if prepare is None and has_long_list(params):
            prepare = False
        oid, retry = self._session.oids.get(self.name) or await self.oid(create=create), True
        # A unique index may refuse a new document, which must not abort the transaction.
        apart = create and oid is not None and self._session.in_transaction and (await self.traits()).may_refuse
        has_unprintable = False
        while oid is not None:
            safe = has_unprintable or self.needs_safe_text(oid, can_repeat=not self._session.in_transaction)
            try:
                return await self._session.fetch(guarded(query, oid, safe=safe), params, prepare=prepare, apart=apart)
            except psycopg.Error as exc:
                if query.prints and not safe and is_unprintable(exc) and not self._session.in_transaction:
                    self._session.limits.put(oid, SizeLimit(None, has_unprintable=True))
                    has_unprintable = True
                    continue
                oid, retry = await self._other_oid(oid, exc, retry=retry, writes=query.writes, aborts=not apart), False
            if oid is None and create:
                oid = await self.create()
        self.check_creatable()
        return []

    async def _other_oid(
        self, oid: int, exc: psycopg.Error, *, retry: bool, writes: bool = False, aborts: bool = True
    ) -> int | None:
        """Return the oid of the table that has the name since this one lost it, which has made a statement fail.

        Raise the error of the statement if it has another reason, or if the call can't be repeated: `retry` is false
        the second time, and an error `aborts` a transaction.
        """
        error, is_certain = self.mapped(exc, writes=writes), is_about_table(exc)
        aborted = aborts and self._session.in_transaction
        if isinstance(error, DuplicateDocument) and error.index is not None:
            known = self._session.indexes.get(self.name) if aborted else await self.indexes()
            name_index(error, known.unique if known else ())
        if not is_certain and not isinstance(exc, psycopg.DataError):  # as a parameter can be for an id of another type
            raise error from exc
        self._session.oids.forget(self.name)
        if aborted:
            raise replaced(self.subject, exc) if is_certain else error from exc
        found = await self.look_up()
        if found == oid or not retry:
            raise error from exc
        return found

    def mapped(self, exc: psycopg.Error, *, writes: bool = False) -> PgdocError:
        """Return pgdoc's error for an exception of a call that reads documents, or `writes` them."""
        rights = self._session.caller.to_write() if writes else self._session.caller.to_read()
        return self._mapped(exc, rights)

    def _mapped(self, exc: psycopg.Error, rights: str) -> PgdocError:
        return map_error(exc, self.subject, in_transaction=self._session.in_transaction, rights=rights)

    def check_creatable(self) -> None:
        """Raise `CollectionNotFound` for a missing collection if the store does not create it."""
        if not self._auto_create:
            raise missing(self.subject)

    async def create(self) -> int:
        """Create the collection if the store may, and return the oid of its table."""
        self.check_creatable()
        message = self._session.metadata_message()
        params = [*([] if message is None else [message]), *self._address, DEFAULT_MAX_SIZE, None, None]
        query = catalog_statement("create_collection", with_metadata=message is not None)
        try:
            await self._session.fetch(query, params)
        except psycopg.Error as exc:
            raise may_not_create(exc, self.subject, self._session.caller) or self.mapped(exc) from exc
        oid = await self.look_up()
        if oid is None:
            raise missing(self.subject)
        return oid
