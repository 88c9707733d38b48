"""The command line, which needs the extra `cli`. The library never imports it."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run `pgdoc`, or report how to install the packages of its extra."""
    try:
        from pgdoc.cli.app import run_cli  # noqa: PLC0415 (the extra may be missing)
    except ModuleNotFoundError as missing:
        if missing.name not in {"typer", "rich"}:
            raise
        sys.stderr.write(f"pgdoc: the command line needs {missing.name}: run pip install typer rich\n")
        sys.exit(1)
    sys.exit(run_cli())
