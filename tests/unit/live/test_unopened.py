"""A result of `AsyncStore` that was neither awaited nor entered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import pgdoc

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    "read",
    [
        lambda orders: orders.live().documents,
        lambda orders: orders.live().resume_token,
        lambda orders: orders.live_count().value,
        lambda orders: orders.live_count(by="status").groups,
        lambda orders: orders.mirror().copy(),
    ],
)
async def test_what_is_not_open_has_no_result(read: Callable[[pgdoc.AsyncCollection], object]) -> None:
    async with pgdoc.AsyncStore("host=127.0.0.1 port=1") as store:
        with pytest.raises(pgdoc.StreamError, match="is not open: await it, or enter it, first"):
            read(store["orders"])
