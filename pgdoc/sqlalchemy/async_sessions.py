"""Sessions and connections of SQLAlchemy in a transaction, with asyncio."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pgdoc._async.transaction import AsyncTransaction
from pgdoc.sqlalchemy.engines import async_engine_of
from pgdoc.sqlalchemy.extra import check_greenlet
from pgdoc.sqlalchemy.loans import AsyncLoan, lending
from pgdoc.sqlalchemy.outcomes import check_transaction, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

__all__ = ["async_connection_in", "async_session_in"]

S = TypeVar("S", bound="AsyncSession")


@overload
def async_session_in(tx: AsyncTransaction, **options: Any) -> AbstractAsyncContextManager[AsyncSession]: ...
@overload
def async_session_in(
    tx: AsyncTransaction, factory: Callable[..., S], **options: Any
) -> AbstractAsyncContextManager[S]: ...
def async_session_in(
    tx: AsyncTransaction, factory: Callable[..., AsyncSession] | None = None, **options: Any
) -> AbstractAsyncContextManager[AsyncSession]:
    """Return a session whose work is part of a transaction, to be used as a block of `async with`.

    It is [`session_in`](api.md#pgdoc.sqlalchemy.session_in) for `AsyncStore`.

    Args:
        tx: of `store.transaction()`, or what a handler of a worker gets.
        factory: makes the session: an `async_sessionmaker`, or a class. By default, `AsyncSession` with
            `expire_on_commit=False`, so that objects keep their values after the block.
        options: for the session, except `bind`, `binds` and `join_transaction_mode`.

    Raises:
        MissingExtra: the package greenlet is not installed.
        TransactionClosed: the transaction has not begun, or has ended.
        TypeError: `tx` is not a transaction of an `AsyncStore`.
    """
    check_greenlet()
    if factory is None:
        from sqlalchemy.ext.asyncio import AsyncSession  # noqa: PLC0415 (needs greenlet)

        factory = partial(AsyncSession, expire_on_commit=False)
    return _session_in(tx, factory, options)


@asynccontextmanager
async def _session_in(
    tx: AsyncTransaction, factory: Callable[..., AsyncSession], options: dict[str, Any]
) -> AsyncIterator[AsyncSession]:
    async with (
        async_connection_in(tx) as connection,
        factory(bind=connection, binds=None, join_transaction_mode="create_savepoint", **options) as session,
    ):
        await session.connection()  # begins the savepoint
        yield session
        await session.commit()  # releases it


@asynccontextmanager
async def async_connection_in(tx: AsyncTransaction) -> AsyncIterator[AsyncConnection]:
    """Return a connection of SQLAlchemy Core as part of a transaction, to be used as a block of `async with`.

    It is [`connection_in`](api.md#pgdoc.sqlalchemy.connection_in) for `AsyncStore`.

    Args:
        tx: of `store.transaction()`, or what a handler of a worker gets.

    Raises:
        MissingExtra: the package greenlet is not installed.
        TransactionClosed: the transaction has not begun, or has ended.
        TypeError: `tx` is not a transaction of an `AsyncStore`.
    """
    check_greenlet()
    check_transaction(tx, AsyncTransaction, "session_in")
    loan = AsyncLoan(tx)
    with translated():
        connection = async_engine_of(tx).connect()
        with lending(loan):
            await connection.start()
        try:
            await connection.begin()
            loan.open()
            yield connection
        finally:
            loan.end()
            await connection.close()
