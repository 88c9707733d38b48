# Written by .ci/twins.py from pgdoc/_async/session.py: change that file, and run it.
"""Where the statements of a collection go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from pgdoc._copy import CopyRows
    from pgdoc._waiting import Lending

__all__ = ["Session"]


class Session(Protocol):
    """A transaction, or the pool, where each statement goes to a connection of its own and commits by itself."""

    @property
    def in_transaction(self) -> bool:
        """Whether an error of the server would abort what was done before."""

    def carried(self) -> str | None:
        """Return the message with the writer's metadata that the next write has to carry."""

    def prepare(self, table: str, create: Sequence[Any] | None) -> None:
        """See to it that a missing table does not abort a transaction."""

    def fetch(self, query: bytes, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Execute one statement and return its rows."""
        ...

    def stream(self, query: bytes, params: Sequence[Any]) -> Generator[tuple[Any, ...]]:
        """Execute one statement and give out its rows as they come."""
        ...

    def lend(self) -> Lending:
        """Lend the connection, or one of the pool's, for statements that can't stand in a transaction of their own."""
        ...

    def copy(self, query: bytes, rows: CopyRows) -> None:
        """Execute a COPY FROM STDIN, all or nothing."""
