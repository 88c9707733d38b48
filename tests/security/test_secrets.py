"""No part of a conninfo but host, port, database and user is ever shown, however malformed the conninfo is."""

from __future__ import annotations

import logging
import socket
import threading
import traceback
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from pgdoc import AsyncStore, Store
from pgdoc.cli.app import run_cli
from pgdoc.database.migrate import migrate
from pgdoc.errors import PgdocError
from pgdoc.replication.source import Source
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "s3cr3tmark"  # noqa: S105

# Nothing listens there, so that a conninfo which libpq can use after all fails at once.
NOWHERE = "host=127.0.0.1 port=1 connect_timeout=2"

noise = st.text(alphabet="@:/%?#&='\"\\[] ,;.é\n0z", max_size=3)
marked = st.builds("{}{}{}".format, noise, st.just(SECRET), noise)
urls = st.builds(
    "{}://{}:{}@{}/{}{}".format,
    st.sampled_from(["postgresql", "postgres", "postgresq", "http"]),
    st.sampled_from(["app", "12", ""]),
    marked,
    st.sampled_from(["127.0.0.1:1", "[::1]:1", "[::1", "127.0.0.1:1,127.0.0.1:1", ""]),
    st.sampled_from(["db", "d%zzb", "d@b", ""]),
    st.sampled_from(["", "?", "?sslmode", "?sslmode=nonsense", "?connect_timeout=2", "?host=/nowhere"]),
)
url_options = st.builds(
    "postgresql://app:p@127.0.0.1:1/db?{}={}".format,
    st.sampled_from(
        ["password", "sslpassword", "options", "sslmode", "sslkey", "passfile", "service", "require_auth", "x"]
    ),
    marked,
)
FIELDS = [
    *("password", "passfile", "sslpassword", "sslkey", "sslcert", "sslrootcert", "sslcrl", "sslmode", "options"),
    *("service", "channel_binding", "gssencmode", "require_auth", "target_session_attrs", "load_balance_hosts"),
    *("connect_timeout", "keepalives", "tcp_user_timeout", "client_encoding", "ssl_min_protocol_version", "krbsrvname"),
    *("application_name", "replication", "port", "nonsense"),
]
words = st.builds(
    "{} {}={}{}{}".format,
    st.just(NOWHERE),
    st.sampled_from(FIELDS),
    st.sampled_from(["", "'", "'a' ", "a "]),
    marked,
    st.sampled_from(["", "'", " user=u", "' password='b"]),
)


def shown_by(call: Callable[[], object]) -> str:
    """Return everything that a program may print about an error of pgdoc; fail for any other error."""
    try:
        call()
    except PgdocError as error:
        texts = traceback.format_exception(error)
        chain: list[BaseException] = [error]
        while chain:
            each = chain.pop()
            texts += [str(each), repr(each), repr(each.args)]
            chain += [other for other in (each.__cause__, each.__context__) if other is not None]
        return "\n".join(texts)
    return ""


def open_and_read(conninfo: str) -> None:
    with Store(conninfo) as store:
        store["orders"].get("o-1")


def open_and_watch(conninfo: str) -> None:
    with Store(NOWHERE, replication_conninfo=conninfo) as store:
        store.status()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conninfo=urls | url_options | words)
@example(conninfo=f"postgresql://app:%zz{SECRET}@h/db")
@example(conninfo=f"postgresql://app:a@{SECRET}@127.0.0.1:1/db")
@example(conninfo=f"postgresql://app:1/{SECRET}@127.0.0.1/db")
@example(conninfo=f"{NOWHERE} password='{SECRET}")
@example(conninfo=f"{NOWHERE} password=a {SECRET}=b")
@example(conninfo=f"{NOWHERE} options='-c {SECRET}'")
@example(conninfo=f"{NOWHERE} options='-c a=1 {SECRET}=1'")
@example(conninfo=f"{NOWHERE} sslmode=a {SECRET}=1")
@example(conninfo=f"postgresql://app:p?{SECRET}=1@127.0.0.1:1/db")
@example(conninfo=f"postgresql://app:p?{SECRET}=1")
def test_errors_logs_and_the_command_line_show_no_secret(
    conninfo: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    shown = shown_by(lambda: open_and_read(conninfo))
    shown += shown_by(lambda: migrate(conninfo))
    shown += shown_by(lambda: open_and_watch(conninfo))
    for command in ("collections", "doctor", "demo"):
        if "\0" not in conninfo:
            run_cli([command, "--dsn", conninfo])
    shown += caplog.text + "".join(capfd.readouterr())
    shown += repr(Source(conninfo, "docs")) + repr(Store(conninfo)) + repr(AsyncStore(conninfo))
    assert SECRET not in shown


@pytest.mark.parametrize(
    "extra",
    [
        {"options": f"-c work_mem={SECRET}"},
        {"options": f"-c {SECRET}"},
        {"options": f"-c nosuch={SECRET}"},
        {"options": f"-c a=1 {SECRET}=1"},
        {"options": f"-c search_path=x\\ {SECRET} {SECRET}"},
        {"options": f"--{SECRET}"},
        {"sslmode": SECRET},
        {"dbname": f"a@{SECRET}"},
        {"replication": SECRET},
        {"connect_timeout": SECRET},
    ],
    ids=str,
)
def test_a_server_that_refuses_shows_no_secret(
    dsn: str, extra: dict[str, str], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    conninfo = make_conninfo(dsn, **extra)
    shown = shown_by(lambda: open_and_read(conninfo))
    assert shown
    shown += shown_by(lambda: migrate(conninfo)) + shown_by(lambda: open_and_watch(conninfo))
    for command in ("collections", "doctor", "demo"):
        run_cli([command, "--dsn", conninfo])
    assert SECRET not in shown + caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("option", ["sslcert", "sslrootcert", "sslcrl"])
def test_files_of_certificates_are_not_shown(option: str) -> None:
    """libpq reads them when the server agrees to speak TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=agree_to_tls, args=[listener])
        thread.start()
        conninfo = make_conninfo(
            host="127.0.0.1", port=listener.getsockname()[1], sslmode="verify-full", **{option: f"/nowhere/{SECRET}"}
        )
        shown = shown_by(lambda: open_and_read(conninfo))
        thread.join()
    assert "file" in shown
    assert SECRET not in shown


def agree_to_tls(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(8)
        connection.sendall(b"S")
        connection.recv(1)


def test_service_files_and_the_environment_show_no_secret(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "services"
    file.write_text(f"[m]\nhost=::1\nport=1\npassword={SECRET}\noptions=-c work_mem={SECRET}\nsslmode={SECRET}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    shown = shown_by(lambda: open_and_read("service=m"))
    assert shown
    file.write_text(f"[m]\n{SECRET}\n")
    shown += shown_by(lambda: open_and_read("service=m"))
    monkeypatch.delenv("PGSERVICEFILE")
    for name in ("PGPASSWORD", "PGOPTIONS", "PGSSLMODE", "PGCONNECT_TIMEOUT", "PGPORT", "PGCHANNELBINDING"):
        with monkeypatch.context() as patch:
            patch.setenv(name, f"-c work_mem={SECRET}" if name == "PGOPTIONS" else SECRET)
            shown += shown_by(lambda: open_and_read("host=127.0.0.1"))
            shown += shown_by(lambda: open_and_read(dsn))
    assert SECRET not in shown + caplog.text


def test_the_pool_logs_no_secret(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """The pool logs why it can't connect, as when the server begins to refuse what it accepted before."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "psycopg.pool")
    with Store(dsn) as store:
        store.create_collection("orders")
        pool = store._connections._pool
        assert pool is not None
        pool.conninfo = make_conninfo(dsn, options=f"-c work_mem={SECRET}")
        pool.resize(2, 2)
        wait_until(lambda: "error connecting in" in caplog.text and "no connection to the server" in caplog.text)
    assert SECRET not in caplog.text
