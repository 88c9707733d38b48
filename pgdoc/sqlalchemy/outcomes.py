"""What a block refuses, and the errors that leave it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
from sqlalchemy.exc import DBAPIError

from pgdoc.database.errors import map_error
from pgdoc.errors import UpgradePrepared
from pgdoc.workers.failures import is_loss, is_outage, is_read_only, met_conflict

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_transaction", "translated"]


def check_transaction(tx: object, kind: type, other: str) -> None:
    """Refuse what is not a transaction of the right kind: SQLAlchemy would call it, and await nothing.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(tx, kind):
        block = "async with" if kind.__name__.startswith("Async") else "with"
        raise TypeError(
            f"a block of SQLAlchemy takes an object of type {kind.__name__}, got {type(tx).__name__}: pass what "
            f"`{block} store.transaction() as tx` returns, or use {other}"
        )


@contextmanager
def translated() -> Iterator[None]:
    """Raise pgdoc's errors for those that are not about a statement: programs and workers run the transaction again."""
    try:
        yield
    except DBAPIError as exc:
        if isinstance(exc.orig, psycopg.Error):
            error = map_error(exc.orig, "the session of SQLAlchemy", in_transaction=True)
            if isinstance(error, UpgradePrepared) or any(
                is_of(error) for is_of in (is_loss, is_outage, is_read_only, met_conflict)
            ):
                raise error from exc
        raise
