from __future__ import annotations

import re
import subprocess
import sys
import types
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import pytest
from typer.main import get_command

import pgdoc
from pgdoc import ConsumerStatus, ResumeToken
from pgdoc.cli import main
from pgdoc.cli.app import app, run_cli
from pgdoc.crud.guard import missing
from pgdoc.errors import (
    CatalogMissing,
    CollectionNotFound,
    ConsumerBusy,
    DatabaseError,
    HistoryLost,
    ServerUnreachable,
)
from pgdoc.model.positions import Position

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Answer:
    oldest_available: str | None
    bookmarks: list[str]


def opened(command: str, dsn: str = "", schema: str = "docs", *, creates: bool = True) -> str:
    """The store that a command opens."""
    return f"{dsn}{' ' if dsn else ''}application_name='pgdoc {command}' {schema}{' creates' if creates else ''}"


class MissingCollection:
    """A handle on a collection of which the server has no table."""

    def __init__(self, schema: str, name: str) -> None:
        self._subject = f'collection "{schema}.{name}"'

    def get(self, _id: str) -> None:
        raise missing(self._subject)

    def find(self, _where: Any) -> Any:
        self.get("")


class FakeStore:
    """Stands where a store would open a socket."""

    opened: list[Any]
    fails: Exception | None
    events: list[Any]
    has_schema: bool

    def __init__(self, conninfo: str, *, schema: str, auto_create: bool, **_others: Any) -> None:
        self.schema, self._connections = schema, mock.Mock()
        self.opened.append(f"{conninfo} {schema}{' creates' if auto_create else ''}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def __getitem__(self, name: str) -> MissingCollection:
        return MissingCollection(self.schema, name)

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A transaction that finds the schema."""
        connection = mock.Mock()
        connection.execute.return_value.fetchone.return_value = (self.has_schema,)
        tx = mock.MagicMock(connection=connection)
        tx.__getitem__.side_effect = self.__getitem__
        yield tx

    def collections(self) -> list[str]:
        if self.fails is not None:
            raise self.fails
        return ["a", "b"]

    def consumers(self) -> list[ConsumerStatus]:
        token = ResumeToken(Position(1), 1, 1)
        return [
            ConsumerStatus(name, schema, None, token, 0, timedelta(0), 0, "reserved", datetime(2026, 5, 1, tzinfo=UTC))
            for name, schema in (("c", "docs"), ("d", "shop"))
        ]

    def drop_consumer(self, name: str) -> bool:
        self.opened.append(f"drop {name}")
        return True

    def history(self) -> Answer:
        return Answer(None, ["[red]1/2", "3/4"])

    @contextmanager
    def watch(
        self,
        *names: str,
        tables: bool = False,  # noqa: ARG002 (the contract)
        topics: list[str] | None = None,  # noqa: ARG002 (the contract)
        where: Any = None,
        snapshot: bool = False,
        resume_after: str | None = None,
        consumer: str | None = None,
        wait: bool = True,
    ) -> Iterator[list[Any]]:
        assert not (consumer and wait)  # who types a command wants to know that another has the consumer
        self.opened.append(f"{names} after {resume_after}{f' as {consumer}' if consumer else ''}")
        self.opened += [where] if where else []
        self.opened += ["snapshot"] if snapshot else []
        yield self.events


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(pgdoc, "Store", FakeStore, raising=False)
    monkeypatch.setattr(FakeStore, "opened", [], raising=False)
    monkeypatch.setattr(FakeStore, "fails", None, raising=False)
    monkeypatch.setattr(FakeStore, "events", [], raising=False)
    monkeypatch.setattr(FakeStore, "has_schema", True, raising=False)
    monkeypatch.delenv("PGDOC_DSN", raising=False)
    return FakeStore


def test_collections_are_listed_one_a_line(store, capsys):
    assert run_cli(["collections"]) == 0
    assert capsys.readouterr().out == "a\nb\n"


def test_the_database_comes_from_the_option_then_the_environment_then_libpq(store, monkeypatch):
    run_cli(["collections"])
    monkeypatch.setenv("PGDOC_DSN", "host=environment")
    run_cli(["collections"])
    run_cli(["collections", "--dsn", "host=option"])
    assert store.opened == [opened("collections", dsn) for dsn in ("", "host=environment", "host=option")]


@pytest.mark.parametrize("error", [ServerUnreachable("no server"), DatabaseError('role "x" does not exist')])
def test_the_error_names_pgdoc_dsn_if_no_dsn_is_given_and_the_default_does_not_work(store, error, monkeypatch, capsys):
    store.fails = error
    assert run_cli(["collections"]) == 1
    assert capsys.readouterr().err.startswith(f"pgdoc: {error}. Neither --dsn nor PGDOC_DSN is set, so pgdoc used ")
    assert run_cli(["collections", "--dsn", "host=x"]) == 1
    assert capsys.readouterr().err == f"pgdoc: {error}\n"
    monkeypatch.setenv("PGDOC_DSN", "host=x")
    assert run_cli(["collections"]) == 1
    assert capsys.readouterr().err == f"pgdoc: {error}\n"


def test_the_error_of_a_statement_does_not_name_pgdoc_dsn(store, capsys):
    store.fails = DatabaseError("permission denied", sqlstate="42501")
    assert run_cli(["collections"]) == 1
    assert capsys.readouterr().err == "pgdoc: permission denied\n"


@pytest.mark.parametrize("schema", ["pgdoc", "pg_catalog", "information_schema"])
def test_nothing_is_granted_on_a_schema_of_pgdoc_or_the_server(schema, capsys):
    assert run_cli(["grant", "app", "--as", "writer", "--schema", schema, "--dsn", "host=nowhere.invalid"]) == 1
    assert capsys.readouterr().err.startswith(f'pgdoc: schema "{schema}" has no collections: ')


def test_a_dsn_that_libpq_does_not_parse_is_an_error_of_one_line(capsys):
    assert run_cli(["collections", "--dsn", "nonsense"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("pgdoc: ")
    assert "a word has no =" in error
    assert "nonsense" not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["collections"], ["history"], ["watch"], ["watch", "a", "--json"], ["consumers"], ["consumers", "list"]],
)
def test_commands_take_a_schema(store, arguments):
    assert run_cli([*arguments, "--schema", "shop"]) == 0
    expected = "docs" if arguments[0] == "consumers" else "shop"  # consumers are listed for all schemas, then selected
    assert store.opened[0] == opened(arguments[0], schema=expected, creates=arguments[0] != "watch")


def test_every_command_has_the_option_schema():
    def options(command: Any) -> Iterator[str]:
        for name, each in getattr(command, "commands", {"": command}).items():
            known = {option for parameter in each.params for option in parameter.opts}
            yield from () if "--schema" in known else [name]
            yield from options(each) if hasattr(each, "commands") else ()

    # The store of a worker names its schema and its database.
    assert list(options(get_command(app))) == ["worker"]


def test_consumers_are_those_of_the_schema_if_one_is_given(store, capsys):
    assert run_cli(["consumers"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]] == [["c", "docs"], ["d", "shop"]]
    assert run_cli(["consumers", "--schema", "shop", "list"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]] == [["d", "shop"]]
    assert run_cli(["consumers", "drop", "c", "--schema", "shop"]) == 1
    assert capsys.readouterr().err == "pgdoc: there is no consumer c in schema shop: `pgdoc consumers` lists them\n"
    assert run_cli(["consumers", "drop", "d", "--schema", "shop"]) == 0
    assert store.opened[-1] == "drop d"


def test_an_error_is_one_line_and_exit_code_1(store, capsys):
    store.fails = CatalogMissing("no catalog:\n  run `pgdoc init`")
    assert run_cli(["collections"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "pgdoc: no catalog: run `pgdoc init`\n")


def test_ctrl_c_is_quiet_and_exit_code_130(store, capsys):
    store.fails = KeyboardInterrupt()
    assert run_cli(["collections"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["watch", "--no-such-option"], ["watch", "--where", "{"], ["up", "--port", "x"]]
)
def test_invalid_arguments_are_exit_code_2(store, arguments, capsys):
    assert run_cli(arguments) == 2
    assert store.opened == []
    assert "Usage: pgdoc" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["watch", "--where", "5"], '\'5\' is not a JSON object: use a filter such as {"status": "new"}'),
        (["dump", "a", "--where", "5"], "'5' is not a JSON object"),
        (["watch", "--where", "{"], "'{' is not valid JSON"),
        (["demo", "--plugin", "x"], "'x' is not one of auto, wal2json, pgoutput"),
    ],
)
def test_the_error_of_an_invalid_value_names_the_option_and_what_is_valid(store, capsys, arguments, message):
    assert run_cli(arguments) == 2
    assert f"Error: Invalid value for '{arguments[-2]}': {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["watch"],
        ["watch", "--from-relay", "redis://host/ORDERS"],
        ["consumers", "create", "mailer"],
        ["relay", "--consumer", "mailer", "--to", "redis://host/ORDERS"],
    ],
)
def test_names_beside_what_stands_for_all_collections_are_refused(store, capsys, arguments):
    assert run_cli([*arguments, "*", "orders"]) == 2
    assert "Invalid value for 'COLLECTION': * stands for all collections" in capsys.readouterr().err
    assert run_cli([*arguments, "--tables", "orders"]) == 2
    assert "Invalid value for '--tables': it stands for all collections and tables" in capsys.readouterr().err
    assert store.opened == []


def test_help_shows_no_python_types(capsys):
    for command in ("watch", "load", "dump", "demo", "up"):
        assert run_cli([command, "--help"]) == 0
        shown = capsys.readouterr().out
        assert not re.search("<[a-zA-Z]", shown)
        assert "list[" not in shown


def test_an_answer_is_printed_field_by_field_and_markup_in_it_is_text(store, capsys):
    assert run_cli(["history"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["oldest", "available", "none"], ["bookmarks", "[red]1/2"], ["3/4"]]


def test_watch_with_json_gives_a_line_for_each_event(store, capfdbinary):
    class Event:
        def to_json(self) -> bytes:
            return b'{"n": 1}'

    store.events = [Event(), Event()]
    assert run_cli(["watch", "--json", "orders", "--from", "16/B374D848"]) == 0
    assert store.opened == [opened("watch", creates=False), "('orders',) after 16/B374D848"]
    assert capfdbinary.readouterr().out == b'{"n": 1}\n{"n": 1}\n'


def test_watch_takes_a_filter(store):
    assert run_cli(["watch", "--where", '{"event_type": "insert"}']) == 0
    assert store.opened == [opened("watch", creates=False), "() after None", {"event_type": "insert"}]


def test_watch_begins_with_what_exists(store):
    assert run_cli(["watch", "orders", "--snapshot"]) == 0
    assert store.opened == [opened("watch", creates=False), "('orders',) after None", "snapshot"]


def test_watch_creates_collections_only_if_it_is_told_to(store):
    assert run_cli(["watch", "orders", "--create"]) == 0
    tried, *watched = store.opened[1:]
    assert store.opened[0] == opened("watch")
    assert tried == "() after None"  # a stream, so that a server without streams gets no collection
    assert watched == ["('orders',) after None"]


@pytest.mark.parametrize("arguments", [["watch", "a"], ["watch"], ["dump", "a"]])
def test_a_schema_that_does_not_exist_is_an_error(store, monkeypatch, capsys, arguments):
    monkeypatch.setattr(FakeStore, "has_schema", False)
    assert run_cli([*arguments, "--schema", "nosuch"]) == 1
    advice = ", or pass --create" if arguments[0] == "watch" else ""
    assert capsys.readouterr().err == f'pgdoc: schema "nosuch" does not exist: check the name{advice}\n'
    assert run_cli(["watch", "--schema", "nosuch", "--create"]) == 0


def test_collections_notes_on_stderr_that_the_schema_does_not_exist(store, monkeypatch, capsys):
    monkeypatch.setattr(FakeStore, "has_schema", False)
    assert run_cli(["collections", "--schema", "nosuch"]) == 0
    assert capsys.readouterr() == ("a\nb\n", 'pgdoc: schema "nosuch" does not exist: check the name\n')


def test_watch_creates_a_consumer_only_if_it_is_told_to(store, capsys):
    assert run_cli(["watch", "--consumer", "x"]) == 1
    assert capsys.readouterr().err == (
        'pgdoc: consumer "x" does not exist: check the name (`pgdoc consumers` lists them), or pass --create\n'
    )
    assert store.opened == [opened("watch", creates=False)]
    assert run_cli(["watch", "--consumer", "x", "--create"]) == 0
    assert store.opened[-1] == "() after None as x"
    assert run_cli(["watch", "--consumer", "c"]) == 0
    assert store.opened[-1] == "() after None as c"


def test_a_busy_consumer_is_reported_with_advice_for_a_terminal(store, monkeypatch, capsys):
    def watch(*_names: str, **_options: Any) -> None:
        raise ConsumerBusy("open it with wait=True", owner_pid=7)

    monkeypatch.setattr(FakeStore, "watch", watch)
    assert run_cli(["watch", "--consumer", "c"]) == 1
    assert capsys.readouterr().err == (
        'pgdoc: consumer "c" is open elsewhere (its session has pid 7): end the program that has it open, '
        "or use another consumer\n"
    )


@pytest.mark.parametrize(("oldest", "found"), [(None, "no history is kept"), ("0/5", "the oldest position that is ke")])
def test_a_position_that_is_no_longer_kept_is_reported_with_advice_for_a_terminal(
    store, monkeypatch, capsys, oldest, found
):
    def watch(*_names: str, **_options: Any) -> None:
        raise HistoryLost("keep more with set_history()", oldest_available=oldest)

    monkeypatch.setattr(FakeStore, "watch", watch)
    assert run_cli(["watch", "--from", "0/1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"pgdoc: a stream can't resume at 0/1: {found}")
    assert "`pgdoc history` shows" in error
    assert "set_history" not in error


def test_watch_of_a_collection_that_does_not_exist_says_what_to_do(store, monkeypatch, capsys):
    def watch(*_names: str, **_options: Any) -> None:
        raise CollectionNotFound("it does not exist")

    monkeypatch.setattr(FakeStore, "watch", watch)
    assert run_cli(["watch", "a", "ghost", "--schema", "shop"]) == 1
    assert capsys.readouterr().err == (
        'pgdoc: collection "shop.ghost" does not exist: check the name (`pgdoc collections --schema shop` lists all), '
        "or pass --create to create it\n"
    )
    assert run_cli(["watch", "a"]) == 1
    assert capsys.readouterr().err == "pgdoc: it does not exist\n"


def test_a_stream_that_resumes_reports_which_collections_do_not_exist(store, capsys):
    assert run_cli(["watch", "a", "ghost", "--from", "16/B374D848"]) == 0
    watching, note = capsys.readouterr().err.splitlines()
    assert watching == "watching a, ghost; Ctrl-C stops"
    assert note.startswith('pgdoc: collection "docs.ghost" does not exist, and a stream that resumes does not create')


def test_without_its_extra_the_command_says_how_to_install_it():
    script = "import sys; sys.modules['typer'] = None; from pgdoc.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "pgdoc: the command line needs typer: run pip install typer rich\n"


def test_an_interrupt_while_the_commands_are_imported_prints_no_traceback(monkeypatch, capsys):
    class Interrupted(types.ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "pgdoc.cli.app", Interrupted("pgdoc.cli.app"))
    with pytest.raises(SystemExit) as end:
        main()
    assert (end.value.code, capsys.readouterr().err) == (130, "")


def test_python_m_pgdoc_is_the_command():
    ended = subprocess.run([sys.executable, "-m", "pgdoc", "--help"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "watch" in ended.stdout


def test_an_error_sends_no_control_characters_to_the_terminal(monkeypatch, capsys):
    def fail(*_args, **_options):
        raise pgdoc.PgdocError("table \x1b]0;gone\x07 is odd")

    monkeypatch.setattr("pgdoc.cli.app.app", fail)
    assert run_cli([]) == 1
    assert capsys.readouterr().err == "pgdoc: table \\x1b]0;gone\\x07 is odd\n"
