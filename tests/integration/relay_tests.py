"""What the tests of relays under fault share: a store, an account of its events, and relays in threads."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import nats
import nats.js.errors

from pgdoc import Relay
from tests.engines import log_of
from tests.integration._sync.relays import relaying, until
from tests.integration._sync.workers import fresh_name, opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from nats.js import JetStreamContext

    from pgdoc import Store
    from pgdoc.relay.figures import RelayStatus

EAGER = "sync_interval=0s&timeout=1s&ack_wait=1s"
"""Options for tests: what is acknowledged is confirmed at once, and a silent server is given up soon."""


class Relayed:
    """A collection, what a relay must send of it, and the relay's stream.

    Attributes:
        store: has the collection `orders`.
        stream: the name of the stream.
        relay: the one that `run` started last.
    """

    relay: Relay

    def __init__(self, store: Store, url: str, stream: str) -> None:
        self.store, self.url, self.stream = store, url, stream
        self.consumer, self._account = fresh_name(), fresh_name()
        self._written = self._numbers = 0
        for name in (self.consumer, self._account):
            store.create_consumer(name, "orders")

    @contextmanager
    def run(self, url: str = "", options: str = EAGER, **given: Any) -> Iterator[Relay]:
        """Run a relay during the block; the block may end by its error."""
        consumer = given.pop("consumer", self.consumer)
        self.relay = Relay(self.store, consumer, f"{url or self.url}/{self.stream}?{options}", "orders", **given)
        with relaying(self.relay):
            yield self.relay

    def run_to_its_end(self, url: str = "", options: str = EAGER, **given: Any) -> None:
        """Run a relay that an error ends; raise the error."""
        Relay(self.store, self.consumer, f"{url or self.url}/{self.stream}?{options}", "orders", **given).run()

    def write(self, count: int, size: int = 20) -> None:
        """Insert documents of this many bytes."""
        rows = [(f"o-{self._numbers + n}", {"text": "x" * size}) for n in range(count)]
        self.store["orders"].insert_many(rows)
        self._numbers += count
        self._written += count

    def wait(self, count: int | None = None) -> None:
        """Wait until the relay's log has as many entries as events were written."""
        wanted = self._written if count is None else count
        until(lambda: self.relay.status().sequence >= wanted)

    def is_confirmed(self) -> bool:
        """Whether the consumer stands where the log ends."""
        with self.store.transaction() as tx:
            rows = tx.connection.execute("SELECT sequence FROM pgdoc.relays WHERE consumer = %s", [self.consumer])
            found: tuple[Any, ...] | None = rows.fetchone()
        return found == (self.relay.status().sequence,)

    def check(self, url: str = "") -> None:
        """Compare the log with what another consumer is given."""
        account: list[tuple[str, bytes]] = []
        with self.store.watch("orders", consumer=self._account, auto_ack=False) as stream:
            while len(account) < self._written:
                events = stream.next_batch(1000, timeout=30)
                assert events, "the account is not complete"
                account += [(str(event.resume_token), event.to_json()) for event in events]
        assert log_of(url or self.url, self.stream) == account


@contextmanager
def relayed(dsn: str, schema: str, url: str, stream: str) -> Iterator[Relayed]:
    """Open a store for a test of a relay."""
    with opened(dsn, schema) as store:
        yield Relayed(store, url, stream)


def in_state(relay: Relay, *states: str) -> RelayStatus:
    """Wait until the relay is in one of these states, and return its status."""
    until(lambda: relay.status().state in states)
    return relay.status()


def in_stream(url: str, act: Callable[[JetStreamContext], Awaitable[Any]], **options: Any) -> Any:
    """Call a coroutine function with JetStream's client."""

    async def call() -> Any:
        client = await nats.connect(url, **options)
        try:
            return await act(client.jetstream(timeout=10))
        finally:
            await client.close()

    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(nats.js.errors.ServiceUnavailableError):
            return asyncio.run(call())
        assert time.monotonic() < deadline
        time.sleep(0.1)


def purge(url: str, stream: str) -> None:
    """Let a stream forget all its messages."""
    in_stream(url, lambda context: context.purge_stream(stream))


def edit(url: str, stream: str, **settings: Any) -> None:
    """Change a stream's settings."""

    async def change(context: JetStreamContext) -> None:
        config = (await context.stream_info(stream)).config
        await context.update_stream(config.evolve(**settings))

    in_stream(url, change)
