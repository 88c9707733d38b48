# Written by .ci/twins.py from pgdoc/_async/session.py: change that file, and run it.
"""`Session`: what the calls on a collection need to run their statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from pgdoc.crud.copy_format import CopyRows
    from pgdoc.crud.guard import TableTraits
    from pgdoc.crud.sizes import SizeLimit
    from pgdoc.database.expiry import Sweeper
    from pgdoc.database.rights import Caller
    from pgdoc.model.value_codec import ValueCodec
    from pgdoc.query.indexes.plan import Indexes
    from pgdoc.runtime.primitives import Lending
    from pgdoc.runtime.ttl_cache import TransactionCache, TTLCache

__all__ = ["Session"]


class Session(Protocol):
    """A transaction, or the pool: each statement there runs on any connection, and commits by itself.

    Attributes:
        indexes: a cache of each table's indexes.
        large_results: a cache of the statements that returned many rows.
        traits: a cache of what the tables have besides what pgdoc gave them.
        codec: how the store converts values.
        sweeper: deletes the documents of the schema that expire, once it is started.
    """

    indexes: TTLCache[Indexes]
    large_results: TTLCache[bool]
    traits: TTLCache[TableTraits]
    codec: ValueCodec
    sweeper: Sweeper

    @property
    def limits(self) -> TTLCache[SizeLimit] | TransactionCache[SizeLimit]:
        """A cache of the collections' limits, by the oids of their tables."""

    @property
    def schemas(self) -> TTLCache[str] | TransactionCache[str]:
        """A cache of the JSON Schemas, as text, by the oids of their tables.

        The text is empty for no schema, also by the names of missing collections.
        """

    @property
    def oids(self) -> TTLCache[int] | TransactionCache[int]:
        """A cache of the collections' tables, by their quoted names."""
        ...

    @property
    def caller(self) -> Caller:
        """The role of the session, once the server has been asked something."""

    @property
    def in_transaction(self) -> bool:
        """Whether an error of the server would abort earlier statements too."""

    def check_open(self) -> None:
        """Raise `TransactionClosed` unless the transaction is open."""

    def metadata_message(self) -> str | None:
        """Return the message with the writer's metadata that the next write must emit, or `None`."""

    def fetch(
        self, query: bytes, params: Sequence[Any], *, prepare: bool | None = None, apart: bool = False
    ) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows.

        Pass `prepare=False` where a plan that is cached for all values could be slow for some. A statement that runs
        `apart` does not abort the transaction if it fails.
        """
        ...

    def look_up(self, query: bytes, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Fetch rows that need not belong to the transaction, on its connection if it has one."""
        ...

    def stream(self, query: bytes, params: Sequence[Any], holder: str) -> Generator[list[tuple[Any, ...]]]:
        """Execute one statement and yield its rows in chunks, as they come.

        Outside a transaction, `holder` names the call that keeps a connection meanwhile.
        """
        ...

    def lend(self, holder: str) -> Lending:
        """Lend the transaction's connection, or else one in autocommit mode, which `holder` keeps meanwhile."""
        ...

    def copy(self, hold: bytes, query: bytes, rows: CopyRows) -> None:
        """Execute a COPY FROM STDIN, all or nothing, after a statement that holds its table."""
