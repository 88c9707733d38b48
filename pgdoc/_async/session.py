"""Where the statements of a collection go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from pgdoc.crud.copy_format import CopyRows
    from pgdoc.query.indexes.plan import Indexes
    from pgdoc.runtime.primitives import AsyncLending
    from pgdoc.runtime.ttl_cache import TTLCache

__all__ = ["AsyncSession"]


class AsyncSession(Protocol):
    """A transaction, or the pool, where each statement goes to a connection of its own and commits by itself.

    Attributes:
        indexes: of each table.
        large_results: whether a statement's rows were many.
    """

    indexes: TTLCache[Indexes]
    large_results: TTLCache[bool]

    @property
    def in_transaction(self) -> bool:
        """Whether an error of the server would abort what was done before."""

    def carried(self) -> str | None:
        """Return the message with the writer's metadata that the next write has to carry."""

    async def prepare(self, table: str, create: Sequence[Any] | None) -> None:
        """See to it that a missing table does not abort a transaction."""

    async def fetch(self, query: bytes, params: Sequence[Any], *, prepare: bool | None = None) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows.

        Args:
            query: the statement.
            params: for its placeholders.
            prepare: `False` where a plan that is kept for all values could be a bad one.
        """
        ...

    async def look(self, query: bytes, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Fetch what is no part of a transaction; on its connection, where it has one."""
        ...

    def stream(self, query: bytes, params: Sequence[Any]) -> AsyncGenerator[list[tuple[Any, ...]]]:
        """Execute one statement and give out its rows as they come, some at a time."""
        ...

    def lend(self) -> AsyncLending:
        """Lend the connection, or one of the pool's, for statements that can't stand in a transaction of their own."""
        ...

    async def copy(self, query: bytes, rows: CopyRows) -> None:
        """Execute a COPY FROM STDIN, all or nothing."""
