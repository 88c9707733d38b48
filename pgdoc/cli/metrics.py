"""`pgdoc metrics`: serve the metrics of one database to Prometheus, or print them."""

import contextlib
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pgdoc.cli.arguments import ConsumerSchema, Dsn
from pgdoc.cli.render import printable
from pgdoc.cli.service_logs import logging_to_stderr
from pgdoc.cli.stores import explain_missing_dsn
from pgdoc.cli.termination import exit_at_sigterm
from pgdoc.errors import MissingExtra, ServerUnreachable
from pgdoc.model.names import check_name
from pgdoc.telemetry.database import DatabaseMetrics

if TYPE_CHECKING:
    from pgdoc.telemetry.exposition import Exposition

__all__ = ["metrics_command"]

_PORT: Final = 9188


def metrics_command(
    *,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Listen at this port; 0 selects a free one.")
    ] = _PORT,
    host: Annotated[str, typer.Option(metavar="HOST", help="Listen at this address of this machine.")] = "127.0.0.1",
    once: Annotated[bool, typer.Option("--once", help="Print the metrics once, and exit.")] = False,
    dsn: Dsn = "",
    schema: ConsumerSchema = None,
) -> None:
    """Serve the metrics of a database for Prometheus, until Ctrl-C.

    The role needs pg_monitor, and neither REPLICATION nor any right on tables. With --once, the exit code is 1 if
    something could not be read.
    """
    if schema is not None:
        check_name(schema, "schema")
    metrics = DatabaseMetrics(dsn, schema)
    with logging_to_stderr("pgdoc.metrics"), contextlib.closing(_exposition(metrics)) as exposition:
        if once:
            _print(metrics, exposition, has_dsn=bool(dsn))
            raise typer.Exit(int(bool(metrics.problems)))
        exit_at_sigterm()
        _serve(exposition, host, port)


def _exposition(metrics: DatabaseMetrics) -> "Exposition":
    try:
        from pgdoc.telemetry.exposition import Exposition  # noqa: PLC0415 (the extra may be missing)
    except ModuleNotFoundError as exc:
        raise MissingExtra(
            "pgdoc metrics needs the package prometheus-client: run pip install prometheus-client"
        ) from exc
    return Exposition(metrics)


def _print(metrics: DatabaseMetrics, exposition: "Exposition", *, has_dsn: bool) -> None:
    typer.echo(exposition.text(), nl=False)
    problem = metrics.problems.get("connection")
    if problem is not None and not has_dsn:
        typer.echo(f"pgdoc: {explain_missing_dsn(ServerUnreachable(problem))}", err=True)


def _serve(exposition: "Exposition", host: str, port: int) -> None:
    try:
        server = exposition.listen(host, port)
    except OSError as exc:
        typer.echo(f"pgdoc: {printable(exc.strerror or str(exc))}", err=True)
        raise typer.Exit(1) from exc
    with server:
        typer.echo(f"The metrics are at {server.url}. Ctrl-C stops.", err=True)
        server.serve_forever()
