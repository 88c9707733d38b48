"""A private PostgreSQL server for tests, demos and development."""

from pgdoc.server.local import LocalServer

__all__ = ["LocalServer"]
