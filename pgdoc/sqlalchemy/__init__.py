"""Models of SQLAlchemy in the transactions of pgdoc.

`session_in` and `connection_in` lend the connection of a transaction to SQLAlchemy, so that documents and rows commit
together. They need SQLAlchemy 2, and those for asyncio the package greenlet: `pip install "pgdoc[sqlalchemy]"`.
"""

from pgdoc.sqlalchemy.extra import check_sqlalchemy

check_sqlalchemy()

from pgdoc.sqlalchemy.async_sessions import async_connection_in, async_session_in  # noqa: E402 (after the check)
from pgdoc.sqlalchemy.sessions import connection_in, session_in  # noqa: E402

__all__ = ["async_connection_in", "async_session_in", "connection_in", "session_in"]
