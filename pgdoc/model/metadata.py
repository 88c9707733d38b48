"""The writer's metadata, which the events of its changes carry."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pgdoc.errors import InvalidDocument
from pgdoc.model.json_codec import encode_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Metadata", "carry_trace", "current_metadata", "metadata", "with_trace"]


class Metadata:
    """The metadata of a writer, and the WAL message that carries it. Immutable."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)

    def __bool__(self) -> bool:
        return bool(self.values)

    @cached_property
    def message(self) -> str:
        """The content of the logical message with the prefix `pgdoc`."""
        return encode_value({"metadata": self.values}, "").decode()

    def over(self, other: Metadata) -> Metadata:
        """Merge with `other`; where both have a key, the value of this one wins."""
        return Metadata({**other.values, **self.values}) if self and other else self or other

    def since(self, earlier: Metadata) -> Metadata:
        """Return the items that `earlier` lacks or has with another value."""
        if self is earlier:
            return _NOTHING
        missing = object()
        return Metadata({k: v for k, v in self.values.items() if earlier.values.get(k, missing) is not v})


_NOTHING = Metadata({})
_current: ContextVar[Metadata] = ContextVar("pgdoc_metadata", default=_NOTHING)


def current_metadata() -> Metadata:
    """Return the merged metadata of the `metadata` blocks around the caller."""
    return _current.get()


_TRACE_KEYS = ("traceparent", "tracestate")
_read_trace: Callable[[], Mapping[str, str]] | None = None


def carry_trace(read_trace: Callable[[], Mapping[str, str]] | None) -> None:
    """Let writes carry the trace context that `read_trace` returns; `None` for no more."""
    global _read_trace  # noqa: PLW0603 (a process has one)
    _read_trace = read_trace


def with_trace(given: Metadata) -> Metadata:
    """Add the writer's trace context, where that is wanted: `traceparent` and `tracestate`, as the W3C defines them.

    The context is whole or absent: metadata in which the user has set one of the two keys stays as it is.
    """
    read_trace = _read_trace
    if read_trace is None or any(key in given.values for key in _TRACE_KEYS):
        return given
    trace = read_trace()
    return Metadata({**given.values, **trace}) if trace else given


@contextmanager
def metadata(**values: Any) -> Iterator[None]:
    """Attach metadata to every write of pgdoc inside the block. Its events carry it as `event.metadata`.

    Blocks nest; an inner value replaces an outer one of the same name. A block applies to the thread or asyncio task
    that entered it, and to tasks started inside it. It does not reach transactions of other libraries, such as those of
    an engine of SQLAlchemy: run `SELECT pgdoc.set_metadata(...)` there.

    Args:
        **values: any values that JSON can represent.

    Raises:
        InvalidDocument: JSON can't represent a value.
    """
    token = _current.set(checked(values).over(_current.get()))
    try:
        yield
    finally:
        _current.reset(token)


def checked(values: Mapping[str, Any] | None) -> Metadata:
    """Make `Metadata` from a user's mapping, if JSON can represent it."""
    if values is None:
        return _NOTHING
    if not hasattr(values, "keys"):
        raise InvalidDocument(
            f"metadata has type {type(values).__name__}: use a mapping such as {{'user': 'alice'}}", path="metadata"
        )
    made = Metadata(values)
    return made if made and made.message else _NOTHING
