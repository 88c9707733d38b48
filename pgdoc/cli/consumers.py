"""`pgdoc consumers`: list durable consumers, drop one, or let one pass what it can't read.

`consumer_care.py` has the commands for consumers that nobody has open, or that lost their position.
"""

from typing import Annotated

import typer

from pgdoc.cli.arguments import ConsumerSchema, Dsn, Json, PlainCommand
from pgdoc.cli.consumer_care import add_care_commands
from pgdoc.cli.consumer_group import ConsumerGroup, print_consumers
from pgdoc.cli.output import print_json

__all__ = ["consumers_app"]

consumers_app = typer.Typer(help="List or drop durable consumers, or let one go on.", rich_markup_mode=None)

ConsumerName = Annotated[str, typer.Argument(metavar="NAME", help="The consumer.")]


@consumers_app.callback(invoke_without_command=True)
def consumers_command(
    context: typer.Context, *, json: Json = False, dsn: Dsn = "", schema: ConsumerSchema = None
) -> None:
    """List durable consumers, drop one, or let one go on."""
    context.obj = ConsumerGroup(dsn, schema, json=json)
    if context.invoked_subcommand is None:
        list_consumers_command(context)


@consumers_app.command("list")
def list_consumers_command(
    context: typer.Context, *, json: Json = False, dsn: Dsn = "", schema: ConsumerSchema = None
) -> None:
    """List the consumers.

    For each: the process that has it open, how far behind it is, and how much WAL its slot retains.
    """
    group = context.obj.with_options(dsn, schema, json=json)
    with group.open_store() as store:
        print_consumers(group.consumers_of(store), json=group.json)


@consumers_app.command("drop", cls=PlainCommand)
def drop_consumer_command(
    context: typer.Context, name: ConsumerName, *, json: Json = False, dsn: Dsn = "", schema: ConsumerSchema = None
) -> None:
    """Drop a consumer and its replication slot."""
    group = context.obj.with_options(dsn, schema, json=json)
    with group.open_store() as store:
        is_elsewhere = group.schema is not None and not group.has(store, name)
        is_dropped = not is_elsewhere and store.drop_consumer(name)
    if group.json:
        print_json({"name": name, "dropped": is_dropped})
    elif is_dropped:
        typer.echo(f"Dropped consumer {name}.")
    if not is_dropped:
        raise group.unknown(name)


@consumers_app.command("skip", cls=PlainCommand)
def skip_command(
    context: typer.Context, name: ConsumerName, *, json: Json = False, dsn: Dsn = "", schema: ConsumerSchema = None
) -> None:
    """Let a consumer pass the one transaction that it can't read.

    When it is opened again, it gets that transaction's changes of other collections.
    """
    group = context.obj.with_options(dsn, schema, json=json)
    with group.open_store() as store:
        found = {each.name: each.unreadable for each in group.consumers_of(store)}
        lsn = found.get(name)
        if lsn is None:
            has = (
                "has nothing to pass: it has met no change that it can't read, or was already told to pass it"
                if name in found
                else "does not exist: `pgdoc consumers` lists them"
            )
            typer.echo(f"pgdoc: consumer {name} {has}", err=True)
            raise typer.Exit(1)
        store.skip(name, commit_lsn=lsn)
    if group.json:
        print_json({"name": name, "commit_lsn": lsn})
    else:
        typer.echo(f"Consumer {name} will pass the transaction that commits at {lsn}.")


add_care_commands(consumers_app)
