"""The command line, which needs the extra `cli`. The library never imports it."""

from __future__ import annotations

import io
import sys

__all__ = ["main"]


def main() -> None:
    """Run `pgdoc`, or report how to install the packages of its extra."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # `None` where the descriptor is closed
            stream.reconfigure(errors="backslashreplace")  # what the locale can't show must not end a command
    try:
        from pgdoc.cli.app import run_cli  # noqa: PLC0415 (the extra may be missing)
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as missing:
        if missing.name not in {"typer", "rich"}:
            raise
        sys.stderr.write(f"pgdoc: the command line needs {missing.name}: run pip install typer rich\n")
        sys.exit(1)
    sys.exit(run_cli())
