"""Sessions and connections of SQLAlchemy in a transaction."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sqlalchemy.orm import Session

from pgdoc._sync.transaction import Transaction
from pgdoc.sqlalchemy.engines import engine_of
from pgdoc.sqlalchemy.loans import Loan, lending
from pgdoc.sqlalchemy.outcomes import check_transaction, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

__all__ = ["connection_in", "session_in"]

S = TypeVar("S", bound=Session)


@overload
def session_in(tx: Transaction, **options: Any) -> AbstractContextManager[Session]: ...
@overload
def session_in(tx: Transaction, factory: Callable[..., S], **options: Any) -> AbstractContextManager[S]: ...
def session_in(
    tx: Transaction, factory: Callable[..., Session] | None = None, **options: Any
) -> AbstractContextManager[Session]:
    """Return a session whose work is part of a transaction, to be used as a block of `with`.

    The block begins with a savepoint. At its end the session is flushed and closed, and its rows commit with the
    transaction. An exception that leaves the block undoes what was done in it, documents included, and so does
    `session.rollback()` since the last `session.commit()`, which commits nothing yet.

    Inside the block, the session raises SQLAlchemy's errors. Of those that leave it, the ones that are not about a
    statement become pgdoc's, so that `store.run` and workers can repeat the transaction: `SerializationFailure` also
    for a deadlock, and `TransactionLost`.

    Args:
        tx: of `store.transaction()`, or what a handler of a worker gets.
        factory: makes the session: a `sessionmaker`, or a class such as SQLModel's. By default, `Session` with
            `expire_on_commit=False`, so that objects keep their values after the block.
        options: for the session, except `bind`, `binds` and `join_transaction_mode`.

    Raises:
        TransactionClosed: the transaction has not begun, or has ended.
        TypeError: `tx` is not a transaction of a `Store`.
    """
    return _session_in(tx, factory or partial(Session, expire_on_commit=False), options)


@contextmanager
def _session_in(tx: Transaction, factory: Callable[..., Session], options: dict[str, Any]) -> Iterator[Session]:
    with (
        connection_in(tx) as connection,
        factory(bind=connection, binds=None, join_transaction_mode="create_savepoint", **options) as session,
    ):
        session.connection()  # begins the savepoint
        yield session
        session.commit()  # releases it


@contextmanager
def connection_in(tx: Transaction) -> Iterator[Connection]:
    """Return a connection of SQLAlchemy Core as part of a transaction, to be used as a block of `with`.

    There is no savepoint: after an error of the server the transaction can only be rolled back, except in a block of
    `begin_nested()`. Calls of `commit()` and `rollback()` raise, because pgdoc ends the transaction. Errors that leave
    the block are as those of `session_in`.

    Args:
        tx: of `store.transaction()`, or what a handler of a worker gets.

    Raises:
        TransactionClosed: the transaction has not begun, or has ended.
        TypeError: `tx` is not a transaction of a `Store`.
    """
    check_transaction(tx, Transaction, "async_session_in")
    loan = Loan(tx)
    with translated():
        with lending(loan):
            connection = engine_of(tx).connect()
        try:
            connection.begin()
            loan.open()
            yield connection
        finally:
            loan.end()
            connection.close()
