"""CPU time of the hub for a change, without the socket: decode, assemble, fan out to one stream's mailbox.

    python -m bench hub [ROUNDS]

The messages are those of `bench.messages`, ten changes in a transaction, in bursts of 50 frames. No server takes part,
and one thread takes each step in turn, for one stream without a filter that takes what was put. The least CPU time of
the rounds counts. "Received" is what comes before: `python -m bench ceiling` measures it with a server.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from bench.arguments import parser_of, positive
from bench.counted import A_BURST, IDS
from bench.messages import FRAMES, OID, SCHEMA, TABLE
from pgdoc.changes.assembler import Assembler
from pgdoc.changes.events import from_change
from pgdoc.changes.fanout import Fanout, Subscription
from pgdoc.changes.registry import Registry
from pgdoc.changes.router import Selection
from pgdoc.decoding.plugins import PLUGINS
from pgdoc.decoding.records import Span
from pgdoc.model.positions import BEFORE_ALL
from pgdoc.runtime.wakeup import wake_together
from pgdoc.streams.mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgdoc.changes.change import Burst

    Steps = dict[str, float]

ROUNDS = 25
CHANGES = 4_000


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("rounds", type=positive, nargs="?", default=ROUNDS, help=f"by default {ROUNDS}")
    rounds: int = parser.parse_args().rounds
    for plugin in PLUGINS:
        frames = FRAMES[plugin](CHANGES)
        bursts = [frames[start : start + A_BURST] for start in range(0, len(frames), A_BURST)]
        steps = [steps_of(plugin, bursts) for _ in range(rounds)]
        least = {name: min(each[name] for each in steps) for name in steps[0]}
        print(f"{plugin}: {sum(least.values()):.2f} us of CPU for a change")
        for name, us in least.items():
            print(f"  {name:34}{us:6.2f}")
    return 0


def steps_of(plugin: str, bursts: list[list[bytes]]) -> Steps:
    """Return the microseconds of each step for a change."""
    decoder = PLUGINS[plugin].decoder(SCHEMA)
    assembler = Assembler(0, Registry(SCHEMA, [Span(OID, SCHEMA, TABLE, 0, None)]))
    fanout, selection = Fanout(0, lambda change: from_change(change, IDS)), Selection(frozenset({TABLE}))
    mailbox = Mailbox(CHANGES, 1 << 30)
    fanout.add(Subscription(selection, BEFORE_ALL, mailbox))

    def dispatch(burst: Burst) -> None:
        with wake_together():
            fanout.dispatch(burst)

    decoded, decode_us = _timed(decoder.decode, bursts)
    assembled, assemble_us = _timed(assembler.feed, decoded)
    _, dispatch_us = _timed(dispatch, assembled)
    if mailbox.buffered != CHANGES:
        raise RuntimeError(f"the mailbox has {mailbox.buffered} of {CHANGES} changes")
    return {"decode": decode_us, "assemble": assemble_us, "fan out, and put into the mailbox": dispatch_us}


def _timed(step: Callable[[Any], Any], items: list[Any]) -> tuple[list[Any], float]:
    began = time.thread_time_ns()
    results = [step(item) for item in items]
    return results, (time.thread_time_ns() - began) / 1000 / CHANGES


if __name__ == "__main__":
    sys.exit(main())
