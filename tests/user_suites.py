"""Small test suites as users write them, run with the pytest plugin of pgdoc in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[1]
RUN_TIMEOUT_S = 120


@dataclass(frozen=True)
class Outcome:
    """What a run printed, and how many tests passed, failed and so on."""

    code: int
    printed: str

    @property
    def counts(self) -> dict[str, int]:
        summary = [line for line in self.printed.splitlines() if re.search(r" in [\d.]+s", line)][-1:]
        found = re.findall(r"(\d+) (passed|failed|error)", "".join(summary))
        return {kind: int(number) for number, kind in found}


@dataclass(frozen=True)
class UserSuite:
    """The folder of a suite.

    Attributes:
        dsn: of the server that its tests use; `None` for a private one.
    """

    folder: Path
    dsn: str | None

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(dedent(text))

    def command(self, *arguments: str, plugins: tuple[str, ...] = ()) -> list[str]:
        """Return a command that runs the suite; each warning of it is an error."""
        loaded = [option for plugin in ("_pgdoc_pytestplugin", *plugins) for option in ("-p", plugin)]
        quiet = ["-q", "-p", "no:cacheprovider", "-o", "filterwarnings=error", "--tb=short"]
        return [sys.executable, "-m", "pytest", *loaded, *quiet, *arguments]

    def environment(self, variables: dict[str, str] | None = None) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("PGDOC_", "PYTEST_"))}
        given = {} if self.dsn is None else {"PGDOC_TEST_DSN": self.dsn}
        return {**kept, **given, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), **(variables or {})}

    def run(self, *arguments: str, plugins: tuple[str, ...] = (), variables: dict[str, str] | None = None) -> Outcome:
        done = subprocess.run(
            self.command(*arguments, plugins=plugins),
            cwd=self.folder,
            env=self.environment(variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=RUN_TIMEOUT_S,
        )
        return Outcome(done.returncode, done.stdout)
