"""A process that has a consumer open and stores effects with checkpoints, for tests that kill and pause it.

`python -m tests.security.owner_process DSN CONSUMER SEED` notes the claim of each effect in `public.effects`. Leases
and heartbeats are short. Sometimes it lingers inside an open checkpoint.
"""

from __future__ import annotations

import os
import random
import sys
import time

from pgdoc import Store
from pgdoc.consumers import consumer, fence, owned_slot, ownership
from pgdoc.errors import ConsumerLost, PgdocError

EFFECTS = """
CREATE TABLE public.effects (
  number bigserial, epoch bigint, holder uuid, process integer, document_id text)
"""
NOTE = "INSERT INTO public.effects (epoch, holder, process, document_id) VALUES (%s, %s, %s, %s)"


def hurry() -> None:
    """Shorten what takes seconds, in this process."""
    ownership.LEASE_S = 1
    setattr(owned_slot, "HEARTBEAT_S", 0.2)  # noqa: B010 (the name is of another module)
    consumer._STANDBY_S = 0.05
    fence._PATIENCE_S = 0.2


def run(dsn: str, name: str, seed: int) -> None:
    chance = random.Random(seed)
    with Store(dsn) as store:
        while True:
            try:
                consume(store, name, chance)
            except (ConsumerLost, PgdocError) as exc:  # opens the consumer again, as a supervisor would
                sys.stderr.write(f"{exc}\n")
                time.sleep(0.1)


def consume(store: Store, name: str, chance: random.Random) -> None:
    with store["orders"].watch(consumer=name) as stream:
        for event in stream:
            with store.transaction() as tx:
                stream.checkpoint(event, tx)  # first: its row lock orders the effects
                opened = stream._consumer
                assert opened is not None
                assert opened.claim is not None
                tx.connection.execute(NOTE, [*opened.claim, os.getpid(), event.document_id])
                if chance.random() < 0.2:
                    time.sleep(chance.random() * 0.2)


if __name__ == "__main__":
    hurry()
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
