"""Tokens and consumers of another database of the same cluster are refused: a skip would be silent, and so a repeat."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

import pgdoc
from pgdoc import Store
from pgdoc.database.migrate import downgrade, migrate
from pgdoc.errors import HistoryLost, InvalidResumeToken
from tests.fixtures.fix_server import _connect_admin, _drop_slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.fix_server import Server

PATIENCE_S = 30.0


@contextlib.contextmanager
def copy_of(server: Server, dsn: str) -> Iterator[str]:
    """A template copy of a database, as staging often gets one."""
    original = str(conninfo_to_dict(dsn)["dbname"])
    name = f"pgdoc_copy_{os.getpid()}"
    with _connect_admin(server) as admin:
        _drop_slots(admin, original)
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(original)))
        try:
            with psycopg.connect(server.conninfo_for(name), autocommit=True) as owner:
                if owner.execute("SELECT to_regprocedure('pgdoc.rebind()') IS NOT NULL").fetchone() == (True,):
                    owner.execute("SELECT pgdoc.rebind()")
            yield server.conninfo_for(name)
        finally:
            _drop_slots(admin, name)
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def oid_of(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
        assert found is not None
        return int(found[0])


def drain(stream: pgdoc.ChangeStream) -> None:
    for _ in range(100):
        stream.next(timeout=0.3)


def test_a_token_of_another_database_is_refused_and_both_are_named(server: Server, dsn: str) -> None:
    with Store(dsn) as store:
        store["orders"].insert("o-1", {})
        with store["orders"].watch() as stream:
            store["orders"].insert("o-2", {})
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            tokens = [event.resume_token, stream.resume_token]
    assert {token.database_oid for token in tokens} == {oid_of(dsn)}
    with copy_of(server, dsn) as copy, Store(copy) as store:
        store["orders"].insert("o-3", {})
        with store["orders"].watch():  # history reaches back to here only; the database is checked before
            for token in tokens:
                with pytest.raises(InvalidResumeToken) as raised:
                    store.watch(resume_after=token)
                message = str(raised.value)
                assert f"the token belongs to the database with oid {oid_of(dsn)}" in message
                assert f"with oid {oid_of(copy)}" in message
                assert str(conninfo_to_dict(copy)["dbname"]) in message


def test_a_snapshot_s_token_of_another_database_is_refused(server: Server, dsn: str) -> None:
    with Store(dsn) as store:
        for number in range(3):
            store["orders"].insert(f"o-{number}", {})
        with store["orders"].watch(snapshot=True) as stream:
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            token = event.resume_token
    assert token.is_inside
    with copy_of(server, dsn) as copy, Store(copy) as store, pytest.raises(InvalidResumeToken, match="with oid"):
        store["orders"].watch(snapshot=True, resume_after=str(token))


def test_a_token_of_an_earlier_version_is_accepted(dsn: str) -> None:
    with Store(dsn) as store, store["orders"].watch() as stream:
        store["orders"].insert("o-1", {})
        store["orders"].insert("o-2", {})
        event = stream.next(timeout=PATIENCE_S)
        assert event is not None
        text = str(event.resume_token)
        earlier = text.removesuffix(f".{event.resume_token.database_oid}")
        assert earlier != text
        with store["orders"].watch(resume_after=earlier) as resumed:
            following = resumed.next(timeout=PATIENCE_S)
            assert following is not None
            assert following.document_id == "o-2"
            assert following.resume_token.database_oid == event.resume_token.database_oid


def test_a_consumer_of_another_database_is_refused_until_it_is_dropped(server: Server, dsn: str) -> None:
    with Store(dsn) as store, store["orders"].watch(consumer="mailer") as stream:
        store["orders"].insert("o-1", {})
        assert stream.next(timeout=PATIENCE_S) is not None
    with copy_of(server, dsn) as copy, Store(copy) as store:
        store["orders"].insert("o-2", {})
        with pytest.raises(HistoryLost) as raised:
            store["orders"].watch(consumer="mailer")
        message = str(raised.value)
        assert f"belongs to the database with oid {oid_of(dsn)}" in message
        assert "pgdoc consumers drop mailer" in message
        (status,) = store.consumers()
        assert status.place.database_oid == oid_of(dsn)
        store.drop_consumer("mailer")
        with store["orders"].watch(consumer="mailer") as stream:
            store["orders"].insert("o-3", {})
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.document_id == "o-3"
        (status,) = store.consumers()
        assert status.place.database_oid == oid_of(copy)


def test_a_consumer_of_another_database_begins_anew_here_if_asked(server: Server, dsn: str) -> None:
    with Store(dsn) as store, store["orders"].watch(consumer="mailer"):
        pass
    with copy_of(server, dsn) as copy, Store(copy) as store:
        with store["orders"].watch(consumer="mailer", on_lost="recreate") as stream:
            store["orders"].insert("o-2", {})
            assert stream.next(timeout=PATIENCE_S) is not None
            assert stream.stats().recreated == 1
        with store["orders"].watch(consumer="mailer") as stream:  # its row is of this database now
            assert stream.stats().recreated == 0


def test_a_stream_ends_when_its_database_is_made_again_under_the_same_name(server: Server, dsn: str) -> None:
    """The new database has other documents: going on would be a silent gap."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    with Store(dsn) as store, store["orders"].watch() as stream, _connect_admin(server) as admin:
        store["orders"].insert("o-1", {})
        assert stream.next(timeout=PATIENCE_S) is not None
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
        admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [name])
        _drop_slots(admin, name)
        old, new = f"{name}_old", f"{name}_new"
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS true")
        admin.execute(create.format(sql.Identifier(new), sql.Identifier(name)))
        with admin.transaction():  # no attempt to reconnect finds that the name is missing
            for one, other in ((name, old), (new, name)):
                rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
                admin.execute(rename.format(sql.Identifier(one), sql.Identifier(other)))
        admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(old)))
        with pytest.raises(InvalidResumeToken, match="the token belongs to the database with oid"):
            drain(stream)


def test_the_migration_gives_stored_consumers_this_database_and_they_go_on(dsn: str) -> None:
    with Store(dsn) as store, store["orders"].watch(consumer="mailer") as stream:
        store["orders"].insert("o-1", {})
        stream.ack(stream.next(timeout=PATIENCE_S))
    downgrade(dsn, "0006")
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT name, place, system_id, timeline FROM pgdoc.consumers").fetchall()
    migrate(dsn)
    with Store(dsn) as store:
        (status,) = store.consumers()
        assert status.place.database_oid == oid_of(dsn)
        store["orders"].insert("o-2", {})
        with store["orders"].watch(consumer="mailer") as stream:
            event = stream.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.document_id == "o-2"
        store.drop_consumer("mailer")
