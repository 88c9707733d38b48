"""`pgdoc consumers`: list durable consumers, drop one, or let one pass what it can't read."""

from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import pgdoc
from pgdoc import ConsumerStatus
from pgdoc.cli.arguments import ConsumerSchema, Dsn, PlainCommand
from pgdoc.cli.render import render_bytes, render_delay
from pgdoc.cli.stores import open_store
from pgdoc.model.names import check_name

__all__ = ["consumers_app", "consumers_table"]

consumers_app = typer.Typer(
    help="List or drop durable consumers, or let one pass what it can't read.", rich_markup_mode=None
)


def _state_of_slot(consumer: ConsumerStatus) -> str:
    if consumer.unreadable is not None:
        return f"can't read {consumer.unreadable}"
    reason = f" ({consumer.invalidation_reason})" if consumer.invalidation_reason else ""
    return f"{consumer.wal_status or 'gone'}{reason}"


def consumers_table(consumers: Iterable[ConsumerStatus]) -> Table:
    """Return a table with one row per consumer."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("consumer", "schema", "open", "behind", "lag", "WAL kept", "slot"):
        table.add_column(heading, justify="right" if heading in {"behind", "lag", "WAL kept"} else "left")
    for consumer in consumers:
        table.add_row(
            escape(consumer.name),
            escape(consumer.schema),
            "no" if consumer.owner_pid is None else f"pid {consumer.owner_pid}",
            render_delay(consumer.lag),
            render_bytes(consumer.lag_bytes),
            render_bytes(consumer.retained_bytes),
            _state_of_slot(consumer),
        )
    return table


@consumers_app.callback(invoke_without_command=True)
def consumers_command(context: typer.Context, dsn: Dsn = "", schema: ConsumerSchema = None) -> None:
    """List durable consumers, drop one, or let one pass a transaction that it can't read."""
    context.obj = dsn, schema
    if context.invoked_subcommand is None:
        list_consumers_command(context)


@consumers_app.command("list")
def list_consumers_command(context: typer.Context, dsn: Dsn = "", schema: ConsumerSchema = None) -> None:
    """List the consumers.

    For each: the process that has it open, how far behind it is, and how much WAL its slot retains.
    """
    group_dsn, group_schema = context.obj
    wanted = group_schema if schema is None else schema
    with open_store("consumers", dsn or group_dsn) as store:
        Console().print(consumers_table(_consumers_of(store, wanted)))


@consumers_app.command("drop", cls=PlainCommand)
def drop_consumer_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The consumer to drop.")],
    dsn: Dsn = "",
    schema: ConsumerSchema = None,
) -> None:
    """Drop a consumer and its replication slot."""
    group_dsn, group_schema = context.obj
    wanted = group_schema if schema is None else schema
    with open_store("consumers", dsn or group_dsn) as store:
        is_elsewhere = wanted is not None and name not in {each.name for each in _consumers_of(store, wanted)}
        if is_elsewhere or not store.drop_consumer(name):
            place = "" if wanted is None else f" in schema {wanted}"
            typer.echo(f"pgdoc: there is no consumer {name}{place}: `pgdoc consumers` lists them", err=True)
            raise typer.Exit(1)
    typer.echo(f"Dropped consumer {name}.")


@consumers_app.command("skip", cls=PlainCommand)
def skip_command(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The consumer that can't go on.")],
    dsn: Dsn = "",
    schema: ConsumerSchema = None,
) -> None:
    """Let a consumer pass the one transaction that it can't read.

    When it is opened again, it gets that transaction's changes of other collections.
    """
    group_dsn, group_schema = context.obj
    wanted = group_schema if schema is None else schema
    with open_store("consumers", dsn or group_dsn) as store:
        found = {each.name: each.unreadable for each in _consumers_of(store, wanted)}
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
    typer.echo(f"Consumer {name} will pass the transaction that commits at {lsn}.")


def _consumers_of(store: pgdoc.Store, schema: str | None) -> list[pgdoc.ConsumerStatus]:
    if schema is not None:
        check_name(schema, "schema")
    return [consumer for consumer in store.consumers() if schema in {None, consumer.schema}]
