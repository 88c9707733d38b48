"""Errors of a server that cannot be reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from pgdoc import Store
from pgdoc.cli import grants
from pgdoc.cli.app import run_cli
from pgdoc.errors import DatabaseError, DirectRouteNeeded, ReplicationNotPermitted, ServerUnreachable
from pgdoc.runtime.deadline import deadline_scope
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
    from tests.proxy import Proxy


@pytest.mark.parametrize(
    ("conninfo", "place"), [("host=127.0.0.1 port=1", "port 1 "), ("host=/nonexistent", "/nonexistent/.s.PGSQL")]
)
def test_an_address_without_a_server_is_named(conninfo: str, place: str, dsn: str) -> None:
    message = said_by_both(ServerUnreachable, f"{conninfo} dbname=app")
    assert message.startswith("no connection to the server: ")
    assert place in message
    assert message.endswith("check the conninfo, and that the server runs at this address")
    assert said_by_streams(ServerUnreachable, dsn, f"{conninfo} dbname=app") == message


def test_a_stopped_server_is_reported_soon(
    private_server: LocalServer, private_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that had connections does not retry for long."""
    monkeypatch.setattr("pgdoc._sync.connections._CHECK_SERVER_AFTER_S", 0.1)
    with Store(private_dsn) as store:
        store["orders"].insert("o-1", {})
        with private_server.stopped():
            message = said(ServerUnreachable, lambda: store["orders"].get("o-1"))
            assert message.startswith("no connection to the server: ")
            assert said(ServerUnreachable, store.watch) == message
        assert store["orders"].get("o-1") is not None


def test_a_silent_server_does_not_hold_up_a_grant(
    proxied_dsn: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connect = grants._connect

    def then_silence(dsn: str) -> psycopg.Connection:
        connection = connect(dsn)
        proxy.stall()
        return connection

    monkeypatch.setattr(grants, "_connect", then_silence)
    with deadline_scope(0.2):
        assert run_cli(["grant", "postgres", "--as", "reader", "--run", "--dsn", proxied_dsn]) == 1
    assert "did not answer in time" in capsys.readouterr().err


def test_an_invalid_conninfo_is_refused(dsn: str) -> None:
    message = said_by_both(DatabaseError, "host=localhost nonsense")
    assert message.startswith("the conninfo is not valid: ")
    assert said_by_streams(DatabaseError, dsn, "host=localhost nonsense") == message


def test_a_wrong_password_is_refused(dsn: str) -> None:
    wrong = make_conninfo(dsn, password="guess")  # noqa: S106
    message = said_by_both(DatabaseError, wrong)
    assert 'password authentication failed for user "postgres": check the role and the password' in message
    assert said_by_streams(DatabaseError, dsn, wrong) == message


def test_a_missing_password_is_refused(dsn: str) -> None:
    without = make_conninfo(dsn, password="")
    message = said_by_both(DatabaseError, without)
    assert "no password supplied: check the role and the password" in message
    assert said_by_streams(DatabaseError, dsn, without) == message


def test_a_missing_database_is_named(cluster: LocalServer, dsn: str) -> None:
    wrong = cluster.conninfo_for("nowhere")
    message = said_by_both(DatabaseError, wrong)
    assert 'database "nowhere" does not exist: check the role and the database' in message
    assert said_by_streams(DatabaseError, dsn, wrong) == message


def test_a_refusal_by_pg_hba_says_what_to_add(
    cluster: LocalServer, database: str, dsn: str, admin: psycopg.Connection
) -> None:
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
def test_streams_through_a_pooler_need_a_direct_route(
    cluster: LocalServer, database: str, dsn: str, refused: str
) -> None:
    """PgBouncer 1.18 supports neither parameter, 1.20 supports `options`."""
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
                assert tx.connection.prepare_threshold is not None  # this one has a session for each client


def test_a_prepared_statement_that_the_session_lost_names_the_fix(dsn: str) -> None:
    with Store(dsn, pool_size=1) as store:
        store["orders"].insert("o-1", {})
        for _ in range(6):
            store["orders"].get("o-1")
        with store.transaction() as tx:
            tx.connection.execute(
                "DO 'BEGIN DEALLOCATE ALL; END'"
            )  # like another session, which has no prepared statements
        message = said(DatabaseError, lambda: store["orders"].get("o-1"))
        assert message.endswith("don't run PREPARE there")


def test_a_refusal_in_another_language_is_understood(dsn: str) -> None:
    with answering(refusal("das Datenbanksystem startet", "57P03")) as elsewhere:
        message = said_by_both(ServerUnreachable, elsewhere)
        assert "FATAL: das Datenbanksystem startet; check the conninfo" in message
        assert said_by_streams(ServerUnreachable, dsn, elsewhere) == message
