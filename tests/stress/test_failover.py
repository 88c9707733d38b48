"""A primary is killed under load, at random moments: every effect on the promoted standby is there exactly once."""

from __future__ import annotations

import os
import random
import threading
import time
from typing import TYPE_CHECKING, Self

import pytest

from pgdoc import Store, new_id
from pgdoc.errors import ServerError
from tests.clusters import wait_until
from tests.integration.failover.effects import NAME, Effects, effects, orders, slots

if TYPE_CHECKING:
    from tests.fixtures.fix_clusters import OpenClusters

ROUNDS = int(os.environ.get("PGDOC_FAILOVERS", "5"))
WRITERS = 3


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
        with store["orders"].watch(), Load(conninfo) as load, Effects(conninfo) as one, Effects(conninfo, "two") as two:
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
            wait_until(lambda: all(kept <= effects(conninfo, name).keys() for name in (NAME, "two")))
            errors = one.errors + two.errors
    for name in (NAME, "two"):
        assert effects(conninfo, name) == dict.fromkeys(kept, 1)
    print(len(kept), "orders;", len(set(load.stored) - kept), "lost with the primary;", errors)  # noqa: T201
