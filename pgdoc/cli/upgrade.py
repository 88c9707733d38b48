"""`pgdoc upgrade`: around an upgrade of PostgreSQL."""

from __future__ import annotations

import json as json_module
import sys
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from psycopg.conninfo import make_conninfo

from pgdoc.cli.arguments import Dsn, Json, PlainCommand, UnusedSchema, read_plugin
from pgdoc.cli.doctor import examine_server
from pgdoc.cli.render import printable
from pgdoc.cli.stores import DEFAULT_SCHEMA, conninfo_of_command, explain_missing_dsn
from pgdoc.errors import ServerUnreachable, UpgradeRefused
from pgdoc.upgrades.finish import finish_upgrade
from pgdoc.upgrades.prepare import cancel_upgrade, prepare_upgrade

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.upgrades.finish import FinishedDatabase
    from pgdoc.upgrades.moving import MovedConsumer

T = TypeVar("T")

__all__ = ["upgrade_app"]

upgrade_app = typer.Typer(
    help="Upgrade PostgreSQL so that durable consumers go on after it, with every event once.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

_TIMEOUT_S = 600.0
_STATISTICS = (
    "run `vacuumdb --all --analyze-in-stages`: to versions before 18, pg_upgrade takes no statistics along, and to "
    "later ones not all (--missing-stats-only)"
)

Only = Annotated[
    bool,
    typer.Option("--only", help="Only the database that the DSN names. By default, all of the cluster with a catalog."),
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long to wait for consumers and locks.")
]


@upgrade_app.callback()
def upgrade_command(context: typer.Context, dsn: Dsn = "", schema: UnusedSchema = DEFAULT_SCHEMA) -> None:  # noqa: ARG001
    """Upgrade PostgreSQL so that durable consumers go on after it, with every event once."""
    context.obj = dsn


@upgrade_app.command("prepare", cls=PlainCommand)
def prepare_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    *,
    cancels: Annotated[
        bool, typer.Option("--cancel", help="Go on with this cluster instead: undo what prepare has done.")
    ] = False,
    only: Only = False,
    timeout_s: Timeout = _TIMEOUT_S,
    ignore_slots: Annotated[
        bool,
        typer.Option("--ignore-slots", help="Leave slots that are not pgdoc's, and would stop pg_upgrade, to you."),
    ] = False,
    json: Json = False,
    dsn: Dsn = "",
    schema: UnusedSchema = DEFAULT_SCHEMA,  # noqa: ARG001 (it has no effect)
) -> None:
    """Run before the upgrade, with writers stopped and consumers still open.

    Waits until each consumer has read everything and is closed. From then on, collections and watched tables take no
    writes, on the new cluster neither, until `pgdoc upgrade finish`.
    """
    dsn = dsn or context.obj
    conninfo = conninfo_of_command("upgrade", dsn)
    if cancels:
        canceled = _run(lambda: cancel_upgrade(conninfo, only=only, timeout_s=timeout_s, report=_report), dsn)
        _print([_as_json(each) for each in canceled], [], json=json)
        for each in canceled if not json else ():
            what = "takes writes again" if each.was_prepared else "was not prepared"
            typer.echo(printable(f"{each.database}: {what}"))
            _print_consumers(each.consumers)
        return
    prepared, notes = _run(
        lambda: prepare_upgrade(conninfo, only=only, timeout_s=timeout_s, ignore_slots=ignore_slots, report=_report),
        dsn,
    )
    _print([_as_json(each) for each in prepared], notes, json=json)
    if json:
        return
    for found in prepared:
        names = ", ".join(found.consumers) or "no consumers"
        typer.echo(
            printable(
                f"{found.database}: prepared; {found.tables} tables take no writes, {len(found.dropped_slots)} slots "
                f"dropped; consumers that have read everything: {names}"
            )
        )
    typer.echo("Now stop the server, upgrade it, start it, and run `pgdoc upgrade finish`.")


@upgrade_app.command("finish", cls=PlainCommand)
def finish_command(  # noqa: PLR0913 (its options)
    context: typer.Context,
    *,
    plugin: Annotated[
        str,
        typer.Option(
            metavar="PLUGIN",
            parser=read_plugin,
            help="The output plugin of the consumers' slots. By default, the one that each had, or else pgoutput.",
        ),
    ] = "auto",
    only: Only = False,
    timeout_s: Timeout = _TIMEOUT_S,
    accept_losses: Annotated[
        bool, typer.Option("--accept-losses", help="Go on although tables were written to since prepare.")
    ] = False,
    json: Json = False,
    dsn: Dsn = "",
    schema: UnusedSchema = DEFAULT_SCHEMA,  # noqa: ARG001 (it has no effect)
) -> None:
    """Run on the upgraded server, before any program: consumers go on, and tables take writes again.

    If it is interrupted, run it again.
    """
    dsn = dsn or context.obj
    conninfo = conninfo_of_command("upgrade", dsn)
    finished = _run(
        lambda: finish_upgrade(
            conninfo, only=only, plugin=plugin, accept_losses=accept_losses, timeout_s=timeout_s, report=_report
        ),
        dsn,
    )
    notes = [_STATISTICS, *(note for each in finished for note in _collation_notes(conninfo, each))]
    _print([_as_json(each) for each in finished], notes, json=json)
    for each in finished if not json else ():
        typer.echo(
            printable(f"{each.database}: {'was finished before' if each.was_finished else 'takes writes again'}")
        )
        _print_consumers(each.consumers)


def _run(call: Callable[[], T], dsn: str) -> T:
    """Report each finding on a line of its own, and advise who named no database."""
    try:
        return call()
    except UpgradeRefused as exc:
        if not exc.findings:
            raise
        headline = str(exc).removesuffix("; ".join(exc.findings)).rstrip(": ")
        for finding in exc.findings:
            sys.stderr.write(f"{printable(' '.join(finding.split()))}\n")
        raise UpgradeRefused(headline) from exc
    except ServerUnreachable as exc:
        raise (exc if dsn else explain_missing_dsn(exc)) from exc


def _report(database: str, text: str) -> None:
    sys.stderr.write(f"{printable(f'{database}: {text}')}\n")
    sys.stderr.flush()


def _as_json(found: Any) -> dict[str, Any]:
    fields: dict[str, Any] = found._asdict()
    if fields.get("consumers") and not isinstance(fields["consumers"][0], str):
        fields["consumers"] = [each._asdict() | {"at": str(each.at)} for each in fields["consumers"]]
    return fields


def _print(databases: list[dict[str, Any]], notes: list[str], *, json: bool) -> None:
    if json:
        typer.echo(json_module.dumps({"databases": databases, "notes": notes}))
        return
    for note in notes:
        typer.echo(printable(f"note: {note}"))


def _print_consumers(consumers: tuple[MovedConsumer, ...]) -> None:
    for consumer in consumers:
        typer.echo(printable(f"  consumer {consumer.name} goes on at {consumer.at}, through {consumer.plugin}"))


def _collation_notes(conninfo: str, found: FinishedDatabase) -> list[str]:
    """Name the collations of the new operating system, or of another build, in which indexes have another order."""
    dsn = make_conninfo(conninfo, dbname=found.database)
    notes = (
        f"{finding.text}: run {'; '.join(finding.fix)}" if finding.fix else finding.text
        for schema in found.schemas
        for finding in examine_server(dsn, schema, only=["collations"])
        if finding.verdict != "ok"
    )
    return list(dict.fromkeys(notes))
