"""What a store says where it can't get to the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import Store
from pgdoc.errors import DatabaseError, DirectRouteNeeded, ReplicationNotPermitted, ServerUnreachable
from tests.integration.own_server.faults import answering, pooling, refusal
from tests.integration.own_server.words import (
    PATIENCE_S,
    said,
    said_by_both,
    said_by_documents,
    said_by_streams,
)

if TYPE_CHECKING:
    import psycopg

    from pgdoc.server import LocalServer


@pytest.mark.parametrize(
    ("conninfo", "place"), [("host=127.0.0.1 port=1", "port 1 "), ("host=/nonexistent", "/nonexistent/.s.PGSQL")]
)
def test_nobody_answers(conninfo: str, place: str, dsn: str) -> None:
    message = said_by_both(ServerUnreachable, f"{conninfo} dbname=app")
    assert message.startswith("no connection to the server: ")
    assert place in message
    assert message.endswith("check the conninfo, and that the server runs at this address")
    assert said_by_streams(ServerUnreachable, dsn, f"{conninfo} dbname=app") == message


def test_the_server_is_gone(private_server: LocalServer, private_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that has connections does not hope for long that others can be made."""
    monkeypatch.setattr("pgdoc._sync.connections._SOON_S", 0.1)
    with Store(private_dsn) as store:
        store["orders"].insert("o-1", {})
        with private_server.stopped():
            message = said(ServerUnreachable, lambda: store["orders"].get("o-1"))
            assert message.startswith("no connection to the server: ")
            assert said(ServerUnreachable, store.watch) == message
        assert store["orders"].get("o-1") is not None


def test_conninfo_is_none(dsn: str) -> None:
    message = said_by_both(DatabaseError, "host=localhost nonsense")
    assert message.startswith("the conninfo is not valid: ")
    assert said_by_streams(DatabaseError, dsn, "host=localhost nonsense") == message


def test_wrong_password(dsn: str) -> None:
    wrong = make_conninfo(dsn, password="guess")  # noqa: S106
    message = said_by_both(DatabaseError, wrong)
    assert 'password authentication failed for user "postgres": check the role and the password' in message
    assert said_by_streams(DatabaseError, dsn, wrong) == message


def test_no_password(dsn: str) -> None:
    without = make_conninfo(dsn, password="")
    message = said_by_both(DatabaseError, without)
    assert "no password supplied: check the role and the password" in message
    assert said_by_streams(DatabaseError, dsn, without) == message


def test_missing_database(cluster: LocalServer, dsn: str) -> None:
    wrong = cluster.conninfo_for("nowhere")
    message = said_by_both(DatabaseError, wrong)
    assert 'database "nowhere" does not exist: check the role and the database' in message
    assert said_by_streams(DatabaseError, dsn, wrong) == message


def test_refused_by_pg_hba(cluster: LocalServer, database: str, dsn: str, admin: psycopg.Connection) -> None:
    assert cluster.folder is not None
    rules = cluster.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    admin.execute("CREATE ROLE stranger LOGIN REPLICATION")
    rules.write_text(f"local all stranger reject\n{before}")
    admin.execute("SELECT pg_reload_conf()")
    try:
        stranger = cluster.conninfo_for(database, "stranger")
        advice = ": add a line for this role, database and address to pg_hba.conf"
        assert said_by_documents(DatabaseError, stranger).endswith(advice)
        assert said_by_streams(ReplicationNotPermitted, dsn, stranger).endswith(advice)
    finally:
        rules.write_text(before)
        admin.execute("SELECT pg_reload_conf()")
        admin.execute("DROP ROLE stranger")


@pytest.mark.parametrize("refused", ["options", "replication"])
def test_through_a_pooler(cluster: LocalServer, database: str, dsn: str, refused: str) -> None:
    """PgBouncer 1.18 knows neither parameter, 1.20 knows `options`."""
    with pooling(cluster, refused) as route:
        through = make_conninfo(route, dbname=database)
        with Store(through) as store:
            store["orders"].insert("o-1", {})
            message = said(DirectRouteNeeded, store.watch)
        assert f"unsupported startup parameter: {refused}: conninfo leads to a pooler" in message
        assert "replication_conninfo" in message
        with Store(through, replication_conninfo=dsn) as store, store.watch() as stream:
            store["orders"].insert("o-2", {})
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.document_id == "o-2"
            with store.transaction() as tx:
                assert tx.connection.prepare_threshold is None


def test_the_pooler_s_sessions_know_no_prepared_statement(dsn: str) -> None:
    """PgBouncer gives the next transaction of a connection to whichever session is free."""
    with Store(dsn, pool_size=1) as store:
        store["orders"].insert("o-1", {})
        for _ in range(6):
            store["orders"].get("o-1")
        with store.transaction() as tx:
            tx.connection.execute("DO 'BEGIN DEALLOCATE ALL; END'")  # as another session has none
        message = said(DatabaseError, lambda: store["orders"].get("o-1"))
        assert message.endswith("give the server's own host and port as replication_conninfo")


def test_refused_in_another_language(dsn: str) -> None:
    with answering(refusal("das Datenbanksystem startet", "57P03")) as elsewhere:
        message = said_by_both(ServerUnreachable, elsewhere)
        assert "FATAL: das Datenbanksystem startet; check the conninfo" in message
        assert said_by_streams(ServerUnreachable, dsn, elsewhere) == message
