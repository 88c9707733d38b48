"""`pgdoc dead-letters`, on letters as workers store them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

import pgdoc
from pgdoc.cli.app import run_cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVENT = (
    b'{"event_type":"insert","collection":"orders","document_id":"o-1\\u001b[2J","full_document":{"id":"o-1\\u001b[2J",'
    b'"data":{"n": 1.50},"version":1,"created_at":"2026-11-30T00:00:00+00:00",'
    b'"updated_at":"2026-11-30T00:00:00+00:00"},"full_document_before_change":null,"update_description":null,"resume_token":"0/64.7421.1.16384",'
    b'"timestamp":"2026-11-30T00:00:00+00:00","transaction_id":7,"metadata":{},"renamed_to":null}'
)

Command = tuple[int, str, str]


@pytest.fixture
def letters(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Letters of a consumer that exists, and of one that does not: 1 is dead, 2 waits behind it, and 3 is dead."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO pgdoc.consumers (name, schema_name, epoch, place, system_id, timeline, database_oid) "
            "VALUES ('audit', 'shop', 0, '{1,1,0,0}', 1, 1, 1)"
        )
        for consumer, state, document_id, error in (
            ("audit", "dead", "o-1\x1b[2J", "ValueError: no\nand more"),
            ("audit", "parked", "o-1\x1b[2J", None),
            ("gone", "dead", "o-2", "KeyError: 'n'"),
        ):
            connection.execute(
                "INSERT INTO pgdoc.dead_letters (consumer, handler, state, event_type, collection, document_id, token, "
                "event, error, traceback, attempts, changed_at) "
                "VALUES (%s, 'notify', %s, 'insert', 'orders', %s, '0/64.7421.1.16384', %s, %s, 'at line 1\x1b[2J', 5, "
                "now())",
                [consumer, state, document_id, EVENT.decode() if consumer == "audit" else None, error],
            )
        yield connection


@pytest.fixture
def run(dsn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Command]:
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> Command:
        capsys.readouterr()
        code = run_cli(["dead-letters", *arguments, "--dsn", dsn])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.mark.usefixtures("letters")
def test_letters_are_listed_and_shown(run: Callable[..., Command]) -> None:
    code, printed, _ = run("list")
    rows = [line.split() for line in printed.splitlines()]
    assert (code, [row[:3] for row in rows]) == (
        0,
        [["id", "state", "consumer"], ["1", "dead", "audit"], ["2", "parked", "audit"], ["3", "dead", "gone"]],
    )
    assert "ValueError: no" in printed
    assert "\x1b" not in printed
    assert run("list", "--consumer", "nobody")[1] == "There are no such dead letters.\n"
    assert run("list", "--limit", "1")[1].endswith("There may be more: --after 1 lists them.\n")
    lines = [json.loads(line) for line in run("list", "--json", "--schema", "shop")[1].splitlines()]
    assert [line["id"] for line in lines] == [1, 2]
    assert [json.loads(run("list", "--json", "--after", "1", "--limit", "1")[1])["id"]] == [2]

    code, printed, _ = run("show", "1")
    assert code == 0
    assert "ValueError: no\nand more\n" in printed
    assert "at line 1\\x1b[2J" in printed
    assert '{"n":1.5}' in printed
    assert "\x1b" not in printed
    assert '"data":{"n": 1.50}' in run("show", "1", "--json")[1]
    assert json.loads(run("show", "3", "--json")[1])["event"] is None
    assert "The event could not be stored" in run("show", "3")[1]


@pytest.mark.usefixtures("letters")
def test_a_retry_of_no_dead_letter_says_so(run: Callable[..., Command]) -> None:
    assert run("retry", "--consumer", "nobody")[:2] == (0, "No letter is due now: none of these is dead.\n")


@pytest.mark.usefixtures("letters")
def test_letters_are_retried(dsn: str, run: Callable[..., Command]) -> None:
    code, printed, _ = run("retry", "1", "2")
    assert (code, printed) == (
        0,
        (
            "1 dead letter is due now: the worker that has the consumer tries again.\n"
            "Letter 2 was parked already, and waits for a dead letter of its document.\n"
        ),
    )
    with pgdoc.Store(dsn) as store:
        assert [letter.state for letter in store.dead_letters()] == ["due", "due", "dead"]
    assert json.loads(run("retry", "--all", "--schema", "shop", "--json")[1]) == {"due": 0}
    assert json.loads(run("retry", "--handler", "notify", "--json")[1]) == {"due": 1}


@pytest.mark.usefixtures("letters")
def test_letters_are_dropped_when_the_user_agrees(
    dsn: str, run: Callable[..., Command], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, True])

    def confirm(question: str, *, abort: bool) -> None:
        assert abort
        assert question == "Drop it, so that the handler never processes the event?"
        if not next(answers):
            raise SystemExit(1)

    monkeypatch.setattr("pgdoc.cli.dead_letters.typer.confirm", confirm)
    assert run("drop", "--consumer", "gone")[0] == 1
    code, printed, _ = run("drop", "3")
    assert code == 0
    assert printed.endswith("old\nDropped 1 letter.\n")
    assert run("drop", "--all", "--json")[0] == 2
    assert json.loads(run("drop", "--all", "--schema", "other", "--yes", "--json")[1]) == {"dropped": 0}
    assert run("drop", "--all", "--yes")[1] == "Dropped 2 letters.\n"
    with pgdoc.Store(dsn) as store:
        assert store.dead_letters() == []


@pytest.mark.usefixtures("letters")
def test_letters_that_are_not_there_or_not_named_are_errors(dsn: str, run: Callable[..., Command]) -> None:
    for command in (("show", "7"), ("retry", "1", "7"), ("drop", "1", "7", "--yes")):
        assert run(*command)[::2] == (1, "pgdoc: there is no dead letter 7: `pgdoc dead-letters` lists them\n")
    for beyond in ("0", str(1 << 63)):  # no letter can have these ids
        complaint = f"pgdoc: there is no dead letter {beyond}: `pgdoc dead-letters` lists them\n"
        assert run("show", beyond)[::2] == (1, complaint)
    code, _, complaint = run("retry", "3", "--schema", "shop")
    assert (code, "no dead letter 3 of a consumer in schema shop" in complaint) == (1, True)
    for choice in ("retry", "retry 1 --all", "drop --all --handler notify --yes"):
        assert run(*choice.split())[0] == 2
    assert run("list", "--state", "alive")[::2] == (
        1,
        "pgdoc: state must be one of dead, parked, due, got 'alive'\n",
    )
    with pgdoc.Store(dsn) as store:
        assert [letter.state for letter in store.dead_letters()] == ["dead", "parked", "dead"]
