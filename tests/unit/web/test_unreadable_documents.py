"""Documents in the responses of a FastAPI application that can't be read."""

from __future__ import annotations

from typing import Any

import httpx
import pydantic
import pytest
from fastapi import FastAPI
from fastapi.exceptions import ResponseValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic_core import PydanticSerializationError
from starlette.middleware.base import BaseHTTPMiddleware

import pgdoc
from pgdoc import web
from pgdoc.model.documents import TypedDocument
from pgdoc.model.read_errors import last_read_error
from pgdoc.model.typed.reader import reader_of

NOON = "2026-07-01 12:00:00+00"
PROBLEM = {
    "title": "Internal Server Error",
    "status": 500,
    "error": "InvalidModel",
    "detail": "the stored data of document 'o-1' of collection \"orders\" is not valid",
    "collection": "orders",
    "document_id": "o-1",
    "request_id": "r-1",
}


class Line(pydantic.BaseModel):
    sku: str


class Order(pydantic.BaseModel):
    lines: list[Line]

    @pydantic.field_validator("lines")
    @classmethod
    def speaks_of_data(cls, value: list[Line]) -> list[Line]:
        raise ValueError(f"no {value[0].sku}")


class Scores(pydantic.BaseModel):
    scores: dict[str, int]


class Shown(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(from_attributes=True)

    id: str
    data: Order


def stored(text: bytes = b'{"lines": [{"sku": ["secret"]}]}', model: Any = Order) -> pgdoc.Document[Any]:
    reader = reader_of(model)
    return TypedDocument.from_text("o-1", text, 1, NOON, NOON, collection="orders", decode_text=reader)


def unprintable() -> pgdoc.Document:
    return pgdoc.Document.from_text("big", b"1" * 5000, 1, NOON, NOON, collection="orders")


router = FastAPI().router


@router.get("/one")
async def one() -> pgdoc.Document[Order]:
    return stored()


@router.get("/thread")
def in_thread() -> list[pgdoc.Document[Order]]:
    return [stored()]


@router.get("/other-model", response_model=Shown)
def other_model() -> Any:
    return stored()


@router.get("/other-models", response_model=list[Shown])
async def other_models() -> Any:
    return [stored()] * 2


@router.get("/inside")
async def inside() -> dict[str, Any]:
    return {"order": stored()}


@router.get("/no-model", response_model=None)
async def no_model() -> Any:
    return {"order": stored()}


@router.get("/by-hand")
async def by_hand() -> Shown:
    return Shown.model_validate(stored())


def client_of(*, passes: bool = False, handlers: Any = None, **options: Any) -> httpx.AsyncClient:
    app = FastAPI(routes=router.routes, exception_handlers=handlers)
    if passes:
        app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    app.add_middleware(web.PgdocMiddleware, **options)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers={"x-request-id": "r-1"})


@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize(
    "path", ["/one", "/thread", "/other-model", "/other-models", "/inside", "/no-model", "/by-hand"]
)
async def test_a_response_with_invalid_data_names_the_document_and_no_data(
    path: str, passes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(passes=passes) as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json() == PROBLEM
    (record,) = caplog.records
    assert (record.name, record.message) == ("pgdoc.web", f"GET {path}: status 500 for InvalidModel")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], pgdoc.InvalidModel)
    assert last_read_error() is None


@router.get("/quoting")
async def quoting() -> pgdoc.Document[Order]:
    return stored(b'{"lines": [{"sku": "secret"}]}')


@router.get("/keys")
async def keys() -> pgdoc.Document[Scores]:
    return stored(b'{"scores": {"secret": "x"}}', Scores)


@router.get("/whole")
async def whole() -> pgdoc.Document[Order]:
    return stored(b'["secret"]')


@router.get("/unreadable")
async def unreadable() -> pgdoc.Document:
    return unprintable()


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/quoting", "the stored data of document 'o-1' of collection \"orders\" is not valid"),
        ("/keys", "the stored data of document 'o-1' of collection \"orders\" is not valid"),
        ("/whole", "the stored data of document 'o-1' of collection \"orders\" is not valid"),
        ("/unreadable", "the stored data of document 'big' of collection \"orders\" can't be read"),
    ],
)
async def test_what_a_validator_or_the_codec_says_of_the_data_stays_in_the_log(
    path: str, detail: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of() as client:
        answer = await client.get(path)
    assert answer.json()["detail"] == detail
    assert "secret" not in answer.text
    assert len(caplog.records) == 1


@router.get("/handled", response_model=Shown)
async def handled() -> Any:
    """Meet a document that can't be read, and fail for another reason."""
    with pytest.raises(pgdoc.InvalidModel):
        _ = stored().data
    return {"id": 5}


@router.get("/own")
async def own() -> None:
    """Make another error of it."""
    try:
        _ = stored().data
    except pgdoc.InvalidModel as exc:
        raise ValueError(str(exc)) from exc


@router.get("/begun")
async def begun() -> StreamingResponse:
    async def chunks() -> Any:
        yield b"["
        yield pydantic.TypeAdapter(pgdoc.Document[Order]).dump_json(stored())

    return StreamingResponse(chunks())


@pytest.mark.parametrize("path", ["/handled", "/own"])
async def test_another_error_stays_what_it_is(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with client_of() as client:
        answer = await client.get(path)
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert not caplog.records


async def test_a_response_that_has_begun_is_cut() -> None:
    app = web.PgdocMiddleware(FastAPI(routes=router.routes))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        with pytest.raises(PydanticSerializationError, match="InvalidModel"):
            await client.get("/begun")


async def test_the_applications_own_handler_wins_and_may_be_problem() -> None:
    async def mine(_request: Any, _exc: Exception) -> JSONResponse:
        return JSONResponse({"mine": True}, 418)

    async with client_of(handlers={PydanticSerializationError: mine}) as client:
        assert (await client.get("/one")).json() == {"mine": True}
    handlers = {PydanticSerializationError: web.problem, ResponseValidationError: web.problem}
    async with client_of(errors=False) as client:
        assert (await client.get("/one")).text == "Internal Server Error"
    async with client_of(errors=False, handlers=handlers) as client:
        for path in ("/one", "/other-model"):
            assert (await client.get(path)).json() == PROBLEM
        assert (await client.get("/handled")).text == "Internal Server Error"
