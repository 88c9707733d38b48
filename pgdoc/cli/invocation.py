"""How the user can run `pgdoc` again."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["own_command"]


def own_command() -> str:
    """Return the command that runs this `pgdoc`: its path, unless the shell finds it as `pgdoc`."""
    program = Path(sys.executable).with_name("pgdoc")
    if not program.exists():
        return f"{shlex.quote(_shortest(Path(sys.executable)))} -m pgdoc"
    found = shutil.which("pgdoc")
    return "pgdoc" if found is not None and Path(found).samefile(program) else shlex.quote(_shortest(program))


def _shortest(program: Path) -> str:
    """Return the path, relative to the working directory if it is below that."""
    relative = os.path.relpath(program)
    return relative if os.sep in relative and not relative.startswith(os.pardir) else str(program)
