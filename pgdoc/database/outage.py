"""Says once that the connections of a store are lost, and once that they are back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pgdoc.database.errors import one_line

if TYPE_CHECKING:
    import psycopg

__all__ = ["OfStore", "Outage", "PoolName", "quieten_pool"]

logger = logging.getLogger("pgdoc.store")
_pool_logger = logging.getLogger("psycopg.pool")


class OfStore:
    """Marks the pools and connections of stores in the records of psycopg's pool.

    Attributes:
        leads_directly: whether this is a connection to a session of its own, rather than to a pooler.
    """

    leads_directly = False


class PoolName(str, OfStore):
    """The name of a store's pool."""

    __slots__ = ()


class Outage:
    """Whether the last attempt to connect failed; any thread may report one.

    The flags change in one step each, without a lock that a fork could leave locked.
    """

    def __init__(self) -> None:
        self._flags: dict[str, bool] = {}

    def connected(self) -> None:
        """Report that a connection was made."""
        self._flags["connected"] = True
        if self._flags.pop("down", False):
            logger.info("connected to the server again")

    def failed(self, exc: psycopg.Error) -> None:
        """Report that none could be made. The first call of a store raises the error, which needs no log."""
        if self._flags.pop("connected", False):
            self._flags["down"] = True
            logger.warning("no connection to the server: %s; calls fail until it is back", one_line(exc))


def quieten_pool() -> None:
    """Keep psycopg's pool from a warning for each attempt to connect, and each dead connection, of a store.

    It logs them where its logger is set to DEBUG. Other programs' pools are not concerned.
    """
    _pool_logger.addFilter(_is_wanted)  # a second time, this does nothing


def _is_wanted(record: logging.LogRecord) -> bool:
    is_of_store = isinstance(record.args, tuple) and any(isinstance(item, OfStore) for item in record.args)
    return not is_of_store or _pool_logger.isEnabledFor(logging.DEBUG)
