"""The lag of a stream stays true while the server is away, and when another reader feeds it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from pgdoc import Store
from pgdoc.runtime.census import CENSUS
from tests.integration.own_server.test_shared_consumers import is_shared
from tests.integration.own_server.words import PATIENCE_S, wait_until

if TYPE_CHECKING:
    import psycopg

    from pgdoc import ChangeStream
    from tests.proxy import Proxy

INSERT = "INSERT INTO docs.orders (id, data) SELECT n, '{}' FROM generate_series(%s::int, %s::int) AS n"


@pytest.fixture(autouse=True)
def few_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests before have used more schemas than have labels of their own."""
    monkeypatch.setattr(CENSUS, "_known", {})


def read(stream: ChangeStream, count: int) -> None:
    for _ in range(count):
        assert stream.next(timeout=PATIENCE_S) is not None


def wait_until_even(stream: ChangeStream) -> None:
    wait_until(lambda: stream.try_next() is None and not stream.stats().lag_bytes and stream.stats().mode == "live")
    assert stream.stats().lag == timedelta(0)


def test_the_last_report_counts_while_the_server_is_away(
    proxied_dsn: str, proxy: Proxy, owner: psycopg.Connection
) -> None:
    with Store(proxied_dsn) as store, store["orders"].watch() as stream:
        owner.execute(INSERT, [1, 100])
        wait_until(lambda: stream.stats().buffered == 100)
        read(stream, 40)
        before = stream.stats()
        proxy.refuse()
        proxy.cut()
        wait_until(lambda: stream.stats().mode == "reconnecting")
        owner.execute(INSERT, [101, 200])
        away = stream.stats()
        assert (away.buffered, away.mode) == (60, "reconnecting")
        assert away.lag_bytes >= before.lag_bytes > 0
        assert away.lag > before.lag
        read(stream, 60)
        assert (stream.stats().lag_bytes, stream.stats().lag) == (0, timedelta(0)), "nothing else was reported"
        proxy.accept()
        read(stream, 100)
        wait_until_even(stream)
        assert CENSUS.counts()["pgdoc_reconnects_total", ("test", "docs", "live")] >= 1


@pytest.mark.usefixtures("in_a_hurry")
def test_a_consumer_that_the_hub_feeds_has_the_lag_of_its_own_loop(store: Store, owner: psycopg.Connection) -> None:
    with store["orders"].watch() as beside, store["orders"].watch(consumer="billing", buffer_size=50) as stream:
        wait_until(lambda: is_shared(stream))
        wait_until_even(stream)
        owner.execute(INSERT, [1, 1000])
        read(beside, 1000)
        wait_until(lambda: stream.stats().buffered == 50)
        seen = []
        for _ in range(1000):
            stats = stream.stats()
            seen.append(stats.lag_bytes)
            assert stats.lag > timedelta(0)
            read(stream, 1)
        assert min(seen) > 0
        assert seen[0] > 1000 * 50
        wait_until_even(beside)
        wait_until_even(stream)
