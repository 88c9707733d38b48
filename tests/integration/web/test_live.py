"""Live queries in browsers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

import pgdoc
from pgdoc import web
from tests.integration.web.test_sse import Page
from tests.web_browsers import PATIENCE_S, Browser, Sent, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from pgdoc.server import LocalServer


class Shown:
    """A page with the list of a live query."""

    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []
        self.kinds: list[str] = []

    def take(self, sent: Sent) -> None:
        self.kinds.append(sent.event)
        if sent.event == "documents":
            self.documents = sent.data
        if sent.event == "changes":
            for change in sent.data:
                if change["old_index"] is not None:
                    assert self.documents.pop(change["old_index"])["id"] == change["document"]["id"]
                if change["new_index"] is not None:
                    self.documents.insert(change["new_index"], change["document"])

    @property
    def ids(self) -> list[str]:
        return [each["id"] for each in self.documents]

    async def until(self, browser: Browser, ids: list[str]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.ids != ids:
                self.take(await browser.next("documents", "changes"))


@contextlib.asynccontextmanager
async def page(dsn: str, *, shares: bool, view: Any = None, keep: int = 100) -> AsyncIterator[Page]:
    async with pgdoc.AsyncStore(dsn) as store:
        orders = store["orders"]
        query = orders.live({"status": "new"}, sort="-total", limit=3)
        broadcast = web.Broadcast(query, keep=keep)

        async def events(request: Request) -> web.EventStream:
            source = broadcast if shares else orders.live({"status": "new"}, sort="-total", limit=3)
            return web.sse(request, source, view=view, heartbeat=0.2)

        async with serving(Starlette(routes=[Route("/events", events)])) as served:
            yield Page(orders, served)
            await broadcast.close()


@pytest.mark.parametrize("shares", [False, True])
async def test_a_page_gets_all_documents_and_then_their_changes(dsn: str, shares: bool) -> None:
    async with page(dsn, shares=shares) as shown:
        for number in range(5):
            await shown.orders.insert(f"o-{number}", {"status": "new", "total": number})
        async with shown.browser() as one, shown.browser() as two:
            lists = Shown(), Shown()
            for browser, result in zip((one, two), lists, strict=True):
                await result.until(browser, ["o-4", "o-3", "o-2"])
                assert result.documents[0]["data"] == {"status": "new", "total": 4}
                assert result.documents[0]["version"] == 1
            await shown.orders.update("o-4", {"$set": {"status": "paid"}})
            await shown.orders.update("o-1", {"$set": {"total": 9}})
            for browser, result in zip((one, two), lists, strict=True):
                await result.until(browser, ["o-1", "o-3", "o-2"])
                assert set(result.kinds[1:]) == {"changes"}


async def test_a_page_that_comes_back_gets_only_what_it_missed(dsn: str) -> None:
    async with page(dsn, shares=True) as shown:
        for number in range(3):
            await shown.orders.insert(f"o-{number}", {"status": "new", "total": number})
        result, other = Shown(), Shown()
        browser = shown.browser()
        async with shown.browser() as watching:
            async with browser:
                await result.until(browser, ["o-2", "o-1", "o-0"])
            await shown.orders.insert("o-3", {"status": "new", "total": 3})
            await other.until(watching, ["o-3", "o-2", "o-1"])
            async with browser:
                await result.until(browser, ["o-3", "o-2", "o-1"])
                assert result.kinds == ["documents", "changes"]
                await browser.next("heartbeat")
            async with browser:  # nothing has changed
                await browser.next("heartbeat")
                await shown.orders.delete("o-3")
                await result.until(browser, ["o-2", "o-1", "o-0"])
                assert result.kinds == ["documents", "changes", "changes"]


async def test_a_page_that_was_away_too_long_gets_everything_again(dsn: str) -> None:
    async with page(dsn, shares=True, keep=2) as shown:
        await shown.orders.insert("o-0", {"status": "new", "total": 0})
        result, other = Shown(), Shown()
        browser = shown.browser()
        async with shown.browser() as watching:
            async with browser:
                await result.until(browser, ["o-0"])
            for number in range(1, 6):
                await shown.orders.insert(f"o-{number}", {"status": "new", "total": number})
                await other.until(watching, [f"o-{each}" for each in range(number, max(-1, number - 3), -1)])
            async with browser:
                await result.until(browser, ["o-5", "o-4", "o-3"])
                assert result.kinds == ["documents", "documents"]


@pytest.mark.parametrize("shares", [False, True])
async def test_a_view_hides_documents_and_the_indexes_follow(dsn: str, shares: bool) -> None:
    async with page(dsn, shares=shares, view=lambda document: document["owner"] == "ann") as shown:
        for number in range(3):
            data = {"status": "new", "total": number, "owner": "bob" if number == 1 else "ann"}
            await shown.orders.insert(f"o-{number}", data)
        async with shown.browser() as browser:
            result = Shown()
            await result.until(browser, ["o-2", "o-0"])
            await shown.orders.update("o-1", {"$set": {"owner": "ann"}})
            await result.until(browser, ["o-2", "o-1", "o-0"])
            await shown.orders.update("o-2", {"$set": {"owner": "bob"}})
            await result.until(browser, ["o-1", "o-0"])


async def test_a_live_query_goes_on_after_the_server_was_away(private_server: LocalServer, private_dsn: str) -> None:
    async with page(private_dsn, shares=True) as shown, shown.browser() as browser:
        result = Shown()
        await shown.orders.insert("o-1", {"status": "new", "total": 1})
        await result.until(browser, ["o-1"])
        with private_server.stopped():
            async with asyncio.timeout(PATIENCE_S):
                while (await browser.next("heartbeat")).data["mode"] != "reconnecting":
                    pass
        async with pgdoc.AsyncStore(private_dsn) as store:
            await store["orders"].insert("o-2", {"status": "new", "total": 2})
        await result.until(browser, ["o-2", "o-1"])


@pytest.mark.parametrize("shares", [False, True])
async def test_a_live_count_is_a_value_and_a_live_sum_by_group_has_groups(dsn: str, shares: bool) -> None:
    async with pgdoc.AsyncStore(dsn) as store:
        orders = store["orders"]
        sources: dict[str, Callable[[], Any]] = {
            "/count": orders.live_count,
            "/sum": lambda: orders.live_sum("total", by="status"),
        }
        shared = {path: web.Broadcast(make()) for path, make in sources.items()}

        async def events(request: Request) -> web.EventStream:
            path = request.url.path
            return web.sse(request, shared[path] if shares else sources[path]())

        await orders.insert("o-1", {"status": "new", "total": 2})
        app = Starlette(routes=[Route(path, events) for path in sources])
        async with (
            serving(app) as served,
            Browser(f"{served.url}/count") as count,
            Browser(f"{served.url}/sum") as total,
        ):
            assert (await count.next("value")).data == {"value": 1}
            assert (await total.next("value")).data == {"groups": [{"group": "new", "value": 2}]}
            await orders.insert("o-2", {"status": "paid", "total": 5})
            assert (await count.next("value")).data == {"value": 2}
            groups = [{"group": "new", "value": 2}, {"group": "paid", "value": 5}]
            assert (await total.next("value")).data == {"groups": groups}


async def test_an_open_live_query_is_refused(dsn: str) -> None:
    async with pgdoc.AsyncStore(dsn) as store, store["orders"].live() as query:
        with pytest.raises(ValueError, match="is open"):
            web.Broadcast(query)
