"""The error for the client of an engine that is not installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pgdoc.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["needing_extra"]

_MODULES: Final = ("nats", "nkeys", "redis", "confluent_kafka", "httpx")


@contextmanager
def needing_extra(extra: str) -> Iterator[None]:
    """Say what to install if the block can't import the client of an engine.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package not in _MODULES:
            raise
        raise MissingExtra(f"the package {package} is not installed: run pip install 'pgdoc[{extra}]'") from exc
