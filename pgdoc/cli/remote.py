"""`pgdoc watch --from-relay`: prints the events of a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

import pgdoc
from pgdoc.cli.arguments import invalid_where
from pgdoc.cli.output import print_events, print_json_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["refuse_store_options", "watch_log"]

BEGINNING = "beginning"


def refuse_store_options(options: Mapping[str, Any]) -> None:
    """Refuse the options that only a stream of the server has.

    Raises:
        typer.BadParameter: one of them is given.
    """
    for option, value in options.items():
        if value:
            raise typer.BadParameter("a log has no such option: leave it out", param_hint=f"'{option}'")


def watch_log(  # noqa: PLR0913 (what the command line names)
    url: str,
    names: list[str],
    *,
    topics: list[str] | None,
    where: Mapping[str, Any] | None,
    resume_after: str | None,
    group: str | None,
    json: bool,
    tokens: bool,
) -> None:
    """Print the events of a log until Ctrl-C."""
    start = BEGINNING if resume_after == BEGINNING else "now"
    after = None if resume_after == BEGINNING else resume_after
    with (
        invalid_where(),
        pgdoc.RemoteStream(
            url, *names, topics=topics, where=where, resume_after=after, start=start, group=group
        ) as stream,
    ):
        typer.echo(
            f"watching {', '.join([*names, *(topics or ())]) or 'all events'} of the log; Ctrl-C stops", err=True
        )
        if json:
            print_json_lines(stream)
        else:
            print_events(stream, shows_tokens=tokens)
