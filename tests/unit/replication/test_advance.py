"""A slot is advanced in small steps as long as these move the place from which the server decodes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pgdoc.model.positions import Lsn
from pgdoc.replication import slots

MB = 1 << 20
START = 16 * MB


class Slot:
    """A slot of a server that logs its running transactions every so often; counts the WAL that it decodes."""

    def __init__(self, record_every: int | None) -> None:
        self._record_every = record_every
        self.restart = self.confirmed = START
        self.decoded = 0

    def execute(self, query: str) -> Slot:
        found = re.search(r"pg_replication_slot_advance\('s', '(.*)'\)", query)
        if found is not None:
            to = Lsn.parse(found[1])
            self.decoded += to - self.restart
            if self._record_every is not None:  # the first record since what was confirmed before
                record = (self.confirmed // self._record_every + 1) * self._record_every
                self.restart = max(self.restart, record) if record <= to else self.restart
            self.confirmed = to
        return self

    def fetchone(self) -> tuple[str]:
        return (str(Lsn(self.restart)),)


def advance(record_every: int | None, way: int) -> Slot:
    slot: Any = Slot(record_every)
    slots.advance(slot, "s", START, START + way)
    assert slot.confirmed == START + way
    return slot  # type: ignore[no-any-return]


@pytest.mark.parametrize("way", [1, 63 * MB, 64 * MB, 65 * MB, 1000 * MB, 10_000 * MB])
@pytest.mark.parametrize("record_every", [None, 1000 * MB, 300 * MB, 10 * MB])
def test_the_server_decodes_little_more_than_the_way(record_every: int | None, way: int) -> None:
    slot = advance(record_every, way)
    assert slot.decoded <= 2.5 * way


def test_where_records_are_frequent_decoding_goes_on_near_the_end() -> None:
    slot = advance(10 * MB, 1000 * MB)
    assert slot.confirmed - slot.restart <= 64 * MB
