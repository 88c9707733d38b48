"""`pgdoc consumers`: list durable consumers, create or drop one, or let one pass what it can't read.

`consumer_care.py` has the commands for consumers that nobody has open, or that lost their position.
"""

from typing import Annotated, Any

import typer

from pgdoc.cli.arguments import ConsumerSchema, Dsn, Json, PlainCommand, read_filter, refuse_names_with_all
from pgdoc.cli.consumer_care import add_care_commands
from pgdoc.cli.consumer_group import ConsumerGroup, print_consumers
from pgdoc.cli.opening import create_consumer
from pgdoc.cli.output import print_json
from pgdoc.cli.publishing import Topics
from pgdoc.cli.stores import DEFAULT_SCHEMA, open_store

__all__ = ["consumers_app"]

consumers_app = typer.Typer(help="List, create or drop durable consumers, or let one go on.", rich_markup_mode=None)

ConsumerName = Annotated[str, typer.Argument(metavar="NAME", help="The consumer.")]


@consumers_app.callback(invoke_without_command=True)
def consumers_command(
    context: typer.Context, *, json: Json = False, dsn: Dsn = "", schema: ConsumerSchema = None
) -> None:
    """List durable consumers, create or drop one, or let one go on."""
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


@consumers_app.command("create", cls=PlainCommand)
def create_consumer_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    name: ConsumerName,
    collections: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COLLECTION",
            help="The collections that it is to read, and the tables as SCHEMA.TABLE. By default, all collections.",
        ),
    ] = None,
    *,
    tables: Annotated[bool, typer.Option("--tables", help="Without names, all watched tables, too.")] = False,
    topic: Topics = None,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Begin with the documents that exist, when opened with snapshot=True.")
    ] = False,
    where: Annotated[
        Any,
        typer.Option(
            metavar="JSON", parser=read_filter, help="Check this filter. The program that opens it passes it."
        ),
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Create the collections that do not exist.")] = False,
    json: Json = False,
    dsn: Dsn = "",
    schema: Annotated[
        str | None, typer.Option("--schema", metavar="NAME", help="The schema whose tables are the collections.")
    ] = None,
) -> None:
    """Create a consumer without opening it: it misses nothing that is written from then on.

    A consumer that exists stays as it is. It keeps WAL on the server until `pgdoc consumers drop NAME`.
    """
    group = context.obj.with_options(dsn, schema, json=json)
    names, of_schema = collections or [], group.schema or DEFAULT_SCHEMA
    refuse_names_with_all(names, tables=tables)
    options = {"where": where, "tables": tables, "topics": topic, "snapshot": snapshot}
    with open_store("consumers", group.dsn, of_schema, auto_create=create) as store:
        is_new = create_consumer(store, of_schema, name, names, options, create=create)
    if group.json:
        print_json({"name": name, "schema": of_schema, "created": is_new})
    else:
        typer.echo(f"Created consumer {name}." if is_new else f"Consumer {name} exists.")


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
