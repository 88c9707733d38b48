"""Arguments and options that several commands share, and how their values are read."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand

from pgdoc.errors import InvalidFilter

__all__ = [
    "PLUGINS",
    "ConsumerSchema",
    "Dsn",
    "Json",
    "PlainCommand",
    "Schema",
    "UnusedSchema",
    "invalid_where",
    "read_filter",
    "read_plugin",
    "refuse_names_with_all",
]

PLUGINS = ("auto", "wal2json", "pgoutput")

Dsn = Annotated[
    str,
    typer.Option(
        "--dsn",
        envvar="PGDOC_DSN",
        metavar="DSN",
        help="The database, as a libpq connection string or URI. By default, libpq's PG* variables select it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
Schema = Annotated[str, typer.Option("--schema", metavar="NAME", help="The schema whose tables are the collections.")]
UnusedSchema = Annotated[
    str, typer.Option("--schema", metavar="NAME", help="No effect: this command concerns the whole database.")
]
ConsumerSchema = Annotated[
    str | None,
    typer.Option("--schema", metavar="NAME", help="Only consumers of this schema. By default, of any schema."),
]


class PlainCommand(TyperCommand):
    """A command whose help shows an argument by its metavar alone, without the Python type that some Typers append."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                setattr(parameter, "display_type_rich", lambda **_: None)  # noqa: B010 (older Typers lack it)


def read_filter(text: str) -> Any:
    """Parse the JSON of `--where`; the store checks the filter itself."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as exc:
        raise typer.BadParameter(f"{text!r} is not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise typer.BadParameter(f"""{text!r} is not a JSON object: use a filter such as {{"status": "new"}}""")
    return value


def refuse_names_with_all(names: list[str], *, tables: bool) -> None:
    """Refuse names beside what stands for all collections."""
    if "*" in names and set(names) != {"*"}:
        raise typer.BadParameter("* stands for all collections: leave out the other names", param_hint="'COLLECTION'")
    if names and tables:
        raise typer.BadParameter(
            "it stands for all collections and tables: leave out the names", param_hint="'--tables'"
        )


@contextmanager
def invalid_where() -> Iterator[None]:
    """Report an invalid filter as an invalid argument."""
    try:
        yield
    except InvalidFilter as exc:
        raise typer.BadParameter(str(exc), param_hint="'--where'") from exc


def read_plugin(text: str) -> str:
    """Check the name of an output plugin."""
    if text not in PLUGINS:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(PLUGINS)}")
    return text
