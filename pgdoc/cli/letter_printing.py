"""Dead letters as text for a terminal, and as lines of JSON. What they contain is untrusted, and so escaped."""

from __future__ import annotations

import sys
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson
import typer
from rich.console import Console

from pgdoc.cli.output import make_table, print_table
from pgdoc.cli.render import printable, render_delay, render_event
from pgdoc.errors import InvalidEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgdoc import DeadLetter

__all__ = ["print_letter", "print_letters", "target_of"]

_ERROR_WIDTH = 60
_LABELS = ("id", "state", "consumer", "handler", "event_type", "collection", "document_id", "token", "attempts")
_TIMES = ("changed_at", "stored_at", "tried_at")


def print_letters(letters: Iterable[DeadLetter], limit: int, *, json: bool) -> None:
    """Print letters as a table, or each as a line of JSON."""
    if json:
        for letter in letters:
            _print_line(letter)
        return
    found = list(letters)
    if not found:
        typer.echo("There are no such dead letters.")
        return
    headings = ("id", "state", "consumer", "handler", "event", "tries", "age", "error")
    print_table(make_table(headings, map(_cells, found), right=("id", "tries", "age")))
    if len(found) == limit:
        typer.echo(f"There may be more: --after {found[-1].id} lists them.")


def _cells(letter: DeadLetter) -> tuple[str, ...]:
    error = (letter.error or "").partition("\n")[0]
    return (
        str(letter.id),
        letter.state,
        letter.consumer,
        letter.handler,
        f"{letter.event_type or 'change'} {target_of(letter)}",
        str(letter.attempts),
        render_delay(datetime.now(UTC) - letter.stored_at),
        error if len(error) <= _ERROR_WIDTH else f"{error[: _ERROR_WIDTH - 1]}…",
    )


def target_of(letter: DeadLetter) -> str:
    """Return what the event of a letter is about."""
    return letter.collection if letter.document_id is None else f"{letter.collection}/{letter.document_id}"


def print_letter(letter: DeadLetter, *, json: bool) -> None:
    """Print one letter with all that it has."""
    if json:
        _print_line(letter)
        return
    for name in (*_LABELS, *_TIMES):
        value = getattr(letter, name)
        typer.echo(f"{name.replace('_', ' '):<13}{'none' if value is None else printable(str(value))}")
    typer.echo("")
    try:
        event = letter.event
        if event is None:
            typer.echo("The event could not be stored: a stream that resumes before its token reads it again.")
        else:
            Console().print(render_event(event), soft_wrap=True)
    except InvalidEvent as exc:
        typer.echo(printable(str(exc)))
    for text in (letter.error, letter.traceback):
        for line in ("", *(text or "").rstrip().split("\n")) if text else ():
            typer.echo(printable(line))


def _print_line(letter: DeadLetter) -> None:
    found = {each.name: getattr(letter, each.name) for each in fields(letter) if not each.name.startswith("_")}
    text = found.pop("event_json")
    found["token"] = str(letter.token)
    found["event"] = None if text is None else orjson.Fragment(text)
    sys.stdout.buffer.write(orjson.dumps(found) + b"\n")
    sys.stdout.buffer.flush()
