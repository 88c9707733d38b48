"""Server-sent events of a change stream, from a real uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

import pgdoc
from pgdoc import web
from pgdoc.runtime.census import CENSUS
from tests.web_browsers import Browser, Served, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request


class Page:
    """The application of a test: one endpoint, and the collection that it watches."""

    def __init__(self, orders: pgdoc.AsyncCollection, served: Served) -> None:
        self.orders, self.served = orders, served

    def browser(self, query: str = "") -> Browser:
        return Browser(f"{self.served.url}/events{query}")


@contextlib.asynccontextmanager
async def page(
    dsn: str, *, watch: dict[str, Any] | None = None, middleware: Any = (), **options: Any
) -> AsyncIterator[Page]:
    async with pgdoc.AsyncStore(dsn) as store:
        orders = store["orders"]

        async def events(request: Request) -> web.EventStream:
            return web.sse(request, orders.watch(**watch or {}), **options)

        app = Starlette(routes=[Route("/events", events)], middleware=middleware)
        async with serving(app) as served:
            yield Page(orders, served)


async def test_a_browser_gets_each_change_with_its_token(dsn: str) -> None:
    async with page(dsn, retry=2.5) as shown, shown.browser() as browser:
        assert browser.status == 200
        assert browser.headers["content-type"].startswith("text/event-stream")
        assert browser.headers["cache-control"] == "no-store, no-transform"
        assert browser.headers["x-accel-buffering"] == "no"
        first = await browser.next("heartbeat")
        assert first.data["mode"] == "live"
        assert browser.retry_ms == 2500
        await shown.orders.insert("o-1", {"total": 20, "note": "a\nb"})
        sent = await browser.next()
        assert sent.event == "change"
        assert sent.data["full_document"]["data"] == {"total": 20, "note": "a\nb"}
        assert sent.id == sent.data["resume_token"]
        assert pgdoc.ResumeToken.parse(sent.id) > pgdoc.ResumeToken.parse(first.id)


async def test_a_browser_that_reconnects_gets_what_it_missed(dsn: str) -> None:
    async with page(dsn) as shown:
        browser = shown.browser()
        async with browser:
            await browser.next("heartbeat")
            await shown.orders.insert("o-1", {})
            assert await browser.ids(1) == ["o-1"]
        await shown.orders.insert("o-2", {})
        async with browser:
            await shown.orders.insert("o-3", {})
            assert await browser.ids(2) == ["o-2", "o-3"]


async def test_the_first_request_resumes_by_the_query_and_the_header_goes_first(dsn: str) -> None:
    async with page(dsn) as shown:
        async with shown.browser() as browser:
            await browser.next("heartbeat")
            await shown.orders.insert("o-1", {})
            one = await browser.next()
            await shown.orders.insert("o-2", {})
            two = await browser.next()
        async with shown.browser(f"?after={one.id}") as again:
            assert await again.ids(1) == ["o-2"]
        later = shown.browser(f"?after={one.id}")
        later.last_id = two.id
        async with later:
            await shown.orders.insert("o-3", {})
            assert await later.ids(1) == ["o-3"]


async def test_a_snapshot_comes_first_and_goes_on_after_a_reconnect(dsn: str) -> None:
    async with page(dsn, watch={"snapshot": True}) as shown:
        for number in range(5):
            await shown.orders.insert(f"o-{number}", {})
        browser = shown.browser()
        async with browser:
            assert await browser.ids(2) == ["o-0", "o-1"]
        async with browser:
            assert await browser.ids(3) == ["o-2", "o-3", "o-4"]
            await shown.orders.insert("o-5", {})
            assert await browser.ids(1) == ["o-5"]


@pytest.mark.parametrize("token", ["nonsense", "16/B374D848", "0/1.0/1.0.0.0.1"])
@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_token_that_can_not_be_used_resets_the_page(dsn: str, token: str, snapshot: bool) -> None:
    async with page(dsn, watch={"snapshot": snapshot}) as shown:
        await shown.orders.insert("o-1", {})
        browser = shown.browser()
        browser.last_id = token
        async with browser:
            sent = await browser.next()
            assert (sent.event, sent.data) == ("reset", {"reason": "invalid_token"})
            await shown.orders.insert("o-2", {})
            assert await browser.ids(1 + snapshot) == ["o-1", "o-2"][1 - snapshot :]


@pytest.mark.parametrize("snapshot", [False, True])
async def test_a_token_whose_history_is_gone_resets_the_page(
    dsn: str, snapshot: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with page(dsn, watch={"snapshot": snapshot}) as shown:
        await shown.orders.insert("o-1", {})
        browser = shown.browser()
        async with browser:
            token = (await browser.next("heartbeat", "change")).id
        ids = ".".join(token.split(".")[-3:])
        browser.last_id = f"0/1000000.{ids}"
        async with browser:
            sent = await browser.next()
            assert (sent.event, sent.data) == ("reset", {"reason": "history_lost"})
            await shown.orders.insert("o-2", {})
            assert await browser.ids(1 + snapshot) == ["o-1", "o-2"][1 - snapshot :]
    assert "a subscriber begins anew" in caplog.text


async def test_a_heartbeat_moves_the_id_on_while_nothing_matches(dsn: str) -> None:
    async with (
        page(dsn, watch={"where": {"event_type": "delete"}}, heartbeat=0.05) as shown,
        shown.browser() as browser,
    ):
        first = await browser.next("heartbeat")
        await shown.orders.insert("o-1", {})
        async with asyncio.timeout(20):
            while (await browser.next("heartbeat")).id == first.id:
                pass
        async with shown.browser() as again:
            again.last_id = browser.last_id
            await shown.orders.delete("o-1")
            assert (await browser.next()).data["event_type"] == "delete"


async def test_a_view_hides_changes_and_replaces_them(dsn: str) -> None:
    seen: list[str] = []

    async def view(event: pgdoc.ChangeEvent) -> Any:
        seen.append(event.document_id or "")
        document = event.full_document
        assert document is not None
        if document["kind"] == "hidden":
            return None
        if document["kind"] == "changed":
            document.data["note"] = "-"
            return event
        return {"replaced": document.id} if document["kind"] == "replaced" else True

    async with page(dsn, view=view) as shown, shown.browser() as browser:
        await browser.next("heartbeat")
        for number, kind in enumerate(["hidden", "changed", "replaced", "plain"]):
            await shown.orders.insert(f"o-{number}", {"kind": kind, "note": 7})
        one, two, three = [await browser.next() for _ in range(3)]
        assert one.data["full_document"]["data"] == {"kind": "changed", "note": "-"}
        assert two.data == {"replaced": "o-2"}
        assert three.data["full_document"]["data"] == {"kind": "plain", "note": 7}
        assert seen == ["o-0", "o-1", "o-2", "o-3"]


async def test_ids_inside_a_snapshot_do_not_name_hidden_documents(dsn: str) -> None:
    def view(event: pgdoc.ChangeEvent) -> bool:
        return event.document_id == "o-8"

    async with page(dsn, watch={"snapshot": True}, view=view, heartbeat=0.01) as shown:
        for number in range(10):
            await shown.orders.insert(f"o-{number}", {})
        ids = []
        async with shown.browser() as browser:
            while (sent := await browser.next("heartbeat", "change")).event == "heartbeat":
                ids.append(sent.id)
            assert not [each for each in ids if each and pgdoc.ResumeToken.parse(each).is_inside]
            assert sent.data["document_id"] == "o-8"
            while pgdoc.ResumeToken.parse((await browser.next("heartbeat")).id).is_inside:
                pass
            await shown.orders.update("o-8", {"$set": {"n": 1}})
            assert (await browser.next()).data["event_type"] == "update"


async def test_an_error_of_a_view_ends_that_browser_only_and_is_logged(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    def view(event: pgdoc.ChangeEvent) -> bool:
        raise LookupError("no such user")

    async with page(dsn, view=view) as shown, shown.browser() as browser:
        await browser.next("heartbeat")
        await shown.orders.insert("o-1", {})
        await browser.end()
    assert [record.message for record in caplog.records if record.name == "pgdoc.web"] == [
        "a subscriber's stream failed"
    ]
    assert "no such user" in caplog.text


async def test_a_document_that_a_view_can_not_read_is_hidden_and_ends_nothing(dsn: str) -> None:
    def view(event: pgdoc.ChangeEvent) -> bool:
        document = event.full_document
        return document is not None and document["owner"] == "ann"

    async with page(dsn, view=view) as shown, shown.browser() as browser:
        await browser.next("heartbeat")
        await shown.orders.insert("o-1", {"owner": "ann"})
        async with pgdoc.AsyncStore(dsn) as store, store.transaction() as tx:
            number = "1" + "0" * 5000  # more digits than Python reads
            await tx.connection.execute(f"update docs.orders set data = data || '{{\"n\": {number}}}'")
        await shown.orders.insert("o-2", {"owner": "ann"})
        assert await browser.ids(2) == ["o-1", "o-2"]


async def test_a_view_may_return_an_event_whose_document_can_not_be_read(dsn: str) -> None:
    def view(event: pgdoc.ChangeEvent) -> Any:
        return event if event.document_id == "o-1" else {"update": event.full_document}

    async with page(dsn, view=view) as shown, shown.browser() as browser:
        await browser.next("heartbeat")
        await shown.orders.insert_many([("o-1", {}), ("o-2", {})])
        async with pgdoc.AsyncStore(dsn) as store, store.transaction() as tx:
            number = "1" + "0" * 5000  # more digits than Python reads
            await tx.connection.execute(f"update docs.orders set data = data || '{{\"n\": {number}}}'")
        await shown.orders.insert("o-3", {})
        assert [next(iter((await browser.next()).data)) for _ in range(2)] == ["event_type", "update"]
        unreadable = (await browser.next()).data
        assert unreadable | {"resume_token": ""} == {
            "event_type": "update",
            "collection": "orders",
            "document_id": "o-1",
            "resume_token": "",
            "error": "UnreadableDocument",
        }
        assert (await browser.next()).data["update"]["id"] == "o-3"


async def test_what_comes_before_an_error_of_a_view_arrives(dsn: str) -> None:
    def view(event: pgdoc.ChangeEvent) -> bool:
        if event.document_id == "o-2":
            raise LookupError
        return True

    async with page(dsn, view=view) as shown, shown.browser() as browser:
        await browser.next("heartbeat")
        await shown.orders.insert_many([("o-1", {}), ("o-2", {})])
        assert await browser.ids(1) == ["o-1"]
        await browser.end()


async def test_an_error_before_the_first_event_is_an_http_error(dsn: str) -> None:
    async with pgdoc.AsyncStore(dsn, auto_create=False) as store:

        async def events(request: Request) -> web.EventStream:
            return web.sse(request, store["nothing"].watch())

        app = Starlette(routes=[Route("/events", events)], exception_handlers={pgdoc.PgdocError: web.problem})
        async with serving(app) as served, Browser(f"{served.url}/events") as browser:
            assert browser.status == 404
            assert browser.headers["content-type"] == "application/problem+json"
            assert '"CollectionNotFound"' in browser.body


async def test_the_stream_is_closed_when_the_browser_leaves(dsn: str) -> None:
    async with page(dsn) as shown:
        async with shown.browser() as browser:
            await browser.next("heartbeat")
            assert open_streams() == 1
        await until_no_stream_is_open()


async def until_no_stream_is_open() -> None:
    async with asyncio.timeout(20):
        while open_streams():  # noqa: ASYNC110 (nothing to await)
            await asyncio.sleep(0.01)


def open_streams() -> int:
    return sum(name == "pgdoc_stream_lag_seconds" for (name, _), _ in CENSUS.gauges())


async def test_the_end_of_the_collection_ends_the_response(dsn: str) -> None:
    async with page(dsn) as shown, shown.browser() as browser:
        await browser.next("heartbeat")
        await shown.orders.insert("o-1", {})
        async with pgdoc.AsyncStore(dsn) as store:
            await store.drop_collection("orders")
        assert [(await browser.next()).data["event_type"] for _ in range(3)] == ["insert", "drop", "invalidate"]
        await browser.end()


class _Wrapping(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


async def test_it_works_inside_middleware_that_wraps_responses(dsn: str) -> None:
    middleware = [Middleware(_Wrapping), Middleware(GZipMiddleware), Middleware(web.PgdocMiddleware)]
    async with page(dsn, middleware=middleware) as shown:
        browser = shown.browser()
        async with browser:
            await browser.next("heartbeat")
            await shown.orders.insert("o-1", {})
            assert await browser.ids(1) == ["o-1"]
        async with browser:
            await shown.orders.insert("o-2", {})
            assert await browser.ids(1) == ["o-2"]
        await until_no_stream_is_open()


async def test_what_can_not_be_a_source_is_refused(dsn: str) -> None:
    async with pgdoc.AsyncStore(dsn) as store:
        orders = store["orders"]
        request: Any = None
        with pytest.raises(ValueError, match="consumer"):
            web.sse(request, orders.watch(consumer="billing"))
        with pytest.raises(ValueError, match="resume_after"):
            web.sse(request, orders.watch(resume_after="0/1"))
        async with orders.watch() as stream:
            with pytest.raises(ValueError, match="is open"):
                web.sse(request, stream)
        with pytest.raises(TypeError, match="AsyncStore"):
            web.sse(request, orders)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="heartbeat"):
            web.sse(request, orders.watch(), heartbeat=0)
        with pytest.raises(TypeError, match="view"):
            web.sse(request, orders.watch(), view=5)  # type: ignore[arg-type]


async def test_a_forged_token_does_not_reach_other_collections(dsn: str) -> None:
    async with page(dsn, watch={"snapshot": True}) as shown:
        await shown.orders.insert_many([("o-1", {}), ("o-2", {})])
        async with pgdoc.AsyncStore(dsn) as store:
            await store["secrets"].insert("s-1", {})
        browser = shown.browser()
        async with browser:
            token = pgdoc.ResumeToken.parse((await browser.next("change")).id)
        assert token.progress is not None
        browser.last_id = str(replace(token, progress=token.progress._replace(remaining=("secrets",), document_id="")))
        async with browser:
            sent = await browser.next()
            assert (sent.event, sent.data) == ("reset", {"reason": "invalid_token"})
            assert await browser.ids(2) == ["o-1", "o-2"]


async def test_a_long_token_does_not_fill_the_log(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    """A snapshot's part is compressed: some hundred bytes of a request are a megabyte in the error."""
    async with pgdoc.AsyncStore(dsn) as store:
        async with store.transaction() as tx:
            await tx.connection.execute("create table public.t (id int primary key)")
            await tx.connection.execute("insert into public.t select generate_series(1, 3)")
        await store.add_table("public.t")

        async def events(request: Request) -> web.EventStream:
            return web.sse(request, store.watch("public.t", snapshot=True))

        async with serving(Starlette(routes=[Route("/events", events)])) as served:
            browser = Browser(f"{served.url}/events")
            async with browser:
                token = pgdoc.ResumeToken.parse((await browser.next("change")).id)
            assert token.progress is not None
            browser.last_id = str(replace(token, progress=token.progress._replace(document_id="=" + "x" * 500_000)))
            async with browser:
                assert (await browser.next()).event == "reset"
    assert max(len(record.getMessage()) for record in caplog.records if record.name == "pgdoc.web") < 1_000
