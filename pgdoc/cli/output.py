"""What the commands print on stdout."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import Field, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import pgdoc
from pgdoc.cli.render import printable, render_bytes, render_delay, render_event

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from pgdoc.changes.events import ChangeEvent

__all__ = ["make_table", "print_events", "print_fields", "print_json", "print_json_lines", "print_table"]

_PIPE_WIDTH = 10_000


def make_table(headings: Iterable[str], rows: Iterable[Iterable[str]], *, right: Collection[str] = ()) -> Table:
    """Return a table of any texts; the columns with the headings in `right` are aligned there."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left")
    for row in rows:
        table.add_row(*(escape(printable(cell)) for cell in row))
    return table


def print_table(table: Table) -> None:
    """Print a table. A pipe or a file gets each row in one line, and no name is cut there."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPE_WIDTH
    console.print(table)


def print_events(stream: Iterable[ChangeEvent], *, shows_tokens: bool) -> None:
    """Print each event for people, with the local time of its commit."""
    console = Console()
    for event in stream:
        text = render_event(event, datetime.now(UTC), shows_clock=True, shows_token=shows_tokens)
        console.print(text, soft_wrap=True)


def print_json_lines(stream: Iterable[ChangeEvent]) -> None:
    """Print each event as a line of JSON; one whose document is unreadable has the key `error`."""
    for event in stream:
        try:
            line = event.to_json()
        except pgdoc.UnreadableDocument as exc:  # print where it was, and go on with the next event
            found = {"document_id": event.document_id, "resume_token": str(event.resume_token), "error": str(exc)}
            line = json.dumps({"event_type": event.event_type, "collection": event.collection, **found}).encode()
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


def print_fields(answer: Any) -> None:
    """Print a dataclass in two columns: the label, and the value with its unit."""
    labels = {field.name: field.name.replace("_", " ").removesuffix(" bytes") for field in fields(answer)}
    width = max(map(len, labels.values())) + 2
    for name, label in labels.items():
        first, *more = _value_lines(name, getattr(answer, name))
        typer.echo(f"{label:<{width}}{first}")
        for line in more:
            typer.echo(" " * width + line)


def _value_lines(name: str, value: Any) -> list[str]:
    match value:
        case list() | tuple():
            return [line for each in value for line in _value_lines(name, each)] or ["none"]
        case bool():
            return ["yes" if value else "no"]
        case timedelta():
            return [render_delay(value)]
        case int() if name == "size" or name.endswith("_bytes"):
            return [render_bytes(value)]
    return ["none" if value is None else str(value)]


def print_json(found: Any) -> None:
    """Print a report as one line of JSON.

    A time span is a number of seconds, and its name says so. Other values that JSON lacks are texts.
    """
    typer.echo(json.dumps(_plain(found)))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type | pgdoc.ResumeToken):
        return {_key(field): _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    match value:
        case pgdoc.Lsn() | pgdoc.ResumeToken():
            return str(value)
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
    return value


def _key(field: Field[Any]) -> str:
    return f"{field.name}_seconds" if "timedelta" in str(field.type) else field.name
