"""The metrics of `pgdoc worker` and `pgdoc relay`: the options, and the endpoint."""

import contextlib
from typing import Annotated, Final

import typer

from pgdoc.cli.worker_loading import fail
from pgdoc.telemetry import serve

__all__ = ["MetricsHost", "MetricsPort", "served_metrics"]

_ANY_PORT: Final = 65535

MetricsPort = Annotated[
    int | None,
    typer.Option(
        metavar="PORT",
        min=0,
        max=_ANY_PORT,
        help="Serve the metrics of this process for Prometheus at this port; 0 selects a free one.",
    ),
]
MetricsHost = Annotated[str, typer.Option(metavar="HOST", help="Serve them at this address of this machine.")]


def served_metrics(port: int | None, host: str) -> contextlib.AbstractContextManager[object]:
    """Serve the metrics while the block runs, if there is a port."""
    if port is None:
        return contextlib.nullcontext()
    try:
        endpoint = serve(port, host)
    except OSError as exc:
        fail(f"can't listen on {host}, port {port}: {exc.strerror or exc}; choose another --metrics-port")
    typer.echo(f"The metrics are at {endpoint.url}.", err=True)
    return endpoint
