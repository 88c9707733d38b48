"""A day of three relays into one log: processes, servers and networks fail at random; at its end the log is compared.

Two relays share a consumer, so that one stands by; the third has a consumer of its own and competes. The account is
what yet another consumer is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING
from zlib import crc32

import nats
import nats.errors
import nats.js.errors

from pgdoc import Store
from tests.engines import NatsCluster, NatsServer, log_of
from tests.proxy import Proxy
from tests.relay_process import Account, RelayPlan, RelayProcess

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

STREAM = "DAY"
OPTIONS = "sync_interval=1s&timeout=2s&ack_wait=3s"
SILENCE_S = 0.5


class RelayDay:
    """The relays of a day, and what fails.

    Args:
        engine: is running.
        events: how many are written in sum.
        pause_s: the writer waits for up to that long after each transaction.
    """

    def __init__(
        self, dsn: str, engine: NatsServer | NatsCluster, dice: random.Random, events: int, *, pause_s: float = 0
    ) -> None:
        self._dsn, self._engine, self._dice, self._events = dsn, engine, dice, events
        self._pause_s = pause_s
        self._proxies: list[Proxy] = []
        self._relays: list[RelayProcess] = []
        self.ended: list[int] = []
        """The exit codes of relays that ended by themselves: none must."""

    def run(self, patience_s: float) -> int:
        """Let the day pass, and compare the log with the account; return how many faults there were."""
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(Store(self._dsn))
            store.create_collection("orders")
            for name in ("relay", "other"):
                store.create_consumer(name, "orders")
            for server in self._servers:
                self._proxies.append(stack.enter_context(Proxy("127.0.0.1", server.port)))
            account = stack.enter_context(Account(self._dsn, "account"))
            stack.callback(self._kill_all)
            plans = self._plans()
            self._relays += [RelayProcess(plan) for plan in plans]
            faults = self._let_pass(store, account, patience_s)
            codes = [relay.stop() for relay in self._relays]
            assert set(codes) <= {0, -signal.SIGTERM}, codes
        assert not self.ended, f"relays ended: {self.ended}"
        log = [(token, crc32(body)) for token, body in log_of(self._engine.url, STREAM)]
        assert len(log) == len(account.events) == self._events
        assert log == account.events
        with Store(self._dsn) as store:
            for name in ("relay", "other", "account"):
                store.drop_consumer(name)
        return faults

    @property
    def _servers(self) -> list[NatsServer]:
        return [self._engine] if isinstance(self._engine, NatsServer) else self._engine.servers

    def _plans(self) -> list[RelayPlan]:
        hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in self._proxies)
        to = f"nats://{hosts}/{STREAM}?{OPTIONS}&replicas={len(self._servers)}"
        return [
            RelayPlan(self._dsn, "relay", to),
            RelayPlan(self._dsn, "relay", to, is_async=True),
            RelayPlan(self._dsn, "other", to),
        ]

    def _let_pass(self, store: Store, account: Account, patience_s: float) -> int:
        over = threading.Event()
        writer = threading.Thread(target=self._write, args=(store, over), daemon=True)
        writer.start()
        faults, deadline = 0, time.monotonic() + patience_s
        try:
            while self._lacks(account):
                assert time.monotonic() < deadline, f"the log has {self._stored()} of {self._events:,} events"
                self._start_ended()
                if writer.is_alive() or self._dice.random() < 0.1:
                    self._break()
                    faults += 1
                time.sleep(self._dice.uniform(0.2, 2.0))
        finally:
            over.set()
            writer.join()
        return faults

    def _write(self, store: Store, over: threading.Event) -> None:
        """Insert, update and delete documents, in transactions of very different sizes."""
        left, number = self._events, 0
        while left and not over.is_set():
            count = min(left, self._dice.choice([1, 7, 100, 1000, 5000]))
            inserts = max(1, count * 2 // 3)
            with store.transaction() as tx:
                tx["orders"].insert_many((f"o-{number + n}", {"n": n, "text": "x" * 60}) for n in range(inserts))
                if count > inserts:
                    names = [f"o-{number + n}" for n in range(count - inserts)]
                    tx.connection.execute(
                        """UPDATE docs.orders SET data = data || '{"text": "changed"}' WHERE id = ANY(%s)""", [names]
                    )
            left, number = left - count, number + inserts
            over.wait(self._dice.uniform(0, self._pause_s))

    def _lacks(self, account: Account) -> bool:
        return len(account.events) < self._events or self._stored() < self._events

    def _stored(self) -> int:
        with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, OSError):
            return asyncio.run(_last_sequence(self._engine.url))
        return 0

    def _start_ended(self) -> None:
        for number, relay in enumerate(self._relays):
            code = relay.process.poll()
            if code is not None:
                self.ended.append(code)
                self._relays[number] = RelayProcess(relay.plan)

    def _break(self) -> None:
        faults: list[Callable[[], None]] = [
            *[self._kill_relay] * 4,
            self._stop_relay,
            self._pause_relay,
            *[self._cut] * 3,
            self._silence,
            self._stall,
            self._kill_server,
        ]
        if len(self._servers) > 1:
            faults += [self._kill_leader, self._pause_leader, self._kill_all_servers]
        self._dice.choice(faults)()

    def _kill_relay(self) -> None:
        number = self._dice.randrange(len(self._relays))
        self._relays[number].kill()
        self._relays[number] = RelayProcess(self._relays[number].plan)

    def _stop_relay(self) -> None:
        number = self._dice.randrange(len(self._relays))
        code = self._relays[number].stop()
        assert code in (0, -signal.SIGTERM), code  # it may not have begun
        self._relays[number] = RelayProcess(self._relays[number].plan)

    def _pause_relay(self) -> None:
        relay = self._dice.choice(self._relays)
        relay.send(signal.SIGSTOP)
        time.sleep(SILENCE_S)
        relay.send(signal.SIGCONT)

    def _cut(self) -> None:
        self._dice.choice(self._proxies).cut(reset=self._dice.random() < 0.5)

    def _silence(self) -> None:
        proxy = self._dice.choice(self._proxies)
        self._dice.choice([proxy.half_open, proxy.vanish])()

    def _stall(self) -> None:
        proxy = self._dice.choice(self._proxies)
        proxy.stall()
        time.sleep(SILENCE_S)
        proxy.resume()

    def _kill_server(self) -> None:
        server = self._dice.choice(self._servers)
        server.kill()
        server.start()

    def _leader(self) -> NatsServer | None:
        assert isinstance(self._engine, NatsCluster)
        with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, AssertionError):
            return self._engine.leader(STREAM)
        return None

    def _kill_leader(self) -> None:
        if (leader := self._leader()) is not None:
            leader.kill()
            time.sleep(SILENCE_S)
            leader.start()

    def _pause_leader(self) -> None:
        if (leader := self._leader()) is not None:
            leader.send(signal.SIGSTOP)
            time.sleep(4 * SILENCE_S)
            leader.send(signal.SIGCONT)

    def _kill_all_servers(self) -> None:
        for server in self._servers:
            server.kill()
        for server in self._servers:
            server.start()

    def _kill_all(self) -> None:
        for relay in self._relays:
            relay.kill()


async def _last_sequence(url: str) -> int:
    servers = [f"nats://{each}" for each in url.removeprefix("nats://").split(",")]
    client = await nats.connect(servers, max_reconnect_attempts=1, connect_timeout=1)
    try:
        return (await client.jetstream(timeout=2).stream_info(STREAM)).state.last_seq
    finally:
        await client.close()
