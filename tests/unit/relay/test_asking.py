"""Many questions to an engine are open at once, and never too many."""

from __future__ import annotations

import asyncio

import pytest

from pgdoc.relay.asking import ask_each


async def test_answers_have_the_order_of_the_questions_and_64_are_open_at_once() -> None:
    open_now, most = 0, 0

    async def ask(question: int) -> int:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await asyncio.sleep(0)
        open_now -= 1
        return -question

    assert await ask_each(ask, range(1025)) == [-number for number in range(1025)]
    assert most == 64


async def test_the_first_error_ends_the_asking() -> None:
    asked = []

    async def ask(question: int) -> int:
        asked.append(question)
        return 1 // question

    with pytest.raises(ZeroDivisionError):
        await ask_each(ask, range(1000))
    assert len(asked) == 64
