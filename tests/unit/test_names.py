"""A name that the package defines means one thing, so that a search for it leads to one place.

`_sync` is left out, since it is generated from `_async`.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[2] / "pgdoc"


def definitions(module: Path) -> Iterator[str]:
    """Yield the classes, functions and type aliases at the top of a module; of the private ones only the classes."""
    for node in ast.parse(module.read_text()).body:
        match node:
            case ast.ClassDef(name):
                yield name
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) if not name.startswith("_"):
                yield name
            case ast.If(test=ast.Name("TYPE_CHECKING"), body=body):
                yield from (alias for each in body for alias in aliases(each))
            case _:
                yield from aliases(node)


def aliases(node: ast.stmt) -> Iterator[str]:
    """Yield the name of a type alias: one with a capital that is not a constant's, or annotated as an alias."""
    match node:
        case ast.Assign(targets=[ast.Name(name)]) if name[:1].isupper() and not name.isupper():
            yield name
        case ast.AnnAssign(target=ast.Name(name), annotation=ast.Name("TypeAlias")) if not name.startswith("_"):
            yield name


def test_no_two_modules_define_the_same_name():
    modules: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        if "_sync" not in path.parts:
            for name in definitions(path):
                modules[name].add(str(path.relative_to(PACKAGE)))
    twice = {name: sorted(found) for name, found in modules.items() if len(found) > 1}
    assert twice == {}
