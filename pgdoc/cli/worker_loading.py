"""Finds the worker that a command line names as MODULE:NAME."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

import pgdoc
from pgdoc.cli.render import printable

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["AnyWorker", "fail", "load_worker", "one_line_of"]

AnyWorker = pgdoc.Worker | pgdoc.AsyncWorker

_PACKAGE: Final = str(Path(pgdoc.__file__).parent) + os.sep


def load_worker(named: str) -> AnyWorker:
    """Import the module, whose folder may be the current one, and return its worker.

    Ends the command with one line if there is no such worker.
    """
    module_name, name = _split(named)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return _worker_of(_find(_import(module_name), module_name, name), named)


def fail(text: str) -> NoReturn:
    """End the command with one line."""
    typer.echo(f"pgdoc: {printable(' '.join(text.split()))}", err=True)
    raise typer.Exit(1)


def one_line_of(exc: BaseException) -> str:
    """Return an exception in one line, with the last place outside pgdoc and Python's frozen modules."""
    frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if not _is_passed_over(frame.filename)]
    place: tuple[str | None, int | None] | None = (frames[-1].filename, frames[-1].lineno) if frames else None
    if isinstance(exc, SyntaxError):
        place = (exc.filename, exc.lineno)
    said = traceback.format_exception_only(exc)[-1].strip()
    return said if place is None else f"{said} ({place[0]}, line {place[1]})"


def _is_passed_over(file: str) -> bool:
    """Whether a line in a file can't be the user's: pgdoc refuses an option there, or Python imports."""
    return file.startswith((_PACKAGE, "<frozen ")) or "importlib" in file


def _split(named: str) -> tuple[str, str]:
    module, _, name = named.partition(":")
    if "/" in module or module.endswith(".py"):
        meant = module.removesuffix(".py").strip("./").replace("/", ".")
        raise typer.BadParameter(
            f"{named!r} names a file: name the module as Python imports it, as in {meant}:{name or 'worker'}",
            param_hint="MODULE:NAME",
        )
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise typer.BadParameter(
            f"{named!r} is not MODULE:NAME: name the module and the worker in it, as in app:worker",
            param_hint="MODULE:NAME",
        )
    return module, name


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{module}.".startswith(f"{exc.name}."):
            _fail_import(module, exc)
        fail(f"there is no module {exc.name!r} in {Path.cwd()} or where Python looks for modules: check the name")
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # noqa: BLE001 (the user's module; SystemExit, too)
        _fail_import(module, exc)


def _fail_import(module: str, exc: BaseException) -> NoReturn:
    fail(f"module {module!r} can't be imported: {one_line_of(exc)}")


def _find(module: ModuleType, module_name: str, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            workers = [key for key, value in vars(module).items() if isinstance(value, AnyWorker)]
            has = f": it has {', '.join(workers)}" if workers else ": check the name"
            fail(f"module {module_name!r} ({module.__file__}) has no {name!r}{has}")
    return found


def _worker_of(found: Any, named: str) -> AnyWorker:
    if inspect.isfunction(found):
        found = _made_by(found, named)
    if not isinstance(found, AnyWorker):
        kind = f"the class {found.__name__}" if isinstance(found, type) else f"of type {type(found).__name__}"
        fail(f"{named} is {kind}: name a pgdoc.Worker or pgdoc.AsyncWorker, or a function that returns one")
    return found


def _made_by(function: Any, named: str) -> Any:
    if inspect.iscoroutinefunction(function):
        fail(f"{named} is a coroutine function: use a function; making a store and an AsyncWorker awaits nothing")
    needed = [
        each.name
        for each in inspect.signature(function).parameters.values()
        if each.default is each.empty and each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}
    ]
    if needed:
        fail(f"{named} is a function that needs {', '.join(needed)}: name one without arguments that returns a worker")
    try:
        return function()
    except Exception as exc:  # noqa: BLE001 (the user's function)
        fail(f"{named}() failed: {one_line_of(exc)}")
