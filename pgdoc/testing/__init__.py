"""Tests of programs that use pgdoc.

The fixtures `store`, `async_store` and others come from a pytest plugin that is active where pgdoc is installed; see
"Test your code" in the documentation. This module has what tests import, and works without pytest, too.
"""

from pgdoc.testing.collecting import collected
from pgdoc.testing.programs import running
from pgdoc.testing.retrying import async_eventually, eventually
from pgdoc.testing.server import PgdocServer, open_server

__all__ = ["PgdocServer", "async_eventually", "collected", "eventually", "open_server", "running"]
