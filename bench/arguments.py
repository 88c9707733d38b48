"""The command lines of the benchmarks that run by themselves."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Item = TypeVar("Item")


def parser_of(docstring: str | None) -> argparse.ArgumentParser:
    """Return a parser for the benchmark that `python -m bench` has put into `sys.argv`."""
    return argparse.ArgumentParser(
        prog=f"python -m bench {Path(sys.argv[0]).stem}",
        description=docstring,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def selected(docstring: str | None, items: Iterable[Item], name_of: Callable[[Item], str]) -> list[Item]:
    """Return the items whose name has the words of the command line; all if there are none."""
    parser, known = parser_of(docstring), list(items)
    parser.add_argument("words", nargs="*", help="run only what has these words in its name")
    words = " ".join(parser.parse_args().words)
    found = [item for item in known if words in name_of(item)]
    if not found:
        parser.error(f"{words!r} is in no name: {', '.join(map(name_of, known))}")
    return found


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    return _at_least(1, text)


def not_negative(text: str) -> int:
    """Parse an integer of at least 0."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be an integer of at least {least}, got {text!r}")
    return int(text)
