"""Every code block of the documentation runs, or `NOT_RUN` says why it can't.

The Python and SQL blocks of a page run in order, in one namespace and one database. A comment below a `print` says
what it prints; `...` in it stands for anything. Commands of a terminal are checked, not run: they start servers or
install packages.
"""

from __future__ import annotations

import contextlib
import doctest
import json
import logging
import re
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.main import get_command

from pgdoc.cli.app import app
from tests.docs.pages import NOT_RUN, PAGES, ROOT, Block, blocks, expected_output
from tests.docs.project import PROJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

LANGUAGES = {"python", "sql", "console", "javascript", "json", "text"}
PAGE_TIMEOUT_S = 120
PROGRAMS = {
    "cat",
    "celery",
    "curl",
    "echo",
    "export",
    "jq",
    "pg_ctl",
    "pg_dump",
    "pg_restore",
    "pg_upgrade",
    "pgbench",
    "procrastinate",
    "psql",
    "redis-server",
    "sudo",
    "uvicorn",
    "vacuumdb",
    "zcat",
}
"""Of other projects: there is nothing to check."""

ENGINES = {
    "docs/how-to/process-changes-reliably.md": ("NATS_URL", "nats_url"),
    "docs/how-to/relay-to-kafka.md": ("KAFKA_SERVERS", "kafka_servers"),
    "docs/how-to/relay-to-redis.md": ("REDIS_URL", "redis_url"),
    "docs/how-to/read-a-log.md": ("NATS_URL", "nats_url"),
}
"""Pages that need a server besides PostgreSQL: the variable with its address, and the fixture."""


def runnable(page: str, *languages: str) -> list[Block]:
    return [block for block in blocks(page) if block.language in languages and block.key not in NOT_RUN]


PAGES_WITH_CODE = [page for page in PAGES if runnable(page, "python", "sql") and page not in PROJECTS]


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_is_a_block_of_a_known_language(page: str) -> None:
    assert len(blocks(page)) * 2 == len(re.findall(r"^ *```", (ROOT / page).read_text(), re.MULTILINE))
    for block in blocks(page):
        assert block.language in LANGUAGES or block.key in NOT_RUN, f"{page}:{block.line}"


def test_every_exception_is_of_a_block_and_has_a_reason() -> None:
    keys = [block.key for page in PAGES for block in blocks(page)]
    assert [key for key in NOT_RUN if key not in keys] == []
    assert all(NOT_RUN.values())


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.md"])
def test_the_first_pages_are_run_as_a_whole(page: str) -> None:
    assert len(runnable(page, "python")) >= 4
    assert all(block.key not in NOT_RUN for block in blocks(page))


@pytest.fixture
def levels_as_before() -> Iterator[None]:
    """Undo what a page on log messages sets."""
    loggers = [logging.getLogger(name) for name in (None, "pgdoc", *logging.root.manager.loggerDict)]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.usefixtures("levels_as_before")
@pytest.mark.parametrize("page", PAGES_WITH_CODE)
def test_the_blocks_do_what_they_say(
    page: str,
    dsn: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PGDOC_DSN", dsn)
    if page in ENGINES:
        variable, fixture = ENGINES[page]
        monkeypatch.setenv(variable, request.getfixturevalue(fixture))
    namespace: dict[str, Any] = {"__name__": "page"}
    with time_limit(page):
        for block in runnable(page, "python", "sql"):
            if block.language == "python":
                code = compile("\n" * (block.line - 1) + block.code, page, "exec", dont_inherit=True)
                exec(code, namespace)  # noqa: S102 (that is the test)
                check_output(block, capsys.readouterr().out)
            else:
                run_sql(block, dsn)


@contextlib.contextmanager
def time_limit(page: str) -> Iterator[None]:
    def give_up(*_args: object) -> None:
        raise TimeoutError(f"a block of {page} runs for over {PAGE_TIMEOUT_S} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PAGE_TIMEOUT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_output(block: Block, got: str) -> None:
    want = expected_output(block.code)
    is_expected = doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS)
    assert is_expected, f"{block.page}:{block.line} prints\n{got}instead of\n{want}"


def run_sql(block: Block, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(block.code.encode()).rowcount
    assert rows == 1 or not block.code.startswith("UPDATE"), f"{block.page}:{block.line}"


@pytest.mark.parametrize("page", PAGES)
def test_data_is_well_formed(page: str) -> None:
    for block in runnable(page, "json"):
        json.loads(block.code)


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_the_commands_exist(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # for the files that a command reads
    for block in runnable(page, "console"):
        for line in block.code.replace("\\\n", " ").splitlines():
            assert line.startswith("$ "), f"{page}:{block.line}: {line}"
            for command in re.split(r" [|>] ", line[2:]):
                check_command(shlex.split(command, comments=True))


def check_command(words: list[str]) -> None:
    """Check the names, options and files in a command."""
    while re.fullmatch(r"\w+=.*", words[0]):  # variables of the environment
        words = words[1:]
    program, arguments = words[0].removeprefix(".venv/bin/"), words[1:]
    if program == "pgdoc":
        check_pgdoc(arguments)
    elif program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), words
    elif program == "pip":
        check_extras(arguments)
    elif program == "docker":
        assert (ROOT / arguments[arguments.index("-f") + 1]).exists()
    elif program in {"python", "python3"}:
        scripts = [argument for argument in arguments if "/" in argument and argument.endswith(".py")]
        assert all((ROOT / script).exists() for script in scripts), words
    else:
        assert program in PROGRAMS or "." in program, f"{program}: is it in PROGRAMS?"


def check_pgdoc(arguments: list[str]) -> None:
    if arguments[0].startswith("--"):
        return
    for argument in arguments:
        if argument.endswith("json"):
            Path(argument).touch()
    command = getattr(get_command(app), "commands")[arguments[0]]  # noqa: B009 (typer's class is its own)
    with command.make_context(arguments[0], arguments[1:], resilient_parsing=False):
        pass  # closes the files that it opened


def check_extras(arguments: list[str]) -> None:
    """Check that pip installs this clone, not a package that is not on PyPI yet, and that its extras exist."""
    assert arguments[0] == "install"
    targets = [argument for argument in arguments if argument.startswith(".") or "pgdoc" in argument or "/" in argument]
    for target in targets:
        assert target.startswith((".", "/")), f"{target}: pgdoc is not on PyPI"
        extras = set(re.findall(r"[\w-]+", target.partition("[")[2]))
        assert extras <= set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
