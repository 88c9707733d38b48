"""The error for a library that is not installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pgdoc.errors import PgdocError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def needing(library: str) -> Iterator[None]:
    """Say what to install if the block can't import `library`."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in {"opentelemetry", "prometheus_client"}:
            raise
        raise PgdocError(f'{library} is not installed: run pip install "pgdoc[telemetry]"') from exc
