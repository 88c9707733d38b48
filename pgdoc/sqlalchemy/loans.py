"""pgdoc's connection, as SQLAlchemy gets it."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg.rows import tuple_row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc import AsyncTransaction, Transaction

__all__ = ["AsyncLoan", "Loan", "current_loan", "lending"]

_current: ContextVar[Loan] = ContextVar("pgdoc_loan")  # while an engine connects
_open: WeakKeyDictionary[object, list[Loan]] = WeakKeyDictionary()  # the loans of each transaction


class Loan:
    """The connection of a transaction for one block.

    It has what SQLAlchemy uses of a psycopg connection, and leaves the transaction and the connection to pgdoc. An
    attribute that SQLAlchemy would set, such as `autocommit`, is an error because of the slots.
    """

    __slots__ = ("__weakref__", "_connection", "_marks", "_suffix", "_tx", "is_used")

    def __init__(self, tx: Transaction | AsyncTransaction) -> None:
        self._tx = tx
        self._connection: Any = tx.connection
        self._marks: dict[str, Any] = {}
        self._suffix = ""
        self.is_used = False  # whether SQLAlchemy has begun; it also calls `rollback` before that, and at the end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def cursor(self, name: str = "", **options: Any) -> Any:
        """Return a cursor with rows as SQLAlchemy needs them, whatever the connection's `row_factory`.

        Raises:
            TransactionClosed: the transaction has ended before the block.
        """
        connection: Any = self._tx.connection
        return connection.cursor(name, **options, row_factory=tuple_row)

    def refuse(self, call: str) -> None:
        """Refuse to end the transaction, as psycopg would, so that SQLAlchemy raises its own error."""
        if self.is_used:
            raise psycopg.ProgrammingError(
                f"{call}() of the connection would end the transaction of pgdoc: leave the block of "
                f"store.transaction() instead, or use a savepoint, as session.{call}() and begin_nested() do"
            )

    def commit(self) -> Any:
        """Refuse to commit."""
        self.refuse("commit")

    def rollback(self) -> Any:
        """Refuse to roll back, except before and after the block, when there is nothing to do."""
        self.refuse("rollback")

    def close(self) -> Any:
        """Do nothing: the store closes its connections."""

    def open(self) -> None:
        """Note that SQLAlchemy uses the connection. A loan inside another one has names of savepoints of its own."""
        loans = _open.setdefault(self._tx, [])
        taken = {loan._suffix for loan in loans}  # noqa: SLF001 (its own class)
        self._suffix = next(suffix for suffix in _suffixes() if suffix not in taken)
        loans.append(self)
        self.is_used = True

    def end(self) -> None:
        """Note that SQLAlchemy no longer uses the connection."""
        self.is_used = False
        if self in (loans := _open.get(self._tx, [])):
            loans.remove(self)

    def begin_savepoint(self, name: str) -> str:
        """Note what the transaction knows at a savepoint of SQLAlchemy, and return the name for the server."""
        self._marks[name] = self._tx._session.mark()  # noqa: SLF001 (one package)
        return self.savepoint(name)

    def savepoint(self, name: str) -> str:
        """Return the name of a savepoint in the server."""
        return f"{name}{self._suffix}"

    def undo_savepoint(self, name: str) -> None:
        """Forget what the transaction has learnt since a savepoint, which has been rolled back."""
        self._tx._session.go_back(self._marks.pop(name))  # noqa: SLF001 (one package)

    def release_savepoint(self, name: str) -> None:
        """Forget a savepoint, which has been released."""
        self._marks.pop(name)


def _suffixes() -> Iterator[str]:
    yield ""
    yield from (f"_{number}" for number in count(2))


class AsyncLoan(Loan):
    """The same for asyncio: SQLAlchemy awaits the calls."""

    __slots__ = ()

    async def commit(self) -> None:
        """Refuse to commit."""
        self.refuse("commit")

    async def rollback(self) -> None:
        """Refuse to roll back, except before and after the block."""
        self.refuse("rollback")

    async def close(self) -> None:
        """Do nothing."""


@contextmanager
def lending(loan: Loan) -> Iterator[None]:
    """Make a loan what an engine gets if it connects in the block."""
    token = _current.set(loan)
    try:
        yield
    finally:
        _current.reset(token)


def current_loan() -> Loan:
    """Return the loan for an engine that connects.

    Raises:
        psycopg.OperationalError: SQLAlchemy has lost the connection, and wants another one, which would be another
            transaction.
    """
    loan = _current.get(None)
    if loan is None:
        raise psycopg.OperationalError("the connection of the transaction is lost, and no other one can continue it")
    return loan
