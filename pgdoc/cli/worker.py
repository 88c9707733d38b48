"""`pgdoc worker`: run a worker, check whether it can run, or create its consumers."""

import contextlib
from typing import Annotated, Any, Final

import typer

from pgdoc.cli.arguments import Json
from pgdoc.cli.doctor.finding import Finding
from pgdoc.cli.doctor.printing import print_finding
from pgdoc.cli.output import print_json
from pgdoc.cli.worker_loading import AnyWorker, fail, load_worker
from pgdoc.cli.worker_logs import LEVELS, LOG_FORMATS, log_to_stderr
from pgdoc.cli.worker_process import call_worker, run_worker
from pgdoc.telemetry import serve

__all__ = ["worker_command"]

_ANY_PORT: Final = 65535


def _read_level(text: str) -> str:
    return _read_choice(text.lower(), LEVELS)


def _read_format(text: str) -> str:
    return _read_choice(text, LOG_FORMATS)


def _read_choice(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(choices)}")
    return text


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
    log_level: Annotated[
        Any,
        typer.Option(
            metavar="|".join(LEVELS), parser=_read_level, help="Log this and what is worse; by default, info."
        ),
    ] = None,
    log_format: Annotated[
        Any, typer.Option(metavar="|".join(LOG_FORMATS), parser=_read_format, help="How to log; by default, text.")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=_ANY_PORT,
            help="Serve the metrics of this process for Prometheus at this port; 0 selects a free one.",
        ),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(metavar="HOST", help="Serve them at this address of this machine.")
    ] = "127.0.0.1",
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
        _check(found, json=json)
    elif declare:
        _declare(found, json=json)
    else:
        with _metrics(metrics_port, metrics_host):
            run_worker(found)


def _check(worker: AnyWorker, *, json: bool) -> None:
    findings = call_worker(worker, worker.check)
    for each in findings:
        if json:
            print_json(each)
        else:
            subject = each.consumer or each.id.removeprefix("worker-")
            print_finding(Finding(each.id, each.verdict, subject, each.text, each.handler, fix=each.fix))
    raise typer.Exit(int(any(each.verdict == "wrong" for each in findings)))


def _declare(worker: AnyWorker, *, json: bool) -> None:
    created = call_worker(worker, worker.declare)
    for name in worker.consumers:
        is_new = name in created
        if json:
            print_json({"name": name, "created": is_new})
        else:
            typer.echo(f"Created consumer {name}." if is_new else f"Consumer {name} exists.")


def _metrics(port: int | None, host: str) -> contextlib.AbstractContextManager[object]:
    if port is None:
        return contextlib.nullcontext()
    try:
        endpoint = serve(port, host)
    except OSError as exc:
        fail(f"can't listen on {host}, port {port}: {exc.strerror or exc}; choose another --metrics-port")
    typer.echo(f"The metrics are at {endpoint.url}.", err=True)
    return endpoint
