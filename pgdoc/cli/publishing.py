"""`pgdoc publish`: publish an event of the application's own."""

import json
from typing import Annotated

import typer

import pgdoc
from pgdoc.cli.arguments import Dsn, PlainCommand, UnusedSchema
from pgdoc.cli.stores import DEFAULT_SCHEMA, open_store
from pgdoc.errors import InvalidDocument

__all__ = ["Topics", "add_publish_command"]

Topics = Annotated[
    list[str] | None,
    typer.Option(
        "--topic",
        metavar="TOPIC",
        help="The events that applications publish under this topic, such as order.shipped; 'order.*' stands for all "
        "below order, '*' for all. Repeat it for several. Without names, these events only.",
    ),
]


def add_publish_command(app: typer.Typer) -> None:
    """Add the command."""
    app.command("publish", cls=PlainCommand)(publish_command)


def publish_command(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Words with dots between them: order.shipped.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="""Any JSON value, such as '{"total": 9.50}'.""")],
    *,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="What the event is about, such as the id of a document.")
    ] = None,
    dsn: Dsn = "",
    schema: UnusedSchema = DEFAULT_SCHEMA,
) -> None:
    """Publish an event: streams on its topic get it, and nothing is stored."""
    try:
        json.loads(payload)
    except (ValueError, RecursionError) as exc:
        raise typer.BadParameter(f"""{payload!r} is not valid JSON: {exc}""", param_hint="'JSON'") from exc
    with open_store("publish", dsn, schema) as store:
        try:
            store.publish(topic, pgdoc.RawJson(payload), key=key)
        except InvalidDocument as exc:
            raise typer.BadParameter(str(exc), param_hint="'--key'" if exc.path == "key" else "'JSON'") from exc
