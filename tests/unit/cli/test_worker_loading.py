from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import pgdoc
from pgdoc.cli.app import run_cli
from pgdoc.cli.worker_loading import load_worker

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import pgdoc
store = pgdoc.Store("host=nowhere")
worker = pgdoc.Worker(store)

class Bag:
    inside = pgdoc.AsyncWorker(pgdoc.AsyncStore("host=nowhere"))

def make(): return worker
def make_none(): return None
def fails(): raise RuntimeError("two\\nlines")
async def later(): return worker
def needs(path, *, more): return worker
def may_take(path=None, *args, **kwargs): return worker
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new current folder, with the module `app` and others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    modules = {
        "the_app": APP,
        "needs_other": "import no_such_library",
        "divides": "x = 1 / 0",
        "exits": "raise SystemExit(3)",
        "mistypes": "import pgdoc\n\nstore = pgdoc.Store(pool_size=0)",
        "unset": "import os\nos.environ['NO_SUCH_VARIABLE_20']",
        "unparsable": "def f(:",
    }
    for name, text in modules.items():
        tmp_path.joinpath(f"{name}.py").write_text(text)
    tmp_path.joinpath("package").mkdir()
    tmp_path.joinpath("package", "inner.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize("named", ["the_app:worker", "the_app:make", "the_app:may_take", "package.inner:worker"])
def test_a_worker_is_found(named: str) -> None:
    assert isinstance(load_worker(named), pgdoc.Worker)


def test_a_worker_inside_an_object_is_found() -> None:
    assert isinstance(load_worker("the_app:Bag.inside"), pgdoc.AsyncWorker)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("no_such_module:worker", "there is no module 'no_such_module' in {folder} or where Python looks for modules"),
        ("no_such.module:worker", "there is no module 'no_such' in {folder} or where Python looks for modules"),
        ("package.outer:worker", "there is no module 'package.outer' in {folder} or where Python looks"),
        (
            "needs_other:worker",
            "ModuleNotFoundError: No module named 'no_such_library' ({folder}/needs_other.py, line 1)",
        ),
        ("divides:worker", "can't be imported: ZeroDivisionError: division by zero ({folder}/divides.py, line 1)"),
        ("exits:worker", "can't be imported: SystemExit: 3 ({folder}/exits.py, line 1)"),
        ("mistypes:worker", "of at least 1, got 0 ({folder}/mistypes.py, line 3)"),
        ("unset:worker", "KeyError: 'NO_SUCH_VARIABLE_20' ({folder}/unset.py, line 2)"),
        ("unparsable:worker", "can't be imported: SyntaxError: invalid syntax ({folder}/unparsable.py, line 1)"),
        ("the_app:wroker", "module 'the_app' ({folder}/the_app.py) has no 'wroker': it has worker"),
        ("the_app:worker.inside", "module 'the_app' ({folder}/the_app.py) has no 'worker.inside'"),
        ("the_app:store", "the_app:store is of type Store: name a pgdoc.Worker or pgdoc.AsyncWorker, or a function"),
        ("the_app:pgdoc.Worker", "the_app:pgdoc.Worker is the class Worker: name a pgdoc.Worker"),
        ("the_app:make_none", "the_app:make_none is of type NoneType: name a pgdoc.Worker"),
        ("the_app:fails", "the_app:fails() failed: RuntimeError: two lines ({folder}/the_app.py, line 11)"),
        ("the_app:later", "the_app:later is a coroutine function"),
        ("the_app:needs", "the_app:needs is a function that needs path, more: name one without arguments"),
    ],
)
def test_what_is_no_worker_ends_the_command_with_one_line(
    named: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["worker", named, "--check"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("pgdoc: ")
    assert printed.count("\n") == 1
    assert said.format(folder=folder) in printed


@pytest.mark.parametrize("named", ["the_app", "the_app:", ":worker", "the_app:two words", "", "a..b:c"])
def test_what_names_no_worker_is_an_invalid_argument(named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["worker", named]) == 2
    assert "is not MODULE:NAME: name the module and the worker in it, as in app:worker" in capsys.readouterr().err


def test_a_file_is_an_invalid_argument_and_the_module_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["worker", "./package/inner.py:make"]) == 2
    assert "name the module as Python imports it, as in package.inner:make" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--check", "--declare"], ["--json"], ["--log-level", "loud"], ["--log-format", "xml"]]
)
def test_options_that_mean_nothing_are_invalid_arguments(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["worker", "the_app:worker", *options]) == 2
    assert "Error: Invalid value for" in capsys.readouterr().err
