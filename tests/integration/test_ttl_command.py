"""`pgdoc ttl run`, and what `pgdoc doctor` says about documents that expire."""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest

import pgdoc
from pgdoc.cli.app import run_cli
from pgdoc.cli.doctor import examine_server
from pgdoc.database import expiry
from tests.commands import pgdoc_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.server import LocalServer


def ago(**spans: int) -> str:
    return (datetime.now(UTC) - timedelta(**spans)).isoformat()


@pytest.fixture
def jobs(dsn: str) -> pgdoc.Collection:
    with pgdoc.Store(dsn) as store:
        store["jobs"].insert_many([("a", {"at": ago(hours=2)}), ("b", {"at": "soon"}), ("c", {"at": ago(hours=0)})])
        store["jobs"].create_index("at", expire_after=timedelta(hours=1))
    return store["jobs"]


def said(dsn: str) -> str:
    return "\n".join(finding.text + "".join(finding.fix) for finding in examine_server(dsn, only=["expiry"]))


@pytest.mark.usefixtures("jobs")
def test_once_deletes_what_has_expired_and_reports_it(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["ttl", "run", "--once", "--dsn", dsn]) == 0
    assert capsys.readouterr().out == "jobs, index at: 1 deleted; 1 with values that are no time\n"
    assert run_cli(["ttl", "run", "--once", "--json", "--dsn", dsn, "jobs"]) == 0
    found = {"collection": "jobs", "index": "at", "deleted": 0, "ignored": 1, "problem": None}
    assert json.loads(capsys.readouterr().out) == found


@pytest.mark.usefixtures("jobs")
def test_the_exit_code_is_1_if_documents_stay(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["ttl", "run", "--once", "--dsn", dsn, "other"]) == 1
    assert '"docs.other" has no index with expire_after: check the name' in capsys.readouterr().err
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION docs.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
            "CREATE TRIGGER keep BEFORE DELETE ON docs.jobs FOR EACH ROW EXECUTE FUNCTION docs.keep()"
        )
    assert run_cli(["ttl", "run", "--once", "--dsn", dsn]) == 1
    assert "0 deleted; more may stay: a trigger or a rule" in capsys.readouterr().out


def test_a_schema_without_such_an_index_is_reported(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["ttl", "run", "--once", "--dsn", dsn, "--schema", "typo"]) == 0
    assert capsys.readouterr().err == 'pgdoc: no collection of the schema "typo" has an index with expire_after\n'


def test_without_a_catalog_it_says_what_to_do(bare_dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["ttl", "run", "--once", "--dsn", bare_dsn]) == 1
    assert "create it with `pgdoc init`" in capsys.readouterr().err


def test_without_once_it_goes_on(dsn: str, jobs: pgdoc.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []

    def sleep(_seconds: float) -> None:
        passes.append(1)
        if len(passes) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("pgdoc.cli.ttl.sleep", sleep)
    assert run_cli(["ttl", "--dsn", dsn, "run"]) == 130
    with pgdoc.Store(dsn) as store:
        assert store[jobs.name].get("a") is None


@pytest.mark.usefixtures("jobs")
def test_no_other_command_deletes_what_has_expired(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "INTERVAL_S", 0.0)  # a store that may delete does so at once
    assert pgdoc_command("doctor", "--dsn", dsn).returncode == 0
    assert '"_id":"a"' in pgdoc_command("dump", "jobs", "--dsn", dsn).stdout
    assert pgdoc_command("status", "--dsn", dsn).returncode == 0
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM docs.jobs WHERE id = 'a'").fetchone() == (1,)


def test_a_server_that_is_away_for_a_pass_does_not_end_it(
    private_server: LocalServer,
    private_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pgdoc.Store(private_dsn) as store:
        store["jobs"].create_index("at", expire_after=timedelta(hours=1))
        store["jobs"].insert("a", {"at": ago(hours=2)})
    outage = ExitStack()
    steps: list[Callable[[], object]] = [lambda: outage.enter_context(private_server.stopped()), outage.close]

    def sleep(_seconds: float) -> None:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    monkeypatch.setattr("pgdoc.cli.ttl.sleep", sleep)
    assert run_cli(["ttl", "run", "--dsn", private_dsn]) == 130
    printed = capsys.readouterr()
    assert [line.partition(" deleted")[0] for line in printed.out.splitlines()] == [
        "jobs, index at: 1",
        "jobs, index at: 0",
    ]
    assert printed.err.startswith("pgdoc: trying again in a minute: no connection to the server")
    assert printed.err.count("\n") == 1


def test_a_server_that_is_away_from_the_beginning_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["ttl", "run", "--dsn", "postgresql://127.0.0.1:1/x"]) == 1
    assert capsys.readouterr().err.startswith("pgdoc: no connection to the server")


@pytest.mark.usefixtures("jobs")
def test_doctor_reports_documents_that_nobody_deletes(dsn: str) -> None:
    found = said(dsn)
    assert "1 documents have expired and are still there, the first of them for 1" in found
    assert "pgdoc ttl run --once" in found
    assert "1 documents never expire: their values are no time with an offset" in found
    with expiry.connect_sweeper(dsn, "test") as connection:
        assert [result.deleted for result in expiry.sweep(connection, "docs")] == [1]
    assert "have expired and are still there" not in said(dsn)
