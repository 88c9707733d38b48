"""The laws of ARCHITECTURE that can be read off the import statements."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[2] / "pgdoc"

# Where each module, or package, of pgdoc lives.
ROOMS = {
    "ground": {"errors", "tokens", "names", "conninfo", "refusal", "shown", "_fork"},
    "documents": {"documents"},
    "decoding": {"decoding"},
    "changes": {"changes"},
    "query": {"query"},
    "events": {"events", "where"},
    "replication": {"replication"},
    "hub": {"_bell", "hub", "catchup", "history", "mailbox", "streams", "feed", "consumer", "ownership", "takeover"},
    "sql": {"sql"},
    "database": {"statements", "reading", "translate", "catalog", "context", "_copy", "_waiting", "recent"},
    "migration": {"migrate"},
    "writes": {"verdicts", "bulk", "search"},
    "facade": {"_async", "_sync"},
    "face": {"__init__"},
    "server": {"server", "installation"},
    "command line": {"cli", "__main__"},
}

# What the modules of a room may import, besides their own room and the ground.
ARROWS = {
    "ground": set(),
    "documents": set(),
    "decoding": set(),
    "changes": {"decoding"},
    "query": {"documents"},
    "events": {"documents", "decoding", "changes", "query"},
    "replication": {"decoding", "changes", "sql"},
    "hub": {"documents", "decoding", "changes", "events", "replication", "sql", "database"},
    "sql": set(),
    "database": {"documents", "sql"},
    "migration": {"sql", "database", "replication"},
    "writes": {"documents", "query", "database"},
    "facade": {
        "documents",
        "query",
        "changes",
        "events",
        "replication",
        "hub",
        "sql",
        "database",
        "migration",
        "writes",
    },
    "face": {"documents", "changes", "events", "hub", "database", "migration", "writes", "facade"},
    "server": set(),
    "command line": {"documents", "changes", "events", "face", "server", "migration", "sql", "database"},
}

PURE = ("decoding", "changes", "query")
IMPURE = {
    "asyncio",
    "concurrent",
    "logging",
    "multiprocessing",
    "os",
    "queue",
    "random",
    "secrets",
    "select",
    "selectors",
}
IMPURE |= {"psycopg", "psycopg_pool", "socket", "ssl", "subprocess", "threading", "time", "uuid"}

# Heavy libraries, and the only room that may import each.
HEAVY = {"alembic": "migration", "sqlalchemy": "migration", "typer": "command line", "rich": "command line"}


@functools.cache
def room_of(module: str) -> str:
    """Name the room of `changes.diff`, or of `errors`."""
    return next((room for room, modules in ROOMS.items() if module.partition(".")[0] in modules), "nowhere")


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> Iterator[str]:
    """Name every module that a file imports, anywhere in it; also what only the type checker sees."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield from _imported_from(node)


def _imported_from(node: ast.ImportFrom) -> Iterator[str]:
    """`from pgdoc import errors` imports a module, `from pgdoc import Store` the face."""
    base = node.module or ""
    for alias in node.names:
        below = PACKAGE.parent.joinpath(*base.split("."), alias.name)
        yield f"{base}.{alias.name}" if below.is_dir() or below.with_suffix(".py").exists() else base


def own_imports(path: Path) -> Iterator[str]:
    for name in imports(path):
        package, _, module = name.partition(".")
        if package == "pgdoc":
            yield module or "__init__"


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_arrows_between_rooms(path):
    room = room_of(module_of(path))
    assert room != "nowhere", f"say in ROOMS where {module_of(path)} lives"
    allowed = ARROWS[room] | {room, "ground"}
    strange = {module for module in own_imports(path) if room_of(module) not in allowed}
    assert not strange, f"the room {room!r} may not import {sorted(strange)}"


def test_arrows_make_no_circle():
    TopologicalSorter(ARROWS).prepare()


@pytest.mark.parametrize("path", [path for path in sources() if room_of(module_of(path)) in PURE], ids=module_of)
def test_pure_rooms_stay_pure(path):
    assert not {name for name in imports(path) if name.partition(".")[0] in IMPURE}


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_heavy_libraries_stay_in_their_room(path):
    strange = {
        name for name in imports(path) if HEAVY.get(name.partition(".")[0], "") not in {"", room_of(module_of(path))}
    }
    assert not strange


def test_importing_pgdoc_is_light():
    """What is imported when it is used, and not before."""
    code = "import sys, pgdoc; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "psycopg" in loaded
    late = {*HEAVY, "click", "testcontainers", "pgdoc.cli", "pgdoc.server"}
    assert late.isdisjoint(loaded)


def test_the_test_sees_what_it_looks_for(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("import time as t\nfrom pgdoc import errors, Store\ndef f():\n    from pgdoc.changes import diff\n")
    assert set(imports(file)) == {"time", "pgdoc.errors", "pgdoc", "pgdoc.changes.diff"}
    assert set(own_imports(file)) == {"errors", "__init__", "changes.diff"}
