"""Which texts of libpq and the server are shown."""

from __future__ import annotations

import pytest

from pgdoc.runtime.secrets import hidden

SETTINGS = {"host": "db.example.com,::1", "port": "5432", "dbname": "shop", "user": "app", "password": "password"}


@pytest.mark.parametrize(
    "text",
    [
        'connection to server at "db.example.com" (10.0.0.7), port 5432 failed: Connection refused',
        'connection to server at "::1", port 5432 failed: FATAL:  password authentication failed for user "app"',
        'connection to server on socket "/tmp/x/.s.PGSQL.5432" failed: No such file or directory',
        'FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "app", database "shop", no encryption',
        'FATAL:  number of requested standby connections exceeds "max_wal_senders" (currently 10)',
        'invalid integer value "5432" for connection option "keepalives"',
    ],
)
def test_host_port_database_and_user_are_shown(text: str) -> None:
    assert hidden(text, SETTINGS) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('invalid sslmode value: "SECRET"', 'invalid sslmode value: "***"'),
        ("FATAL:  ungültiger Wert für Parameter »work_mem«: »SECRET«", "Parameter »***«: »***«"),
        ('could not load private key file "SECRET": x', 'could not load private key file "***": x'),
        ("FATAL:  invalid command-line argument for server process: SECRET", "server process: ***"),
        ("FATAL:  invalid command-line argument for server process: MY SECRET", "server process: ***"),
        ("FATAL:  -c GLUEDSECRET requires a value", "-c *** requires a value"),
        ('FATAL:  database "SECRET@h/db" does not exist', 'database "***" does not exist'),
        ("failed to resolve host 'SECRET@h'", "failed to resolve host '***'"),
    ],
)
def test_all_else_is_hidden(text: str, shown: str) -> None:
    settings = {**SETTINGS, "options": r"SECRET MY\ SECRET -cGLUEDSECRET", "dbname": "SECRET@h/db", "host": "SECRET@h"}
    assert shown in hidden(text, settings)
    assert "SECRET" not in hidden(text, settings)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("-c nosuch=1", 'unrecognized configuration parameter "nosuch"'),
        ("-cnosuch=1 -c work_mem='a\\ b'", 'unrecognized configuration parameter "nosuch"'),
        ("--no-such=1", 'unrecognized configuration parameter "no_such"'),
        ("-c a.nosuch=SECRET", 'permission denied to set parameter "a.nosuch"'),
        ("-c role=SECRET", 'role "***" does not exist'),
    ],
)
def test_the_names_of_settings_are_shown(options: str, text: str) -> None:
    assert hidden(text.replace("***", "SECRET"), {"options": options}) == text


@pytest.mark.parametrize(
    "options", ["-c SECRET", "-c a=1 SECRET=1", "-c a=b SECRET=1 -c c=1", "SECRET=1", "-cc=1 -xSECRET=1"]
)
def test_a_word_of_options_that_are_no_settings_is_hidden(options: str) -> None:
    assert hidden('unrecognized configuration parameter "SECRET"', {"options": options}).endswith('"***"')


@pytest.mark.parametrize(
    "text",
    [
        'connection to server on socket "/usr/local/x/.s.PGSQL.5432" failed: No such file or directory',
        'connection to server at "localhost" (127.0.0.1), port 5432 failed: FATAL:  role "localadmin" does not exist',
    ],
)
def test_a_word_of_the_options_hides_no_part_of_another_word(text: str) -> None:
    settings = {"host": "localhost", "user": "localadmin", "options": "-c synchronous_commit=local"}
    assert hidden(text, settings) == text
