"""A model of SQLAlchemy, and SQLAlchemy's names as the sync and the async tests call them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["AsyncSession", "Invoice", "Session", "async_sessionmaker", "create_invoices", "numbers", "sessionmaker"]


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSONB}  # noqa: RUF012 (as SQLAlchemy's documentation has it)


class Invoice(Base):
    __tablename__ = "invoices"
    number: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]
    data: Mapped[dict[str, Any] | None]


def create_invoices(dsn: str, rows: Iterable[str] = ()) -> None:
    """Create the table, with these invoices."""
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE invoices (number text PRIMARY KEY, amount int NOT NULL, data jsonb)")
        for number in rows:
            connection.execute("INSERT INTO invoices VALUES (%s, 1)", [number])


def numbers(dsn: str) -> list[str]:
    """Return the numbers of all invoices that are committed."""
    with psycopg.connect(dsn) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM invoices ORDER BY number")]
