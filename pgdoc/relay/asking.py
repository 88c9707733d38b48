"""Asks an engine many questions at once, but not so many that it drops some: one after the other may take minutes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    Q = TypeVar("Q")
    A = TypeVar("A")

__all__ = ["ask_each"]

_AT_ONCE: Final = 64
"""How many questions of one call may be open. A server queues those of all its clients, and drops what is too much."""


async def ask_each(ask: Callable[[Q], Awaitable[A]], questions: Iterable[Q]) -> list[A]:
    """Return the answers in the order of the questions.

    After an error nothing more is asked; it is raised once all open questions are answered.
    """
    left: list[Q] = list(questions)
    answers: list[A] = []
    while left:
        for answer in await asyncio.gather(*map(ask, left[:_AT_ONCE]), return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
        left = left[_AT_ONCE:]
    return answers
