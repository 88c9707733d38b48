"""The engine of each store: it compiles statements, and opens no connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.dialects import registry

from pgdoc.sqlalchemy.loans import current_loan

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from pgdoc import AsyncTransaction, Transaction

__all__ = ["async_engine_of", "engine_of"]

_URL: Final = "pgdoc+psycopg://"
_OPTIONS: Final[dict[str, Any]] = {
    "poolclass": NullPool,  # pgdoc has the pool
    "pool_reset_on_return": None,  # pgdoc ends the transaction
    "use_native_hstore": False,  # its adapters would stay on pgdoc's connection
}

# By the class of its connections, which each store has of its own: what SQLAlchemy learns about a server when it first
# connects is about one server, and so is its cache. Two threads may both make one; the first is kept.
_engines: WeakKeyDictionary[type, Engine] = WeakKeyDictionary()
_async_engines: WeakKeyDictionary[type, AsyncEngine] = WeakKeyDictionary()

registry.register("pgdoc.psycopg", "pgdoc.sqlalchemy.dialect", "LoanDialect")


def engine_of(tx: Transaction) -> Engine:
    """Return the engine of the store of a transaction."""
    kind = type(tx.connection)
    if (engine := _engines.get(kind)) is None:
        engine = _engines.setdefault(kind, create_engine(_URL, creator=current_loan, **_OPTIONS))
    return engine


def async_engine_of(tx: AsyncTransaction) -> AsyncEngine:
    """Return the engine of the store of a transaction."""
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 (needs greenlet)

    async def lend() -> Any:
        return current_loan()

    kind = type(tx.connection)
    if (engine := _async_engines.get(kind)) is None:
        engine = _async_engines.setdefault(kind, create_async_engine(_URL, async_creator=lend, **_OPTIONS))
    return engine
