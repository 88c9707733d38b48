"""`pgdoc ttl run`: delete documents that have expired."""

from __future__ import annotations

import contextlib
import json as json_module
import sys
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any

import psycopg
import typer

from pgdoc.cli.arguments import Dsn, PlainCommand, Schema
from pgdoc.cli.render import printable, render_backlog
from pgdoc.cli.stores import DEFAULT_SCHEMA, conninfo_of_command, explain_missing_dsn
from pgdoc.cli.termination import exit_at_sigterm
from pgdoc.database.errors import map_error
from pgdoc.database.expiry import INTERVAL_S, Backlog, connect_sweeper, read_backlog, sweep
from pgdoc.errors import DatabaseError, PgdocError, ServerUnreachable
from pgdoc.model.names import check_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgdoc.database.expiry import Expired

__all__ = ["ttl_app"]

ttl_app = typer.Typer(help="Delete documents that have expired.", rich_markup_mode=None, no_args_is_help=True)


@ttl_app.callback()
def ttl_command(context: typer.Context, dsn: Dsn = "", schema: Schema = DEFAULT_SCHEMA) -> None:
    """Delete documents that have expired."""
    context.obj = dsn, schema


@ttl_app.command("run", cls=PlainCommand)
def ttl_run_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    collections: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COLLECTION",
            help="Only these collections, also where triggers of other roles would run with the rights of this one. By "
            "default, all others.",
        ),
    ] = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Delete what has expired by now, and exit.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one result per line, as JSON.")] = False,
    dsn: Dsn = "",
    schema: Annotated[str | None, typer.Option("--schema", metavar="NAME", help="As for `pgdoc ttl`.")] = None,
) -> None:
    """Delete documents that have expired, once a minute until Ctrl-C, or --once.

    Stores do this by themselves while they are open. With --once, the exit code is 1 if documents stay.
    """
    group_dsn, group_schema = context.obj
    dsn, schema = dsn or group_dsn, check_name(schema or group_schema, "schema")
    names = frozenset(check_name(name, "collection") for name in collections or ())
    if once:
        raise typer.Exit(int(_run(dsn, schema, names, takes_turns=False, json=json)))
    exit_at_sigterm()
    _run(dsn, schema, names, takes_turns=True, json=json)  # an error of the first pass ends the command
    while True:
        sleep(INTERVAL_S)
        try:
            _run(dsn, schema, names, takes_turns=True, json=json)
        except PgdocError as exc:
            if not exc.resumable:
                raise
            sys.stderr.write(f"pgdoc: trying again in a minute: {printable(' '.join(str(exc).split()))}\n")


def _run(dsn: str, schema: str, names: frozenset[str], *, takes_turns: bool, json: bool) -> bool:
    """Make one pass and print it; return whether there was a problem."""
    met: set[str] = set()
    has_problem = False
    with _connected(dsn, schema) as connection:
        for result in sweep(connection, schema, names=names, takes_turns=takes_turns):
            met.add(result.collection)
            has_problem |= result.problem is not None
            _print(result, None if takes_turns else _backlog(connection, result), json=json)
    if not takes_turns and not names and not met:
        sys.stderr.write(f'pgdoc: no collection of the schema "{schema}" has an index with expire_after\n')
    for name in sorted(names - met):
        has_problem = True
        sys.stderr.write(
            f'pgdoc: collection "{schema}.{name}" has no index with expire_after: check the name, or call '
            "create_index(path, expire_after=...)\n"
        )
    return has_problem


@contextlib.contextmanager
def _connected(dsn: str, schema: str) -> Iterator[psycopg.Connection[Any]]:
    try:
        with contextlib.closing(connect_sweeper(conninfo_of_command("ttl", dsn), f"expiry {schema}")) as connection:
            yield connection
    except psycopg.Error as exc:
        raise map_error(exc, f'schema "{schema}"') from exc
    except (ServerUnreachable, DatabaseError) as exc:
        if dsn:
            raise
        raise explain_missing_dsn(exc) from exc


def _backlog(connection: psycopg.Connection[Any], result: Expired) -> Backlog | None:
    """Count what is left, unless this role may not look."""
    try:
        return None if result.problem else read_backlog(connection, result.index_oid)
    except psycopg.errors.InsufficientPrivilege:
        return None


def _print(result: Expired, backlog: Backlog | None, *, json: bool) -> None:
    if json:
        found = {
            "collection": result.collection,
            "index": result.index,
            "deleted": result.deleted,
            "ignored": None if backlog is None else backlog.ignored,
            "problem": result.problem,
        }
        typer.echo(json_module.dumps(found))
        return
    parts = [f"{result.deleted:,} deleted"]
    if not result.is_turn:
        parts.append("another session deletes at the moment")
    if backlog is not None and backlog.ignored:
        parts.append(f"{render_backlog(backlog.ignored)} with values that are no time")
    if result.problem is not None:
        parts.append(f"more may stay: {result.problem}")
    typer.echo(printable(f"{result.collection}, index {result.index}: {'; '.join(parts)}"))
