"""A worker says once why its consumer is not open."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from pgdoc.errors import ConsumerLost, ReplicationNotPermitted, ServerUnreachable
from pgdoc.workers.endings import Endings

Levels = Callable[[], list[int]]
AWAY, TAKEN, REFUSED = ServerUnreachable("away"), ConsumerLost("taken"), ReplicationNotPermitted("refused")


@pytest.fixture
def levels(caplog: pytest.LogCaptureFixture) -> Levels:
    caplog.set_level(logging.INFO, "pgdoc.worker")
    return lambda: [record.levelno for record in caplog.records]


def test_an_outage_is_a_warning_once(levels: Levels) -> None:
    endings = Endings("audit")
    for error in (TAKEN, AWAY, AWAY):
        endings.note(error)
    assert levels() == [logging.WARNING, logging.INFO, logging.INFO]


def test_what_a_retry_may_not_mend_is_an_error_once_also_during_an_outage(levels: Levels) -> None:
    endings = Endings("audit")
    for error in (AWAY, REFUSED, AWAY, REFUSED):
        endings.note(error)
    assert levels() == [logging.WARNING, logging.ERROR, logging.INFO, logging.INFO]


def test_the_next_outage_is_a_warning_again(levels: Levels) -> None:
    endings = Endings("audit")
    for _ in range(2):
        endings.begin()
        endings.note(AWAY)
    assert levels() == [logging.WARNING, logging.WARNING]
