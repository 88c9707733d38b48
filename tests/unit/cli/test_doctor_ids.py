"""Each kind of finding of `pgdoc doctor` is provoked by a test, and described by the reference."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "doctor.md"
BAD = {"warn", "wrong", "unseen", "verdict"}
"""What makes a finding that is not `ok`; `verdict` is a variable with one of them."""


def calls(path: Path, names: set[str], position: int) -> Iterator[str]:
    """Yield the literal argument at a position of each call of these functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            argument = node.args[position]
            if isinstance(argument, ast.Constant):
                yield str(argument.value)


def made(names: set[str]) -> set[str]:
    return {
        found for path in (ROOT / "pgdoc" / "cli" / "doctor").glob("*.py") for found in calls(path, names, position=0)
    }


def test_every_id_is_written_out_where_a_finding_is_made():
    for path in (ROOT / "pgdoc" / "cli" / "doctor").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BAD | {"good"}:
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"


def test_every_finding_is_provoked_by_a_test():
    provoked: set[str] = set()
    for path in (ROOT / "tests").rglob("test_doctor*.py"):
        provoked |= set(calls(path, {"finding", "findings"}, position=1))
        provoked |= set(calls(path, {"mends", "mends_failover"}, position=2))
    looped = {"documents-unseen", "consumers-unseen", "role-sees-little", "transactions-unseen", "wal-size"}
    looped |= {"dead-letters-unseen"}
    looped |= {"short-timeout", "role-read-only", "role-exit-on-error", "slot-lost", "other-slot-lost"}
    text = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_doctor*.py") if path != Path(__file__))
    assert all(f'("{each}", ' in text for each in looped)
    assert made(BAD) - provoked - looped == set()


def test_the_reference_has_every_finding():
    tables = re.findall(r"^\| id \| meaning \| what mends it \|\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    described = re.findall(r"^\| `([a-z0-9-]+)` \|", "".join(tables), re.MULTILINE)
    assert len(described) == len(set(described))
    assert set(described) == made(BAD)
