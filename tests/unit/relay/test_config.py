"""URLs of logs, their options, and what a relay writes beside a log."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgdoc.errors import InvalidInput, LogRefused
from pgdoc.relay.config import LogConfig, selection_digest
from pgdoc.relay.durations import number_of, seconds_of, size_option
from pgdoc.relay.targets import LogTarget

CONFIG = LogConfig(system_id=1, database_oid=2, selection="s", format="pgdoc", partitions=4, limit=1000, consumer="a")


def test_a_url_has_servers_a_name_a_user_and_options() -> None:
    target = LogTarget.parse("tls://me:p%40ss@one:4223,[::1]:4224,two/ORDERS?replicas=3&max_age=7d")
    assert target.servers == (("one", 4223), ("::1", 4224), ("two", None))
    assert (target.name, target.user, target.password) == ("ORDERS", "me", "p@ss")
    assert (target.engine, target.is_secure) == ("nats", True)
    assert target.options == {"replicas": "3", "max_age": "7d"}
    assert "p@ss" not in repr(target)
    assert "me" not in target.shown


@pytest.mark.parametrize("url", ["", "ORDERS", "ftp://host/x", "nats:///x", "nats://host:port/x", 3])
def test_what_is_no_url_of_a_log_is_refused(url: Any) -> None:
    with pytest.raises(InvalidInput, match="nats://host/STREAM"):
        LogTarget.parse(url)


def test_an_option_without_a_value_is_refused() -> None:
    with pytest.raises(InvalidInput, match="option"):
        LogTarget.parse("nats://host/x?y")


def test_durations_sizes_and_numbers_are_read() -> None:
    target = LogTarget.parse("nats://h/S?a=500ms&b=2m&c=1.5h&d=512k&e=20GB&f=3&g=x")
    assert [seconds_of(target, name) for name in "abcz"] == [0.5, 120.0, 5400.0, None]
    assert [size_option(target, name) for name in "defz"] == [512 << 10, 20 << 30, 3, None]
    assert [number_of(target, name, least=1, most=5) for name in "fz"] == [3, None]
    for read in (seconds_of, size_option):
        with pytest.raises(InvalidInput, match="g=x"):
            read(target, "g")
    with pytest.raises(InvalidInput, match="from 4 to 5"):
        number_of(target, "f", least=4, most=5)


def test_a_configuration_is_read_as_it_was_written() -> None:
    assert LogConfig.parse(CONFIG.text, "log") == CONFIG
    CONFIG.check(replace(CONFIG, begun_at="elsewhere", consumer="b"), "log")
    for text in (None, "", "{", "[]", '{"version": 1}'):
        with pytest.raises(LogRefused) as caught:
            LogConfig.parse(text, "log")
        assert caught.value.reason == "foreign"
    with pytest.raises(LogRefused, match="update pgdoc"):
        LogConfig.parse('{"version": 2}', "log")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"system_id": 9}, "other_relay"),
        ({"database_oid": 9}, "other_relay"),
        ({"selection": "x"}, "config"),
        ({"format": "x"}, "config"),
        ({"partitions": 9}, "config"),
        ({"limit": 9}, "config"),
        ({"layout": "x"}, "config"),
        ({"has_snapshot": True, "consumer": "b"}, "other_relay"),
    ],
)
def test_a_log_of_another_relay_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(LogRefused) as caught:
        CONFIG.check(replace(CONFIG, **change), "log")
    assert caught.value.reason == reason


def test_a_log_with_a_snapshot_goes_on_with_its_consumer() -> None:
    CONFIG.check(replace(CONFIG, has_snapshot=True), "log")


def test_a_selection_has_one_digest() -> None:
    assert selection_digest(names=["a"], where=None) == selection_digest(where=None, names=["a"])
    assert selection_digest(names=["a"]) != selection_digest(names=["b"])
