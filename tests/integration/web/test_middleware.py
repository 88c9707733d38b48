"""The middleware in Starlette and FastAPI: metadata of writes, and errors as HTTP errors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pydantic
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.middleware.base import BaseHTTPMiddleware

import pgdoc
from pgdoc import web
from pgdoc.errors import PgdocError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Order(pydantic.BaseModel):
    status: str


class ShownOrder(pydantic.BaseModel):
    data: Order


def client_of(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


async def writer(request: Request) -> AsyncIterator[None]:
    with pgdoc.metadata(role=request.headers.get("x-role", "none")):
        yield


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


@pytest.mark.parametrize("wraps", [False, True])
async def test_writes_of_async_and_sync_endpoints_carry_request_and_user(dsn: str, wraps: bool) -> None:
    async with pgdoc.AsyncStore(dsn) as store:
        with pgdoc.Store(dsn) as sync_store:
            app = FastAPI(dependencies=[Depends(writer)])
            if wraps:
                app.add_middleware(Passing)
            app.add_middleware(web.PgdocMiddleware, user=lambda request: request.headers.get("x-user"))

            @app.put("/async/{id}")
            async def put(id: str, request: Request) -> str:  # noqa: A002
                await store["orders"].insert(id, {})
                return str(request.state.request_id)

            @app.put("/sync/{id}")
            def put_in_thread(id: str) -> None:  # noqa: A002
                sync_store["orders"].insert(id, {})

            async with store["orders"].watch() as stream, client_of(app) as client:
                headers = {"x-user": "ann", "x-request-id": "r-1", "x-role": "clerk"}
                answer = await client.put("/async/o-1", headers=headers)
                assert (answer.json(), answer.headers["x-request-id"]) == ("r-1", "r-1")
                made = (await client.put("/sync/o-2")).headers["x-request-id"]
                assert len(made) == 32
                metadata = [event.metadata for event in await asyncio.gather(stream.next(30))]  # type: ignore[union-attr]
                metadata.append((await stream.next(30)).metadata)  # type: ignore[union-attr]
                assert metadata == [
                    {"request_id": "r-1", "user": "ann", "role": "clerk"},
                    {"request_id": made, "role": "none"},
                ]


@pytest.mark.parametrize("sent", ["a b", "", "x" * 129, "\xe4"])
async def test_an_id_that_is_no_visible_ascii_is_replaced(sent: str) -> None:
    app = FastAPI()
    app.add_middleware(web.PgdocMiddleware)
    async with client_of(app) as client:
        answer = await client.get("/", headers=[(b"x-request-id", sent.encode("latin-1"))])
        assert answer.status_code == 404
        assert len(answer.headers["x-request-id"]) == 32


async def test_an_async_user_function_and_no_user(dsn: str) -> None:
    async def user(request: Any) -> Any:
        return request.query_params.get("user")

    async with pgdoc.AsyncStore(dsn) as store:
        app = FastAPI()
        app.add_middleware(web.PgdocMiddleware, user=user)

        @app.put("/{id}")
        async def put(id: str) -> None:  # noqa: A002
            await store["orders"].insert(id, {})

        async with store["orders"].watch() as stream, client_of(app) as client:
            await client.put("/o-1?user=bob")
            await client.put("/o-2")
            events = [await stream.next(30), await stream.next(30)]
            assert [event.metadata.get("user") for event in events if event] == ["bob", None]


def failing_app(error: Exception, **options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(web.PgdocMiddleware, **options)

    @app.get("/")
    async def fail() -> None:
        raise error

    @app.get("/sync")
    def fail_in_thread() -> None:
        raise error

    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    return app


@pytest.mark.parametrize("path", ["/", "/sync"])
async def test_an_error_is_a_problem_without_code_of_the_application(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = pgdoc.VersionConflict('document "o-1" is at version 3, not 2', found_version=3)
    async with client_of(failing_app(error)) as client:
        answer = await client.get(path, headers={"x-request-id": "r-1"})
        assert answer.status_code == 409
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == "r-1"
        assert answer.json() == {
            "title": "Conflict",
            "status": 409,
            "error": "VersionConflict",
            "detail": 'document "o-1" is at version 3, not 2',
            "found_version": 3,
            "request_id": "r-1",
        }
        assert (await client.get(path, headers={"if-match": '"2"'})).status_code == 412
    assert not caplog.records


async def test_a_server_error_says_nothing_of_the_server_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    error = pgdoc.ServerUnreachable("connection to host=db.internal user=app failed")
    async with client_of(failing_app(error)) as client:
        answer = await client.get("/")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "internal" not in answer.text
    (record,) = [record for record in caplog.records if record.name == "pgdoc.web"]
    assert record.message == "GET /: status 503 for ServerUnreachable"
    assert "db.internal" in caplog.text


async def test_a_stored_document_that_is_not_valid_is_a_problem_that_names_it(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with pgdoc.AsyncStore(dsn) as store:
        orders = store.collection("orders", Order)
        await store["orders"].insert("o-1", {"status": ["secret"]})
        app = FastAPI()
        app.add_middleware(web.PgdocMiddleware)

        @app.get("/orders")
        async def find() -> list[pgdoc.Document[Order]]:
            return [order async for order in orders.find()]

        @app.get("/orders/{id}", response_model=ShownOrder)
        async def get(id: str) -> Any:  # noqa: A002
            return await orders.get(id)

        async with client_of(app) as client:
            for path in ("/orders", "/orders/o-1"):
                answer = await client.get(path)
                assert answer.status_code == 500
                assert answer.headers["content-type"] == "application/problem+json"
                found = answer.json()
                assert (found["error"], found["document_id"]) == ("InvalidModel", "o-1")
                assert "secret" not in answer.text
    logged = [record.message for record in caplog.records]
    assert logged == ["GET /orders: status 500 for InvalidModel", "GET /orders/o-1: status 500 for InvalidModel"]


async def test_fastapis_own_errors_stay_and_an_errors_handler_of_the_application_wins() -> None:
    app = failing_app(pgdoc.CollectionNotFound("no"))

    @app.exception_handler(pgdoc.CollectionNotFound)
    async def mine(_request: Request, _exc: Exception) -> JSONResponse:
        return JSONResponse({"mine": True}, 418)

    async def teapot() -> None:
        raise HTTPException(403, "go away")

    app.get("/forbidden", dependencies=[Depends(teapot)])(lambda: None)
    async with client_of(app) as client:
        assert (await client.get("/items/x")).status_code == 422
        assert (await client.get("/items/x")).json()["detail"][0]["type"] == "int_parsing"
        assert (await client.get("/forbidden")).json() == {"detail": "go away"}
        assert (await client.get("/")).json() == {"mine": True}


async def test_errors_can_be_left_to_a_handler_or_to_nobody() -> None:
    app = failing_app(pgdoc.CollectionNotFound("no"), errors=False)
    async with client_of(app) as client:
        assert (await client.get("/")).status_code == 500
    app = failing_app(pgdoc.CollectionNotFound("no"), errors=False)
    app.add_exception_handler(PgdocError, web.problem)
    async with client_of(app) as client:
        assert (await client.get("/")).status_code == 404


async def test_an_error_in_a_dependency_is_a_problem_too() -> None:
    async def dependency() -> None:
        raise pgdoc.InvalidFilter("no such operator", path="total", operator="$x")

    app = failing_app(ValueError())
    app.get("/with")(_with(dependency))
    async with client_of(app) as client:
        answer = await client.get("/with")
        assert answer.status_code == 422
        assert answer.json()["operator"] == "$x"


def _with(dependency: Any) -> Any:
    async def endpoint(_: Annotated[None, Depends(dependency)]) -> None: ...

    endpoint.__annotations__ = {"_": Annotated[None, Depends(dependency)]}
    return endpoint
