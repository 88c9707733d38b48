"""`Faults`: one method per kind of fault; each repairs what it broke, at once or after a delay."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pgdoc.server import LocalServer
    from tests.faulty_day.plan import Day
    from tests.faulty_day.supervisor import Supervisor
    from tests.proxy import Proxy

logger = logging.getLogger("faults")

_BACKENDS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_type = %s AND pid <> pg_backend_pid() AND datname = current_database() AND random() < %s
"""
_CONSUMER_SLOTS = """
SELECT slot_name, active_pid FROM pg_replication_slots
WHERE NOT temporary AND slot_name ~ '^pgdoc_[0-9]+_' AND database = current_database()
"""


class Faults:
    """Causes faults one after the other; timers repair those that last for a while.

    Attributes:
        counts: How often each kind happened.
        longest_stop_s: How long the longest fast shutdown of the server took.
    """

    def __init__(self, server: LocalServer, proxy: Proxy, supervisor: Supervisor, day: Day) -> None:
        self.counts: Counter[str] = Counter()
        self.longest_stop_s = 0.0
        self._server, self._proxy, self._supervisor = server, proxy, supervisor
        self._dice = random.Random(day.seed)
        self._pause_s = day.pause_s
        self._later: list[threading.Timer] = []

    @property
    def kinds(self) -> dict[str, tuple[Callable[[], None], int]]:
        """The method and the relative frequency of each kind."""
        return {
            "kill -9 of a client": (self._kill_client, 6),
            "a client is stopped": (self._freeze_client, 3),
            "walsenders terminated": (self._terminate_walsenders, 4),
            "backends terminated": (self._terminate_backends, 3),
            "fast restart": (self._restart_fast, 2),
            "immediate restart": (self._restart_immediate, 2),
            "proxy cuts": (self._cut, 3),
            "proxy stalls": (self._stall, 2),
            "proxy drops the server side": (self._half_open, 2),
            "proxy drops the client side": (self._vanish, 2),
            "proxy refuses": (self._refuse, 1),
            "consumer's slot dropped": (self._drop_slot, 2),
        }

    def strike(self, kind: str) -> None:
        """Cause one fault."""
        logger.info("fault: %s", kind)
        self.counts[kind] += 1
        self.kinds[kind][0]()

    def shuffled(self, kinds: Sequence[str]) -> list[str]:
        """Return all kinds in random order."""
        return self._dice.sample(kinds, len(kinds))

    def weighted(self, kinds: Sequence[str]) -> str:
        """Return a random kind, weighted by frequency."""
        return self._dice.choices(kinds, [self.kinds[kind][1] for kind in kinds])[0]

    def pause_s(self) -> float:
        """Return a random time to wait until the next fault."""
        return self._pause_s * self._dice.uniform(0.2, 1.8)

    def repair(self) -> None:
        """Wait until all lasting faults are repaired."""
        for timer in self._later:
            timer.join()
        self._later.clear()

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        self._later = [timer for timer in self._later if timer.is_alive()]
        timer = threading.Timer(seconds, call)
        timer.start()
        self._later.append(timer)

    def _kill_client(self) -> None:
        self._supervisor.restart(
            self._dice.choice(self._supervisor.names), after_s=self._pause_s * self._dice.uniform(0, 0.25)
        )

    def _freeze_client(self) -> None:
        name = self._dice.choice(self._supervisor.names)
        self._supervisor.signal(name, signal.SIGSTOP)
        self._after(self._pause_s * self._dice.uniform(0.2, 1.5), lambda: self._supervisor.signal(name, signal.SIGCONT))

    def _terminate_walsenders(self) -> None:
        self._execute(_BACKENDS, ["walsender", self._dice.choice([0.3, 1.0])])

    def _terminate_backends(self) -> None:
        self._execute(_BACKENDS, ["client backend", self._dice.choice([0.3, 1.0])])

    def _restart_fast(self) -> None:
        began = time.monotonic()
        with self._server.stopped("fast"):
            self.longest_stop_s = max(self.longest_stop_s, time.monotonic() - began)
            time.sleep(self._pause_s * self._dice.choice([0.0, 0.1, 0.3]))

    def _restart_immediate(self) -> None:
        with self._server.stopped("immediate"):
            time.sleep(self._pause_s * self._dice.choice([0.0, 0.1, 0.3]))

    def _cut(self) -> None:
        self._proxy.cut(reset=self._dice.random() < 0.5)

    def _stall(self) -> None:
        self._proxy.stall()
        self._after(self._pause_s * self._dice.choice([0.1, 0.5, 2.0]), self._proxy.resume)

    def _half_open(self) -> None:
        self._proxy.half_open()

    def _vanish(self) -> None:
        self._proxy.vanish()

    def _refuse(self) -> None:
        self._proxy.refuse()
        self._after(self._pause_s * self._dice.uniform(0.1, 0.5), self._proxy.accept)

    def _drop_slot(self) -> None:
        """Drop the slot of a consumer, also while the consumer is active."""
        with contextlib.suppress(psycopg.Error), self._connect() as connection:
            found = connection.execute(_CONSUMER_SLOTS).fetchall()
            if found:
                name, pid = self._dice.choice(found)
                if pid is not None:
                    connection.execute("SELECT pg_terminate_backend(%s, 2000)", [pid])
                connection.execute("SELECT pg_drop_replication_slot(%s)", [name])
                self.counts["consumer's slot found and dropped"] += 1

    def _execute(self, query: str, parameters: list[object]) -> None:
        with contextlib.suppress(psycopg.Error), self._connect() as connection:
            connection.execute(query, parameters)

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self._server.conninfo, autocommit=True, connect_timeout=5)
