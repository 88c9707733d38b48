"""The commands of `pgdoc`."""

import json
import shlex
import signal
import sys
from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.text import Text

import pgdoc
from pgdoc.changes.events import ChangeEvent
from pgdoc.cli import demo as demo_story
from pgdoc.cli import transfer
from pgdoc.cli.consumers import table as consumers_table
from pgdoc.cli.doctor import examine
from pgdoc.cli.render import render, render_bytes, render_delay
from pgdoc.errors import PgdocError
from pgdoc.server import LocalServer

__all__ = ["app", "run"]

app = typer.Typer(
    name="pgdoc",
    help="A document store on PostgreSQL whose changes can be watched.",
    no_args_is_help=True,
    rich_markup_mode=None,  # no boxes
    pretty_exceptions_enable=False,
)

consumers = typer.Typer(help="The durable consumers of the database.", rich_markup_mode=None)
app.add_typer(consumers, name="consumers")

_TERMINATED = 128 + signal.SIGTERM

Dsn = Annotated[
    str,
    typer.Option("--dsn", envvar="PGDOC_DSN", help="The database, as libpq takes it; without it the PG* variables."),
]


def _read_json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        raise typer.BadParameter(f"{text!r} is not JSON: {exc}") from exc


def run(arguments: list[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 done, 1 failed, 2 not understood, 130 interrupted.
    """
    try:
        app(arguments, prog_name="pgdoc")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except PgdocError as error:
        sys.stderr.write(f"pgdoc: {' '.join(str(error).split())}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


@app.callback(invoke_without_command=True)
def options(
    *, version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and end.")] = False
) -> None:
    """A document store on PostgreSQL whose changes can be watched."""
    if version:
        typer.echo(f"pgdoc {metadata.version('pgdoc')}")
        raise typer.Exit


@app.command()
def init(dsn: Dsn = "") -> None:
    """Prepare a database: make its catalog, or bring it up to date."""
    with pgdoc.Store(dsn) as store:
        store.migrate()
    typer.echo("The database is ready.")


@app.command()
def up(
    folder: Annotated[
        Path | None, typer.Option(help="Where the data lives, and stays; without it, nothing stays.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Also listen on 127.0.0.1 at this port; 0 takes a free one.")] = None,
) -> None:
    """Run a private PostgreSQL for development, until Ctrl-C."""
    signal.signal(signal.SIGTERM, _end)
    with LocalServer(folder, port=port) as server:
        with pgdoc.Store(server.conninfo) as store:
            store.migrate()
        typer.echo(f"PostgreSQL is running, with its data in {server.folder}. Ctrl-C stops it.\n")
        typer.echo(f"  export PGDOC_DSN={shlex.quote(server.conninfo)}\n")
        typer.echo("Then, in another terminal: pgdoc watch")
        signal.pause()


@app.command()
def demo(
    dsn: Annotated[str, typer.Option(help="Play in this database instead, in a schema that is gone afterwards.")] = "",
    plugin: Annotated[
        Literal["auto", "wal2json", "pgoutput"], typer.Option(help="The output plugin that the stream comes through.")
    ] = "auto",
) -> None:
    """Show that no change is lost, on a private server.

    Nothing of that server stays.
    """
    raise typer.Exit(demo_story.run(dsn, plugin))


@app.command()
def watch(  # noqa: PLR0913 (its options)
    collections: Annotated[list[str] | None, typer.Argument(help="Which ones; without a name, all of them.")] = None,
    *,
    resume_after: Annotated[
        str | None, typer.Option("--from", metavar="TOKEN", help="Go on after this token, or from this LSN.")
    ] = None,
    consumer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Be this durable consumer, and go on where it was.")
    ] = None,
    where: Annotated[
        Any,
        typer.Option(metavar="JSON", parser=_read_json, help='Only events that match: {"event_type": "insert"}, say.'),
    ] = None,
    snapshot: Annotated[bool, typer.Option("--snapshot", help="Begin with what exists.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One event a line, as JSON.")] = False,
    dsn: Dsn = "",
) -> None:
    """Print every change as it happens, until Ctrl-C."""
    with (
        pgdoc.Store(dsn) as store,
        store.watch(
            *collections or (),
            where=where,
            snapshot=snapshot,
            resume_after=resume_after,
            consumer=consumer,
            wait=False,
        ) as stream,
    ):
        typer.echo(f"watching {', '.join(collections or ()) or 'every collection'}; Ctrl-C ends", err=True)
        (_print_json if json else _print_events)(stream)


@app.command()
def collections(dsn: Dsn = "") -> None:
    """List the collections."""
    with pgdoc.Store(dsn) as store:
        for name in store.collections():
            typer.echo(name)


@app.command()
def status(dsn: Dsn = "") -> None:
    """Tell how the server and the catalog are."""
    with pgdoc.Store(dsn) as store:
        _print_fields(store.status())


@app.command()
def history(dsn: Dsn = "") -> None:
    """Tell how far back a stream can resume."""
    with pgdoc.Store(dsn) as store:
        _print_fields(store.history())


@app.command()
def doctor(dsn: Dsn = "") -> None:
    """Look for what is wrong, or will be, and say what to do.

    The exit code is 1 where something is wrong.
    """
    styles = {"ok": "green", "warn": "yellow", "wrong": "red"}
    console = Console(highlight=False)
    is_wrong = False
    for finding in examine(dsn):
        is_wrong |= finding.verdict == "wrong"
        line = Text.assemble((f"{finding.verdict:<5}", styles[finding.verdict]), f"  {finding.subject:<12}  ")
        console.print(line.append(" ".join(finding.text.split())), soft_wrap=True)
    raise typer.Exit(int(is_wrong))


@app.command()
def load(
    file: Annotated[typer.FileBinaryRead, typer.Argument(metavar="FILE", help="One JSON object a line; - for stdin.")],
    collection: Annotated[str, typer.Argument(help="Made where it does not exist.")],
    id_field: Annotated[
        str,
        typer.Option("--id", metavar="FIELD", help="Where the id is. _id is taken out, and made where it is missing."),
    ] = transfer.ID,
    dsn: Dsn = "",
) -> None:
    """Insert the documents of a file, all or none."""
    with pgdoc.Store(dsn) as store:
        count = transfer.load(file, store[collection], id_field)
    typer.echo(f"Loaded {count:,} document{'' if count == 1 else 's'} into {collection}.", err=True)


@app.command()
def dump(
    collection: Annotated[str, typer.Argument()],
    where: Annotated[
        Any, typer.Option(metavar="JSON", parser=_read_json, help='Only documents that match: {"status": "new"}, say.')
    ] = None,
    dsn: Dsn = "",
) -> None:
    """Write a collection's documents, one a line, for `load`."""
    with pgdoc.Store(dsn, auto_create=False) as store:
        transfer.dump(store[collection], where)


@consumers.callback(invoke_without_command=True)
def list_by_default(context: typer.Context, dsn: Dsn = "") -> None:
    """The durable consumers of the database."""
    context.obj = dsn
    if context.invoked_subcommand is None:
        list_consumers(context)


@consumers.command("list")
def list_consumers(context: typer.Context, dsn: Dsn = "") -> None:
    """List them: who has each open, and how far behind it is."""
    with pgdoc.Store(dsn or context.obj) as store:
        Console().print(consumers_table(store.consumers()))


@consumers.command("drop")
def drop_consumer(context: typer.Context, name: str, dsn: Dsn = "") -> None:
    """Drop one, with the slot that keeps WAL for it."""
    with pgdoc.Store(dsn or context.obj) as store:
        if not store.drop_consumer(name):
            typer.echo(f"pgdoc: there is no consumer {name}", err=True)
            raise typer.Exit(1)
    typer.echo(f"Dropped consumer {name}.")


def _print_events(stream: Iterable[ChangeEvent]) -> None:
    console = Console()
    for event in stream:
        console.print(render(event, datetime.now(UTC)), soft_wrap=True)


def _print_json(stream: Iterable[ChangeEvent]) -> None:
    for event in stream:
        try:
            line = event.to_json()
        except pgdoc.UnreadableDocument as exc:  # its place is still worth a line, and the next events too
            place = {"document_id": event.document_id, "resume_token": str(event.resume_token), "error": str(exc)}
            line = json.dumps({"event_type": event.event_type, "collection": event.collection, **place}).encode()
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()


def _print_fields(answer: Any) -> None:
    named = {field.name: field.name.replace("_", " ").removesuffix(" bytes") for field in fields(answer)}
    width = max(map(len, named.values())) + 2
    for field, name in named.items():
        first, *more = _plain(field, getattr(answer, field))
        typer.echo(f"{name:<{width}}{first}")
        for line in more:
            typer.echo(" " * width + line)


def _plain(field: str, value: Any) -> list[str]:
    """Give a value's lines, with its unit."""
    match value:
        case list() | tuple():
            return [line for each in value for line in _plain(field, each)] or ["none"]
        case bool():
            return ["yes" if value else "no"]
        case timedelta():
            return [render_delay(value)]
        case int() if field == "size" or field.endswith("_bytes"):
            return [render_bytes(value)]
    return ["none" if value is None else str(value)]


def _end(_number: int, _frame: object) -> NoReturn:
    sys.exit(_TERMINATED)
