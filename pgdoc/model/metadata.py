"""Who writes, and why: the writer's metadata, which travels with each of its changes."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pgdoc.errors import InvalidDocument
from pgdoc.model.json_codec import encode_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Metadata", "current_metadata", "metadata"]


class Metadata:
    """What a writer says about its changes, and the WAL message that says it; never changed once made."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)

    def __bool__(self) -> bool:
        return bool(self.values)

    @cached_property
    def message(self) -> str:
        """The content of the logical message with the prefix `pgdoc`."""
        return encode_value({"metadata": self.values}, "metadata").decode()

    def over(self, other: Metadata) -> Metadata:
        """Merge with `other`; where both have a key, this one wins."""
        return Metadata({**other.values, **self.values}) if self and other else self or other

    def since(self, earlier: Metadata) -> Metadata:
        """Return what this has and `earlier` has not, or not with the same value."""
        if self is earlier:
            return _NOTHING
        missing = object()
        return Metadata({k: v for k, v in self.values.items() if earlier.values.get(k, missing) is not v})


_NOTHING = Metadata({})
_current: ContextVar[Metadata] = ContextVar("pgdoc_metadata", default=_NOTHING)


def current_metadata() -> Metadata:
    """Return the metadata of the blocks that the caller is in."""
    return _current.get()


@contextmanager
def metadata(**values: Any) -> Iterator[None]:
    """Give every write inside the block this metadata: its events carry it as `event.metadata`.

    Blocks nest: inner values are merged over outer ones. The block holds for the thread or the asyncio task that
    entered it, and for tasks started inside it.

    Args:
        **values: anything that JSON has a form for.

    Raises:
        InvalidDocument: a value has no form in JSON.
    """
    token = _current.set(checked(values).over(_current.get()))
    try:
        yield
    finally:
        _current.reset(token)


def checked(values: Mapping[str, Any] | None) -> Metadata:
    """Make `Metadata` of what a user gave, and refuse it here where it can't be sent.

    Raises:
        InvalidDocument: it is not an object, or holds what JSON has no form for.
    """
    if values is None:
        return _NOTHING
    if not hasattr(values, "keys"):
        raise InvalidDocument(
            f"metadata is {type(values).__name__}, not a mapping: give {{'user': 'alice'}}", path="metadata"
        )
    made = Metadata(values)
    return made if made and made.message else _NOTHING
