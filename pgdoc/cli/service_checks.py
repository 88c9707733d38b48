"""Prints what `check()` of a worker or a relay has found."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import typer

from pgdoc.cli.doctor.finding import Finding
from pgdoc.cli.doctor.printing import print_finding
from pgdoc.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pgdoc

__all__ = ["print_checks"]


def print_checks(findings: Iterable[pgdoc.WorkerFinding], *, json: bool) -> NoReturn:
    """Print the findings, and end the command: with status 1 if anything is wrong."""
    has_wrong = False
    for each in findings:
        has_wrong = has_wrong or each.verdict == "wrong"
        if json:
            print_json(each)
        else:
            subject = each.consumer or each.id.partition("-")[2]
            print_finding(Finding(each.id, each.verdict, subject, each.text, each.handler, fix=each.fix))
    raise typer.Exit(int(has_wrong))
