"""Finds every call of a logger in the sources of pgdoc."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
VALUE = "…"  # stands for a value in a message
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}


class LogCall(NamedTuple):
    """What a call logs: `message` has `…` for each value."""

    logger: str
    level: str
    message: str


def log_calls() -> set[LogCall]:
    """Return the calls of all modules; `_sync` is generated from `_async`."""
    files = [path for path in (ROOT / "pgdoc").rglob("*.py") if "_sync" not in path.parts]
    return {call for path in [*files, *(ROOT / "migrations").rglob("*.py")] for call in calls_of(path.read_text())}


def calls_of(source: str) -> Iterator[LogCall]:
    """Yield the calls in one module, whose loggers are module-level names."""
    tree = ast.parse(source)
    loggers = {target.id: name for node in tree.body for target, name in _assigned(node)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Attribute(value=ast.Name(id=logger), attr=attr) if logger in loggers and attr in LEVELS:
                is_log = attr == "log"
                level = _level(node.args[0], tree) if is_log else "error" if attr == "exception" else attr
                yield LogCall(loggers[logger], level, _message(node.args[1 if is_log else 0]))
            case ast.Name(id="internal_error"):
                yield LogCall(loggers["logger"], "error", _message(node.args[0]))


def _assigned(node: ast.stmt) -> Iterator[tuple[ast.Name, str]]:
    match node:
        case ast.Assign(
            targets=[ast.Name() as target],
            value=ast.Call(func=ast.Attribute(attr="getLogger"), args=[ast.Constant(value=str(name))]),
        ):
            yield target, name


def _level(argument: ast.expr, tree: ast.Module) -> str:
    """Return the highest level that a variable can have, which is what users see first."""
    assert isinstance(argument, ast.Name)
    values = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.dump(node.targets[0]) == ast.dump(ast.Name(argument.id, ast.Store()))
    ]
    named = {each.attr.lower() for value in values for each in ast.walk(value) if isinstance(each, ast.Attribute)}
    return next(level for level in ("error", "warning", "info", "debug") if level in named)


def _message(argument: ast.expr) -> str:
    match argument:
        case ast.Constant(value=str(text)):
            return text.replace("%s", VALUE).replace("%d", VALUE)
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in parts)
    raise AssertionError(f"a message must be a literal, so that the page on logs can have it: {ast.unparse(argument)}")
