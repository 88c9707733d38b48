"""Helpers for the messages of errors, and for waiting."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

import pgdoc
from pgdoc import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.errors import PgdocError

PATIENCE_S = 20.0


def said(error: type[PgdocError], call: Callable[[], Any]) -> str:
    """Return the message of the error that a call raises; check that it is one line without a final period or colon."""
    with pytest.raises(error) as raised:
        call()
    assert raised.type is error
    message = str(raised.value)
    assert "\n" not in message
    assert not message.endswith((".", ":"))
    return message


def said_by_documents(error: type[PgdocError], conninfo: str) -> str:
    with Store(conninfo) as store:
        return said(error, lambda: store["orders"].get("o-1"))


def said_by_streams(error: type[PgdocError], conninfo: str, direct: str | None = None, plugin: str = "auto") -> str:
    with Store(conninfo, replication_conninfo=direct, plugin=plugin) as store:
        return said(error, store.watch)


def said_by_both(error: type[PgdocError], conninfo: str) -> str:
    message = said_by_documents(error, conninfo)
    assert said_by_streams(error, conninfo) == message
    return message


def check_streams(conninfo: str) -> None:
    """Check that a stream delivers an event."""
    with Store(conninfo) as store, store["orders"].watch() as stream:
        store["orders"].insert(pgdoc.new_id(), {})
        assert stream.next(timeout=PATIENCE_S) is not None


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"the condition is still false after {PATIENCE_S:.0f} s"
        time.sleep(0.02)
