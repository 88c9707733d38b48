"""A primary is killed under load, at random moments: every effect on the promoted standby is there exactly once."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Self

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgdoc import Store, new_id
from pgdoc.errors import ConsumerLost, HistoryLost, InvalidResumeToken, ServerError
from tests.clusters import ask, wait_until
from tests.integration.failover.effects import NAME, Effects, effects, insert, orders, slots
from tests.integration.failover.test_failover import PATIENCE_S, _consumers_slots, _drain, _store_effect

if TYPE_CHECKING:
    from tests.clusters import Clusters
    from tests.fixtures.fix_clusters import OpenClusters

ROUNDS = int(os.environ.get("PGDOC_FAILOVERS", "5"))
WRITERS = 3
PAUSE_S = 0.03  # the consumers, which store each effect in a transaction of its own, must keep up


class Load:
    """A context manager that inserts orders in threads, and notes which were surely stored."""

    def __init__(self, conninfo: str) -> None:
        self.stored: list[str] = []
        self._conninfo = conninfo
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._write, name="tests-load") for _ in range(WRITERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _write(self) -> None:
        with Store(self._conninfo) as store:
            while not self._closing.is_set():
                order = new_id()
                try:
                    store["orders"].insert(order, {})
                except ServerError:
                    time.sleep(0.1)
                else:
                    self.stored.append(order)
                    time.sleep(PAUSE_S)


@pytest.fixture(params=range(ROUNDS))
def moment_s(request: pytest.FixtureRequest) -> float:
    moment_s = random.uniform(0.2, 6)
    print(f"round {request.param}: the primary is killed after {moment_s:.2f} s")  # noqa: T201
    return moment_s


@pytest.mark.parametrize("cut_off", [False, True], ids=["in touch", "cut off"])
@pytest.mark.parametrize("synchronized", [True, False], ids=["synchronized", "asynchronous"])
def test_every_effect_is_there_once(
    make_clusters: OpenClusters, moment_s: float, synchronized: bool, cut_off: bool
) -> None:
    clusters = make_clusters(synchronized=synchronized)
    conninfo = clusters.conninfo(connect_timeout=2)
    with Store(conninfo) as store:
        store.create_collection("effects")
        store.create_collection("orders")
        with store["orders"].watch(), Effects(conninfo) as one, Effects(conninfo, "two") as two, Load(conninfo) as load:
            wait_until(lambda: len(effects(conninfo)) > 10)
            clusters.wait_for_synced("pgdocb_", *(name for name in slots(clusters.primary.conninfo) if "two" in name))
            clusters.wait_for_synced(*(name for name in slots(clusters.primary.conninfo) if "billing" in name))
            time.sleep(moment_s)
            if cut_off:
                clusters.cut_off()
                time.sleep(moment_s / 2)
            before = len(load.stored)
            clusters.fail_over()
            wait_until(lambda: len(load.stored) > before + 100)
            load.__exit__()
            kept = orders(conninfo)
            wait_until(lambda: all(len(effects(conninfo, name)) >= len(kept) for name in (NAME, "two")), 120)
            errors = one.errors + two.errors
    for name in (NAME, "two"):
        assert effects(conninfo, name) == dict.fromkeys(kept, 1)
    print(len(kept), "orders;", len(set(load.stored) - kept), "lost with the primary;", errors)  # noqa: T201


def test_a_host_that_answers_nothing_delays_and_no_more(clusters: Clusters) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        conninfo = _with_silent_host(clusters, silent.getsockname()[1])
        with Store(conninfo) as store, store.watch("orders") as stream:
            insert(store, "a")
            assert stream.next(timeout=PATIENCE_S).document_id == "a"  # type: ignore[union-attr]
            clusters.fail_over()
            insert(store, "b")
        with Store(conninfo) as store, store.watch() as stream, store.watch(consumer="mail") as mail:
            insert(store, "c")
            for each in (stream, mail):
                assert each.next(timeout=PATIENCE_S).document_id == "c"  # type: ignore[union-attr]


def _with_silent_host(clusters: Clusters, port: int) -> str:
    """Return the conninfo of both servers behind a host that answers nothing."""
    settings = conninfo_to_dict(clusters.conninfo(connect_timeout=2))
    return make_conninfo(
        "", **settings | {"host": f"127.0.0.1,{settings['host']}", "port": f"{port},{settings['port']}"}
    )


def test_a_former_primary_that_comes_back_gets_no_checkpoint(
    clusters: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers take writes: the consumer stays on the new timeline, and the transaction on the old one fails."""
    monkeypatch.setattr("pgdoc._sync.checkpoint._FOLLOW_S", 1.0)
    conninfo = clusters.conninfo()
    with Store(conninfo) as store:
        store.create_collection("effects")
        with store["orders"].watch(consumer="mail") as mail, store["orders"].watch() as stream:
            insert(store, "a")
            _store_effect(store, mail, mail.next(timeout=PATIENCE_S))
            clusters.wait_for_synced(*_consumers_slots(clusters, "mail"))
            clusters.fail_over()
            with Store(clusters.standby.conninfo) as new:
                insert(new, "b")
            event = mail.next(timeout=PATIENCE_S)
            assert event is not None
            assert event.resume_token.timeline == 2
            clusters.primary.start()  # the first of the hosts
            with psycopg.connect(clusters.primary.conninfo) as old:
                with pytest.raises(ConsumerLost, match="is on timeline 1: another server was promoted"):
                    mail.checkpoint(event, SimpleNamespace(connection=old))
                old.rollback()
            ask(
                clusters.standby, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            )
            with pytest.raises((ConsumerLost, HistoryLost)):
                _drain(mail)
            with pytest.raises((HistoryLost, InvalidResumeToken)):
                _drain(stream)
