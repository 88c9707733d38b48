"""Where tracing hooks into the calls of handlers: the engine itself knows no library for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.events import ChangeEvent
    from pgdoc.workers.registration import Registration

    MakeSpan: TypeAlias = Callable[[Registration, list[ChangeEvent]], AbstractContextManager[object]]

__all__ = ["handler_span", "trace_handlers"]

_make_span: MakeSpan | None = None


def trace_handlers(make_span: MakeSpan | None) -> None:
    """Run each call of a handler inside the context that `make_span` returns; `None` for no more."""
    global _make_span  # noqa: PLW0603 (a process has one)
    _make_span = make_span


def handler_span(registration: Registration, events: list[ChangeEvent]) -> AbstractContextManager[object]:
    """Return what to run a call inside of. Around a transaction, its writes carry the context of the span."""
    make_span = _make_span
    return nullcontext() if make_span is None or not events else make_span(registration, events)
