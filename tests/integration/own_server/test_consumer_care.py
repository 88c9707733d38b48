"""Consumers that nobody opens are pruned, and one that lost its position begins anew."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest

from pgdoc import AsyncStore, Store
from pgdoc.cli import consumer_care
from pgdoc.cli.app import run_cli
from pgdoc.errors import ConsumerBusy, ConsumerNotFound
from tests.integration.own_server.consumers import NAME, drop_bookmarks, drop_slot, ids, insert, slot, status, take
from tests.integration.own_server.words import wait_until

if TYPE_CHECKING:
    import psycopg

WEEK = timedelta(days=7)


def run(dsn: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_cli(["consumers", *arguments, "--dsn", dsn])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def forget(owner: psycopg.Connection, name: str, span: str) -> None:
    """Make a consumer look as if nobody had had it open for so long."""
    for table, column in (("owners", "renewed_at"), ("consumer_progress", "seen_at"), ("consumers", "created_at")):
        query = f"UPDATE pgdoc.{table} SET {column} = now() - %s::interval WHERE name = %s"
        owner.execute(query.encode(), [span, name])


def test_prune_drops_only_what_nobody_has_had_open_for_long(
    dsn: str, store: Store, owner: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("old", "young", NAME):
        store.watch(consumer=name).close()
    forget(owner, "old", "8 days")
    with store.watch(consumer=NAME):
        forget(owner, NAME, "8 days")
        listed = run(dsn, capsys, "prune", "--older-than", "7d", "--dry-run")
        assert (listed[0], listed[1].count("\n")) == (0, 1)
        assert listed[1].startswith("old (schema docs): not open for 8.0 d, retains ")
        assert run(dsn, capsys, "prune", "--older-than", "7d", "--schema", "other", "--yes")[0] == 0
        assert len(store.consumers()) == 3
        code, out, _ = run(dsn, capsys, "--json", "prune", "--older-than", "1w", "--yes")
        (line,) = [json.loads(text) for text in out.splitlines()]
        assert (code, line["name"], line["dropped"]) == (0, "old", True)
        assert {each.name for each in store.consumers()} == {"young", NAME}
    assert run(dsn, capsys, "prune", "--older-than", "7d")[1] == "Every consumer was open in the last 7.0 d.\n"


def test_prune_asks_unless_told_not_to(
    dsn: str,
    store: Store,
    owner: psycopg.Connection,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.watch(consumer=NAME).close()
    forget(owner, NAME, "8 days")
    assert run(dsn, capsys, "prune", "--older-than", "7d", "--json")[0] == 2
    assert run(dsn, capsys, "prune", "--older-than", "7 years")[0] == 2
    monkeypatch.setattr("sys.stdin", StringIO("n\n"))
    assert run(dsn, capsys, "prune", "--older-than", "7d")[0] == 1
    assert len(store.consumers()) == 1
    monkeypatch.setattr("sys.stdin", StringIO("y\n"))
    assert run(dsn, capsys, "prune", "--older-than", "7d")[1].endswith(f"Dropped consumer {NAME}.\n")
    assert store.consumers() == []


def test_prune_keeps_a_consumer_that_is_opened_meanwhile(
    dsn: str,
    store: Store,
    owner: psycopg.Connection,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = (NAME, "other")
    for name in names:
        store.watch(consumer=name).close()
        forget(owner, name, "8 days")
    streams: list[Any] = []

    def open_meanwhile(unused: list[Any], span: timedelta) -> None:
        assert {each.name for each in unused} == set(names)
        store.watch(consumer=NAME).close()
        streams.append(store.watch(consumer="other"))

    monkeypatch.setattr(consumer_care, "_list_unused", open_meanwhile)
    code, out, _ = run(dsn, capsys, "prune", "--older-than", "7d", "--yes")
    streams[0].close()
    assert (code, out.count("it was opened meanwhile")) == (0, 2)
    assert {each.name for each in store.consumers()} == set(names)


def test_a_consumer_that_is_open_and_at_rest_counts_as_in_use(
    dsn: str, store: Store, owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner writes once an hour, and when it leaves: else the catalog would not know."""

    def is_left_alone() -> bool:
        forget(owner, NAME, "30 minutes")
        time.sleep(0.5)
        return _last(store) > timedelta(minutes=20)

    monkeypatch.setattr("pgdoc.consumers.owned_slot.HEARTBEAT_S", 0.1)
    with store.watch(consumer=NAME):
        forget(owner, NAME, "2 hours")
        wait_until(lambda: _last(store) < timedelta(minutes=1))
        wait_until(is_left_alone)  # the first save can come after that
    assert _last(store) < timedelta(minutes=1)
    assert not store.drop_consumer(NAME, unused_for=timedelta(minutes=1))
    assert store.drop_consumer(NAME, unused_for=timedelta())
    with pytest.raises(ValueError, match="unused_for must be a timedelta of at least 0"):
        store.drop_consumer(NAME, unused_for=timedelta(days=-1))


def _last(store: Store) -> timedelta:
    found = status(store)
    assert found.last_open_at is not None
    return datetime.now(UTC) - found.last_open_at


def test_a_lost_consumer_begins_anew_from_now(
    dsn: str, store: Store, owner: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    with store.watch(consumer=NAME) as stream:
        insert(store, 1)
        assert ids(take(stream, 1)) == [1]
    drop_slot(owner)
    drop_bookmarks(owner)
    insert(store, 2)
    code, out, _ = run(dsn, capsys, "recreate", NAME)
    assert code == 0
    assert out.endswith("and gets no event from before that: rebuild what it feeds.\n")
    insert(store, 3)
    with store.watch(consumer=NAME) as stream:
        assert ids(take(stream, 1)) == [3]
        for agreed in (["--yes"], []):
            code, out, err = run(dsn, capsys, "recreate", NAME, *agreed)
            assert (code, out, "is open" in err) == (1, "", True)
    assert status(store).schema == "docs"


def test_recreate_asks_before_it_takes_events_from_a_consumer_that_can_go_on(
    dsn: str,
    store: Store,
    owner: psycopg.Connection,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.watch(consumer=NAME).close()
    insert(store, 1)
    assert run(dsn, capsys, "recreate", NAME, "--json")[0] == 2
    monkeypatch.setattr("sys.stdin", StringIO("n\n"))
    code, out, _ = run(dsn, capsys, "recreate", NAME)
    assert (code, "would never get the events in between" in out) == (1, True)
    assert run(dsn, capsys, "recreate", "nobody", "--yes")[2].startswith("pgdoc: there is no consumer nobody: ")
    assert run(dsn, capsys, "recreate", NAME, "--yes", "--schema", "other")[0] == 1
    code, out, _ = run(dsn, capsys, "recreate", NAME, "--yes", "--snapshot", "--json")
    assert (code, json.loads(out)["snapshot"]) == (0, True)
    insert(store, 2)
    with store.watch(consumer=NAME, snapshot=True) as stream:
        assert sorted(ids(take(stream, 2))) == [1, 2]


def test_a_consumer_whose_creation_was_interrupted_begins_anew(
    dsn: str, store: Store, owner: psycopg.Connection
) -> None:
    store.watch(consumer=NAME).close()
    drop_slot(owner)
    owner.execute("DELETE FROM pgdoc.consumer_progress")
    owner.execute("UPDATE pgdoc.consumers SET place = '{}'")
    insert(store, 1)
    at = store.recreate_consumer(NAME)
    assert status(store).place.lsn == at
    insert(store, 2)
    with store.watch(consumer=NAME) as stream:
        assert ids(take(stream, 1)) == [2]


async def test_an_async_store_has_the_same_calls(dsn: str, store: Store, owner: psycopg.Connection) -> None:
    async with AsyncStore(dsn) as asynchronous:
        with pytest.raises(ConsumerNotFound):
            await asynchronous.recreate_consumer(NAME)
        assert owner.execute("SELECT name FROM pgdoc.owners").fetchall() == []
        async with asynchronous.watch(consumer=NAME):
            with pytest.raises(ConsumerBusy):
                await asynchronous.recreate_consumer(NAME)
            with pytest.raises(ConsumerBusy):
                await asynchronous.drop_consumer(NAME, unused_for=WEEK)
        at = await asynchronous.recreate_consumer(NAME)
        assert status(store).place.lsn == at
        assert not await asynchronous.drop_consumer(NAME, unused_for=WEEK)
        assert owner.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", [slot(owner)]).fetchall()


def test_reports_are_json_wherever_the_flag_stands(dsn: str, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.watch(consumer=NAME).close()
    for arguments in (
        ["status", "--json"],
        ["history", "--json"],
        ["collections", "--json"],
        ["consumers", "--json"],
        ["consumers", "--json", "list"],
        ["consumers", "list", "--json"],
        ["consumers", "--json", "drop", NAME],
        ["tables", "--json", "check", "public.no such"],
        ["tables", "check", "public.no such", "--json"],
        ["tables", "--json"],
    ):
        run_cli([*arguments, "--dsn", dsn])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert lines or arguments[0] == "tables", arguments
        assert all(isinstance(line, dict) for line in lines)


def test_spans_of_reports_are_seconds(dsn: str, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.watch(consumer=NAME).close()
    run_cli(["history", "--json", "--dsn", dsn])
    assert json.loads(capsys.readouterr().out)["time_seconds"] == 3600.0
    run_cli(["consumers", "--json", "--dsn", dsn])
    found = json.loads(capsys.readouterr().out)
    assert {"lag_seconds", "owner_silent_seconds", "last_open_at", "unreadable"} <= found.keys()


def test_a_view_can_not_be_added_and_nothing_else_is_said(dsn: str, store: Store, owner: psycopg.Connection) -> None:
    owner.execute("CREATE VIEW public.all_orders AS SELECT * FROM docs.orders")
    found = store.check_table("public.all_orders")
    assert found.refusals
    assert (found.steps, found.lock, found.holders) == ((), None, ())
