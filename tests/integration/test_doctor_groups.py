"""`pgdoc doctor` reports groups of a log that stand still, and members whose processes are gone."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import psycopg
import pytest

import pgdoc
from pgdoc.cli.app import run_cli
from pgdoc.cli.doctor import examine_server, groups
from tests.doctoring import finding, left, mend
from tests.logs import fresh_log
from tests.made_logs import delete, fill

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engines import NatsServer
    from tests.logs import Engine

JOIN = """
import sys, pgdoc
with pgdoc.RemoteStream(sys.argv[1], group=sys.argv[2], start="beginning", lease=float(sys.argv[3])) as stream:
    while stream.next() is not None:
        print("joined", flush=True)
"""
ONLY = ["groups"]


def kill_a_member(url: str, group: str, *, lease: float = 0.5) -> int:
    """Let a process join a group, and kill it; return its pid."""
    with subprocess.Popen([sys.executable, "-c", JOIN, url, group, str(lease)], stdout=subprocess.PIPE) as member:
        assert member.stdout is not None
        assert member.stdout.readline() == b"joined\n"
        member.kill()
        return member.pid


def store_a_position(dsn: str, url: str) -> None:
    """Let a group store the effect of an event."""
    with pgdoc.Store(dsn) as store, pgdoc.RemoteStream(url, group="billing", store=store, start="beginning") as stream:
        event = stream.next(timeout=20)
        assert event is not None
        with store.transaction() as tx:
            stream.checkpoint(event, tx)


@pytest.fixture
def owner(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture
def log(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> str:
    """A log with ten entries, which the commands that the doctor advises find as well."""
    url = engine.url(fresh_log())
    fill(url, range(10))
    monkeypatch.setenv("PGDOC_FROM_RELAY", url)
    return url


def verdicts(dsn: str, log: str) -> Iterator[tuple[str, str]]:
    return ((each.id, each.verdict) for each in examine_server(dsn, only=ONLY, log_url=log) if each.subject == "groups")


def test_a_group_whose_members_are_all_gone_while_events_wait_is_reported(
    dsn: str, log: str, owner: psycopg.Connection
) -> None:
    pid = kill_a_member(log, "-billing of it's")
    member = finding(dsn, "group-member-over", only=ONLY, log_url=log)
    assert f"pid {pid} on " in member.text
    stopped = finding(dsn, "group-stopped", only=ONLY, log_url=log)
    assert (stopped.object, stopped.verdict, stopped.value) == ("-billing of it's", "warn", 10)
    mend(owner, dsn, stopped)
    assert list(verdicts(dsn, log)) == [("groups", "ok")]


def test_members_that_are_alive_are_found_at_once(dsn: str, log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_LONGEST_WATCH_S", 60.0)
    with pgdoc.Store(dsn) as store, pgdoc.RemoteStream(log, group="billing", store=store, start="beginning") as stream:
        for _ in range(10):
            event = stream.next(timeout=20)
            assert event is not None
            with store.transaction() as tx:
                stream.checkpoint(event, tx)
        (found,) = [each for each in examine_server(dsn, only=ONLY, log_url=log) if each.subject == "groups"]
    assert (found.id, found.verdict, found.value) == ("group", "ok", 0)
    assert "1 member with 8 of 8 partitions" in found.text


def test_a_member_that_is_gone_is_reported_although_nothing_waits(dsn: str, log: str) -> None:
    with pgdoc.RemoteStream(log, group="billing", start="beginning") as stream:
        for _ in range(10):
            stream.next(timeout=20)
        stream.ack()
    kill_a_member(log, "printing")
    over = finding(dsn, "group-member-over", only=ONLY, log_url=log)
    assert (over.object, over.verdict) == ("printing", "warn")


def test_a_member_with_a_long_lease_is_not_taken_for_dead(dsn: str, log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = kill_a_member(log, "billing", lease=3600.0)
    monkeypatch.setattr(groups, "_LONGEST_WATCH_S", 1.0)
    quiet = finding(dsn, "group-member-quiet", only=ONLY, log_url=log)
    assert f"pid {pid} on " in quiet.text
    assert quiet.text.endswith("its lease is 1.0 h: look whether the process runs")
    assert not left(dsn, "group-stopped", only=ONLY, log_url=log)


def test_a_group_of_a_log_that_was_made_anew_is_reported(
    dsn: str, nats_server: NatsServer, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{nats_server.url}/{fresh_log()}"
    monkeypatch.setenv("PGDOC_FROM_RELAY", url)
    fill(url, range(10))
    with pgdoc.RemoteStream(url, group="billing"):
        pass
    delete(url)
    fill(url, range(10))
    mend(owner, dsn, finding(dsn, "group-without-log", only=ONLY, log_url=url))
    assert list(verdicts(dsn, url)) == [("groups", "ok")]


def test_rows_that_are_left_of_a_group_are_reported(dsn: str, log: str, owner: psycopg.Connection) -> None:
    store_a_position(dsn, log)
    assert pgdoc.drop_log_group(log, "billing")
    rows = finding(dsn, "group-without-log", only=ONLY, log_url=log)
    assert rows.text.startswith("only rows in this database are left of group billing")
    mend(owner, dsn, rows)
    assert list(verdicts(dsn, log)) == [("groups", "ok")]


@pytest.mark.parametrize("url", ["orders", "nats://127.0.0.1:1/X?timeout=1s", "nats"])
def test_a_log_that_can_not_be_read_is_reported(dsn: str, url: str, nats_server: NatsServer) -> None:
    url = f"{nats_server.url}/{fresh_log()}" if url == "nats" else url
    assert finding(dsn, "groups-log", only=ONLY, log_url=url).verdict == "wrong"


def test_groups_that_have_rows_are_named_where_no_log_is(dsn: str, log: str, owner: psycopg.Connection) -> None:
    assert list(verdicts(dsn, "")) == []
    store_a_position(dsn, log)
    named = finding(dsn, "groups-unseen", only=ONLY)
    scheme, name = log.partition(":")[0], log.rpartition("/")[2]
    assert (named.object, named.verdict) == (f"{scheme}:{name}", "unseen")
    owner.execute(
        "INSERT INTO pgdoc.handlers (consumer, handler, epoch, holder, log)"
        " VALUES ('p#0', 'h', 1, gen_random_uuid(), %s)",
        [f"{name} 7"],
    )
    assert finding(dsn, "groups-unseen", only=ONLY).value == 1


def test_a_role_that_may_not_read_the_rows_is_told_the_grant(dsn: str, log: str, owner: psycopg.Connection) -> None:
    owner.execute("DROP ROLE IF EXISTS nosy; CREATE ROLE nosy LOGIN")
    try:
        weak = psycopg.conninfo.make_conninfo(dsn, user="nosy")
        fix = finding(weak, "groups-unseen", only=ONLY).fix
        assert "GRANT SELECT ON" in finding(weak, "groups-unseen", only=ONLY, log_url=log).text
        owner.execute(fix[0])
        assert not left(weak, "groups-unseen", only=ONLY)
        assert not left(weak, "groups-unseen", only=ONLY, log_url=log)
    finally:
        owner.execute("DROP OWNED BY nosy; DROP ROLE nosy")


def test_the_command_takes_the_log_as_an_option(dsn: str, log: str, capsys: pytest.CaptureFixture[str]) -> None:
    kill_a_member(log, "billing")
    run_cli(["doctor", "--dsn", dsn, "--from-relay", log])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("warn   groups        group billing has no member that is alive")]
    assert [line for line in lines if line.endswith("run pgdoc groups drop billing")]
