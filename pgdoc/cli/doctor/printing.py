"""How `pgdoc doctor` prints a finding for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

from pgdoc.cli.render import printable

if TYPE_CHECKING:
    from pgdoc.cli.doctor.finding import Finding

__all__ = ["print_finding"]

_STYLES: Final = {"ok": "green", "warn": "yellow", "wrong": "red", "unseen": "cyan"}
_INDENT: Final = " " * 21


def print_finding(finding: Finding) -> None:
    """Print a finding as a line, and each command that mends it as another."""
    console = Console(highlight=False)
    line = Text.assemble((f"{finding.verdict:<6}", _STYLES[finding.verdict]), f" {finding.subject:<12}  ")
    console.print(line.append(printable(" ".join(finding.text.split()))), soft_wrap=True)
    for command in finding.fix:
        console.print(Text.assemble(_INDENT, ("run ", "dim"), printable(command)), soft_wrap=True)
