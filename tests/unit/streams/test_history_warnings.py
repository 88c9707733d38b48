"""The keeper of history warns once for each reason for which it can't keep it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psycopg

from pgdoc.errors import ServerUnreachable, SlotsExhausted
from pgdoc.streams import bookmarks
from pgdoc.streams.bookmarks import BookmarkKeeper

if TYPE_CHECKING:
    import pytest

ENDED, AWAY, FULL = psycopg.errors.AdminShutdown("ended"), ServerUnreachable("away"), SlotsExhausted("no slot")


class Session:
    def follow_tables(self) -> None: ...


def test_each_reason_is_a_warning_once_until_history_is_kept_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reasons = iter([ENDED, AWAY, FULL, AWAY, FULL, None, AWAY])

    def open_session(_: Any) -> Session:
        reason = next(reasons)
        if reason is not None:
            raise reason
        return Session()

    monkeypatch.setattr(bookmarks, "KeeperSession", open_session)
    monkeypatch.setattr(BookmarkKeeper, "keep", lambda *_: None)
    caplog.set_level(logging.INFO, "pgdoc.history")
    source: Any = None
    keeper = BookmarkKeeper(source, source)
    for _ in range(7):
        keeper._try_to_keep(None)

    warning, info = logging.WARNING, logging.INFO
    assert [record.levelno for record in caplog.records] == [warning, info, warning, info, info, info, warning]
    assert caplog.records[5].getMessage() == "history is kept again"
