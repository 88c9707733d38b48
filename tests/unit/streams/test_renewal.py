"""When a reader moves to a new slot, with readers that read nothing from a server."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from pgdoc.errors import SlotsExhausted
from pgdoc.replication.source import Source
from pgdoc.streams import renewal
from pgdoc.streams.renewal import RENEW_BYTES, Renewal


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(renewal, "time", clock)
    return clock


@pytest.fixture
def renew_reader(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    renew_reader = mock.Mock(side_effect=lambda *_arguments, **_options: session())
    monkeypatch.setattr(renewal, "renew_reader", renew_reader)
    return renew_reader


def session(*, is_quiet: bool = True, is_used_up: bool = False) -> Any:
    return mock.Mock(reader=mock.Mock(is_quiet=is_quiet, reported=100), is_used_up=is_used_up)


def some_renewal() -> Renewal:
    return Renewal(Source("", "docs"), "hub docs", "pgdoch", lambda _cluster: None)


@pytest.mark.parametrize(("is_quiet", "read"), [(False, RENEW_BYTES), (True, RENEW_BYTES - 1)])
def test_a_reader_that_confirms_or_holds_little_stays(renew_reader, clock, is_quiet, read):
    present = session(is_quiet=is_quiet)
    assert some_renewal().renew_if_due(present, 100 + read) is present
    assert not renew_reader.called


def test_the_old_reader_is_closed_once_the_new_one_reads(renew_reader, clock):
    present = session()
    assert some_renewal().renew_if_due(present, 100 + RENEW_BYTES) is not present
    assert renew_reader.call_args.args[1:] == (present, 100 + RENEW_BYTES)
    assert present.reader.close.called


def test_a_reader_that_is_used_up_moves_at_any_time(renew_reader, clock):
    renewals = some_renewal()
    for _ in range(2):
        present = session(is_quiet=False, is_used_up=True)
        assert renewals.renew_if_due(present, 101) is not present
        assert present.reader.close.called
    renew_reader.side_effect = SlotsExhausted("all slots are in use")
    assert renewals.renew_if_due(present, 101) is present  # and the caller opens another


def test_a_reader_that_can_not_move_stays_and_tries_again_later(renew_reader, clock, caplog):
    renew_reader.side_effect = SlotsExhausted("all slots are in use")
    renewals, present = some_renewal(), session()
    for _ in range(2):
        assert renewals.renew_if_due(present, 100 + RENEW_BYTES) is present
    assert not present.reader.close.called
    assert renew_reader.call_count == 1
    assert "the WAL since 0/64: all slots are in use" in caplog.text
    clock.now += 2
    renewals.renew_if_due(present, 100 + RENEW_BYTES)
    assert renew_reader.call_count == 2


def test_slow_moves_become_rare(renew_reader, clock):
    def slow(*_arguments: Any, **_options: Any) -> Any:
        clock.now += 30
        return session()

    renew_reader.side_effect = slow
    renewals = some_renewal()
    renewals.renew_if_due(session(), 100 + RENEW_BYTES)
    clock.now += 599
    renewals.renew_if_due(session(), 100 + RENEW_BYTES)
    assert renew_reader.call_count == 1
    clock.now += 2
    renewals.renew_if_due(session(), 100 + RENEW_BYTES)
    assert renew_reader.call_count == 2
