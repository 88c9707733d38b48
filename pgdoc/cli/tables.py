"""`pgdoc tables`: list, add, remove and check tables that are watched as they are."""

from datetime import datetime, timedelta
from typing import Annotated

import typer

import pgdoc
from pgdoc.cli.arguments import Dsn, Json, PlainCommand, UnusedSchema
from pgdoc.cli.output import make_table, print_json, print_table
from pgdoc.cli.render import printable, render_bytes, render_delay
from pgdoc.cli.stores import DEFAULT_SCHEMA, open_store

__all__ = ["tables_app"]

tables_app = typer.Typer(help="List the tables that are watched as they are, or add one.", rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Schema and table, such as public.orders, without quotes.")]
DocumentColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="A column of type jsonb or json that events have as their document, not the whole row."
    ),
]


@tables_app.callback(invoke_without_command=True)
def tables_command(
    context: typer.Context, *, json: Json = False, dsn: Dsn = "", schema: UnusedSchema = DEFAULT_SCHEMA
) -> None:
    """List the tables that are watched as they are, or add one."""
    context.obj = dsn, json
    if context.invoked_subcommand is None:
        list_tables_command(context, json=json, schema=schema)


@tables_app.command("list")
def list_tables_command(
    context: typer.Context, *, json: Json = False, dsn: Dsn = "", schema: UnusedSchema = DEFAULT_SCHEMA
) -> None:
    """List the tables, with the columns of their keys, and the column of the document."""
    group_dsn, group_json = context.obj
    with open_store("tables", dsn or group_dsn, schema) as store:
        tables = store.tables()
    if json or group_json:
        for table in tables:
            print_json(table)
        return
    print_table(make_table(("table", "key", "document", "columns"), map(_cells, tables), right=("columns",)))


@tables_app.command("add", cls=PlainCommand)
def add_table_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    name: Name,
    document: DocumentColumn = None,
    *,
    json: Json = False,
    dsn: Dsn = "",
    schema: UnusedSchema = DEFAULT_SCHEMA,
) -> None:
    """Let streams watch a table. `pgdoc tables check` says beforehand what that does."""
    group_dsn, group_json = context.obj
    with open_store("tables", dsn or group_dsn, schema) as store:
        is_new = store.add_table(name, document=document)
    if json or group_json:
        print_json({"name": name, "added": is_new})
    else:
        typer.echo(printable(f"Streams can watch {name} now." if is_new else f"Streams could watch {name} already."))


@tables_app.command("remove", cls=PlainCommand)
def remove_table_command(
    context: typer.Context, name: Name, *, json: Json = False, dsn: Dsn = "", schema: UnusedSchema = DEFAULT_SCHEMA
) -> None:
    """End the watching of a table, and keep the table."""
    group_dsn, group_json = context.obj
    with open_store("tables", dsn or group_dsn, schema) as store:
        was_watched = store.remove_table(name)
    if json or group_json:
        print_json({"name": name, "removed": was_watched})
    elif was_watched:
        typer.echo(printable(f"Streams no longer watch {name}."))
    if not was_watched:
        typer.echo(printable(f"pgdoc: table {name} is not watched: `pgdoc tables` lists those that are"), err=True)
        raise typer.Exit(1)


@tables_app.command("check", cls=PlainCommand)
def check_table_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    name: Name,
    document: DocumentColumn = None,
    *,
    json: Json = False,
    dsn: Dsn = "",
    schema: UnusedSchema = DEFAULT_SCHEMA,
) -> None:
    """Say what `add` would do, which lock it takes, what it costs, and what forbids it.

    The exit code is 1 if it can't be added.
    """
    group_dsn, group_json = context.obj
    with open_store("tables", dsn or group_dsn, schema) as store:
        found = store.check_table(name, document=document)
    if json or group_json:
        print_json(found)
    else:
        for label, value in _lines_of(found):
            typer.echo(printable(f"{label:<8}{value}"))
    raise typer.Exit(int(bool(found.refusals)))


def _cells(table: pgdoc.WatchedTable) -> tuple[str, ...]:
    return table.name, ", ".join(table.key), table.document or "the whole row", str(len(table.columns))


def _lines_of(found: pgdoc.TableCheck) -> list[tuple[str, str]]:
    """Return what a check found as lines, each with its label."""
    lines = [("refused", f"{each.reason}: {each.cure}") for each in found.refusals]
    if found.is_watched and not found.refusals:
        lines.append(("watched", "it is watched already"))
    lines += [("does", step) for step in found.steps]
    if found.lock is not None:
        lines.append(("lock", f"{found.lock} on it, for a moment"))
    lines += [("waits", _holder_line(holder)) for holder in found.holders]
    if found.steps:
        lines.append(("costs", _cost_line(found)))
    return lines + [("note", note) for note in found.notes]


def _holder_line(holder: pgdoc.LockHolder) -> str:
    who = holder.role if holder.pid is None else f"pid {holder.pid} of {holder.role}"
    age = "" if holder.since is None else f", in a transaction for {render_delay(_age(holder.since))}"
    return f"for {who}, which has {holder.lock}{age}"


def _cost_line(found: pgdoc.TableCheck) -> str:
    if found.wal_bytes_per_change is None:
        return "more WAL for each UPDATE and DELETE; run ANALYZE to see how much"
    if found.wal_bytes_per_change == 0:
        return "nothing: it has REPLICA IDENTITY FULL already"
    each = f"about {render_bytes(found.wal_bytes_per_change)} more WAL for each UPDATE and DELETE"
    if not found.changes:
        return f"{each}; none was counted so far"
    counted = "" if found.counted_since is None else f" in {render_delay(_age(found.counted_since))}"
    total = render_bytes(found.wal_bytes_per_change * found.changes)
    return f"{each}: {total} for the {found.changes:,}{counted}"


def _age(since: datetime) -> timedelta:
    return max(datetime.now(since.tzinfo) - since, timedelta())
