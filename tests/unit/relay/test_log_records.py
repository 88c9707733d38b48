"""What was written beside a log by somebody else than a relay: it is refused, and never used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgdoc.errors import LogRefused
from pgdoc.relay.config import LogConfig
from pgdoc.relay.groups.lease import MemberRecord, PartitionLease
from pgdoc.relay.log import GroupRecord

WRITTEN = LogConfig(
    system_id=5, database_oid=6, selection="all", format="pgdoc", partitions=8, limit=1000, begun_at="0/100.5.1.6"
)


def test_the_configuration_of_a_log_is_read_as_it_was_written() -> None:
    assert LogConfig.parse(WRITTEN.text, "the log") == WRITTEN


@pytest.mark.parametrize(
    "values",
    [
        {"partitions": 10**9},
        {"partitions": 0},
        {"partitions": "8"},
        {"partitions": True},
        {"limit": 0},
        {"limit": -5},
        {"format": None},
        {"begun_at": "yesterday"},
        {"consumer": ["a"]},
        {"version": "1"},
        {"unknown": 1},
    ],
)
def test_a_configuration_that_no_relay_writes_is_refused(values: dict[str, Any]) -> None:
    text = json.dumps(json.loads(WRITTEN.text) | values)
    with pytest.raises(LogRefused, match="is damaged"):
        LogConfig.parse(text, "the log")


def test_a_configuration_of_many_levels_is_refused() -> None:
    with pytest.raises(LogRefused, match="is damaged"):
        LogConfig.parse("[" * 100_000, "the log")


LEASE = {"owner": "a", "epoch": 1, "sequence": 2, "token": "t", "identity": "i"}


@pytest.mark.parametrize(
    "values",
    [{"epoch": "x"}, {"epoch": None}, {"epoch": 1 << 63}, {"owner": 5}, {"sequence": -1}, {"sequence": True}],
)
def test_a_lease_that_no_member_writes_is_refused(values: dict[str, Any]) -> None:
    assert PartitionLease.parse(GroupRecord(json.dumps(LEASE).encode(), 1), "p.0").epoch == 1
    with pytest.raises(LogRefused, match=r"p\.0 of the group is damaged"):
        PartitionLease.parse(GroupRecord(json.dumps(LEASE | values).encode(), 1), "p.0")


def test_a_lease_of_many_levels_is_refused() -> None:
    with pytest.raises(LogRefused, match="is damaged"):
        PartitionLease.parse(GroupRecord(b"[" * 100_000, 1), "p.0")


def test_a_member_is_read_as_it_was_written() -> None:
    member = MemberRecord(7, 10.0, "web1", 4711)
    assert MemberRecord.parse(GroupRecord(member.value, 1)) == member


@pytest.mark.parametrize(
    "value",
    [
        b"7",
        b"",
        b"[" * 100_000,
        b'{"beat":-1,"lease":1e9,"host":5,"pid":true}',
        b'{"beat":"x","lease":NaN,"host":null,"pid":1.5}',
        b'{"beat":null,"lease":true}',
    ],
)
def test_a_member_that_says_nothing_sensible_of_itself_is_a_member_that_says_nothing(value: bytes) -> None:
    found = MemberRecord.parse(GroupRecord(value, 1))
    assert (found.lease_s, found.host, found.pid) == (None, None, None)
