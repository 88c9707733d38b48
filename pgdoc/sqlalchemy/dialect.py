"""SQLAlchemy's dialect for psycopg, on a connection that is lent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pgdoc.sqlalchemy.loans import Loan

__all__ = ["AsyncLoanDialect", "LoanDialect"]


class _OfLoan(PGDialect_psycopg):
    supports_statement_cache = True  # SQLAlchemy looks for it in each class

    def on_connect(self) -> None:
        """Leave the connection as it is: SQLAlchemy would add a handler of notices for each block."""

    def do_savepoint(self, connection: Connection, name: str) -> None:
        """Begin a savepoint."""
        connection.exec_driver_sql(f"SAVEPOINT {_loan(connection).begin_savepoint(name)}")

    def do_rollback_to_savepoint(self, connection: Connection, name: str) -> None:
        """Undo what was done since a savepoint, and end it: SQLAlchemy would leave it open."""
        loan = _loan(connection)
        connection.exec_driver_sql(f"ROLLBACK TO SAVEPOINT {loan.savepoint(name)}")
        loan.undo_savepoint(name)
        connection.exec_driver_sql(f"RELEASE SAVEPOINT {loan.savepoint(name)}")

    def do_release_savepoint(self, connection: Connection, name: str) -> None:
        """End a savepoint."""
        loan = _loan(connection)
        connection.exec_driver_sql(f"RELEASE SAVEPOINT {loan.savepoint(name)}")
        loan.release_savepoint(name)


class LoanDialect(_OfLoan):
    """The dialect of `session_in`."""

    supports_statement_cache = True

    @classmethod
    def get_async_dialect_cls(cls, url: Any) -> type[AsyncLoanDialect]:  # noqa: ARG003 (SQLAlchemy calls it)
        """Return the dialect for asyncio."""
        return AsyncLoanDialect


class AsyncLoanDialect(_OfLoan, PGDialectAsync_psycopg):
    """The dialect of `async_session_in`."""

    supports_statement_cache = True


def _loan(connection: Connection) -> Loan:
    return cast("Loan", connection.connection.driver_connection)
