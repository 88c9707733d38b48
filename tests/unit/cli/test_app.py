from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pytest

import pgdoc
from pgdoc.cli.app import run
from pgdoc.errors import CatalogMissing

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Answer:
    oldest_available: str | None
    bookmarks: list[str]


class FakeStore:
    """Stands where a store would open a socket."""

    opened: list[str]
    fails: Exception | None
    events: list[Any]

    def __init__(self, conninfo: str = "") -> None:
        self.opened.append(conninfo)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    def collections(self) -> list[str]:
        if self.fails is not None:
            raise self.fails
        return ["a", "b"]

    def history(self) -> Answer:
        return Answer(None, ["[red]1/2", "3/4"])

    @contextmanager
    def watch(
        self, *names: str, where: Any, snapshot: bool, resume_after: str | None, consumer: str | None, wait: bool
    ) -> Iterator[list[Any]]:
        assert not wait  # who types a command wants to know that another has the consumer
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
    monkeypatch.delenv("PGDOC_DSN", raising=False)
    return FakeStore


def test_collections_are_listed_one_a_line(store, capsys):
    assert run(["collections"]) == 0
    assert capsys.readouterr().out == "a\nb\n"


def test_the_database_comes_from_the_option_then_the_environment_then_libpq(store, monkeypatch):
    run(["collections"])
    monkeypatch.setenv("PGDOC_DSN", "host=environment")
    run(["collections"])
    run(["collections", "--dsn", "host=option"])
    assert store.opened == ["", "host=environment", "host=option"]


def test_an_error_is_one_line_and_exit_code_1(store, capsys):
    store.fails = CatalogMissing("no catalog:\n  run `pgdoc init`")
    assert run(["collections"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "pgdoc: no catalog: run `pgdoc init`\n")


def test_ctrl_c_is_quiet_and_exit_code_130(store, capsys):
    store.fails = KeyboardInterrupt()
    assert run(["collections"]) == 130
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["watch", "--no-such-option"], ["watch", "--where", "{"], ["up", "--port", "x"]]
)
def test_what_is_not_understood_is_exit_code_2(store, arguments, capsys):
    assert run(arguments) == 2
    assert store.opened == []
    assert "Usage: pgdoc" in capsys.readouterr().err


def test_an_answer_is_printed_field_by_field_and_markup_in_it_is_text(store, capsys):
    assert run(["history"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["oldest", "available", "none"], ["bookmarks", "[red]1/2"], ["3/4"]]


def test_watch_with_json_gives_a_line_for_each_event(store, capfdbinary):
    class Event:
        def to_json(self) -> bytes:
            return b'{"n": 1}'

    store.events = [Event(), Event()]
    assert run(["watch", "--json", "orders", "--from", "16/B374D848"]) == 0
    assert store.opened == ["", "('orders',) after 16/B374D848"]
    assert capfdbinary.readouterr().out == b'{"n": 1}\n{"n": 1}\n'


def test_watch_takes_a_filter(store):
    assert run(["watch", "--where", '{"event_type": "insert"}']) == 0
    assert store.opened == ["", "() after None", {"event_type": "insert"}]


def test_watch_begins_with_what_exists(store):
    assert run(["watch", "orders", "--snapshot"]) == 0
    assert store.opened == ["", "('orders',) after None", "snapshot"]


def test_without_its_extra_the_command_says_how_to_install_it():
    script = "import sys; sys.modules['typer'] = None; from pgdoc.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == "pgdoc: the command line needs 'typer': pip install 'pgdoc[cli]'\n"


def test_python_m_pgdoc_is_the_command():
    ended = subprocess.run([sys.executable, "-m", "pgdoc", "--help"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "watch" in ended.stdout
