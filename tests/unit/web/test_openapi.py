"""An endpoint of FastAPI that says what it responds with."""

from __future__ import annotations

from fastapi import FastAPI

from pgdoc import web


def test_the_description_of_an_endpoint_names_the_media_type() -> None:
    app = FastAPI()

    @app.get("/events", response_class=web.EventStream)
    async def events() -> None: ...

    assert list(app.openapi()["paths"]["/events"]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]
