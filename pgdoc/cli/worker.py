"""`pgdoc worker`: run a worker, check whether it can run, or create its consumers."""

from typing import Annotated

import typer

from pgdoc.cli.arguments import Json
from pgdoc.cli.output import print_json
from pgdoc.cli.service_checks import print_checks
from pgdoc.cli.service_logs import LogFormat, LogLevel, log_to_stderr
from pgdoc.cli.service_metrics import MetricsHost, MetricsPort, served_metrics
from pgdoc.cli.service_process import call_service, run_service
from pgdoc.cli.worker_loading import AnyWorker, load_worker

__all__ = ["worker_command"]


def worker_command(  # noqa: PLR0913 (its options)
    worker: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:NAME",
            help="A pgdoc.Worker or pgdoc.AsyncWorker, or a function without arguments that returns one. The module "
            "may be in the current folder.",
        ),
    ],
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only check whether the worker can run, and print what is found.")
    ] = False,
    declare: Annotated[
        bool, typer.Option("--declare", help="Only create the consumers that do not exist, and exit.")
    ] = False,
    json: Json = False,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Run a worker until SIGTERM or Ctrl-C.

    Each handler ends its batch, or is rolled back after the worker's shutdown_timeout. A second signal ends the process
    at once. The worker logs to stderr. The exit code is 0 after a signal, and 1 if the worker can't run; with --check,
    1 if anything is wrong.
    """
    if check and declare:
        raise typer.BadParameter("it changes nothing: leave out --declare", param_hint="'--check'")
    if json and not (check or declare):
        raise typer.BadParameter("a worker prints nothing: use --log-format json", param_hint="'--json'")
    found = load_worker(worker)
    log_to_stderr(log_level or ("warning" if check or declare else None), log_format)
    if check:
        print_checks(call_service(found, found.check), json=json)
    elif declare:
        _declare(found, json=json)
    else:
        with served_metrics(metrics_port, metrics_host):
            run_service(found, "worker", "the handlers end their batches")


def _declare(worker: AnyWorker, *, json: bool) -> None:
    created = call_service(worker, worker.declare)
    for name in worker.consumers:
        is_new = name in created
        if json:
            print_json({"name": name, "created": is_new})
        else:
            typer.echo(f"Created consumer {name}." if is_new else f"Consumer {name} exists.")
