"""Commands of `pgdoc`, run in the test's process: Python and its imports take a second of CPU for each one started."""

from __future__ import annotations

import contextlib
import io
import subprocess

from pgdoc.cli.app import run_cli


def pgdoc_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command, and return what a process of it would leave."""
    printed = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    with contextlib.redirect_stdout(printed[0]), contextlib.redirect_stderr(printed[1]):
        code = run_cli([*arguments])
    out, err = (each.buffer.getvalue().decode() for each in printed)
    return subprocess.CompletedProcess(arguments, code, out, err)
