"""The errors for what is not installed."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from pgdoc.errors import MissingExtra

__all__ = ["check_greenlet", "check_sqlalchemy"]

_INSTALL: Final = "run pip install 'pgdoc[sqlalchemy]'"


def check_sqlalchemy() -> None:
    """Check that SQLAlchemy can use psycopg 3.

    Raises:
        MissingExtra: it can't, because it is version 1.4, which is enough for alembic.
    """
    try:
        import_module("sqlalchemy.dialects.postgresql.psycopg")
    except ModuleNotFoundError as exc:
        raise MissingExtra(f"pgdoc.sqlalchemy needs SQLAlchemy 2.0.40 or later: {_INSTALL}") from exc


def check_greenlet() -> None:
    """Check that SQLAlchemy can be used with asyncio.

    Raises:
        MissingExtra: greenlet is not installed; SQLAlchemy itself does not always bring it.
    """
    try:
        import_module("greenlet")
    except ImportError as exc:
        raise MissingExtra(f"SQLAlchemy needs the package greenlet for asyncio: {_INSTALL}") from exc
