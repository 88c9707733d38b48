"""Rules of the architecture that import statements can show.

A module's layer is the folder it is in. Imports only point down, and neither layers nor modules import each other in a
circle.
"""

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

# What the modules of a layer may import, besides their own layer and `errors`.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "sql": set(),
    "runtime": set(),
    "model": set(),
    "server": set(),
    "decoding": {"model"},
    "query": {"model"},
    "changes": {"model", "decoding", "query"},
    "live": {"model", "query", "changes"},
    "database": {"model", "runtime", "sql"},
    "crud": {"model", "query", "database", "sql"},
    "replication": {"model", "runtime", "decoding", "changes", "database", "sql"},
    "streams": {"model", "runtime", "decoding", "changes", "database", "sql", "replication"},
    "consumers": {"model", "runtime", "decoding", "changes", "database", "sql", "replication", "streams"},
    "upgrades": {"model", "runtime", "decoding", "changes", "database", "sql", "replication", "consumers"},
    "workers": {"model", "runtime", "changes", "database", "sql", "streams", "consumers"},
    "relay": {"model", "runtime", "changes", "database", "sql", "streams", "consumers", "workers"},
}
ALLOWED["_async"] = ALLOWED.keys() - {"server"}
ALLOWED["_sync"] = ALLOWED["_async"] - {"_async"}
ALLOWED["__init__"] = ALLOWED["_async"] | {"_async", "_sync"}
ALLOWED["telemetry"] = {"model", "runtime", "changes", "database", "sql", "streams", "workers"}
ALLOWED["cli"] = {"__init__", "model", "changes", "database", "sql", "server", "telemetry", "upgrades"}
ALLOWED["__main__"] = {"cli"}
ALLOWED["web"] = {"model", "changes", "live", "_async"}
ALLOWED["testing"] = {"__init__", "model", "database", "server"}
ALLOWED["sqlalchemy"] = {"__init__", "database", "workers", "_async", "_sync"}

PURE = ("decoding", "changes", "query", "live")
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

# Heavy libraries, and the only layers that may import each.
HEAVY: dict[str, set[str]] = {
    "alembic": {"database"},
    "sqlalchemy": {"database", "sqlalchemy"},
    "typer": {"cli"},
    "rich": {"cli"},
    "jsonschema": {"crud"},
    "opentelemetry": {"telemetry"},
    "prometheus_client": {"telemetry"},
    "pydantic": {"model"},
    "msgspec": {"model"},
    "nats": {"relay"},
    "redis": {"relay"},
    "confluent_kafka": {"relay"},
    "httpx": {"relay"},
    "starlette": {"web"},
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """Return `changes.diff` for that file, `changes` for the package's own file, `__init__` for pgdoc's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def layer_of(module: str) -> str:
    return module.partition(".")[0]


@functools.cache  # several tests read each file
def imports(path: Path) -> tuple[str, ...]:
    """Name every module that a file imports, anywhere in it; also what only the type checker sees."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield from _imported_from(node)


def _imported_from(node: ast.ImportFrom) -> Iterator[str]:
    """Name `pgdoc.errors` for `from pgdoc import errors`, `pgdoc` for `from pgdoc import Store`."""
    base = node.module or ""
    for alias in node.names:
        below = PACKAGE.parent.joinpath(*base.split("."), alias.name)
        yield f"{base}.{alias.name}" if below.is_dir() or below.with_suffix(".py").exists() else base


def own_imports(path: Path) -> Iterator[str]:
    for name in imports(path):
        package, _, module = name.partition(".")
        if package == "pgdoc":
            yield module or "__init__"


def test_the_top_of_the_package_holds_only_folders_and_three_files():
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == {
        "__init__.py",
        "__main__.py",
        "py.typed",
    }


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_a_module_imports_only_from_the_layers_below_it(path):
    layer = layer_of(module_of(path))
    allowed = ALLOWED[layer] | {layer, "errors"}
    forbidden = {module for module in own_imports(path) if layer_of(module) not in allowed}
    assert not forbidden, f"the layer {layer!r} may not import {sorted(forbidden)}"


def test_layers_do_not_import_each_other_in_a_circle():
    TopologicalSorter(ALLOWED).prepare()


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {module_of(path): set(own_imports(path)) - {module_of(path)} for path in sources()}
    TopologicalSorter(graph).prepare()


PURE_OF_WEB = {f"web.{name}" for name in ("messages", "entries", "problems", "ring")}


def is_pure(path: Path) -> bool:
    return layer_of(module_of(path)) in PURE or module_of(path) in PURE_OF_WEB


@pytest.mark.parametrize("path", [path for path in sources() if is_pure(path)], ids=module_of)
def test_a_pure_layer_imports_no_socket_thread_clock_or_randomness(path):
    assert not {name for name in imports(path) if name.partition(".")[0] in IMPURE}


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_heavy_libraries_stay_in_their_layer(path):
    layer = layer_of(module_of(path))
    assert not {name for name in imports(path) if layer not in HEAVY.get(name.partition(".")[0], {layer})}


def test_unit_tests_mirror_the_folders_of_the_package():
    here = Path(__file__).parent
    folders = {path.parent.relative_to(here) for path in here.rglob("test_*.py")} - {Path()}
    assert [str(folder) for folder in folders if not (PACKAGE / folder).is_dir()] == []


def test_importing_pgdoc_loads_no_heavy_library():
    code = "import sys, pgdoc; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "psycopg" in loaded
    late = {
        *HEAVY,
        "click",
        "testcontainers",
        "pgdoc.cli",
        "pgdoc.server",
        "pgdoc.telemetry",
        "pgdoc.testing",
        "pgdoc.sqlalchemy",
        "pgdoc.web",
    }
    assert late.isdisjoint(loaded)


def test_the_import_scanner_finds_imports_of_modules_names_and_in_functions(tmp_path):
    file = tmp_path / "module.py"
    file.write_text("import time as t\nfrom pgdoc import errors, Store\ndef f():\n    from pgdoc.changes import diff\n")
    assert set(imports(file)) == {"time", "pgdoc.errors", "pgdoc", "pgdoc.changes.diff"}
    assert set(own_imports(file)) == {"errors", "__init__", "changes.diff"}
