"""Errors that psycopg raises without the server; tests with a server cover those of the server."""

from __future__ import annotations

import psycopg
import psycopg_pool
import pytest

from pgdoc.database.errors import map_error
from pgdoc.errors import DatabaseError, PgdocError, SerializationFailure, ServerUnreachable, StoreClosed


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (psycopg_pool.PoolClosed("the pool 'pgdoc' is already closed"), StoreClosed),
        (psycopg.OperationalError("the connection is closed"), ServerUnreachable),
        (psycopg.errors.AdminShutdown("terminating connection"), ServerUnreachable),
        (psycopg.errors.CannotConnectNow("starting up"), ServerUnreachable),
        (psycopg.errors.TooManyConnections("too many clients"), ServerUnreachable),
        (psycopg.errors.ConnectionException("connection failure"), ServerUnreachable),
        (psycopg.errors.QueryCanceled("canceling statement due to user request"), DatabaseError),
        (psycopg.errors.SerializationFailure("could not serialize"), SerializationFailure),
        (psycopg.errors.DeadlockDetected("deadlock detected"), SerializationFailure),
        (psycopg.DataError("a value that psycopg refuses"), DatabaseError),
    ],
)
def test_the_class_says_what_to_do(exc: psycopg.Error, kind: type[PgdocError]) -> None:
    error = map_error(exc, 'collection "docs.orders"')
    assert type(error) is kind
    assert kind is StoreClosed or 'collection "docs.orders"' in str(error)


def test_an_answer_of_the_server_keeps_its_sqlstate() -> None:
    error = map_error(psycopg.errors.SerializationFailure("could not serialize"), "the transaction")
    assert isinstance(error, DatabaseError)
    assert error.sqlstate == "40001"
    assert "could not serialize" in str(error)
