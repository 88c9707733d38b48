"""`pgdoc groups`: list the groups of a log, show where one of them stands, or drop it."""

from typing import Annotated

import typer

import pgdoc
from pgdoc.cli.arguments import Json, PlainCommand, UnusedSchema
from pgdoc.cli.log_command import LogCommand, groups_table, partitions_table, report_damage
from pgdoc.cli.output import print_json, print_table
from pgdoc.cli.render import printable
from pgdoc.cli.service_logs import logging_to_stderr
from pgdoc.cli.stores import DEFAULT_SCHEMA

__all__ = ["groups_app"]

groups_app = typer.Typer(help="List the groups of a log, or drop one.", rich_markup_mode=None)

FromRelay = Annotated[
    str,
    typer.Option(
        "--from-relay",
        metavar="URL",
        envvar="PGDOC_FROM_RELAY",
        help="The log that `pgdoc relay` writes, such as nats://host/ORDERS.",
    ),
]
EffectsDsn = Annotated[
    str,
    typer.Option(
        "--dsn",
        envvar="PGDOC_DSN",
        metavar="DSN",
        help="The database with the effects of the groups, and their rows. By default, none.",
    ),
]
GroupName = Annotated[str, typer.Argument(metavar="NAME", help="The group.")]


@groups_app.callback(invoke_without_command=True)
def groups_command(
    context: typer.Context,
    *,
    from_relay: FromRelay = "",
    json: Json = False,
    dsn: EffectsDsn = "",
    schema: UnusedSchema = DEFAULT_SCHEMA,
) -> None:
    """List the groups of a log, or drop one."""
    context.obj = LogCommand(from_relay, dsn, json)
    if context.invoked_subcommand is None:
        list_groups_command(context, schema=schema)


@groups_app.command("list")
def list_groups_command(
    context: typer.Context,
    *,
    from_relay: FromRelay = "",
    json: Json = False,
    dsn: EffectsDsn = "",
    schema: UnusedSchema = DEFAULT_SCHEMA,  # noqa: ARG001 (each command has it)
) -> None:
    """List the groups.

    For each: its members, how many partitions they have, and how many entries of the log it is behind.
    """
    command = context.obj.with_options(from_relay, dsn, json=json)
    with command.opened() as store:
        groups = pgdoc.log_groups(command.url, store=store)
    report_damage(groups)
    if not command.json:
        print_table(groups_table(groups))
        return
    for group in groups:
        print_json(group)


@groups_app.command("show", cls=PlainCommand)
def show_group_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    name: GroupName,
    *,
    from_relay: FromRelay = "",
    json: Json = False,
    dsn: EffectsDsn = "",
    schema: UnusedSchema = DEFAULT_SCHEMA,  # noqa: ARG001 (each command has it)
) -> None:
    """Show where a group stands in each partition, and which process has that."""
    command = context.obj.with_options(from_relay, dsn, json=json)
    group = command.known(name)
    report_damage([group])
    if command.json:
        print_json(group)
    else:
        print_table(partitions_table(group))


@groups_app.command("drop", cls=PlainCommand)
def drop_group_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    name: GroupName,
    *,
    from_relay: FromRelay = "",
    json: Json = False,
    dsn: EffectsDsn = "",
    schema: UnusedSchema = DEFAULT_SCHEMA,  # noqa: ARG001 (each command has it)
) -> None:
    """Drop a group: what it keeps beside the log, and with --dsn its rows in that database.

    End its processes first. For one that was killed, the command waits as long as its lease is, 10 seconds by default,
    and says so.
    """
    command = context.obj.with_options(from_relay, dsn, json=json)
    with command.opened() as store, logging_to_stderr("pgdoc.remote"):
        is_dropped = pgdoc.drop_log_group(command.url, name, store=store)
    if command.json:
        print_json({"name": name, "dropped": is_dropped})
    elif is_dropped:
        rest = "" if command.dsn else " Rows that it has in a database stay: name that with --dsn."
        typer.echo(printable(f"Dropped group {name}.{rest}"))
    if not is_dropped:
        raise command.unknown(name)
