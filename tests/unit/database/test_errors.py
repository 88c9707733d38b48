"""The errors of replication connections, from psycopg's exceptions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import errors

from pgdoc.errors import (
    DatabaseError,
    DirectRouteNeeded,
    HistoryLost,
    PgdocError,
    PluginMissing,
    PluginNotAllowed,
    ReplicationNotPermitted,
    ServerUnreachable,
    SlotsExhausted,
)
from pgdoc.replication import connection as replication
from pgdoc.replication.connection import map_replication_error, quote_identifier, quote_literal, quote_option

SERVER: Any = SimpleNamespace(info=SimpleNamespace(server_version=160004))


@pytest.mark.parametrize(
    ("found", "error", "says"),
    [
        (
            errors.UndefinedFile('could not access file "wal2json": No such file'),
            PluginMissing,
            "postgresql-16-wal2json",
        ),
        (errors.UndefinedFile("requested WAL segment 00000001 has already been removed"), DatabaseError, "WAL segment"),
        (
            errors.InsufficientPrivilege('output plugin "wal2json" is not allowed'),
            PluginNotAllowed,
            "output_plugin_libraries",
        ),
        (
            errors.InsufficientPrivilege("permission denied to use replication slots"),
            ReplicationNotPermitted,
            "REPLICATION",
        ),
        (
            errors.ConfigurationLimitExceeded("all replication slots are in use"),
            SlotsExhausted,
            "max_replication_slots",
        ),
        (errors.AdminShutdown("terminating connection due to administrator command"), ServerUnreachable, "was lost"),
        (errors.TooManyConnections("sorry, too many clients already"), ServerUnreachable, "too many clients"),
        (errors.ConnectionFailure("gone"), ServerUnreachable, "gone"),
        (
            psycopg.OperationalError("server closed the connection\n\tunexpectedly"),
            ServerUnreachable,
            "closed the connection",
        ),
        (errors.UndefinedObject('replication slot "pgdoc_1_x" does not exist'), DatabaseError, "slot"),
        (errors.UndefinedObject("Publikation »pgdoc« existiert nicht"), HistoryLost, "younger than the WAL"),
        (errors.SyntaxError("syntax error"), DatabaseError, "syntax error"),
    ],
)
def test_each_answer_of_the_server_has_its_error(found, error, says):
    told = map_replication_error(found, SERVER)
    assert type(told) is error
    assert says in str(told)
    assert "\n" not in str(told)


def test_what_no_class_describes_keeps_its_sqlstate():
    told = map_replication_error(errors.UndefinedObject("no slot"), SERVER)
    assert isinstance(told, DatabaseError)
    assert told.sqlstate == "42704"


def test_only_what_may_heal_by_itself_is_resumable():
    assert map_replication_error(errors.AdminShutdown("restart"), SERVER).resumable
    assert not map_replication_error(errors.UndefinedFile("wal2json"), SERVER).resumable


def test_a_connection_that_is_closed_still_has_an_error_to_tell():
    class Closed:
        @property
        def info(self) -> Any:
            raise psycopg.OperationalError("the connection is closed")

    closed: Any = Closed()
    assert "postgresql-NN-wal2json" in str(map_replication_error(errors.UndefinedFile("wal2json"), closed))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("FATAL:  number of requested standby connections exceeds max_wal_senders (currently 10)", SlotsExhausted),
        ('FATAL:  no pg_hba.conf entry for replication connection from host "::1"', ReplicationNotPermitted),
        ("FATAL:  unsupported startup parameter: replication", DirectRouteNeeded),
        ("FATAL:  must be superuser or replication role to start walsender", ReplicationNotPermitted),
        ("FATAL:  permission denied to start WAL sender", ReplicationNotPermitted),
        ("Connection refused", ServerUnreachable),
    ],
)
def test_a_refused_connection_is_known_by_the_names_in_its_text(text: str, error: type[PgdocError]):
    told = replication._refused(psycopg.OperationalError(text))
    assert type(told) is error
    assert text.removeprefix("FATAL:  ")[:20] in str(told)


def test_names_and_texts_are_written_so_that_nothing_breaks_out():
    assert quote_identifier('a"b') == '"a""b"'
    assert quote_literal("it's") == "'it''s'"
    assert quote_option("it's a\\.b") == "'it''s a\\.b'"
