"""Whether a block is of the kind that it needs."""

from __future__ import annotations

__all__ = ["check_block"]


def check_block(call: str, subject: object, *, is_async: bool, wants_async: bool) -> None:
    """Raise `TypeError` unless an async subject, and no other, is used with `async with`."""
    if is_async == wants_async:
        return
    kind, block = ("asynchronous", "async with") if is_async else ("synchronous", "with")
    raise TypeError(f"{type(subject).__name__} is {kind}: use {block} {call}(...)")
