"""The page on log messages has every call of a logger in the sources, and no other."""

from __future__ import annotations

import re

import pytest

from tests.log_calls import ROOT, VALUE, LogCall, calls_of, log_calls

PAGE = (ROOT / "docs" / "reference" / "logs.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| `([^`]+)` \| [^|]* \| [^|]+ \|$", re.MULTILINE)


def documented() -> list[LogCall]:
    _, *sections = re.split(r"^## (pgdoc\.\w+)\n", PAGE, flags=re.MULTILINE)
    return [
        LogCall(logger, *row)
        for logger, text in zip(sections[::2], sections[1::2], strict=True)
        for row in ROW.findall(text)
    ]


def test_the_page_has_every_message_of_the_sources() -> None:
    missing = log_calls() - set(documented())
    assert not missing, "add a row to docs/reference/logs.md for each"


def test_the_page_has_no_message_that_nothing_logs() -> None:
    assert set(documented()) - log_calls() == set()


def test_no_row_stands_twice() -> None:
    assert len(documented()) == len(set(documented())) > 40


def test_every_row_of_the_tables_was_read() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 5]
    assert len(rows) == len(documented())


SOURCE = """
import logging
logger = logging.getLogger("pgdoc.x")
other = logging.getLogger("pgdoc.y")
def f(a):
    level = logging.DEBUG if a else logging.WARNING
    logger.log(level, "so %s")
    logger.exception("bad"
        " thing")
    other.info("n is %d", a)
    a.info("no logger")
    raise internal_error(f"{a} failed", None, logger)
"""


def test_the_scanner_finds_each_kind_of_call() -> None:
    assert set(calls_of(SOURCE)) == {
        LogCall("pgdoc.x", "warning", f"so {VALUE}"),
        LogCall("pgdoc.x", "error", "bad thing"),
        LogCall("pgdoc.y", "info", f"n is {VALUE}"),
        LogCall("pgdoc.x", "error", f"{VALUE} failed"),
    }


def test_a_message_that_is_no_literal_is_refused() -> None:
    source = 'import logging\nlogger = logging.getLogger("pgdoc.x")\nlogger.info(text)\n'
    with pytest.raises(AssertionError, match="must be a literal"):
        list(calls_of(source))
