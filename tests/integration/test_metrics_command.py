"""`pgdoc metrics`: prints once, serves until it is told to end, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

import pgdoc
from pgdoc.cli.app import run_cli

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S = 60


def values(text: str) -> dict[str, float]:
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command; yield the process and its URL."""
    command = [sys.executable, "-m", "pgdoc", "metrics", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = re.fullmatch(r"The metrics are at (\S+)\. Ctrl-C stops\.\n", process.stderr.readline())
            assert found is not None
            yield process, found[1]
        finally:
            process.kill()


def test_once_prints_what_a_scrape_gets(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pgdoc.Store(dsn) as store:
        store.watch(consumer="billing").close()
    assert run_cli(["metrics", "--once", "--dsn", dsn, "--schema", "docs"]) == 0
    with pgdoc.Store(dsn) as store:
        store.drop_consumer("billing")
    printed = capsys.readouterr()
    found = values(printed.out)
    assert (found["pgdoc_up"], found["pgdoc_consumer_owned"]) == (1, 0)
    assert printed.err == ""


def test_once_exits_with_1_if_something_could_not_be_read(bare_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["metrics", "--once", "--dsn", bare_dsn]) == 1
    printed = capsys.readouterr()
    assert values(printed.out)["pgdoc_up"] == 1
    assert printed.err.splitlines() == [
        f"pgdoc: the metrics of {part} are missing: the database has no pgdoc catalog: create it with `pgdoc init` or "
        "`store.migrate()`"
        for part in ("consumers", "dead_letters")
    ]


def test_without_a_server_it_prints_that_and_how_to_name_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.delenv("PGDOC_DSN", raising=False)
    assert run_cli(["metrics", "--once"]) == 1
    printed = capsys.readouterr()
    assert values(printed.out)["pgdoc_up"] == 0
    assert "the metrics of connection are missing: no connection to the server" in printed.err
    assert "set PGDOC_DSN" in printed.err


def test_a_conninfo_that_can_not_be_read_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["metrics", "--dsn", "host=h pasword=topaz"]) == 1
    assert "topaz" not in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "ctrl-c"])
def test_it_serves_until_it_is_told_to_end(dsn: str, number: int, code: int) -> None:
    with running("--dsn", dsn) as (process, url):
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310
            assert values(answer.read().decode())["pgdoc_up"] == 1
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == code
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_it_serves_while_the_database_is_away() -> None:
    with running("--dsn", "host=127.0.0.1 port=1 dbname=shop") as (process, url):
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310
            text = answer.read().decode()
        assert 'pgdoc_up{database="shop"} 0.0' in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 143
        assert process.stderr is not None
        assert process.stderr.read().count("no connection to the server") == 1


def test_a_port_that_is_taken_is_an_error(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run_cli(["metrics", "--dsn", dsn, "--port", port]) == 1
    assert f"can't listen on 127.0.0.1, port {port}: Address already in use; choose another" in capsys.readouterr().err


def test_without_the_package_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    for name in [name for name in sys.modules if name.startswith(("pgdoc.telemetry.expo", "pgdoc.telemetry.http"))]:
        monkeypatch.delitem(sys.modules, name)
    assert run_cli(["metrics", "--once"]) == 1
    assert "run pip install prometheus-client" in capsys.readouterr().err


def test_through_a_pooler_the_settings_of_a_scrape_end_with_it(
    pooled_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["metrics", "--once", "--dsn", pooled_dsn]) == 0
    assert values(capsys.readouterr().out)["pgdoc_up"] == 1
    with psycopg.connect(pooled_dsn, autocommit=True, prepare_threshold=None) as connection:  # the same session
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
        assert connection.execute("SHOW transaction_read_only").fetchone() == ("off",)
