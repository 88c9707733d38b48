"""Change streams and live queries in a browser, and pgdoc in Starlette and FastAPI applications."""

from pgdoc.web.missing import needing_starlette

with needing_starlette():
    from pgdoc.web.broadcast import Broadcast
    from pgdoc.web.middleware import PgdocMiddleware, problem
    from pgdoc.web.responses import EventStream, sse
    from pgdoc.web.sockets import websocket

__all__ = ["Broadcast", "EventStream", "PgdocMiddleware", "problem", "sse", "websocket"]
