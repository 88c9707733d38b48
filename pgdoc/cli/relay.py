"""`pgdoc relay`: hand the events of a durable consumer over to a distributed log, or send them to a webhook."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

import pgdoc
from pgdoc.cli.arguments import Dsn, Json, Schema, invalid_where, read_filter, refuse_names_with_all
from pgdoc.cli.publishing import Topics
from pgdoc.cli.service_checks import print_checks
from pgdoc.cli.service_logs import LogFormat, LogLevel, log_to_stderr
from pgdoc.cli.service_metrics import MetricsHost, MetricsPort, served_metrics
from pgdoc.cli.service_process import run_service
from pgdoc.cli.stores import DEFAULT_SCHEMA, open_store
from pgdoc.errors import InvalidFilter, InvalidInput

__all__ = ["relay_command"]

_WEBHOOKS: Final = ("https://", "http://")


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
            help="A log: nats://host/STREAM, redis://host/NAME or kafka://host/TOPIC, with options of its engine after "
            "a question mark. Or a webhook: https://host/path.",
        ),
    ],
    tables: Annotated[bool, typer.Option("--tables", help="Without names, relay all watched tables, too.")] = False,
    topics: Topics = None,
    where: Annotated[
        Any, typer.Option(metavar="JSON", parser=read_filter, help="Relay only events that match this filter.")
    ] = None,
    create: Annotated[bool, typer.Option("--create", help="Create the collections that do not exist.")] = False,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Begin a new consumer with the documents that exist.")
    ] = False,
    format: Annotated[  # noqa: A002 (the option's name)
        str,
        typer.Option(
            metavar="NAME",
            help="Of the messages: pgdoc or cloudevents, which RemoteStream reads, or debezium; for a webhook also "
            "cloudevents-binary.",
        ),
    ] = "pgdoc",
    partitions: Annotated[
        int | None,
        typer.Option(metavar="N", help="A log: into how many partitions the documents are divided. By default, 16."),
    ] = None,
    on_lost: Annotated[
        str | None,
        typer.Option(
            metavar="raise|continue",
            help="A log: what to do when it lacks events that PostgreSQL no longer keeps. By default, raise.",
        ),
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A webhook: the file with the secrets that sign the messages. By default, they are in the environment "
            "variable PGDOC_WEBHOOK_SECRET.",
        ),
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option(metavar="N", help="A webhook: how often an event is sent again. By default, 10."),
    ] = None,
    on_dead: Annotated[
        str | None,
        typer.Option(
            metavar="park|continue",
            help="A webhook: what becomes of later events of a document of which one was given up. By default, park.",
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(metavar="N", help="A webhook: how many requests run side by side. By default, 8."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="A webhook: how long a request may take. By default, 15 seconds."),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A webhook: the certificates to trust, in PEM, instead of the usual ones."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only check whether the relay can run, and print what is found.")
    ] = False,
    json: Json = False,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
    dsn: Dsn = "",
    schema: Schema = DEFAULT_SCHEMA,
) -> None:
    """Hand the events of a durable consumer over to a distributed log or a webhook until SIGTERM or Ctrl-C.

    A log has each event once, in order. Start the command on several machines: the others stand by. A server or an
    engine that is away is waited for. It logs to stderr. The exit code is 0 after a signal, and 1 if it can't
    relay; with --check, 1 if anything is wrong.
    """
    if json and not check:
        raise typer.BadParameter("a relay prints nothing: use --log-format json", param_hint="'--json'")
    names = collections or []
    refuse_names_with_all(names, tables=tables)
    of_log = {"partitions": partitions, "on_lost": on_lost}
    of_webhook = {
        "secrets": _read_secrets(secret_file),
        "retries": retries,
        "on_dead": on_dead,
        "concurrency": concurrency,
        "timeout": timeout,
        "ca_file": None if ca_file is None else str(ca_file),
    }
    is_webhook = to.lower().startswith(_WEBHOOKS)
    _refuse(of_log if is_webhook else of_webhook, "a webhook" if is_webhook else "a log")
    options = {"where": where, "tables": tables, "topics": topics, "snapshot": snapshot, "format": format}
    options |= {name: value for name, value in (of_webhook if is_webhook else of_log).items() if value is not None}
    log_to_stderr(log_level or ("warning" if check else None), log_format)
    with open_store("relay", dsn, schema, auto_create=create) as store:
        relay = _relay(store, consumer, to, names, options, is_webhook=is_webhook)
        if check:
            print_checks(relay.check(), json=json)
        with served_metrics(metrics_port, metrics_host):
            run_service(relay, "relay", "the relay ends when what it sent is acknowledged")


def _relay(  # noqa: PLR0913 (what the command line names)
    store: pgdoc.Store, consumer: str, to: str, names: list[str], options: dict[str, Any], *, is_webhook: bool
) -> pgdoc.Relay | pgdoc.WebhookRelay:
    """Make the relay; what the command line has wrong is reported as such."""
    try:
        with invalid_where():
            if is_webhook:
                return pgdoc.WebhookRelay(store, consumer, to, *names, **options)
            return pgdoc.Relay(store, consumer, to, *names, **options)
    except InvalidFilter:
        raise
    except (InvalidInput, ValueError) as exc:
        raise typer.BadParameter(str(exc)) from exc


def _read_secrets(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise typer.BadParameter(f"{file} can't be read: {exc}", param_hint="'--secret-file'") from exc


def _refuse(options: dict[str, Any], target: str) -> None:
    """Refuse options that have no effect on what the relay writes to."""
    for name, value in options.items():
        if value is not None:
            option = "--secret-file" if name == "secrets" else f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"it has no effect on {target}: leave it out", param_hint=f"'{option}'")
