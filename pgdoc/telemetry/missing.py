"""The error for a library that is not installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pgdoc.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_EXTRA = ("opentelemetry", "prometheus_client")


@contextmanager
def needing(package: str) -> Iterator[None]:
    """Say what to install if the block can't import `package`.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        if not (exc.name or "").startswith(_OF_EXTRA):
            raise
        raise MissingExtra(
            f"this part of pgdoc.telemetry needs the package {package}: run pip install 'pgdoc[telemetry]'"
        ) from exc
