"""Programs without what the extra brings get a message that names it."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys

sys.modules[{missing!r}] = None  # as if it were not installed
import pgdoc

try:
    from pgdoc.sqlalchemy import async_session_in, session_in
    print(session_in.__name__)
    async_session_in(None)
except pgdoc.MissingExtra as error:
    print(error)
"""


def output(missing: str) -> str:
    command = [sys.executable, "-c", WITHOUT.format(missing=missing)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_sync_sessions_need_no_greenlet_and_async_ones_say_what_to_install() -> None:
    assert output("greenlet") == (
        "session_in\nSQLAlchemy needs the package greenlet for asyncio: run pip install 'pgdoc[sqlalchemy]'\n"
    )


@pytest.mark.parametrize("missing", ["sqlalchemy", "sqlalchemy.dialects.postgresql.psycopg"])
def test_an_old_sqlalchemy_is_refused(missing: str) -> None:
    assert output(missing) == (
        "pgdoc.sqlalchemy needs SQLAlchemy 2.0.40 or later: run pip install 'pgdoc[sqlalchemy]'\n"
    )
