"""The suite of the page "Test your code" passes: its blocks that begin with the name of a file are these files."""

from __future__ import annotations

import re
import unittest
from typing import TYPE_CHECKING, Any

import yaml

from tests.docs.pages import NOT_RUN, blocks
from tests.user_suites import UserSuite

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.fixtures.fix_server import Server

PAGE = "docs/how-to/test-your-code.md"


def files(language: str) -> dict[str, str]:
    """Return the blocks of files by the names in their first lines."""
    found = (
        (re.match(r"# ([\w./-]+)", block.code), block.code) for block in blocks(PAGE) if block.language == language
    )
    return {name[1]: code for name, code in found if name is not None}


def test_the_tests_of_the_page_pass(server: Server, tmp_path: Path) -> None:
    suite = UserSuite(tmp_path, server.conninfo)
    python = files("python")
    assert {"shop.py", "conftest.py"} < python.keys()
    for name, code in python.items():
        suite.write(name, code)
    tests = "".join(python.values()).count("def test_")
    plugins = ("asyncio", "anyio")
    outcome = suite.run("-o", "asyncio_default_fixture_loop_scope=function", plugins=plugins)
    assert outcome.counts == {"passed": tests}, outcome.printed


def test_the_test_without_pytest_passes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDOC_TEST_DSN", server.conninfo)
    (code,) = [block.code for block in blocks(PAGE) if block.code.startswith("import unittest")]
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, PAGE, "exec", dont_inherit=True), namespace)  # noqa: S102 (that is the test)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(namespace["OrdersTest"]).run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])


def test_the_files_for_ci_are_yaml() -> None:
    found = [yaml.safe_load(block.code) for block in blocks(PAGE) if block.language == "yaml"]
    assert len(found) == 3
    commands = [[step.get("run") for step in each["jobs"]["tests"]["steps"]] for each in found if "jobs" in each]
    commands += [each["tests"]["script"] for each in found if "tests" in each]
    assert all(each[-2:] == ["pip install -r requirements.txt", "python -m pytest"] for each in commands)


def test_each_file_of_the_page_is_listed_as_run_here() -> None:
    listed = {line for page, line in NOT_RUN if page == PAGE}
    assert {f"# {name}" for name in files("python")} <= listed
