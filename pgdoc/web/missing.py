"""The error for Starlette when it is not installed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pgdoc.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["needing_starlette"]


@contextmanager
def needing_starlette() -> Iterator[None]:
    """Say what to install if the block can't import Starlette.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "starlette":
            raise
        raise MissingExtra("pgdoc.web needs the package starlette: run pip install 'pgdoc[web]'") from exc
