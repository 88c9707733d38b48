"""The commands as processes of their own, on a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import orjson
import psycopg

import pgdoc

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-m", "pgdoc"]


@contextmanager
def watching(dsn: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A `pgdoc watch` whose stream is open."""
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child inherits it where it is ignored
    with subprocess.Popen(
        [*COMMAND, "watch", "--dsn", dsn, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        signal.signal(signal.SIGINT, kept)
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("watching")
            yield process
        finally:
            process.kill()


def test_watch_prints_changes_as_they_happen_until_ctrl_c(dsn):
    with watching(dsn, "orders") as process, pgdoc.Store(dsn) as store:
        store["orders"].insert("o-1", {"total": 1})
        with pgdoc.metadata(user="ann"):
            store["orders"].update("o-1", {"$inc": {"total": 1}})
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 130
    assert lines[0].startswith('insert   orders/o-1  {"total":1}  +')
    assert lines[1].startswith("update   orders/o-1  total 1 → 2  by ann  +")


def test_watch_prints_what_matches(dsn):
    with watching(dsn, "orders", "--where", '{"full_document.data.n": 2}') as process, pgdoc.Store(dsn) as store:
        for number in range(3):
            store["orders"].insert(f"o-{number}", {"n": number})
        assert process.stdout is not None
        assert process.stdout.readline().startswith("insert   orders/o-2 ")
    command = [*COMMAND, "watch", "--dsn", dsn, "--where", '{"total": 5}']
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("pgdoc: no event has 'total': an event has event_type, collection, document_id,")


def test_watch_goes_on_after_a_token(dsn):
    with pgdoc.Store(dsn) as store:
        with store.watch("orders") as stream:
            for number in range(3):
                store["orders"].insert(f"o-{number}", {})
            first = stream.next(timeout=30)
            assert first is not None
        with watching(dsn, "--json", "--from", str(first.resume_token)) as process:
            assert process.stdout is not None
            events = [orjson.loads(process.stdout.readline()) for _ in range(2)]
    assert [event["document_id"] for event in events] == ["o-1", "o-2"]


def test_a_reader_that_goes_away_ends_watch_quietly(dsn):
    with watching(dsn) as process, pgdoc.Store(dsn) as store:
        assert process.stdout is not None
        process.stdout.close()
        while process.poll() is None:
            store["orders"].insert(pgdoc.new_id(), {})
        assert process.stderr is not None
        assert (process.returncode, process.stderr.read()) == (1, "")


def pgdoc_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)


def test_a_consumer_goes_on_where_it_was_is_listed_and_dropped(dsn):
    with pgdoc.Store(dsn) as store:
        store.create_collection("orders")
        for number in range(3):
            with watching(dsn, "--json", "--consumer", "billing") as process:
                store["orders"].insert(f"o-{number}", {})
                assert process.stdout is not None
                assert orjson.loads(process.stdout.readline())["document_id"] == f"o-{number}"
                busy = pgdoc_command("consumers", "drop", "billing", "--dsn", dsn)
                assert (busy.returncode, busy.stdout) == (1, "")
                assert busy.stderr.startswith('pgdoc: consumer "billing" is open')
                process.send_signal(signal.SIGINT)
                process.wait(30)
    listed = pgdoc_command("consumers", "--dsn", dsn)
    assert listed.stdout.splitlines()[1].split()[:3] == ["billing", "docs", "no"]
    assert pgdoc_command("consumers", "drop", "billing", "--dsn", dsn).returncode == 0
    gone = pgdoc_command("consumers", "--dsn", dsn, "drop", "billing")
    assert (gone.returncode, gone.stderr) == (1, "pgdoc: there is no consumer billing\n")


def test_what_fails_is_told_in_one_line(dsn):
    ended = subprocess.run(
        [*COMMAND, "watch", "--dsn", dsn, "--from", "FFFFFF/0"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("pgdoc: position FFFFFF/0 lies beyond the end")
    assert ended.stderr.count("\n") == 1


def test_the_demo_loses_nothing_and_leaves_nothing(dsn):
    ended = subprocess.run(
        [*COMMAND, "demo", "--dsn", dsn],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "lost 0, repeated 0" in ended.stdout
    assert "of the same transaction" in ended.stdout
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT to_regnamespace('pgdoc_demo')").fetchone() == (None,)
