"""The errors of connections that could not be made, from libpq's messages."""

from __future__ import annotations

import psycopg
import pytest

from pgdoc.database.errors import connection_error
from pgdoc.errors import DatabaseError, PgdocError, ServerUnreachable

AT = 'connection failed: connection to server at "db", port 1 failed: '


def test_no_connection_says_where_to_and_why() -> None:
    question = "\n\tIs the server running on that host and accepting TCP/IP connections?\n"
    assert str(connection_error(psycopg.OperationalError(f"{AT}Connection refused{question}"))) == (
        'no connection to the server: connection to server at "db", port 1 failed: Connection refused; '
        "check the conninfo, and that the server runs at this address"
    )


def test_what_libpq_says_of_each_of_two_attempts_is_said_once() -> None:
    text = 'connection to server at "db", port 1 failed: FATAL:  unrecognized configuration parameter "nosuch"\n'
    found = str(connection_error(psycopg.OperationalError(f"connection failed: {text}{text}")))
    assert found.count("nosuch") == 1


def test_each_of_several_hosts_is_said_once() -> None:
    refused = f"{AT}Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?"
    read_only = 'connection failed: connection to server at "::1", port 2 failed: session is read-only'
    attempts = f"- host: 'db', port: '1', hostaddr: '127.0.0.1': {refused}\n- host: 'db', port: 2, hostaddr: '::1': "
    text = f"{read_only}\nMultiple connection attempts failed. All failures were:\n{attempts}{read_only}"
    found = connection_error(psycopg.OperationalError(text))
    assert type(found) is ServerUnreachable
    assert str(found) == (
        'no connection to the server: connection to server at "db", port 1 failed: Connection refused; '
        'connection to server at "::1", port 2 failed: session is read-only; '
        "check the hosts and target_session_attrs in the conninfo, and whether a standby is to be promoted"
    )


@pytest.mark.parametrize(
    ("text", "error", "cure"),
    [
        ('FATAL:  password authentication failed for user "app"\n', DatabaseError, "the password"),
        ("fe_sendauth: no password supplied\n", DatabaseError, "the password"),
        ('FATAL:  database "app" does not exist\n', DatabaseError, "the database"),
        ('FATAL:  no pg_hba.conf entry for host "::1", user "app"\n', DatabaseError, "pg_hba.conf"),
        ("FATAL:  kein pg_hba.conf-Eintrag für Host »::1«\n", DatabaseError, "add a line"),
        ('FATAL:  unrecognized configuration parameter "nosuch"\n', DatabaseError, "`options` in the conninfo"),
        ('FATAL:  invalid value for parameter "work_mem": "***"\n', DatabaseError, "`options` in the conninfo"),
        ('invalid sslmode value: "***"', DatabaseError, "correct this option"),
        ('invalid integer value "***" for connection option "keepalives"\n', DatabaseError, "correct this option"),
        ("FATAL:  das Datenbanksystem startet\n", ServerUnreachable, "das Datenbanksystem startet"),
        ("FATAL:  the database system is starting up\n", ServerUnreachable, "starting up"),
    ],
)
def test_the_server_s_word_decides(text: str, error: type[PgdocError], cure: str) -> None:
    found = connection_error(psycopg.OperationalError(AT + text))
    assert type(found) is error
    assert cure in str(found)
    assert "\n" not in str(found)
