"""One stream behind many browsers."""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

import pgdoc.web.broadcast
from pgdoc import web
from pgdoc.changes.events import ChangeEvent
from pgdoc.web.reading import ReadBatch, StreamReading
from tests.integration.web.test_sse import Page, open_streams
from tests.web_browsers import PATIENCE_S, Browser, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from pgdoc.server import LocalServer


class SharedPage(Page):
    broadcast: web.Broadcast


@contextlib.asynccontextmanager
async def page(
    dsn: str, *, watch: dict[str, Any] | None = None, keep: int = 1000, keep_bytes: int = 1 << 20, **options: Any
) -> AsyncIterator[SharedPage]:
    async with pgdoc.AsyncStore(dsn) as store:
        orders = store["orders"]
        broadcast = web.Broadcast(orders.watch(**watch or {}), keep=keep, keep_bytes=keep_bytes)

        async def events(request: Request) -> web.EventStream:
            return web.sse(request, broadcast, **options)

        app = Starlette(routes=[Route("/events", events)], exception_handlers={pgdoc.PgdocError: web.problem})
        async with serving(app) as served:
            shown = SharedPage(orders, served)
            shown.broadcast = broadcast
            yield shown
            await broadcast.close()


@contextlib.asynccontextmanager
async def browsers(shown: Page, count: int) -> AsyncIterator[list[Browser]]:
    async with contextlib.AsyncExitStack() as stack:
        found = [await stack.enter_async_context(shown.browser()) for _ in range(count)]
        for each in found:
            await each.next("heartbeat")
        yield found


async def test_all_browsers_share_one_stream_and_its_rendering(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[str | None] = []
    to_json = ChangeEvent.to_json

    def counted(event: ChangeEvent) -> bytes:
        rendered.append(event.document_id)
        return to_json(event)

    monkeypatch.setattr(ChangeEvent, "to_json", counted)
    async with page(dsn) as shown, browsers(shown, 10) as found:
        for number in range(3):
            await shown.orders.insert(f"o-{number}", {})
        for browser in found:
            assert await browser.ids(3) == ["o-0", "o-1", "o-2"]
        assert open_streams() == 1
        assert rendered == ["o-0", "o-1", "o-2"]


async def test_a_browser_goes_on_from_memory(dsn: str) -> None:
    async with page(dsn) as shown, browsers(shown, 1) as (watching,):
        browser = shown.browser()
        async with browser:
            await browser.next("heartbeat")
            await shown.orders.insert("o-1", {})
            assert await browser.ids(1) == ["o-1"]
        for number in range(2, 6):
            await shown.orders.insert(f"o-{number}", {})
        assert await watching.ids(5) == [f"o-{number}" for number in range(1, 6)]
        async with browser:
            assert await browser.ids(4) == [f"o-{number}" for number in range(2, 6)]
            assert open_streams() == 1


async def test_an_older_browser_reads_its_own_stream_until_it_meets_the_ring(dsn: str) -> None:
    async with page(dsn, keep=3) as shown, browsers(shown, 1) as (watching,):
        browser = shown.browser()
        async with browser:
            await browser.next("heartbeat")
        for number in range(20):
            await shown.orders.insert(f"o-{number:02}", {})
        assert len(await watching.ids(20)) == 20
        async with browser:
            assert await browser.ids(20) == [f"o-{number:02}" for number in range(20)]
            await shown.orders.insert("o-20", {})
            assert await browser.ids(1) == ["o-20"]
            await until_streams(1)


async def until_streams(count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while open_streams() != count:  # noqa: ASYNC110 (nothing to await)
            await asyncio.sleep(0.01)


async def test_a_new_browser_gets_its_own_snapshot_and_then_the_shared_changes(dsn: str) -> None:
    async with page(dsn, watch={"snapshot": True}) as shown:
        for number in range(3):
            await shown.orders.insert(f"o-{number}", {})
        for _ in range(2):
            async with shown.browser() as browser:
                assert await browser.ids(3) == ["o-0", "o-1", "o-2"]
                await until_streams(1)
                await shown.orders.update("o-1", {"$inc": {"n": 1}})
                assert (await browser.next()).data["event_type"] == "update"


async def test_browsers_that_come_back_to_a_new_server_miss_nothing_and_mostly_share(dsn: str) -> None:
    async with page(dsn, heartbeat=0.1) as shown, browsers(shown, 5) as found:
        await shown.orders.insert("o-1", {})
        for browser in found:
            assert await browser.ids(1) == ["o-1"]
        last_ids = [browser.last_id for browser in found]
        async with page(dsn) as new:
            await shown.orders.insert("o-2", {})
            again = [new.browser() for _ in found]
            async with contextlib.AsyncExitStack() as stack:
                for browser, last_id in zip(again, last_ids, strict=True):
                    browser.last_id = last_id
                    await stack.enter_async_context(browser)
                for browser in again:
                    assert await browser.ids(1) == ["o-2"]
                await until_streams(2)  # one of each server


async def test_a_new_browser_begins_now_though_another_came_back_with_an_old_token(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgdoc.web.broadcast, "LATE", timedelta(0))
    async with page(dsn) as shown, shown.browser() as browser:
        token = (await browser.next("heartbeat")).id
        for part in range(10):
            await shown.orders.insert_many((f"o-{part}-{number:03}", {"text": "x" * 100}) for number in range(200))
    async with page(dsn) as shown:
        old, new = shown.browser(), shown.browser()
        old.last_id = token
        async with old, new:
            await shown.orders.insert("last", {})
            assert await new.ids(1) == ["last"]
            assert (await old.ids(2001))[-1] == "last"
            await until_streams(1)


@pytest.mark.parametrize("token", ["nonsense", "0/1.0/1.0.0.0.1", "FFFFFFFF/0.{ids}"])
async def test_a_token_that_can_not_be_used_resets_that_page_only(dsn: str, token: str) -> None:
    async with page(dsn) as shown, browsers(shown, 1) as (watching,):
        browser = shown.browser()
        browser.last_id = token.replace("{ids}", watching.last_id.partition(".")[2])
        async with browser:
            assert (await browser.next()).data == {"reason": "invalid_token"}
            await shown.orders.insert("o-1", {})
            assert await browser.ids(1) == ["o-1"]
        assert await watching.ids(1) == ["o-1"]


async def test_each_browser_has_its_own_view(dsn: str) -> None:
    async with pgdoc.AsyncStore(dsn) as store:
        orders = store["orders"]
        broadcast = web.Broadcast(orders.watch())

        async def events(request: Request) -> web.EventStream:
            user = request.query_params["user"]

            def view(event: ChangeEvent) -> Any:
                document = event.full_document
                assert document is not None
                if document["owner"] != user:
                    return False
                document.data[user] = "seen"  # the next browser must not see it
                return event

            return web.sse(request, broadcast, view=view)

        async with (
            serving(Starlette(routes=[Route("/events", events)])) as served,
            contextlib.AsyncExitStack() as stack,
        ):
            ann, bob, too = [Browser(f"{served.url}/events?user={name}") for name in ("ann", "bob", "ann")]
            for browser in (ann, bob, too):
                await stack.enter_async_context(browser)
                await browser.next("heartbeat")
            await orders.insert("o-1", {"owner": "ann"})
            await orders.insert("o-2", {"owner": "bob"})
            await orders.insert("o-3", {"owner": "ann"})
            assert await ann.ids(2) == ["o-1", "o-3"]
            assert await bob.ids(1) == ["o-2"]
            for _ in range(2):
                assert (await too.next()).data["full_document"]["data"] == {"owner": "ann", "ann": "seen"}


async def test_a_slow_browser_slows_nobody_and_gets_everything(dsn: str) -> None:
    """It falls out of the ring, reads on from its own stream, and catches up."""
    async with page(dsn, keep=50) as shown, browsers(shown, 1) as (fast,):
        reader, writer = await asyncio.open_connection("127.0.0.1", shown.served.port, limit=1 << 10)
        writer.write(b"GET /events HTTP/1.0\r\n\r\n")
        assert b"200" in await reader.readline()
        text = "x" * 20_000
        await shown.orders.insert_many((f"o-{number:04}", {"text": text}) for number in range(600))
        assert len(await fast.ids(600)) == 600
        found: list[bytes] = []
        async with asyncio.timeout(PATIENCE_S):
            tail = b""
            while len(found) < 600:
                tail += await reader.read(1 << 16)
                *blocks, tail = tail.split(b"\n\n")
                found += [block for block in blocks if block.startswith(b"event: change\n")]
        ids = [block.partition(b'"document_id":"')[2][:6].decode() for block in found]
        assert ids == [f"o-{number:04}" for number in range(600)]
        writer.close()


async def test_the_stream_ends_with_its_store_and_the_browsers_with_it(dsn: str) -> None:
    async with page(dsn) as shown, browsers(shown, 2) as found:
        await shown.broadcast.close()
        for browser in found:
            await browser.end()
        async with shown.browser() as again:  # opens it again
            await again.next("heartbeat")


async def test_the_shared_stream_does_not_run_in_the_context_of_the_first_request(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: set[str] = set()
    next_of_stream = StreamReading.next

    async def noted(reading: StreamReading, timeout_s: float) -> ReadBatch:
        found.add(user.get("nobody"))
        return await next_of_stream(reading, timeout_s)

    class AsAnn:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            user.set("ann")
            await self.app(scope, receive, send)

    monkeypatch.setattr(StreamReading, "next", noted)
    async with pgdoc.AsyncStore(dsn) as store:
        broadcast = web.Broadcast(store["orders"].watch())

        async def events(request: Request) -> web.EventStream:
            return web.sse(request, broadcast)

        app = Starlette(routes=[Route("/events", events)], middleware=[Middleware(AsAnn)])
        async with serving(app) as served, Browser(f"{served.url}/events") as browser:
            await browser.next("heartbeat")
        assert found == {"nobody"}


user: ContextVar[str] = ContextVar("user")


async def test_a_stream_that_can_not_open_is_an_http_error(dsn: str) -> None:
    async with pgdoc.AsyncStore(dsn, auto_create=False) as store:
        broadcast = web.Broadcast(store["nothing"].watch())

        async def events(request: Request) -> web.EventStream:
            return web.sse(request, broadcast)

        app = Starlette(routes=[Route("/events", events)], exception_handlers={pgdoc.PgdocError: web.problem})
        async with serving(app) as served:
            for _ in range(2):
                async with Browser(f"{served.url}/events") as browser:
                    assert browser.status == 404


async def test_browsers_wait_while_the_server_is_away(private_server: LocalServer, private_dsn: str) -> None:
    async with page(private_dsn, heartbeat=0.2) as shown, browsers(shown, 2) as found:
        with private_server.stopped():
            for browser in found:
                async with asyncio.timeout(PATIENCE_S):
                    while (await browser.next("heartbeat")).data["mode"] != "reconnecting":
                        pass
            late = shown.browser()
        async with late:
            await late.next("heartbeat")
            async with pgdoc.AsyncStore(private_dsn) as store:
                await store["orders"].insert("o-1", {})
            for browser in [*found, late]:
                assert await browser.ids(1) == ["o-1"]


async def test_what_can_not_be_shared_is_refused(dsn: str) -> None:
    async with pgdoc.AsyncStore(dsn) as store:
        with pytest.raises(ValueError, match="consumer"):
            web.Broadcast(store["orders"].watch(consumer="billing"))
        with pytest.raises(TypeError, match="AsyncStore"):
            web.Broadcast(store["orders"])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="keep must be"):
            web.Broadcast(store["orders"].watch(), keep=0)
