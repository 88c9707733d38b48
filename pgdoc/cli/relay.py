"""`pgdoc relay`: hand the events of a durable consumer over to a distributed log."""

from typing import Annotated, Any

import typer

import pgdoc
from pgdoc.cli.arguments import (
    Dsn,
    Schema,
    invalid_where,
    read_filter,
    refuse_names_with_tables,
)
from pgdoc.cli.service_logs import LogFormat, LogLevel, log_to_stderr
from pgdoc.cli.service_metrics import MetricsHost, MetricsPort, served_metrics
from pgdoc.cli.service_process import run_service
from pgdoc.cli.stores import DEFAULT_SCHEMA, open_store
from pgdoc.errors import InvalidInput

__all__ = ["relay_command"]


def relay_command(  # noqa: PLR0913 (its options)
    collections: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COLLECTION",
            help="The collections to relay, and the tables as SCHEMA.TABLE. By default, all collections.",
        ),
    ] = None,
    *,
    consumer: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The durable consumer that the relay reads. It is created if it does not exist, and keeps WAL on the "
            "server until `pgdoc consumers drop NAME`.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="PGDOC_RELAY_TO",
            help="The log: nats://host/STREAM, redis://host/NAME, kafka://host/TOPIC or https://host/path. Options of "
            "its engine follow a question mark.",
        ),
    ],
    tables: Annotated[bool, typer.Option("--tables", help="Without names, relay all watched tables, too.")] = False,
    where: Annotated[
        Any, typer.Option(metavar="JSON", parser=read_filter, help="Relay only events that match this filter.")
    ] = None,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Begin a new consumer with the documents that exist.")
    ] = False,
    format: Annotated[  # noqa: A002 (the option's name)
        str, typer.Option(metavar="NAME", help="The format of the messages. `RemoteStream` reads pgdoc.")
    ] = "pgdoc",
    partitions: Annotated[
        int, typer.Option(metavar="N", min=1, help="Into how many partitions the documents are divided.")
    ] = 16,
    on_lost: Annotated[
        str,
        typer.Option(
            metavar="raise|continue",
            help="What to do when the log lacks events that PostgreSQL no longer keeps.",
        ),
    ] = "raise",
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    dsn: Dsn = "",
    schema: Schema = DEFAULT_SCHEMA,
) -> None:
    """Hand the events of a durable consumer over to a distributed log until SIGTERM or Ctrl-C.

    The log has each event once, in order. Start the command on several machines: the others stand by. A server or an
    engine that is away is waited for. It logs to stderr. The exit code is 0 after a signal, and 1 if it can't relay.
    """
    names = collections or []
    refuse_names_with_tables(names, tables=tables)
    log_to_stderr(log_level, log_format)
    with open_store("relay", dsn, schema) as store:
        try:
            with invalid_where():
                relay = pgdoc.Relay(
                    store,
                    consumer,
                    to,
                    *names,
                    where=where,
                    tables=tables,
                    snapshot=snapshot,
                    format=format,
                    partitions=partitions,
                    on_lost=on_lost,
                )
        except InvalidInput as exc:
            raise typer.BadParameter(str(exc)) from exc
        with served_metrics(metrics_port, metrics_host):
            run_service(relay, "relay", "the relay ends when what it sent is acknowledged")
